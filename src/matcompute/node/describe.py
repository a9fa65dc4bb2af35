"""Descriptors of a dataset file: the kernels' drivers bound to slices of the file and to its ``/descriptors``."""

from __future__ import annotations

import inspect
import json
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np

import matcompute_kernels
from matcompute.dataset import Dataset, DatasetError, DatasetWriter, Status
from matcompute.dataset.descriptors import write_dense
from matcompute.dataset.h5io import ENTRY_CHUNK, attach, make_dataset, set_attr
from matcompute.errors import did_you_mean
from matcompute.node.errors import NodeError, TaskFileError, UnavailableError
from matcompute.node.mpi import launched_ranks, launcher_rank
from matcompute_kernels import Batch, KernelInputError, feature_labels
from matcompute_kernels.drivers import (
    AppendSink,
    Chunk,
    DriverError,
    Job,
    chunk_rows,
    merge_chunks,
    run,
)
from matcompute_kernels.drivers.sink import layout_of

__all__ = ["DatasetSource", "describe_dataset", "parse_settings"]

#: Labels beyond this are not stored (an attribute of HDF5 has little room).
_LABEL_BYTES = 32_000


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

    def species(self) -> list[int]:
        """Return the atomic numbers that occur, in order."""
        with self._lock:
            return np.unique(self._dataset.file["sites/atomic_number"][...]).tolist()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if "_dataset" in self.__dict__:
                self.__dict__.pop("_dataset").close()


def describe_dataset(
    path: str | Path,
    kernel: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    driver: str | None = None,
    size: int = 256,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> dict[str, Any] | None:
    """Compute a descriptor of all structures of a dataset file and store it there, at ``/descriptors/<name>``.

    Chunks are kept in the folder ``<file>.<name>.chunks`` (one file a process) until the descriptor is in the file:
    after a kill the same call continues. Structures that the kernel refuses have NaN in their rows, and
    ``/descriptors/<name>_status`` says which.

    Parameters
    ----------
    path
        A dataset file; a copy with the descriptor takes its place in the end.
    kernel
        Public name of a descriptor of `matcompute_kernels`.
    parameters
        Its keywords. Where the kernel asks for ``species``, the file's are the default; where it can average, the
        default is ``"outer"`` (a row per entry; ``average="off"``: a row per site).
    name
        Name of the descriptor in the file; by default the kernel's.
    driver
        ``serial``, ``threads``, ``mpi`` or ``dask``; by default ``mpi`` under an MPI launcher, else ``threads``.
    size
        Structures of a chunk.
    progress
        Called after every chunk with the structures done and all.
    **options
        Keywords of the driver.

    Returns
    -------
    dict or None
        What was done; None on the ranks of an MPI job other than 0.

    Raises
    ------
    TaskFileError
        If there is no such kernel, or its parameters are wrong.
    UnavailableError
        If the driver's package is missing or a chunk cannot be computed.
    """
    name = name or kernel
    function = _descriptor(kernel)
    source = DatasetSource(path, size)
    try:
        with Dataset(path) as dataset:
            if name in dataset.file.get("descriptors", {}):
                raise DatasetError(f"{path} has a descriptor '{name}' already", hint="give another --name")
        settings = dict(parameters or {})
        takes = inspect.signature(function).parameters
        if "species" in takes and "species" not in settings:
            settings["species"] = source.species()
        if "average" in takes and takes["average"].default == "off":
            settings.setdefault("average", "outer")
        unknown = [key for key in settings if key not in takes]
        if unknown:
            raise TaskFileError(f"{kernel} has no parameter '{unknown[0]}'{did_you_mean(unknown[0], takes)}")
        missing = [
            key
            for key, value in takes.items()
            if key != "batch"
            and value.default is inspect.Parameter.empty
            and value.kind is value.POSITIONAL_OR_KEYWORD
            and key not in settings
        ]
        if set(missing) - {"formulas"}:
            raise TaskFileError(f"{kernel} needs the parameter '{missing[0]}'", hint=f"--set {missing[0]}=…")
        driver = driver or ("mpi" if launched_ranks() > 1 else "threads")
        sink = AppendSink(Path(path).with_name(f"{Path(path).name}.{name}.chunks"))
        try:
            summary = run(Job(kernel, source, sink, settings), driver, progress=progress, **options)
            if driver == "mpi" and launcher_rank() != 0:
                return None
            per = _store(Path(path), name, kernel, settings, sink)
        except KernelInputError as error:
            raise TaskFileError(f"{kernel}: {error}") from error
        except DriverError as error:
            raise UnavailableError(f"{kernel}: {error}") from error
    finally:
        source.close()
    problems = sink.problems()
    shutil.rmtree(sink.folder, ignore_errors=True)
    return {
        "descriptor": name,
        "per": per,
        "driver": driver,
        **asdict(summary),
        "problems": {str(row): text for row, text in problems.items()},
    }


def _descriptor(kernel: str) -> Callable[..., Any]:
    known = [n for n, module in matcompute_kernels._WHERE.items() if module.startswith("descriptors.")]
    if kernel not in known:
        raise TaskFileError(f"no descriptor '{kernel}'{did_you_mean(kernel, known)}")
    found: Callable[..., Any] = getattr(matcompute_kernels, kernel)
    return found


def _store(path: Path, name: str, kernel: str, settings: Mapping[str, Any], sink: AppendSink) -> str:
    """Write the merged rows and the statuses; return what a row belongs to."""
    values = merge_chunks(sink, sink.folder / "merged.npy")
    values = values.reshape(len(values), -1)
    per: Literal["entry", "site"] = "site" if layout_of(list(sink.records().values()))[0] else "entry"
    try:
        labels = feature_labels(kernel, **settings)
    except (KernelInputError, TypeError):
        labels = []
    if len(labels) != values.shape[1] or sum(map(len, labels)) > _LABEL_BYTES:
        labels = []
    with DatasetWriter.append_to(path) as writer:
        status = np.full(len(writer), Status.OK, dtype="u1")
        status[list(sink.problems())] = Status.INVALID_INPUT
        write_dense(writer, name, values, per=per, long_name=f"{kernel} descriptor", features=labels)
        group = writer.file["descriptors"]
        text = json.dumps(sink.identity()["parameters"], sort_keys=True)
        for key, value in (("kernel", kernel), ("parameters", text)):
            set_attr(group[name], key, value)
        item = make_dataset(group, f"{name}_status", "u1", (), ENTRY_CHUNK)
        item.resize(len(status), axis=0)
        if len(status):
            item[...] = status
        attach(writer.file, item, ("entry",))
        set_attr(item, "long_name", f"status of {name}")
        set_attr(item, "units", "1")
        item.attrs["flag_values"] = np.array([s.value for s in Status], dtype="u1")
        set_attr(item, "flag_meanings", " ".join(s.label for s in Status))
    return per


def parse_settings(settings: tuple[str, ...]) -> dict[str, Any]:
    """Return ``("r_cut=5", "species=Al,Cu")`` as keywords: JSON values, lists by commas, else text.

    Raises
    ------
    NodeError
        If an item has no ``=``.
    """
    found: dict[str, Any] = {}
    for item in settings:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise NodeError(f"--set {item}: expected NAME=VALUE", hint="such as --set r_cut=5")
        try:
            found[key] = json.loads(text)
        except ValueError:
            parts = text.split(",")
            found[key] = [_value(part) for part in parts] if len(parts) > 1 or key == "species" else text
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.strip()
