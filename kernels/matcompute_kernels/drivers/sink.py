"""Sinks of arrays that are folders: any process writes to them, and they know what is done."""

from __future__ import annotations

import json
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from socket import gethostname
from typing import Any
from uuid import uuid4

import numpy as np

from matcompute_kernels.drivers.job import Chunk, DriverError

__all__ = ["AppendSink", "DirectorySink", "NpyDirectorySink", "Record", "merge_chunks"]


@dataclass(frozen=True)
class Record:
    """A line of the index: where a chunk is, and its checksum."""

    number: int
    start: int
    stop: int
    n_sites: int
    file: str
    offset: int
    shape: tuple[int, ...]
    dtype: str
    sha256: str
    problems: dict[int, str] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    @classmethod
    def from_line(cls, line: str) -> Record | None:
        """Return the record of a line; None if the line was cut short."""
        try:
            content = json.loads(line)
            content["shape"] = tuple(content["shape"])
            content["problems"] = {int(key): text for key, text in content["problems"].items()}
            return cls(**content)
        except (ValueError, TypeError, KeyError):
            return None


class DirectorySink(ABC):
    """A folder of arrays with an index; the base of :class:`NpyDirectorySink` and :class:`AppendSink`.

    Each writing process has an index file of its own, to which it appends a line after the array is in place: a chunk
    counts once its line is there. The result after any kill is a shorter index, never a wrong one.

    Parameters
    ----------
    folder
        The folder, the same for all processes; made if missing.
    """

    shared = True

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).absolute()
        self._setup()

    def _setup(self) -> None:
        self._lock = threading.Lock()
        self._writer = ""

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._setup()

    # -- the driver's side ------------------------------------------------------------------------------------

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Write down which job this is, or make sure that it is the one that began here.

        Raises
        ------
        DriverError
            If the folder holds another job's arrays.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "job.json"
        if not path.exists():
            temporary = path.with_name(f".job-{uuid4().hex}.json")
            temporary.write_text(json.dumps(identity, indent=1) + "\n", encoding="utf-8")
            temporary.replace(path)
            return
        before = self.identity()
        for key in identity:
            if before.get(key) != identity[key]:
                raise DriverError(
                    f"{self.folder} holds another job: its {key} is {before.get(key)!r}, now {identity[key]!r}; "
                    "give another folder or delete this one"
                )

    def identity(self) -> dict[str, Any]:
        """Return which job's arrays these are."""
        try:
            content: dict[str, Any] = json.loads((self.folder / "job.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DriverError(f"{self.folder} holds no job") from None
        return content

    def done(self) -> set[int]:
        """Return the numbers of the chunks that are written."""
        return set(self.records())

    def write(
        self, chunk: Chunk, array: np.ndarray, *, rows: np.ndarray, problems: Mapping[int, str]
    ) -> None:
        """Keep a chunk, then add its line to the index."""
        array = np.ascontiguousarray(array)
        with self._lock:
            if not self._writer:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._writer = f"{gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
            file, offset = self._store(chunk, array)
            record = Record(
                *chunk,
                n_sites=int(np.sum(rows)),
                file=file,
                offset=offset,
                shape=array.shape,
                dtype=array.dtype.str,
                sha256=sha256(array.data).hexdigest(),
                problems=dict(problems),
            )
            line = json.dumps(record.__dict__) + "\n"
            with (self.folder / f"index-{self._writer}.jsonl").open("ab", buffering=0) as index:
                index.write(line.encode())

    @abstractmethod
    def _store(self, chunk: Chunk, array: np.ndarray) -> tuple[str, int]:
        """Put the bytes in place; return the file's name and where in it the array begins."""

    # -- the reader's side ------------------------------------------------------------------------------------

    def records(self) -> dict[int, Record]:
        """Return the finished chunks by number; those whose file is missing or too short do not count."""
        found: dict[int, Record] = {}
        sizes: dict[str, int] = {}
        for index in sorted(self.folder.glob("index-*.jsonl")):
            for line in index.read_text(encoding="utf-8", errors="replace").splitlines():
                record = Record.from_line(line)
                if record is None:
                    continue
                if record.file not in sizes:
                    sizes[record.file] = -1
                    with suppress(OSError):
                        sizes[record.file] = (self.folder / record.file).stat().st_size
                if sizes[record.file] >= record.offset + record.nbytes:
                    found[record.number] = record
        return dict(sorted(found.items()))

    def read(self, record: Record) -> np.ndarray:
        """Return the array of a chunk.

        Raises
        ------
        DriverError
            If the bytes are not those that were written.
        """
        with (self.folder / record.file).open("rb") as file:
            file.seek(record.offset)
            data = file.read(record.nbytes)
        if sha256(data).hexdigest() != record.sha256:
            raise DriverError(
                f"{self.folder / record.file}: chunk {record.number} is damaged (checksum); "
                "delete the file and run the job again"
            )
        return np.frombuffer(data, np.dtype(record.dtype)).reshape(record.shape)

    def problems(self) -> dict[int, str]:
        """Return what was wrong with structures, by their number in the source."""
        return {r.start + i: text for r in self.records().values() for i, text in sorted(r.problems.items())}

    def complete(self) -> list[Record]:
        """Return the records of all chunks of the job.

        Raises
        ------
        DriverError
            If chunks are missing.
        """
        records, n = self.records(), int(self.identity()["n_chunks"])
        if len(records) < n:
            missing = next(i for i in range(n) if i not in records)
            raise DriverError(
                f"{self.folder} has {len(records)} of {n} chunks (chunk {missing} is missing): run the job again"
            )
        return list(records.values())

    def iter_rows(self) -> Iterator[tuple[Record, np.ndarray]]:
        """Yield the checked array of every chunk, in order.

        Chunks of nothing but unfit structures come as rows of NaN.

        Raises
        ------
        DriverError
            If chunks are missing, damaged or do not fit together.
        """
        records = self.complete()
        per_site, tail, dtype = layout_of(records)
        for record in records:
            n = record.n_sites if per_site else record.stop - record.start
            if record.shape[0] == 0 and n:
                yield record, np.full((n, *tail), np.nan if dtype.kind in "fc" else 0, dtype)
            else:
                yield record, self.read(record)


class NpyDirectorySink(DirectorySink):
    """One ``.npy`` file a chunk: written beside, renamed into place, listed in the index with its checksum."""

    def _store(self, chunk: Chunk, array: np.ndarray) -> tuple[str, int]:
        path = self.folder / f"chunk-{chunk.number:08d}.npy"
        temporary = self.folder / f".{path.stem}-{self._writer}.tmp"
        with temporary.open("wb") as file:
            np.lib.format.write_array(file, array, allow_pickle=False)
            end = file.tell()
        temporary.replace(path)
        return path.name, end - array.nbytes


class AppendSink(DirectorySink):
    """One file a writing process, to which chunks are appended: few files however many chunks."""

    def _store(self, chunk: Chunk, array: np.ndarray) -> tuple[str, int]:
        name = f"part-{self._writer}.bin"
        with (self.folder / name).open("ab") as file:
            offset = file.seek(0, os.SEEK_END)
            file.write(array.data)
        return name, offset


def layout_of(records: list[Record]) -> tuple[bool, tuple[int, ...], np.dtype]:
    """Return whether rows belong to sites, their shape and type.

    Raises
    ------
    DriverError
        If chunks differ, as when a descriptor's width depends on the largest structure of a call.
    """
    filled = [record for record in records if record.shape[0]]
    if any(np.dtype(record.dtype).kind == "V" for record in filled):
        raise DriverError("rows have different lengths: read them by iter_ragged")
    kinds = {r.shape[0] == r.n_sites for r in filled if r.n_sites != r.stop - r.start}
    layouts = {(r.shape[1:], r.dtype) for r in filled}
    if len(layouts) > 1 or len(kinds) > 1:
        first = filled[0]
        other = next(
            (r for r in filled if (r.shape[1:], r.dtype) != (first.shape[1:], first.dtype)), filled[-1]
        )
        raise DriverError(
            f"chunks 0 and {other.number} differ: {first.dtype} rows of {first.shape[1:]}, {other.dtype} of "
            f"{other.shape[1:]}; give the parameter that fixes the number of columns (such as n_atoms_max)"
        )
    tail, dtype = layouts.pop() if layouts else ((0,), "<f8")
    return bool(kinds and kinds.pop()), tail, np.dtype(dtype)


def merge_chunks(sink: DirectorySink, path: str | Path) -> np.ndarray:
    """Write all rows of a finished job to one ``.npy`` file, chunk by chunk, and return it as a memory map.

    The file's bytes depend on the job alone, not on the driver or the order in which chunks came.

    Raises
    ------
    DriverError
        If chunks are missing, damaged or do not fit together.
    """
    records = sink.complete()
    per_site, tail, dtype = layout_of(records)
    n = sum(r.n_sites if per_site else r.stop - r.start for r in records)
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            header = {"descr": dtype.str, "fortran_order": False, "shape": (n, *tail)}
            np.lib.format.write_array_header_1_0(file, header)
            for _, rows in sink.iter_rows():
                file.write(np.ascontiguousarray(rows).data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    merged: np.ndarray = np.load(path, mmap_mode="r" if n and np.prod(tail) else None)
    return merged
