"""How a process of VASP has ended: one cause, and what another attempt could do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matcompute.dataset import Status
from matcompute_workflows.dft.adapter import Outcome, Remedy
from matcompute_workflows.dft.qe_outcome import jobs

if TYPE_CHECKING:
    from aiida.orm import CalcJobNode, ProcessNode

__all__ = ["outcome"]

#: Exit status of ``VaspCalculation`` → what it is.
_MEMORY, _WALLTIME, _NODE = 110, 120, 140
_CUT, _SCF, _IONS, _CRITICAL = 700, 701, 702, 703
_NOTHING = {333, 350, 351, 352}
#: Exit status of the work chains.
_POTENTIALS, _NOT_RELAXED, _FORCES = {700, 701, 702, 703}, 600, 601
#: A job that has used so much of its walltime has run out of it.
_NEARLY = 0.9
_LONGEST = 16.0


def outcome(process: ProcessNode, remedy: Remedy) -> Outcome:
    """Return how a process did; see :meth:`StructureCalculator.outcome`."""
    if process.is_finished_ok:
        return Outcome(int(Status.OK))
    if process.is_killed:
        return Outcome(int(Status.CANCELLED), "the AiiDA process was killed")
    if process.is_excepted:
        lines = [line for line in str(process.exception or "").splitlines() if line.strip()]
        text = lines[-1].strip() if lines else "no message"
        return Outcome(int(Status.CRASHED), f"the AiiDA process failed: {text}", Remedy())
    found = jobs(process)
    if not found:
        status = Status.INVALID_INPUT if process.exit_status in _POTENTIALS else Status.CRASHED
        return Outcome(int(status), str(process.exit_message or f"exit status {process.exit_status}"))
    job = found[-1]
    where = f" (job {job.uuid[:8]})"
    if process.exit_status == _NOT_RELAXED:
        relaxations = sum(child.process_label == "VaspWorkChain" for child in process.called)
        text = f"cell and positions still change after {relaxations} relaxations{where}"
        return Outcome(int(Status.NOT_CONVERGED), text)
    if process.exit_status == _FORCES:
        text = f"the final calculation, with the basis of the final cell, finds forces above the limit{where}"
        return Outcome(int(Status.NOT_CONVERGED), text)
    return _of_job(job, len(found), remedy, where)


def _of_job(job: CalcJobNode, count: int, remedy: Remedy, where: str) -> Outcome:
    status = job.exit_status
    tries = (
        "in one calculation" if count == 1 else f"in {count} calculations, each with what the plugin tried"
    )
    if status == _WALLTIME or (status == _CUT and _ran_out(job)):
        text = f"VASP ran out of its walltime of {job.get_option('max_wallclock_seconds')} s again and again{where}"
        return Outcome(int(Status.TIMED_OUT), text, _longer(job, remedy))
    if status == _MEMORY:
        again = Remedy(remedy.walltime, remedy.memory * 2) if remedy.memory < _LONGEST else None
        return Outcome(int(Status.CRASHED), f"VASP ran out of memory{where}", again)
    if status == _NODE:
        return Outcome(int(Status.LOST), f"the machine of the job failed{where}", remedy)
    if status == _SCF:
        return Outcome(int(Status.NOT_CONVERGED), f"the SCF did not converge, {tries}{where}")
    if status == _IONS:
        return Outcome(int(Status.NOT_CONVERGED), f"the geometry did not converge, {tries}{where}")
    if status == _CUT:
        text = f"VASP ended in the middle of its output: it was killed, or it crashed{where}"
        return Outcome(int(Status.CRASHED), text, remedy)
    if status in _NOTHING:
        return Outcome(
            int(Status.CRASHED), f"VASP left no output: it did not start{_said(job)}{where}", remedy
        )
    message = str(job.exit_message or f"exit status {status}")
    if status == _CRITICAL:
        message = message.removeprefix("VASP calculation encountered a critical error: ")
    return Outcome(int(Status.CRASHED), f"VASP: {message}{where}")


def _ran_out(job: CalcJobNode) -> bool:
    """Tell whether a job whose output is cut short has used its walltime up, by what the scheduler says of it."""
    limit, info = job.get_option("max_wallclock_seconds"), job.get_last_job_info()
    used = None if info is None else info.wallclock_time_seconds
    return bool(limit and used and used >= _NEARLY * limit)


def _longer(job: Any, remedy: Remedy) -> Remedy | None:
    """Twice the walltime, from the last geometry."""
    if remedy.walltime >= _LONGEST:
        return None
    structure = job.outputs.structure.uuid if "structure" in job.outputs else None
    return Remedy(remedy.walltime * 2, remedy.memory, None, structure)


def _said(job: CalcJobNode) -> str:
    """Return the last line that the shell has written."""
    text = job.get_scheduler_stderr() if "retrieved" in job.outputs else None
    lines = [line.strip() for line in str(text or "").splitlines() if line.strip()]
    return f": {lines[-1][:200]}" if lines else ""
