"""How a process of Quantum ESPRESSO has ended: one cause, and what another attempt could do about it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from matcompute.dataset import Status
from matcompute_workflows.dft.adapter import Outcome, Remedy

if TYPE_CHECKING:
    from aiida.orm import CalcJobNode, ProcessNode

__all__ = ["outcome"]

#: Exit status of ``PwCalculation`` → what it is.
_WALLTIME = {120, 340, 400}
_MEMORY = {110}
_NODE = {140}
#: The program's output is missing or cut short: something has killed it.
_KILLED = {100, 301, 302, 303, 305, 312, 320, 321, 322}
_SCF = {410, 510, 511}
_IONS = {500, 502, 503, 520, 521}
#: A cell with the noise of an earlier stage: symmetry was found within a tolerance, and does not survive its change.
_SYMMETRY = {541}
_INPUT = {201, 202, 203, 204, 210, 301}
_LONGEST = 16.0
_PROGRAMS = {"DosCalculation": "dos.x"}


def outcome(process: ProcessNode, remedy: Remedy) -> Outcome:
    """Return how a process did; see :meth:`StructureCalculator.outcome`."""
    if process.is_finished_ok:
        return _fit(process)
    if process.is_killed:
        return Outcome(int(Status.CANCELLED), "the AiiDA process was killed")
    job = last_job(process)
    if process.is_excepted:
        lines = [line for line in str(process.exception or "").splitlines() if line.strip()]
        text = lines[-1].strip() if lines else "no message"
        return Outcome(int(Status.CRASHED), f"the AiiDA process failed: {text}", Remedy())
    status = None if job is None else job.exit_status
    where = "" if job is None else f" (job {job.uuid[:8]})"
    if process.process_label == "PwEosWorkChain" and process.exit_status == 410:
        return _fit(process)
    if status in _WALLTIME:
        return Outcome(
            int(Status.TIMED_OUT),
            f"{_program(job)} ran out of its walltime of {_walltime(job)} again and again{where}",
            _longer(job, remedy),
        )
    if status in _MEMORY:
        more = replace(remedy, memory=remedy.memory * 2, remote=None, structure=None)
        again = more if remedy.memory < _LONGEST else None
        return Outcome(int(Status.CRASHED), f"{_program(job)} ran out of memory{where}", again)
    if status in _NODE:
        return Outcome(int(Status.LOST), f"the machine of the job failed{where}", remedy)
    if status in _SCF:
        return Outcome(int(Status.NOT_CONVERGED), f"the SCF did not converge, {_tries(process)}{where}")
    if status in _IONS:
        return Outcome(int(Status.NOT_CONVERGED), f"the geometry did not converge, {_tries(process)}{where}")
    if status in _KILLED:
        return Outcome(
            int(Status.CRASHED),
            f"{_program(job)} ended in the middle of its output: it was killed, or it crashed{_crash(job)}{where}",
            remedy,
        )
    if status in _SYMMETRY:
        return Outcome(
            int(Status.CRASHED),
            f"{_program(job)}: the symmetry it had found did not hold while the cell changed{_crash(job)}{where}",
            None if remedy.no_symmetry else replace(remedy, no_symmetry=True),
        )
    if job is None and process.exit_status in _INPUT:
        return Outcome(int(Status.INVALID_INPUT), str(process.exit_message))
    if job is None or job.is_finished_ok:
        # No job has failed: what was made of their results has.
        text = str(process.exit_message or f"exit status {process.exit_status}")
        return Outcome(int(Status.CRASHED), text)
    message = str(job.exit_message or f"exit status {status}")
    return Outcome(int(Status.CRASHED), f"{_program(job)}: {message}{_crash(job)}{where}")


def _fit(process: ProcessNode) -> Outcome:
    """A finished equation of state may not fit."""
    if "eos" not in process.outputs:
        return Outcome(int(Status.OK))
    found = process.outputs.eos.get_dict()
    return Outcome(int(found["status"]), str(found.get("message", "")))


def jobs(process: ProcessNode) -> list[CalcJobNode]:
    """Return all jobs of a process, the first one first."""
    from aiida.orm import CalcJobNode

    found = [node for node in process.called_descendants if isinstance(node, CalcJobNode)]
    return sorted(found, key=lambda node: node.pk or 0)


def last_job(process: ProcessNode) -> CalcJobNode | None:
    """Return the job on which a process has failed: the last one that did, else the last one."""
    found = jobs(process)
    failed = [job for job in found if not job.is_finished_ok]
    return (failed or found or [None])[-1]


def _longer(job: Any, remedy: Remedy) -> Remedy | None:
    """Twice the walltime, from where it stopped if it stopped cleanly."""
    if remedy.walltime >= _LONGEST:
        return None
    remote = structure = None
    if job.exit_status == 400 and "remote_folder" in job.outputs:
        remote = job.outputs.remote_folder.uuid
    if "output_structure" in job.outputs:
        structure = job.outputs.output_structure.uuid
    return replace(remedy, walltime=remedy.walltime * 2, remote=remote, structure=structure)


def _program(job: Any) -> str:
    return _PROGRAMS.get("" if job is None else str(job.process_label), "pw.x")


def _walltime(job: Any) -> str:
    seconds = job.get_option("max_wallclock_seconds")
    return "the scheduler's default" if seconds is None else f"{seconds} s"


def _tries(process: ProcessNode) -> str:
    count = len(jobs(process))
    return "in one calculation" if count == 1 else f"in {count} calculations, each with what the plugin tried"


def _crash(job: Any) -> str:
    """Return what pw.x itself says in its CRASH file, or the last error of its output."""
    if job is None or "retrieved" not in job.outputs:
        return ""
    repository = job.outputs.retrieved.base.repository
    for name in ("CRASH",):
        if name in repository.list_object_names():
            lines = [line.strip() for line in repository.get_object_content(name).splitlines()]
            told = [line for line in lines if line and not set(line) <= {"%", " "}]
            return f": {' '.join(told)[:200]}" if told else ""
    return ""
