"""The processes that made a dataset and the data nodes between them: ``/provenance``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import numpy as np

__all__ = ["ProcessRecord", "Provenance", "uuid_array", "uuid_text"]

#: (link label, node UUID)
Edge = tuple[str, str]


def uuid_array(uuids: Iterable[str | bytes | None]) -> np.ndarray:
    """Return UUIDs as u1[n, 16]; ``None`` and the empty string become zeros."""
    raw = b"".join((u if isinstance(u, bytes) else UUID(u).bytes) if u else bytes(16) for u in uuids)
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, 16)


def uuid_text(row: np.ndarray) -> str:
    """Return one u1[16] row as text; the empty string for zeros."""
    raw = np.asarray(row, dtype=np.uint8).tobytes()
    return "" if raw == bytes(16) else str(UUID(bytes=raw))


@dataclass(frozen=True)
class ProcessRecord:
    """One process: a calculation, a workflow or a function, with its input and output nodes.

    Parameters
    ----------
    uuid
        UUID of the process node.
    label, type
        Name of the process (``relax``) and its kind (``matcompute.batch``, an entry point or a class).
    inputs, outputs
        ``(link label, node UUID)`` each.
    code, code_version, computer
        What ran and where (empty for functions that ran in the workspace).
    model_sha256
        Digest of the model file it used.
    method_index
        Row of ``/methods``, -1 if none.
    created
        µs since 1970 UTC, -1 if unknown.
    """

    uuid: str
    label: str = ""
    type: str = ""
    inputs: tuple[Edge, ...] = ()
    outputs: tuple[Edge, ...] = ()
    code: str = ""
    code_version: str = ""
    computer: str = ""
    model_sha256: str = ""
    method_index: int = -1
    created: int = -1

    def __post_init__(self) -> None:
        object.__setattr__(self, "uuid", str(UUID(self.uuid)))
        for name in ("inputs", "outputs"):
            edges = tuple((str(label), str(UUID(node))) for label, node in getattr(self, name))
            object.__setattr__(self, name, edges)


@dataclass(frozen=True)
class Provenance:
    """Processes in the order of the rows of ``/provenance``; ``/results/<property>_process`` points into it."""

    processes: tuple[ProcessRecord, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "processes", tuple(self.processes))

    def __len__(self) -> int:
        return len(self.processes)

    def __getitem__(self, row: int) -> ProcessRecord:
        return self.processes[row]

    @property
    def process_uuid(self) -> np.ndarray:
        """UUIDs of the processes, u1[P, 16]."""
        return uuid_array(p.uuid for p in self.processes)

    def row_of(self, uuid: str) -> int:
        """Return the row of a process, -1 if it is not there."""
        return self.index().get(str(UUID(uuid)), -1)

    def index(self) -> dict[str, int]:
        """Return process UUID → row."""
        return {p.uuid: row for row, p in enumerate(self.processes)}

    def producers(self) -> dict[str, int]:
        """Return node UUID → row of the process that made the node."""
        return {node: row for row, p in enumerate(self.processes) for _, node in p.outputs}

    @classmethod
    def concatenate(
        cls, parts: Sequence[Provenance], method_maps: Sequence[Sequence[int] | np.ndarray] | None = None
    ) -> tuple[Provenance, list[np.ndarray]]:
        """Join parts, each process once; return also the new row of each part's rows.

        Parameters
        ----------
        parts
            What to join.
        method_maps
            New row of ``/methods`` for each part's method rows.
        """
        rows: dict[str, int] = {}
        processes: list[ProcessRecord] = []
        maps = []
        for number, part in enumerate(parts):
            mapped = np.empty(len(part), dtype=np.int32)
            for row, process in enumerate(part.processes):
                if process.uuid not in rows:
                    rows[process.uuid] = len(processes)
                    if method_maps is not None and process.method_index >= 0:
                        process = replace(
                            process, method_index=int(method_maps[number][process.method_index])
                        )
                    processes.append(process)
                mapped[row] = rows[process.uuid]
            maps.append(mapped)
        return cls(tuple(processes)), maps
