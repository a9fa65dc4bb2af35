"""One structure: checked, computed, and every way to fail turned into a status and a reason."""

from __future__ import annotations

import contextlib
import resource
import time
import traceback
from typing import TYPE_CHECKING

import numpy as np

from matcompute.dataset import Status
from matcompute.node.adapters import CalculationError, StructureTask
from matcompute.node.deadline import Stopped, StructureDeadline, TimedOut
from matcompute.node.errors import NodeError
from matcompute.node.records import Record

if TYPE_CHECKING:
    from matcompute.node.adapters import TaskResult
    from matcompute.node.job import Job

__all__ = ["check_input", "compute"]


def compute(job: Job, index: int, deadline: StructureDeadline, attempt: int = 1) -> Record:
    """Compute structure ``index`` of a job.

    Returns
    -------
    Record
        Of any status: a bad structure is a result as well.

    Raises
    ------
    Stopped
        If the job ends first.
    NodeError
        If not the structure but the job is at fault (the model cannot be loaded).
    """
    entry_id, digest = job.key(index)
    record = Record(entry_id, digest, Status.CRASHED, attempt=attempt)
    cpu, wall = _cpu_s(), time.monotonic()
    try:
        problem = check_input(job, index)
        if problem is not None:
            record.status, record.message = problem
        else:
            _run(job, index, deadline, record)
    except (Stopped, NodeError):
        raise
    except TimedOut as error:
        record.status, record.message = Status.TIMED_OUT, str(error)
    except CalculationError as error:
        record.status, record.message = Status(error.status), str(error)
    except Exception as error:
        record.message = _crash_text(error)
    record.cpu_s, record.wall_s = _cpu_s() - cpu, time.monotonic() - wall
    return record


def _cpu_s() -> float:
    """Return the processor time of this process and of the programs that it has run, in s."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def check_input(job: Job, index: int) -> tuple[Status, str] | None:
    """Return status and reason if a structure cannot be computed at all."""
    from ase.data import chemical_symbols

    one = job.batch[index]
    if len(one.numbers) == 0:
        return Status.INVALID_INPUT, "structure has no atoms"
    if not (np.isfinite(one.positions).all() and np.isfinite(one.cell).all()):
        return Status.INVALID_INPUT, "a position or the cell is not finite"
    if one.pbc.any() and float(one.volumes[0]) < 1e-6:
        return Status.INVALID_INPUT, f"cell volume is {float(one.volumes[0]):.3g} Å^3"
    symbols = {chemical_symbols[z] for z in np.unique(one.numbers)}
    unknown = sorted(symbols - job.species)
    if unknown:
        return Status.UNSUPPORTED_SPECIES, f"{job.adapter.name} does not know {', '.join(unknown)}"
    return None


def _run(job: Job, index: int, deadline: StructureDeadline, record: Record) -> None:
    if isinstance(job.task, StructureTask):
        one = job.batch[index]
        _fill(
            record,
            job.task.run_structure(one, job.parameters, deadline, threads=job.spec.threads),
            one.numbers,
        )
        return
    atoms = job.atoms(index)
    calc = job.calculator()
    # A calculator that remembers the last structure (neighbour lists) could make results depend on the order.
    reset = getattr(calc, "reset", None)
    if reset is not None:
        reset()
    session = getattr(calc, "session", None)
    # Overflows of a structure that explodes are told by its status, not by thousands of warnings.
    with np.errstate(all="ignore"), contextlib.nullcontext() if session is None else session(deadline):
        result = job.task.run(atoms, calc, job.parameters, deadline)
    _fill(record, result, job.batch[index].numbers)


def _fill(record: Record, result: TaskResult, numbers: np.ndarray) -> None:
    record.status, record.message = Status(result.status), result.message
    record.values = {name: np.asarray(value) for name, value in result.values.items()}
    record.site_values = {name: np.asarray(value) for name, value in result.site_values.items()}
    if result.descriptor is not None:
        record.keep_descriptor(result.descriptor)
    for name, array in record.site_values.items():
        if len(array) != len(numbers):
            raise ValueError(f"task gave {len(array)} values of '{name}' for {len(numbers)} sites")
    if result.atoms is not None:
        if not np.array_equal(result.atoms.numbers, numbers):
            raise ValueError("task changed the sites of the structure or their order")
        record.positions = np.array(result.atoms.positions, dtype=float)
        record.cell = np.array(result.atoms.cell.array, dtype=float)
        if not (np.isfinite(record.positions).all() and np.isfinite(record.cell).all()):
            # The entry keeps its input structure: no file may hold NaN positions.
            record.positions = record.cell = None


def _crash_text(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno})" if frames else ""
    text = " ".join(str(error).split())[:500]
    return f"{type(error).__name__}: {text}{where}" if text else f"{type(error).__name__}{where}"
