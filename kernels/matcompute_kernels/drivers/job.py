"""The job that every driver runs: which kernel, from where, to where."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from importlib import import_module
from typing import Any, NamedTuple, Protocol

import numpy as np

from matcompute_kernels.batch import Batch
from matcompute_kernels.checks import structure_problems
from matcompute_kernels.errors import KernelInputError

__all__ = [
    "Chunk",
    "DriverError",
    "Job",
    "Outcome",
    "Sink",
    "Source",
    "Summary",
    "Tally",
    "run",
    "usable_cores",
]

#: Called after every chunk with the structures that are done and those that the job has.
ProgressFunction = Callable[[int, int], None]
#: Asked between chunks; true ends the run early: chunks in flight are finished, the others are left to the next run.
StopFunction = Callable[[], bool]


class DriverError(RuntimeError):
    """A job cannot start or go on; what is done stays done."""


class Chunk(NamedTuple):
    """Structures ``start:stop`` of the source; chunks are numbered from 0."""

    number: int
    start: int
    stop: int


class Source(Protocol):
    """Where structures come from; small when pickled, as every worker gets one.

    A method ``fingerprint() -> str``, if there is one, says which structures these are: a job does not continue over
    others.
    """

    @property
    def chunks(self) -> Sequence[Chunk]:
        """All chunks, in order and without gaps."""

    def read(self, chunk: Chunk) -> Batch:
        """Return the structures of a chunk."""


class Sink(Protocol):
    """Where arrays go. With ``shared`` true, any process may write (a folder, say), else only the first one does."""

    shared: bool

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Be told which job this is before anything else; raise :class:`DriverError` if it holds another one's."""

    def done(self) -> set[int]:
        """Return the numbers of the chunks that are written: they are not computed again."""

    def write(
        self, chunk: Chunk, array: np.ndarray, *, rows: np.ndarray, problems: Mapping[int, str]
    ) -> None:
        """Keep a chunk for good before returning.

        ``rows``: sites of each structure, i8[n]. ``problems``: what was wrong, by number in the chunk; the rows of
        these structures are NaN. A chunk of nothing but problems has an array of no rows.
        """


