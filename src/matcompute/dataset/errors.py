"""What can go wrong with a dataset file, in the words of its user."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from matcompute.errors import MatcomputeError, did_you_mean

__all__ = [
    "DatasetError",
    "DatasetFileError",
    "DatasetLockedError",
    "DatasetWriteError",
    "UnknownNameError",
    "unknown_name",
]


class DatasetError(MatcomputeError):
    """A dataset cannot be used as asked."""


class DatasetFileError(DatasetError):
    """The file is missing, is no dataset, has another format version or is damaged."""

    exit_code = 2


class DatasetLockedError(DatasetError):
    """Another writer holds the file."""


class DatasetWriteError(DatasetError):
    """The file could not be written (full disk, no permission); what stood there before still stands."""


class UnknownNameError(DatasetError, KeyError):
    """No column, entry or selection has that name."""

    exit_code = 2

    def __str__(self) -> str:
        return DatasetError.__str__(self)


def unknown_name(kind: str, name: str, known: Iterable[str], path: Path | str) -> UnknownNameError:
    """Return the error for a name that a file does not have, with the nearest spelling."""
    return UnknownNameError(f"{path}: no {kind} '{name}'{did_you_mean(name, known)}")
