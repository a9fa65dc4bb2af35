"""Descriptors and final structures of a campaign's entries, gathered over its shards for a gate."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute import plugins
from matcompute.dataset import Dataset, Status
from matcompute.dataset.descriptors import descriptor_status, read_descriptor
from matcompute.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matcompute.dataset.descriptors import DescriptorInfo
    from matcompute.gates.columns import ColumnTable
    from matcompute_kernels import Batch

__all__ = ["Features", "final_structures", "gather_features", "normalized", "reference_features"]

#: A matrix beyond this lies in a temporary file that the kernels stream.
_IN_MEMORY = 1 << 29
_ROWS = 2048


@dataclass
class Features:
    """A descriptor of some entries.

    Attributes
    ----------
    rows
        Rows in the structures file, i8[n].
    values
        f8 or f4[n, F].
    info
        What it is.
    """

    rows: np.ndarray
    values: np.ndarray
    info: DescriptorInfo


def gather_features(table: ColumnTable, wanted: str | None, considered: np.ndarray) -> Features:
    """Return a descriptor of the considered entries that have it.

    Parameters
    ----------
    table
        The shards.
    wanted
        Name of the describe stage; None: the nearest earlier one.
    considered
        ``bool[N]``.

    Raises
    ------
    InputError
        If no stage gives it, or it has a row per site.
    """
    found: dict[str, DescriptorInfo] = {}
    for _, shard in table.results:
        # A later stage comes later, so that the last name is that of the nearest one.
        found = {k: v for k, v in found.items() if k not in shard.descriptors} | shard.descriptors
    name = wanted if wanted is not None else next(reversed(found), None)
    if name is None:
        raise InputError("no earlier stage describes the structures", hint="put a `describe` stage before it")
    if name not in found:
        raise InputError(f"no stage gives a descriptor '{name}'{did_you_mean(name, found)}")
    info = found[name]
    if info.per != "entry":
        raise InputError(f"descriptor '{name}' has a row per site", hint="describe with an average")
    # The newest shard that says something about an entry owns it.
    owner = np.full(len(table), -1, dtype=np.int64)
    place = np.zeros(len(table), dtype=np.int64)
    good = np.zeros(len(table), dtype=bool)
    for number, ((_, shard), rows) in enumerate(table.shards()):
        if name not in shard.descriptors:
            continue
        difference = info.differs_from(shard.descriptors[name])
        if difference is not None:
            raise InputError(f"descriptor '{name}': two shards have {difference}")
        status = descriptor_status(shard, name)
        said = status != int(Status.NOT_ATTEMPTED)
        owner[rows[said]], place[rows[said]] = number, np.flatnonzero(said)
        good[rows[said]] = status[said] == int(Status.OK)
    rows = np.flatnonzero(considered & good)
    values = _matrix((len(rows), info.n_features), np.dtype(info.dtype))
    for number, ((_, shard), _) in enumerate(table.shards()):
        mine = np.flatnonzero(owner[rows] == number)
        for start in range(0, len(mine), _ROWS):
            part = mine[start : start + _ROWS]
            values[part] = read_descriptor(shard, name, place[rows[part]])
    return Features(rows, values, info)


def _matrix(shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    if shape[0] * shape[1] * dtype.itemsize <= _IN_MEMORY:
        return np.empty(shape, dtype)
    # Unlinked at once: the memory map keeps it until it is dropped.
    with tempfile.TemporaryFile(prefix="matcompute-features-") as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)


def normalized(values: np.ndarray, how: str, by: np.ndarray | None = None) -> np.ndarray:
    """Normalise rows in place and return them.

    Parameters
    ----------
    values
        f[n, F].
    how
        ``none``; ``unit``: every row to length 1 (a row of zeros stays); ``standard``: every column to mean 0 and
        standard deviation 1 (a constant column becomes 0).
    by
        f[m, F] whose columns' means and deviations count; ``values`` itself by default. Not normalised yet.
    """
    if how == "none" or not len(values):
        return values
    if how == "standard":
        source = values if by is None else by
        mean = source.mean(axis=0, dtype=np.float64)
        spread = source.std(axis=0, dtype=np.float64)
        spread[spread <= 1e-12 * np.abs(mean).max(initial=0.0)] = np.inf
    for start in range(0, len(values), _ROWS):
        part = values[start : start + _ROWS]
        if how == "standard":
            part[...] = (part - mean) / spread
        else:
            length = np.linalg.norm(part, axis=1, keepdims=True)
            part /= np.where(length > 0, length, 1.0)
    return values


def final_structures(table: ColumnTable, rows: np.ndarray) -> Batch:
    """Return the structures of some entries as the latest compute stage left them."""
    from matcompute_kernels import Batch

    owner = np.full(len(table), -1, dtype=np.int64)
    place = np.arange(len(table))
    for number, ((stage, shard), of_shard) in enumerate(table.shards()):
        if stage not in shard.selections:  # gates write the structures that the campaign began with
            owner[of_shard], place[of_shard] = number, np.arange(len(shard))
    parts, order = [], []
    for number, dataset in [
        (-1, table.structures),
        *((k, item[0][1]) for k, item in enumerate(table.shards())),
    ]:
        mine = np.flatnonzero(owner[rows] == number)
        if mine.size:
            parts.append(dataset.batch(place[rows[mine]]))
            order.append(mine)
    if not parts:
        return table.structures.batch(np.zeros(0, dtype=np.int64))
    return Batch.concatenate(parts)[np.argsort(np.concatenate(order), kind="stable")]


def reference_features(path: Path, info: DescriptorInfo, selection: str | None) -> np.ndarray:
    """Return the descriptor of known structures, f[R, F]: read if the file holds it, else computed.

    Structures that cannot be described in the same way (other elements) are left out.

    Raises
    ------
    InputError
        If the file cannot be read, or nothing in it can be described.
    """
    if not path.exists():
        raise InputError(f"{path}: no such reference file")
    if path.suffix not in {".h5", ".hdf5"} and selection is not None:
        raise InputError(f"{path}: only a dataset has selections", hint="leave `selection` out")
    parts = list(_described(path, info, selection))
    found = np.concatenate(parts) if parts else np.zeros((0, info.n_features))
    found = found[np.isfinite(found).all(axis=1)]
    if not len(found):
        raise InputError(
            f"{path}: none of its structures can be described as the campaign's are",
            hint=f"their elements must be among {info.parameters.get('species', 'those of the descriptor')}",
        )
    return found


def _described(path: Path, info: DescriptorInfo, selection: str | None) -> Iterator[np.ndarray]:
    if path.suffix not in {".h5", ".hdf5"}:
        import ase.io

        from matcompute_kernels import Batch

        try:
            frames = ase.io.read(path, index=":")
        except Exception as error:  # each ASE reader raises its own kinds
            raise InputError(f"{path}: cannot be read as structures: {error}") from error
        for start in range(0, len(frames), _ROWS):
            yield _compute(Batch.from_atoms(frames[start : start + _ROWS]), info)
        return
    with Dataset(path) as known:
        keep = np.ones(len(known), dtype=bool)
        if selection is not None:
            if selection not in known.selections:
                raise InputError(
                    f"{path}: no selection '{selection}'{did_you_mean(selection, known.selections)}"
                )
            keep = np.asarray(known.selections[selection].mask, dtype=bool)
        same = next((n for n, other in known.descriptors.items() if info.differs_from(other) is None), None)
        if same is not None:
            keep &= descriptor_status(known, same) == int(Status.OK)
        rows = np.flatnonzero(keep)
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            if same is not None:
                yield np.asarray(read_descriptor(known, same, part))
            else:
                yield _compute(known.batch(part), info)


def _compute(batch: Batch, info: DescriptorInfo) -> np.ndarray:
    """Return a descriptor's rows, NaN where a structure is unfit."""
    from matcompute_kernels.drivers.job import apply_kernel

    adapter: Any = plugins.load("matcompute.kernels", info.kernel)
    adapter = adapter() if isinstance(adapter, type) else adapter
    parameters = adapter.Parameters.model_validate(dict(info.parameters))

    def kernel(some: Batch, **_: Any) -> np.ndarray:
        return np.asarray(adapter.compute(some, parameters))

    species = {"species": info.parameters["species"]} if "species" in info.parameters else {}
    values, _ = apply_kernel(kernel, species, batch)
    return values if values.shape[1] == info.n_features else np.zeros((0, info.n_features))
