"""Structure files as a source: whatever ASE or pymatgen reads, frame by frame, each with its line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field, field_validator

from matcompute.structures.base import Reject, SourceBlock, SourceContext, SourceFile, SourceParameters
from matcompute.structures.paths import find_files
from matcompute.structures.readers import Frame, Unreadable, count_frames, read_frames
from matcompute_kernels.batch import Batch

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["FilesParameters", "FilesSource"]


class FilesParameters(SourceParameters):
    """Keys of a ``files:`` item."""

    files: list[str] = Field(
        min_length=1, description="Names or globs (`**` for any depth), from the campaign file's folder."
    )
    format: str | None = Field(
        default=None, description="ASE format name, where the file's name and content do not tell."
    )
    index: str = Field(
        default=":",
        description="Which frames of each file: a number or a slice as in Python, for example '-1'.",
    )

    @field_validator("files", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("index", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("index")
    @classmethod
    def _slice(cls, value: str) -> str:
        try:
            frame_slice(value)
        except ValueError:
            raise ValueError(
                f"'{value}' is not an index; expected a number or a slice such as '::10'"
            ) from None
        return value

    @field_validator("format")
    @classmethod
    def _format(cls, value: str | None) -> str | None:
        from ase.io.formats import ioformats

        from matcompute.errors import did_you_mean

        if value is not None and value not in ioformats:
            raise ValueError(f"unknown file format '{value}'{did_you_mean(value, ioformats)}")
        return value


def frame_slice(text: str) -> slice:
    """Return the slice for ``"3"``, ``"-1"`` or ``"::10"``."""
    parts = [int(part) if part.strip() else None for part in text.split(":")]
    if len(parts) == 1:
        first = parts[0]
        if first is None:
            raise ValueError(text)
        return slice(first, first + 1 or None)
    if len(parts) > 3 or (len(parts) == 3 and (parts[2] is not None and parts[2] < 1)):
        raise ValueError(text)
    return slice(*parts)


class FilesSource:
    """``files:`` of a campaign file."""

    name: ClassVar[str] = "files"
    Parameters: ClassVar[type[FilesParameters]] = FilesParameters

    def files(self, parameters: FilesParameters, base_dir: Path) -> list[Path]:
        """Return the files, sorted within each pattern."""
        return find_files(parameters.files, base_dir)

    def count(self, parameters: FilesParameters, base_dir: Path) -> int | None:
        """Return None: frames are only known once the files are read."""
        return None

    def blocks(self, parameters: FilesParameters, context: SourceContext) -> Iterator[SourceBlock]:
        """Yield the structures file by file, frame by frame."""
        from matcompute.structures.spec import source_name

        files = context.files or [
            SourceFile(source_name(path, context.base_dir), path)
            for path in self.files(parameters, context.base_dir)
        ]
        pending = _Pending()
        for file in files:
            row = context.table.add(file)
            for item in _chosen(file, parameters):
                if isinstance(item, Unreadable):
                    pending.rejects.append(Reject(item.cause, file.name, item.line, item.reason, item.label))
                else:
                    pending.add(item, row)
                if len(pending) >= context.block_size:
                    yield pending.block()
                    pending = _Pending()
        if len(pending) or pending.rejects:
            yield pending.block()


def _chosen(file: SourceFile, parameters: FilesParameters) -> Iterator[Frame | Unreadable]:
    """Yield the frames that ``index`` asks for; files are only counted first if it counts from the end."""
    wanted = frame_slice(parameters.index)
    if wanted == slice(None, None):
        yield from read_frames(file.path, parameters.format, file.name)
        return
    negative = any(value is not None and value < 0 for value in (wanted.start, wanted.stop))
    total = count_frames(file.path, parameters.format, file.name) if negative else 2**62
    numbers = range(*wanted.indices(total))
    for number, item in enumerate(read_frames(file.path, parameters.format, file.name)):
        if number >= numbers.stop:
            return
        if number in numbers:
            yield item


class _Pending:
    """Frames that wait to be packed into one block."""

    def __init__(self) -> None:
        self.atoms: list[Atoms] = []
        self.rows: list[int] = []
        self.lines: list[int] = []
        self.labels: list[str] = []
        self.rejects: list[Reject] = []

    def __len__(self) -> int:
        return len(self.atoms)

    def add(self, frame: Frame, row: int) -> None:
        self.atoms.append(frame.atoms)
        self.rows.append(row)
        self.lines.append(frame.line)
        self.labels.append(frame.label)

    def block(self) -> SourceBlock:
        return SourceBlock(
            Batch.from_atoms(self.atoms),
            np.array(self.rows, dtype=np.int32),
            np.array(self.lines, dtype=np.int64),
            self.labels,
            self.rejects,
        )
