"""Open a file and make sure that it is a dataset which this version reads."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import h5py

from matcompute.dataset.errors import DatasetFileError
from matcompute.dataset.h5io import FORMAT, FORMAT_VERSION, get_attr
from matcompute.dataset.layout import ENTRY_COLUMNS, TEXT_COLUMNS

__all__ = ["GROUPS", "check_header", "missing_parts", "open_dataset", "open_hdf5"]

GROUPS = ("entries", "sites", "results", "methods", "sources", "selections", "provenance")


def open_hdf5(path: Path, stream: IO[bytes] | None = None) -> h5py.File:
    """Open an HDF5 file, or a stream of one, for reading, with our words for what can go wrong."""
    if stream is None:
        _check_file(path)
    try:
        return h5py.File(stream or path, "r", locking="best-effort")
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        raise DatasetFileError(
            f"{path}: HDF5 file is damaged or cut short ({reason})", hint="copy or download it again"
        ) from error


def _check_file(path: Path) -> None:
    if not path.exists():
        raise DatasetFileError(f"{path}: no such file")
    if path.is_dir():
        raise DatasetFileError(f"{path}: is a folder, not a dataset file")
    try:
        with path.open("rb") as stream:
            head = stream.read(8)
    except OSError as error:
        raise DatasetFileError(f"{path}: cannot be read ({error.strerror})") from error
    if head != b"\x89HDF\r\n\x1a\n" and not h5py.is_hdf5(path):
        raise DatasetFileError(f"{path}: not an HDF5 file", hint="a matcompute dataset is an HDF5 file (.h5)")


def check_header(file: h5py.File, path: Path) -> None:
    """Check format and version.

    Raises
    ------
    DatasetFileError
        If the file is no dataset, or of a format version that this program does not read.
    """
    try:
        name, version = get_attr(file, "format"), str(get_attr(file, "format_version"))
    except (OSError, RuntimeError) as error:
        raise DatasetFileError(
            f"{path}: HDF5 file is damaged: root attributes cannot be read ({error})"
        ) from error
    if name != FORMAT:
        raise DatasetFileError(
            f"{path}: an HDF5 file, but no matcompute dataset (root attribute 'format' is {name!r})",
            hint=f"expected format = {FORMAT!r}",
        )
    ours = int(FORMAT_VERSION.split(".")[0])
    try:
        major = int(version.split(".")[0])
    except ValueError:
        raise DatasetFileError(f"{path}: format_version {version!r} is not a version") from None
    if major > ours:
        raise DatasetFileError(
            f"{path}: written in format version {version}, this program reads up to {ours}.x",
            hint="upgrade: pip install --upgrade matcompute",
        )
    if major < ours:
        raise DatasetFileError(
            f"{path}: format version {version} is not read by this program (it reads {ours}.x)"
        )


def missing_parts(file: h5py.File) -> list[str]:
    """Return the groups and columns without which nothing can be read."""
    names = [*GROUPS]
    names += [f"entries/{name}" for name in (*ENTRY_COLUMNS, *TEXT_COLUMNS)]
    names += ["sites/position", "sites/atomic_number"]
    return [name for name in names if name not in file]


def open_dataset(path: Path, stream: IO[bytes] | None = None) -> h5py.File:
    """Open and check a dataset file."""
    file = open_hdf5(path, stream)
    try:
        check_header(file, path)
        try:
            missing = missing_parts(file)
        except (OSError, RuntimeError, KeyError) as error:
            raise DatasetFileError(f"{path}: HDF5 file is damaged ({error})") from error
        if missing:
            raise DatasetFileError(f"{path}: incomplete dataset, /{missing[0]} is missing")
    except BaseException:
        file.close()
        raise
    return file
