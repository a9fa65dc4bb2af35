"""What a structure source is: the contract that built-in and third-party sources share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from matcompute_kernels.batch import Batch

__all__ = [
    "Reject",
    "SourceBlock",
    "SourceContext",
    "SourceFile",
    "SourceParameters",
    "SourceTable",
    "StructureSource",
]


class SourceParameters(BaseModel):
    """Keys that every item of ``structures:`` understands; sources derive from this."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str | None = Field(default=None, description="A name for this item in reports.")
    limit: int | None = Field(default=None, ge=1, description="Take at most this many structures.")


@dataclass(frozen=True)
class Reject:
    """One structure that was kept out, with its cause.

    Parameters
    ----------
    cause
        Short machine-readable class (``overlap``, ``bad_cell``, ``unreadable``, …).
    source, line
        The file and the 1-based line where the structure begins (0: the whole file).
    reason
        What is wrong with it, with numbers.
    label
        What the structure is, when it has a name or a formula.
    """

    cause: str
    source: str
    line: int
    reason: str
    label: str = ""

    def as_dict(self) -> dict[str, str | int]:
        return {
            "cause": self.cause,
            "source": self.source,
            "line": self.line,
            "reason": self.reason,
            "label": self.label,
        }


@dataclass
class SourceBlock:
    """Some structures of one source.

    Parameters
    ----------
    batch
        The structures, packed.
    source_index
        i4[n], row of each structure's file in the :class:`SourceTable`.
    source_line
        i8[n], 1-based line where each structure begins in its file.
    label
        n names (may be empty texts).
    rejects
        What could not be read, in place of a structure.
    quality
        Bits of ``matcompute.dataset.Quality`` that all structures of the block get.
    """

    batch: Batch
    source_index: np.ndarray
    source_line: np.ndarray
    label: Sequence[str]
    rejects: list[Reject] = field(default_factory=list)
    quality: int = 0

    def __len__(self) -> int:
        return len(self.source_line)

    def __getitem__(self, rows: slice | np.ndarray) -> SourceBlock:
        if isinstance(rows, slice):
            rows = np.arange(len(self))[rows]
        rows = np.asarray(rows)
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)
        return SourceBlock(
            self.batch[rows],
            self.source_index[rows],
            self.source_line[rows],
            [self.label[int(i)] for i in rows],
            [],
            self.quality,
        )


@dataclass(frozen=True)
class SourceFile:
    """A file of a source: the name that reports and datasets show, and where it is now."""

    name: str
    path: Path


class SourceTable:
    """The files that gave structures, each once, in order of first use."""

    def __init__(self) -> None:
        self.files: list[SourceFile] = []
        self._index: dict[str, int] = {}
        self._sha256: dict[str, str] = {}

    def add(self, file: SourceFile) -> int:
        """Return the row of a file, adding it if it is new."""
        if file.name not in self._index:
            self._index[file.name] = len(self.files)
            self.files.append(file)
        return self._index[file.name]

    def sha256(self, row: int) -> str:
        """Return the SHA-256 of a file's bytes (read once; empty for a file that is not there)."""
        file = self.files[row]
        if file.name not in self._sha256:
            digest = ""
            if file.path.is_file():
                with file.path.open("rb") as stream:
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()
            self._sha256[file.name] = digest
        return self._sha256[file.name]


@dataclass
class SourceContext:
    """What a source needs to know besides its own parameters.

    Parameters
    ----------
    base_dir
        Folder that relative paths start from (where the campaign file is).
    campaign_file
        The campaign file: source of generated structures.
    line
        Line of this item in the campaign file.
    table
        Where files are registered.
    files
        The item's files when they were collected before (as in an AiiDA calculation, which gets them as a
        node); None: look for them from ``base_dir``.
    block_size
        Structures a block.
    """

    base_dir: Path
    campaign_file: SourceFile
    line: int
    table: SourceTable
    files: Sequence[SourceFile] | None = None
    block_size: int = 4096


class StructureSource(Protocol):
    """A source of structures: register an object or class of this shape as a ``matcompute.structure_sources``
    entry point, under the key that selects it in a campaign file."""

    name: ClassVar[str]
    Parameters: ClassVar[type[SourceParameters]]

    def files(self, parameters: SourceParameters, base_dir: Path) -> list[Path]:
        """Return the files that the structures come from, sorted; raise InputError if one is missing."""

    def count(self, parameters: SourceParameters, base_dir: Path) -> int | None:
        """Return how many structures there will be if that is known without reading them all."""

    def blocks(self, parameters: SourceParameters, context: SourceContext) -> Iterator[SourceBlock]:
        """Yield the structures; what cannot be read becomes a :class:`Reject`, never an exception."""
