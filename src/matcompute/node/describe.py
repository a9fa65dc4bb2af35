"""Descriptors of a dataset file: the kernels' drivers bound to slices of the file and to its ``/descriptors``."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute.dataset import Dataset, DatasetError
from matcompute.dataset.descriptors import BlockSparse, descriptor_names
from matcompute.node.deadline import StopRequest
from matcompute.node.descriptor_store import store_chunks
from matcompute.node.descriptors import Facts, descriptor_adapter
from matcompute.node.errors import StoppedError, TaskFileError, UnavailableError, WriteError
from matcompute.node.mpi import launched_ranks, launcher_rank
from matcompute.node.settings import check_settings, find_descriptor, parse_settings, resolve_settings
from matcompute.progressbar import progress_bar
from matcompute_kernels import Batch, KernelInputError
from matcompute_kernels.drivers import (
    AppendSink,
    Chunk,
    DriverError,
    Job,
    Ragged,
    chunk_rows,
    run,
)
from matcompute_kernels.elements import MAX_Z, SYMBOLS

if TYPE_CHECKING:
    from matcompute.node.descriptors import DescriptorParameters

__all__ = ["DatasetSource", "chunk_folder", "describe_dataset", "run_describe"]

_KERNEL = "matcompute.node.describe:describe_batch"


class DatasetSource:
    """Structures of a dataset file, read slice by slice; pickled it is the file's path.

    Parameters
    ----------
    path
        The file; it does not change while the job runs.
    size, max_sites
        Most structures and sites of a chunk.
    """

    def __init__(self, path: str | Path, size: int = 256, max_sites: int = 16384) -> None:
        self.path = Path(path).absolute()
        self.size, self.max_sites = size, max_sites
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "size": self.size, "max_sites": self.max_sites}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    @cached_property
    def _dataset(self) -> Dataset:
        return Dataset(self.path)

    @cached_property
    def chunks(self) -> list[Chunk]:
        """The chunks."""
        with self._lock:
            return chunk_rows(self._dataset.entry_column("n_sites"), self.size, self.max_sites)

    def read(self, chunk: Chunk) -> Batch:
        """Return the structures of a chunk."""
        with self._lock:
            return self._dataset.batch(slice(chunk.start, chunk.stop))

    def fingerprint(self) -> str:
        """Return a hash of the entries' ids and structure hashes."""
        with self._lock:
            digest = sha256(self._dataset.raw_ids.tobytes())
            digest.update(self._dataset.entry_column("structure_hash").tobytes())
        return digest.hexdigest()

    def facts(self) -> Facts:
        """Return what ``auto`` is filled from."""
        with self._lock:
            numbers = np.unique(self._dataset.file["sites/atomic_number"][...])
            sizes = self._dataset.entry_column("n_sites")
        species = tuple(SYMBOLS[z] for z in numbers if 0 < z <= MAX_Z)
        return Facts(species, int(sizes.max(initial=1)))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if "_dataset" in self.__dict__:
                self.__dict__.pop("_dataset").close()


class _Sink(AppendSink):
    """Chunks beside the file; what an abandoned run with other parameters has left there may be cleared away."""

    def __init__(self, folder: Path, replace: bool) -> None:
        super().__init__(folder)
        self.replace = replace

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "replace": self.replace}

    def begin(self, identity: Mapping[str, Any]) -> None:
        if self.replace:
            with suppress(DriverError):
                super().begin(identity)
                return
            shutil.rmtree(self.folder)
        super().begin(identity)


def chunk_folder(path: Path, name: str) -> Path:
    """Return where the chunks of a descriptor are until it is in the file."""
    return path.with_name(f"{path.name}.{name}.chunks")


def describe_batch(batch: Batch, descriptor: str, **parameters: Any) -> np.ndarray | Ragged:
    """Compute a descriptor of the registry: the kernel of the job."""
    adapter = descriptor_adapter(descriptor)
    result = adapter.compute(batch, _model(descriptor, json.dumps(parameters)))
    if isinstance(result, BlockSparse):
        values = result.value_ptr[result.ptr], result.values
        shared = {"kinds": result.kinds, "offset": result.offset}
        return Ragged({"pairs": (result.ptr, result.pairs), "values": values}, shared)
    return result


@lru_cache(maxsize=16)
def _model(descriptor: str, text: str) -> DescriptorParameters:
    parameters: DescriptorParameters = descriptor_adapter(descriptor).Parameters.model_validate_json(text)
    return parameters


