"""What `validate` reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

__all__ = ["Report", "Violation"]


@dataclass(frozen=True)
class Violation:
    """One breach of the format.

    Parameters
    ----------
    path
        HDF5 path of the dataset, group or attribute.
    row
        First row concerned; None if it is not about a row.
    rule
        Short name of the rule (the reference page lists them).
    message
        What is wrong.
    """

    path: str
    row: int | None
    rule: str
    message: str

    def __str__(self) -> str:
        where = self.path if self.row is None else f"{self.path}[{self.row}]"
        return f"{where}: {self.message} ({self.rule})"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return asdict(self)


class Report:
    """Collects violations; past ``limit`` rows per dataset and rule only a count is kept."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.found: list[Violation] = []
        self._counts: dict[tuple[str, str], int] = {}

    def add(self, path: str, rule: str, message: str, row: int | None = None) -> None:
        """Add one violation."""
        key = (path, rule)
        self._counts[key] = self._counts.get(key, 0) + 1
        if self._counts[key] <= self.limit:
            self.found.append(Violation(path, row, rule, message))

    def rows(self, path: str, rule: str, bad: np.ndarray, message: str, offset: int = 0) -> None:
        """Add a violation for each True of a mask whose first element is row ``offset``."""
        rows = np.flatnonzero(bad)
        room = max(self.limit - self._counts.get((path, rule), 0), 0)
        for row in rows[:room].tolist():
            self.found.append(Violation(path, row + offset, rule, message))
        self._counts[path, rule] = self._counts.get((path, rule), 0) + rows.shape[0]

    def finish(self) -> list[Violation]:
        """Return all violations, with a line for those that were only counted."""
        for (path, rule), count in self._counts.items():
            if count > self.limit:
                self.found.append(Violation(path, None, rule, f"and {count - self.limit} more"))
        return self.found
