"""The few things that every dataset file does with HDF5: attributes, filters, dimension scales, safe reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from matcompute.dataset.errors import DatasetFileError

__all__ = [
    "ENTRY_CHUNK",
    "FILTERS",
    "FORMAT",
    "FORMAT_VERSION",
    "GZIP_LEVEL",
    "LIBVER",
    "MAX_ENTRIES",
    "SITE_CHUNK",
    "TABLE_CHUNK",
    "get_attr",
    "make_dataset",
    "read",
    "set_attr",
    "set_scale",
    "text_dtype",
    "to_text",
]

FORMAT = "matcompute dataset"
#: major.minor: a reader of 1.x reads every 1.y; a new major version is another format.
FORMAT_VERSION = "1.0"
#: Largest number of entries of one file.
MAX_ENTRIES = 1_000_000
ENTRY_CHUNK = 1024
SITE_CHUNK = 8192
TABLE_CHUNK = 64
#: File features of HDF5 1.10: checksummed metadata, and every reader since 2016 opens it.
LIBVER = ("v110", "v110")
#: Level 1: level 6 takes half as long again and saves one per cent (benchmarks/results/dataset_io.json).
GZIP_LEVEL = 1
#: HDF5 filter ids in their order: shuffle, deflate, fletcher32.
FILTERS = (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32)

_NO_VARIABLE = "This is a netCDF dimension without variable. %10d"


def text_dtype(width: int) -> np.dtype:
    """Return fixed-width UTF-8 text of ``width`` bytes."""
    return h5py.string_dtype("utf-8", max(int(width), 1))


def to_text(array: np.ndarray) -> np.ndarray:
    """Return stored text (S array) as a U array."""
    try:
        return array.astype("S").astype("U")
    except UnicodeDecodeError:
        return np.char.decode(array.astype("S"), "utf-8")


def set_attr(item: h5py.HLObject, name: str, value: Any) -> None:
    """Write an attribute; text as fixed-width UTF-8, lists and dicts as JSON text."""
    if isinstance(value, dict | list | tuple) and not (
        value and all(isinstance(v, int | np.integer) for v in value)
    ):
        value = json.dumps(value, ensure_ascii=False)
    if isinstance(value, str):
        raw = value.encode()
        item.attrs.create(name, np.array(raw, dtype=f"S{max(len(raw), 1)}"), dtype=text_dtype(len(raw)))
    else:
        item.attrs.create(name, value)


def get_attr(item: h5py.HLObject, name: str, default: Any = "") -> Any:
    """Read an attribute; text comes back as str."""
    if name not in item.attrs:
        return default
    value = item.attrs[name]
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.generic):
        return value.item()
    return value


def make_dataset(
    group: h5py.Group,
    name: str,
    dtype: np.dtype | str,
    tail: tuple[int, ...],
    chunk: int,
    *,
    fill: Any = None,
    level: int | None = GZIP_LEVEL,
) -> h5py.Dataset:
    """Create an empty growing dataset; ``level`` None means fletcher32 only (dense per-site descriptors)."""
    filters: dict[str, Any] = {"fletcher32": True}
    if level is not None:
        filters |= {"shuffle": True, "compression": "gzip", "compression_opts": level}
    return group.create_dataset(
        name,
        shape=(0, *tail),
        maxshape=(None, *tail),
        dtype=dtype,
        chunks=(chunk, *(max(n, 1) for n in tail)),
        fillvalue=fill,
        **filters,
    )


def set_scale(file: h5py.File, name: str, size: int) -> h5py.Dataset:
    """Make or resize the dimension scale ``/name`` (netCDF's dimension without a variable: no data is stored)."""
    if name not in file:
        make_dataset(file, name, "<f4", (), SITE_CHUNK).make_scale(_NO_VARIABLE % size)
    scale = file[name]
    if scale.shape != (size,):
        scale.resize((size,))
        label = np.bytes_(_NO_VARIABLE % size)
        if scale.attrs.get("NAME") != label:
            scale.attrs["NAME"] = label
    return scale


def attach(file: h5py.File, dataset: h5py.Dataset, dims: Sequence[str]) -> None:
    """Give each dimension of a dataset its scale, once."""
    for axis, name in enumerate(dims):
        scale = file[name] if name in file else set_scale(file, name, dataset.shape[axis])
        if len(dataset.dims[axis]) == 0:
            dataset.dims[axis].attach_scale(scale)


def read(dataset: h5py.Dataset, selection: Any = slice(None)) -> np.ndarray:
    """Read part of a dataset.

    Raises
    ------
    DatasetFileError
        If a chunk does not match its checksum or cannot be decompressed.
    """
    try:
        return np.asarray(dataset[selection])
    except OSError as error:
        raise DatasetFileError(
            f"{Path(dataset.file.filename).name}: {dataset.name} is damaged ({_first_line(error)})",
            hint="`matcompute dataset validate` names the damaged rows; restore the file from its release",
        ) from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
