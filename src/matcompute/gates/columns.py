"""Result columns of a campaign gathered over its shards, one row per entry of the structures file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from matcompute.dataset import Status
from matcompute.errors import InputError, did_you_mean
from matcompute.gates.expression import STRUCTURE_COLUMNS

if TYPE_CHECKING:
    from matcompute.dataset import Dataset

__all__ = ["ColumnTable"]


class ColumnTable:
    """Columns over the entries of a structures file.

    Parameters
    ----------
    structures
        The campaign's structures; its order is the order of every array here.
    results
        ``(stage name, shard)`` in stage order: result shards of compute stages and outputs of earlier gates. When
        two stages give the same column, the later one owns the plain name; ``<stage>__<name>`` names one of them.
    """

    def __init__(self, structures: Dataset, results: Sequence[tuple[str, Dataset]]) -> None:
        self.structures = structures
        self.results = list(results)
        self.ids = np.asarray(structures.ids)
        self._order = np.argsort(self.ids, kind="stable")
        self._sorted = self.ids[self._order]
        self._rows = [self._match(shard) for _, shard in self.results]
        self.units: dict[str, str] = dict(STRUCTURE_COLUMNS)
        for stage, shard in self.results:
            for name, info in shard.properties.items():
                if info.per == "entry" and info.shape == ():
                    self.units[name] = info.units
                    self.units[f"{stage}__{name}"] = info.units

    def __len__(self) -> int:
        return len(self.ids)

    def _match(self, shard: Dataset) -> np.ndarray:
        place = np.searchsorted(self._sorted, shard.ids)
        if not len(shard):
            return np.zeros(0, dtype=np.int64)
        found = self._sorted[np.minimum(place, len(self._sorted) - 1)] == shard.ids
        if not np.all(found):
            missing = np.asarray(shard.ids)[~found][0]
            raise InputError(f"entry '{missing}' of a result shard is not among the campaign's structures")
        rows: np.ndarray = self._order[place]
        return rows

    def shards(self) -> list[tuple[tuple[str, Dataset], np.ndarray]]:
        """Return every ``(stage, shard)`` with the rows of its entries in the structures file."""
        return list(zip(self.results, self._rows, strict=True))

    def rows_of(self, stage: str) -> np.ndarray:
        """Return ``bool[N]``: which entries a stage has attempted."""
        mask = np.zeros(len(self), dtype=bool)
        for (name, _), rows in zip(self.results, self._rows, strict=True):
            if name == stage:
                mask[rows] = True
        return mask

    def column(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return values ``f8[N]`` (canonical unit, NaN where there is none) and status ``u1[N]`` of a column.

        Raises
        ------
        InputError
            If no stage gives the column; the nearest spelling is named.
        """
        if name not in self.units:
            raise InputError(f"no stage gives a column '{name}'{did_you_mean(name, self.units)}")
        values = np.full(len(self), np.nan)
        status = np.full(len(self), int(Status.NOT_ATTEMPTED), dtype=np.uint8)
        if name in STRUCTURE_COLUMNS:
            values[:] = self._structure_column(name)
            status[np.isfinite(values)] = int(Status.OK)
            return values, status
        wanted_stage, _, plain = name.rpartition("__")
        for (stage, shard), rows in zip(self.results, self._rows, strict=True):
            if (wanted_stage and stage != wanted_stage) or plain not in shard.properties:
                continue
            values[rows] = shard.column(plain)
            status[rows] = shard.status(plain)
        return values, status

    def elements(self) -> np.ndarray:
        """Return ``bool[N, 119]``: true where an entry holds that atomic number."""
        present = np.zeros((len(self), 119), dtype=bool)
        first = 0
        for batch in self.structures.iter_batches():
            rows = first + np.repeat(np.arange(len(batch)), np.diff(batch.ptr))
            present[rows, batch.numbers] = True
            first += len(batch)
        return present

    def _structure_column(self, name: str) -> np.ndarray:
        if name == "n_sites":
            return np.asarray(self.structures.entry_column("row_size"), dtype=float)
        if name == "density":
            return self._density()
        counts: np.ndarray = self.elements().sum(axis=1).astype(float)
        return counts

    def _density(self) -> np.ndarray:
        """Return the density of the final structures in g/cm^3, NaN where there is no cell."""
        from ase.data import atomic_masses

        from matcompute.gates.features import final_structures

        found = np.full(len(self), np.nan)
        for start in range(0, len(self), 65_536):
            rows = np.arange(start, min(start + 65_536, len(self)))
            batch = final_structures(self, rows)
            mass = np.add.reduceat(np.append(atomic_masses[batch.numbers], 0.0), batch.ptr[:-1])
            volume = batch.volumes
            # 1 u/Å^3 = 1.66053906660 g/cm^3 (CODATA 2018).
            found[rows] = np.divide(
                1.66053906660 * mass, volume, out=np.full(len(rows), np.nan), where=volume > 0
            )
        return found
