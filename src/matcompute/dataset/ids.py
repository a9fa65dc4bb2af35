"""Unique entry ids while a file grows, without a Python object per id."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from matcompute.dataset.errors import DatasetError

__all__ = ["IdIndex"]


class IdIndex:
    """Sorted runs of ids; a run is merged with the one before it when it has grown as large (amortised n log² n)."""

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []

    def add(self, ids: np.ndarray, path: Path) -> None:
        """Add a block of ids (S array).

        Raises
        ------
        DatasetError
            If an id is empty or is there already; it is named.
        """
        if ids.shape[0] == 0:
            return
        run = np.sort(ids)
        if run[0] == b"":
            raise DatasetError(f"{path}: an entry id is empty")
        self._refuse(run[1:][run[1:] == run[:-1]], path)
        for known in self._runs:
            at = np.searchsorted(known, run)
            at[at == known.shape[0]] = 0
            self._refuse(run[known[at] == run], path)
        self._runs.append(run)
        while len(self._runs) > 1 and self._runs[-1].shape[0] >= self._runs[-2].shape[0]:
            last, before = self._runs.pop(), self._runs.pop()
            self._runs.append(np.sort(np.concatenate([before, last]), kind="stable"))

    @staticmethod
    def _refuse(found: np.ndarray, path: Path) -> None:
        if found.shape[0]:
            shown = ", ".join(i.decode() for i in found[:3]) + (" …" if found.shape[0] > 3 else "")
            raise DatasetError(
                f"{path}: {found.shape[0]} entry id(s) occur twice: {shown}",
                hint="drop duplicates by structure hash first, or give ids of your own",
            )
