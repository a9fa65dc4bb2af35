"""Compare two datasets entry by entry: `diff_datasets`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from matcompute.dataset.reader import Dataset

__all__ = ["Change", "Difference", "diff_datasets"]


@dataclass(frozen=True)
class Change:
    """One value that differs.

    ``difference`` is the largest absolute difference of a component; None where the two cannot be subtracted
    (texts, statuses, a value that only one side has, arrays of unlike shape).
    """

    id: str
    column: str
    old: Any
    new: Any
    difference: float | None = None


@dataclass(frozen=True)
class Difference:
    """What differs between two datasets."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[Change, ...] = ()
    columns_added: tuple[str, ...] = ()
    columns_removed: tuple[str, ...] = ()
    compared: int = 0
    worst: dict[str, float] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not (self.added or self.removed or self.changed or self.columns_added or self.columns_removed)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return {"equal": self.equal, **asdict(self)}


def diff_datasets(
    old: Dataset,
    new: Dataset,
    *,
    rtol: float = 0.0,
    atol: float = 1e-8,
    ignore: Collection[str] = (),
) -> Difference:
    """Compare entries (matched by id, in any order), structures, values, statuses and selections.

    UUIDs, dates and row numbers of tables are not compared: they differ between two runs of the same campaign.

    Parameters
    ----------
    old, new
        Two open datasets.
    rtol, atol
        A number differs if ``|new - old| > atol + rtol * |old|``; NaN equals NaN.
    ignore
        Properties left out (such as ``cpu_time``).
    """
    width = max(old.raw_ids.dtype.itemsize, new.raw_ids.dtype.itemsize)
    a, b = old.raw_ids.astype(f"S{width}"), new.raw_ids.astype(f"S{width}")
    common, in_old, in_new = np.intersect1d(a, b, assume_unique=True, return_indices=True)
    order = np.argsort(in_old)
    in_old, in_new = in_old[order], in_new[order]
    ids = common[order].astype("U")
    compare = _Comparison(ids, rtol, atol)

    old_properties = {k for k in old.properties if k not in ignore}
    new_properties = {k for k in new.properties if k not in ignore}
    for name in ("formula", "message"):
        compare.plain(name, old.entry_column(name, in_old), new.entry_column(name, in_new))
    compare.plain("quality", old.entry_column("quality", in_old), new.entry_column("quality", in_new))
    before, after = old.batch(in_old), new.batch(in_new)
    compare.plain("n_sites", before.n_sites, after.n_sites)
    compare.numbers("cell", before.cell, after.cell)
    compare.plain("pbc", before.pbc, after.pbc)
    compare.sites("atomic_number", before.numbers, after.numbers, before.ptr, after.ptr)
    compare.sites("position", before.positions, after.positions, before.ptr, after.ptr)
    for name in sorted(old_properties & new_properties):
        status = old.status(name, in_old), new.status(name, in_new)
        compare.plain(f"{name}_status", *status)
        values = old.column(name, in_old), new.column(name, in_new)
        if old.properties[name].per == "site" and new.properties[name].per == "site":
            compare.sites(name, *values, before.ptr, after.ptr)
        else:
            compare.numbers(name, *values)
    old_selections, new_selections = set(old.selections), set(new.selections)
    for name in sorted(old_selections & new_selections):
        compare.plain(
            f"selections/{name}", old.selections[name].mask[in_old], new.selections[name].mask[in_new]
        )
    return Difference(
        added=tuple(np.setdiff1d(b, a).astype("U").tolist()),
        removed=tuple(np.setdiff1d(a, b).astype("U").tolist()),
        changed=tuple(compare.changes),
        columns_added=tuple(
            sorted(
                (new_properties - old_properties)
                | {f"selections/{s}" for s in new_selections - old_selections}
            )
        ),
        columns_removed=tuple(
            sorted(
                (old_properties - new_properties)
                | {f"selections/{s}" for s in old_selections - new_selections}
            )
        ),
        compared=int(ids.shape[0]),
        worst=compare.worst,
    )


class _Comparison:
    def __init__(self, ids: np.ndarray, rtol: float, atol: float) -> None:
        self.ids, self.rtol, self.atol = ids, rtol, atol
        self.changes: list[Change] = []
        self.worst: dict[str, float] = {}

    def plain(self, column: str, old: np.ndarray, new: np.ndarray) -> None:
        """Compare exactly."""
        unlike = old != new
        if unlike.ndim > 1:
            unlike = unlike.reshape(unlike.shape[0], -1).any(axis=1)
        for row in np.flatnonzero(unlike).tolist():
            self._add(row, column, old[row], new[row], None)

    def _excess(self, column: str, old: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which rows differ beyond the tolerance, and by how much (NaN where one side has no value)."""
        a = old.astype("f8").reshape(old.shape[0], int(np.prod(old.shape[1:])))
        b = new.astype("f8").reshape(new.shape[0], int(np.prod(new.shape[1:])))
        with np.errstate(invalid="ignore"):
            delta = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(b - a))
            # A NaN or infinity on one side only is beyond every tolerance.
            over = ~(delta <= self.atol + self.rtol * np.abs(np.where(np.isfinite(a), a, 0.0)))
        size = delta.max(axis=1, initial=0.0)
        finite = size[np.isfinite(size)]
        if finite.size:
            self.worst[column] = max(self.worst.get(column, 0.0), float(finite.max()))
        return np.asarray(over.any(axis=1)), size

    def numbers(self, column: str, old: np.ndarray, new: np.ndarray) -> None:
        """Compare [n, ...] with the tolerance."""
        if old.shape != new.shape:
            for row in range(self.ids.shape[0]):
                self._add(row, column, old[row], new[row], None)
            return
        over, size = self._excess(column, old, new)
        for row in np.flatnonzero(over).tolist():
            self._add(row, column, old[row], new[row], float(size[row]))

    def sites(
        self, column: str, old: np.ndarray, new: np.ndarray, ptr: np.ndarray, new_ptr: np.ndarray
    ) -> None:
        """Compare packed site values; entries whose number of sites changed are reported by ``n_sites``."""
        alike = np.diff(ptr) == np.diff(new_ptr)
        keep_old, keep_new = np.repeat(alike, np.diff(ptr)), np.repeat(alike, np.diff(new_ptr))
        owner = np.repeat(np.arange(self.ids.shape[0]), np.diff(ptr))[keep_old]
        over, size = self._excess(column, old[keep_old], new[keep_new])
        rows = np.unique(owner[over])
        largest = np.zeros(self.ids.shape[0])
        np.maximum.at(largest, owner, size)
        for row in rows.tolist():
            a, b = old[ptr[row] : ptr[row + 1]], new[new_ptr[row] : new_ptr[row + 1]]
            self._add(row, column, a, b, float(largest[row]))

    def _add(self, row: int, column: str, old: Any, new: Any, difference: float | None) -> None:
        number = None if difference is None or not np.isfinite(difference) else difference
        self.changes.append(Change(str(self.ids[row]), column, _plain(old), _plain(new), number))


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