def describe_dataset(
    path: str | Path,
    kernel: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    driver: str | None = None,
    size: int = 256,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], str | None] | None = None,
    **options: Any,
) -> dict[str, Any] | None:
    """Compute a descriptor of all structures of a dataset file and store it there, at ``/descriptors/<name>``.

    Chunks are kept in the folder ``<file>.<name>.chunks`` (one file a process) until the descriptor is in the file:
    after a kill the same call continues. Structures that the kernel refuses have NaN in their rows (or no blocks),
    and ``/descriptors/<name>_status`` says which.

    Parameters
    ----------
    path
        A dataset file; a copy with the descriptor takes its place in the end.
    kernel
        A descriptor of the registry (entry points ``matcompute.kernels``), such as ``soap``.
    parameters
        Its parameters. ``species`` and ``n_atoms_max`` are by default those of the file; what is per site is
        averaged over each structure unless ``average`` is ``"off"``.
    name
        Name of the descriptor in the file; by default the kernel's.
    driver
        ``serial``, ``threads``, ``mpi`` or ``dask``; by default ``mpi`` under an MPI launcher, else ``threads``.
    size
        Structures of a chunk.
    overwrite
        Replace a descriptor of this name, and chunks that an unfinished call with other parameters has left.
    progress
        Called after every chunk with the structures done and all.
    stop
        Asked between chunks for a reason to end early, such as a signal's name.
    **options
        Keywords of the driver.

    Returns
    -------
    dict or None
        What was done; None on the ranks of an MPI job other than 0.

    Raises
    ------
    TaskFileError
        If there is no such descriptor, or its parameters are wrong.
    StoppedError
        If it ended early; the same call continues.
    UnavailableError
        If the driver's package is missing or a chunk cannot be computed.
    DatasetError
        If the file has a descriptor of this name, or is no dataset.
    """
    path, name = Path(path), name or kernel
    adapter = find_descriptor(kernel)
    checked = check_settings(adapter, parameters or {})
    source = DatasetSource(path, size)
    try:
        with Dataset(path) as dataset:
            if not overwrite and name in descriptor_names(dataset):
                raise DatasetError(
                    f"{path} has a descriptor '{name}' already", hint="give another --name, or --overwrite"
                )
        checked = resolve_settings(adapter, checked, source.facts())
        driver = driver or ("mpi" if launched_ranks() > 1 else "threads")
        sink = _Sink(chunk_folder(path, name), overwrite)
        job = Job(_KERNEL, source, sink, {"descriptor": kernel, **checked.keywords()})
        reasons: list[str] = []

        def stopping() -> bool:
            reason = stop() if stop is not None else None
            reasons.extend([reason] if reason else [])
            return bool(reason)

        try:
            summary = run(job, driver, progress=progress, stop=stopping, **options)
        except KernelInputError as error:
            raise TaskFileError(f"{kernel}: {error}") from error
        except DriverError as error:
            raise UnavailableError(f"{kernel}: {error}", hint=_remedy(error)) from error
        except OSError as error:
            raise WriteError(f"{sink.folder}: {error.strerror or error}") from error
        if driver == "mpi" and launcher_rank() != 0:
            return None
        if not summary.finished:
            done = summary.n_computed + summary.n_reused
            raise StoppedError(
                f"{', '.join(reasons[-1:]) or 'stopped'}: {done} of {summary.n_chunks} chunks are done",
                hint="run the same command again: it continues",
            )
    finally:
        source.close()
    try:
        found = store_chunks(path, name, adapter, checked, sink, overwrite=overwrite)
    except TaskFileError:
        shutil.rmtree(sink.folder, ignore_errors=True)
        raise
    shutil.rmtree(sink.folder, ignore_errors=True)
    return {"descriptor": name, "driver": driver, **asdict(summary), **found}


def _remedy(error: DriverError) -> str | None:
    if "holds another job" in str(error):
        return "an unfinished run used other settings: repeat these, or start over with --overwrite"
    return None


def run_describe(
    path: Path,
    *,
    kernel: str,
    settings: Iterable[str] = (),
    name: str | None = None,
    driver: str | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    chunk: int = 256,
    overwrite: bool = False,
    walltime_s: float | None = None,
) -> dict[str, Any] | None:
    """Do what ``matcompute-node describe`` is asked to: describe with progress, until walltime or a signal.

    Parameters
    ----------
    path, kernel, name, driver, overwrite
        As for :func:`describe_dataset`.
    settings
        Parameters as text, see :func:`.parse_settings`.
    workers
        Threads, or processes of a local Dask cluster.
    scheduler
        Address or scheduler file of a Dask cluster.
    chunk
        Structures of a chunk.
    walltime_s
        Time the job has.
    """
    request = StopRequest.within(walltime_s)
    options: dict[str, Any] = {}
    if scheduler is not None:
        driver, options["cluster"] = driver or "dask", scheduler
    if workers is not None and driver in (None, "threads", "dask"):
        options["workers" if driver == "dask" else "threads"] = workers
        driver = driver or "threads"
    parameters = parse_settings(settings)
    request.install()
    with progress_bar(name or kernel, quiet=launcher_rank() != 0) as progress:
        return describe_dataset(
            path,
            kernel,
            parameters,
            name=name,
            driver=driver,
            size=chunk,
            overwrite=overwrite,
            progress=progress,
            stop=lambda: request.reason,
            **options,
        )