class Outcome(NamedTuple):
    """What a worker reports of a chunk; the array only if it could not write it itself."""

    chunk: Chunk
    problems: dict[int, str]
    rows: np.ndarray | None = None
    array: np.ndarray | None = None


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Parameters
    ----------
    n_chunks, n_computed, n_reused
        Chunks of the job, computed now, and found done.
    n_structures
        Structures of the job.
    problems
        What was wrong with a structure, by its number in the source (of the chunks computed now).
    wall_s
        Time that the run took.
    """

    n_chunks: int
    n_computed: int
    n_reused: int
    n_structures: int
    problems: dict[int, str]
    wall_s: float

    @property
    def finished(self) -> bool:
        """Whether every chunk is done (else the run was stopped early)."""
        return self.n_computed + self.n_reused == self.n_chunks


@dataclass(frozen=True)
class Job:
    """A kernel over all structures of a source.

    Parameters
    ----------
    kernel
        Public name of a descriptor, ``"module:function"``, or a callable that can be pickled. It takes a Batch and
        the parameters and returns an array with a row per structure or per site.
    source
        Where the structures come from.
    sink
        Where the arrays go.
    parameters
        Keywords of the kernel.

    Raises
    ------
    DriverError
        If no kernel has this name.
    """

    kernel: str | Callable[..., Any]
    source: Source
    sink: Sink
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _resolve(self.kernel)

    def identity(self) -> dict[str, Any]:
        """Return what makes this job this job, as JSON content; the sink refuses to mix two."""
        chunks = list(self.source.chunks)
        name = self.kernel
        if not isinstance(name, str):
            name = f"{getattr(name, '__module__', '')}:{getattr(name, '__qualname__', repr(name))}"
        make = getattr(self.source, "fingerprint", None)
        parameters = json.loads(json.dumps(dict(self.parameters), default=_plain, sort_keys=True))
        return {
            "kernel": name,
            "parameters": parameters,
            "source": "" if make is None else make(),
            "chunks": sha256(np.array(chunks, dtype="<i8").tobytes()).hexdigest(),
            "n_chunks": len(chunks),
            "n_structures": chunks[-1].stop if chunks else 0,
        }

    def begin(self) -> Tally:
        """Tell the sink which job this is and return what is to be done."""
        self.sink.begin(self.identity())
        done = self.sink.done()
        chunks = list(self.source.chunks)
        return Tally(chunks, [chunk for chunk in chunks if chunk.number not in done])

    def execute(self, chunk: Chunk) -> Outcome:
        """Read, compute and, if any process may, write one chunk."""
        batch = self.source.read(chunk)
        if len(batch) != chunk.stop - chunk.start:
            raise DriverError(f"the source gave {len(batch)} structures for {chunk}")
        array, problems = apply_kernel(_resolve(self.kernel), self.parameters, batch)
        if not getattr(self.sink, "shared", False):
            return Outcome(chunk, problems, batch.n_sites, array)
        self.sink.write(chunk, array, rows=batch.n_sites, problems=problems)
        return Outcome(chunk, problems)

    def keep(self, outcome: Outcome) -> None:
        """Write what a worker could not write itself."""
        if outcome.array is not None and outcome.rows is not None:
            self.sink.write(outcome.chunk, outcome.array, rows=outcome.rows, problems=outcome.problems)


class Tally:
    """What of a job is to do and done; one per run, with the process that leads."""

    def __init__(self, chunks: list[Chunk], todo: list[Chunk]) -> None:
        self.chunks, self.todo = chunks, todo
        self.total = chunks[-1].stop if chunks else 0
        self.structures = self.total - sum(chunk.stop - chunk.start for chunk in todo)
        self.computed = 0
        self.problems: dict[int, str] = {}
        self.begun = time.monotonic()

    def add(self, outcome: Outcome, progress: ProgressFunction | None) -> None:
        """Book a chunk."""
        self.computed += 1
        self.structures += outcome.chunk.stop - outcome.chunk.start
        self.problems.update({outcome.chunk.start + i: text for i, text in outcome.problems.items()})
        if progress is not None:
            progress(self.structures, self.total)

    def summary(self) -> Summary:
        """Return the state as a summary."""
        n = len(self.chunks)
        problems = dict(sorted(self.problems.items()))
        wall_s = time.monotonic() - self.begun
        return Summary(n, self.computed, n - len(self.todo), self.total, problems, wall_s)


def apply_kernel(
    kernel: Callable[..., Any], parameters: Mapping[str, Any], batch: Batch
) -> tuple[np.ndarray, dict[int, str]]:
    """Return a kernel's rows, NaN (0 for integers) where a structure is unfit, and what is wrong with these.

    What has a method ``to_ragged`` (blocks, peaks) or is :class:`.Ragged` comes packed; sparse matrices become dense.

    Raises
    ------
    KernelInputError
        If the parameters are wrong.
    DriverError
        If what the kernel returns is no array with a row per structure or per site.
    """
    from matcompute_kernels.drivers.ragged import Ragged

    good = np.arange(len(batch))
    problems: dict[int, str] = {}
    fit = batch
    while True:
        try:
            result = kernel(fit, **parameters)
            break
        except KernelInputError as error:
            if error.index is None or not 0 <= error.index < len(fit):
                raise
            found = {error.index: str(error).partition(": ")[2] or str(error)}
            # What is unfit for most kernels is tried alone, so that one pass finds all and none is refused unheard.
            for i in structure_problems(fit, parameters.get("species")):
                if i not in found and (text := _refusal(kernel, parameters, fit[i])) is not None:
                    found[i] = text
            problems.update({int(good[i]): text for i, text in found.items()})
            good = np.delete(good, list(found))
            if good.size == 0:
                return np.empty((0, 0)), dict(sorted(problems.items()))
            fit = batch[good]
    if hasattr(result, "to_ragged"):
        result = result.to_ragged()
    elif hasattr(result, "tocsr") and hasattr(result, "toarray"):
        result = result.toarray()
    ragged = isinstance(result, Ragged)
    if not ragged and (not isinstance(result, np.ndarray) or result.ndim == 0):
        raise DriverError(
            f"the kernel returned {type(result).__name__}; a job wants an array or Ragged with a row per structure "
            "or site (give a function that makes one of it)"
        )
    if len(result) not in (len(fit), len(fit.numbers)):
        raise DriverError(
            f"the kernel returned {len(result)} rows for {len(fit)} structures of {len(fit.numbers)} sites"
        )
    per_site = len(result) != len(fit)
    where = batch.site_index(good) if per_site else good
    if ragged:
        whole = result.spread(where, len(batch.numbers) if per_site else len(batch)) if problems else result
        return whole.pack(), dict(sorted(problems.items()))
    result = np.ascontiguousarray(result, result.dtype.newbyteorder("<"))
    if problems:
        fill = np.nan if result.dtype.kind in "fc" else 0
        whole = np.full(
            (len(batch.numbers) if per_site else len(batch), *result.shape[1:]), fill, result.dtype
        )
        whole[where] = result
        result = whole
    return result, dict(sorted(problems.items()))


def _refusal(kernel: Callable[..., Any], parameters: Mapping[str, Any], one: Batch) -> str | None:
    """Why a kernel does not take a structure; None if it does."""
    try:
        kernel(one, **parameters)
    except KernelInputError as error:
        if error.index is None:
            raise
        return str(error).partition(": ")[2] or str(error)
    return None


def run(job: Job, driver: str = "serial", **options: Any) -> Summary:
    """Run a job by the driver of this name.

    Parameters
    ----------
    job
        What to do. Chunks that the sink has already are not computed again.
    driver
        ``"serial"``, ``"threads"``, ``"mpi"`` or ``"dask"``.
    **options
        Keywords of :func:`run_serial`, :func:`run_threads`, :func:`run_mpi` or :func:`run_dask`.

    Raises
    ------
    DriverError
        If there is no such driver, its package is not installed, or the job cannot go on.
    KernelInputError
        If the kernel refuses a parameter; the same from every driver, on every rank.
    """
    if driver not in ("serial", "threads", "mpi", "dask"):
        raise DriverError(f"no driver {driver!r}; drivers are serial, threads, mpi and dask")
    module = import_module(f"matcompute_kernels.drivers.{driver}")
    result: Summary = getattr(module, f"run_{driver}")(job, **options)
    return result


def usable_cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _resolve(kernel: str | Callable[..., Any]) -> Callable[..., Any]:
    if not isinstance(kernel, str):
        return kernel
    import matcompute_kernels

    module, colon, name = kernel.partition(":")
    try:
        found: Callable[..., Any] = (
            getattr(import_module(module), name) if colon else getattr(matcompute_kernels, kernel)
        )
    except (ImportError, AttributeError) as error:
        raise DriverError(f"no kernel {kernel!r}: {error}") from error
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    return str(value)
