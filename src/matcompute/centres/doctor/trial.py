"""The smoke jobs themselves: what is computed, the folder of each, and what must come out."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matcompute.centres.doctor.codes import code_command
from matcompute.centres.doctor.report import Finding
from matcompute.centres.launch import code_lines, start_lines
from matcompute.centres.model import NODE_PROGRAM, Centre, CodeBlock, PartitionBlock
from matcompute.centres.request import Request, script_header

__all__ = ["Trial", "check_result", "write_folder"]

#: Time of a smoke job of the node program, in s.
WALLTIME_S = 300.0
MEMORY_GB = 1.0
#: Energies are compared with this machine's, in eV; two builds of numpy differ by less.
_TOLERANCE_EV = 1e-6
_METALS = (("Cu", 3.55), ("Al", 4.10), ("Ni", 3.50), ("Ag", 4.00))


@dataclass
class Trial:
    """One smoke job.

    Attributes
    ----------
    partition, code
        What is tried.
    folder
        Of the job, at the centre.
    job_id
        Once it is submitted.
    state, reason
        What the scheduler said of it last.
    status
        Exit status of the program, once the login node sees it.
    gone_since
        When the scheduler stopped knowing it (monotonic clock), in s.
    """

    partition: PartitionBlock
    code: CodeBlock
    folder: str
    job_id: str = ""
    state: str = ""
    reason: str = ""
    status: int | None = None
    gone_since: float | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.code.name} in partition '{self.partition.name}'"

    @property
    def name(self) -> str:
        """For files."""
        return re.sub(r"[^A-Za-z0-9_.-]", "_", f"{self.partition.name}-{self.code.name}")


def write_folder(centre: Centre, trial: Trial, folder: Path) -> None:
    """Write the files of a job: its script, and what the node program computes."""
    folder.mkdir()
    part, code = trial.partition, trial.code
    test = code.smoke_test
    walltime = test.walltime if test is not None else WALLTIME_S
    if part.max_wall is not None:
        walltime = min(walltime, part.max_wall)
    request = Request(
        ranks=1 if code.mpi else 0,
        gpus=min(1, part.n_gpus),
        memory_gb=min(MEMORY_GB, part.mem_gb),
        walltime_s=walltime,
    )
    if code.name == NODE_PROGRAM:
        _write_task(folder, walltime)
        command = f"{code_command(code)} run task.json"
    else:
        assert test is not None
        arguments = " ".join(f"'{word}'" for word in test.arguments)
        command = f"{code_command(code)} {arguments}".strip()
        if code.mpi:
            mpi = centre.launch.mpi.format_map(
                _Numbers(tot_num_mpiprocs=1, num_machines=1, num_mpiprocs_per_machine=1)
            )
            command = f"{mpi} {command}"
    lines = [
        *script_header(centre, request, name=f"mc-{trial.name}"[:40], partition=part.name),
        start_lines(centre),
        code_lines(code),
        'echo "host=$(hostname)" > where; echo "gpus=${CUDA_VISIBLE_DEVICES-}" >> where',
        f"{command} > run.out 2>&1 < /dev/null",
        # Renamed, so that the login node never sees half of it.
        "echo $? > exit_status.part; mv exit_status.part exit_status",
        centre.launch.append,
    ]
    text = "\n".join(line for line in lines if line.strip())
    (folder / "job.sh").write_text(text + "\n", encoding="utf-8")


class _Numbers(dict[str, int]):
    def __missing__(self, key: str) -> int:
        return 1


def _write_task(folder: Path, walltime: float) -> None:
    from ase.build import bulk

    from matcompute.dataset import DatasetWriter, Metadata
    from matcompute_kernels import Batch

    with DatasetWriter(folder / "structures.h5", Metadata(title="matcompute doctor")) as writer:
        writer.append(Batch.from_atoms([bulk(name, a=a) for name, a in _METALS]))
    task = {
        "schema": "matcompute.task/v1",
        "task": "static",
        "calculator": {"name": "emt"},
        "stage": "doctor",
        "walltime_s": walltime,
    }
    (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")


def check_result(trial: Trial, folder: Path) -> list[Finding]:
    """Look at what a job that ended has left in its folder, of which ``folder`` is a copy."""
    output = _read(folder / "run.out")
    for line in _read(folder / "where").splitlines():
        key, _, value = line.partition("=")
        if value:
            trial.details[key] = value
    if trial.status != 0:
        said = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "no output")
        return [
            Finding(
                "job-failed",
                f"{trial.label}: the job {trial.job_id} ended with {trial.status}: {said[:200]}",
                f"look at {trial.folder}/run.out there, and run the command by hand on a compute node",
            )
        ]
    if trial.code.name == NODE_PROGRAM:
        return _check_energies(trial, folder)
    assert trial.code.smoke_test is not None
    expect = trial.code.smoke_test.expect
    if expect and re.search(expect, output) is None:
        return [
            Finding(
                "wrong-result",
                f"{trial.label}: the output does not contain '{expect}'",
                f"look at {trial.folder}/run.out there; mend the code, or codes[].smoke_test.expect",
            )
        ]
    wanted = trial.code.version
    if wanted and wanted not in output:
        return [
            Finding(
                "version-mismatch",
                f"{trial.label}: the output names no version {wanted}",
                f"look at {trial.folder}/run.out there; load another module, or mend codes[].version",
            )
        ]
    return []


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _check_energies(trial: Trial, folder: Path) -> list[Finding]:
    """Compare the energies with those of the same potential on this machine."""
    from ase.build import bulk
    from ase.calculators.emt import EMT

    from matcompute.dataset import Dataset, DatasetError

    expected = []
    for name, a in _METALS:
        atoms = bulk(name, a=a)
        atoms.calc = EMT()
        expected.append(float(atoms.get_potential_energy()))
    fix = f"look at {trial.folder} there; the node program's environment may be broken"
    try:
        with Dataset(folder / "results.h5") as dataset:
            found = [float(value) for value in dataset.column("energy")]
    except (OSError, KeyError, DatasetError) as error:
        return [Finding("wrong-result", f"{trial.label}: the results cannot be read: {error}", fix)]
    summary = json.loads(_read(folder / "summary.json") or "{}")
    trial.details |= {"wall_s": summary.get("wall_s"), "versions": summary.get("versions")}
    worst = max((abs(a - b) for a, b in zip(found, expected)), default=float("inf"))
    trial.details["largest_difference_eV"] = worst
    if len(found) != len(expected) or not worst <= _TOLERANCE_EV:
        return [
            Finding(
                "wrong-result",
                f"{trial.label}: energies differ from this machine's by up to {worst:.3g} eV",
                fix,
            )
        ]
    return []
