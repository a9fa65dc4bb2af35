"""The element tables that come with the kernels (see ``data/LICENSES.md`` for their sources)."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from matcompute_kernels.elements import MAX_Z, SYMBOLS

__all__ = ["atomic_masses", "atomic_radii", "electron_shells", "element_table", "xray_coefficients"]

_DATA = Path(__file__).parent / "data"


@cache
def _rows(name: str) -> tuple[list[str], dict[str, list[str]]]:
    lines = [
        line for line in (_DATA / name).read_text(encoding="utf-8").splitlines() if not line.startswith("#")
    ]
    cells = [line.split(",") for line in lines]
    return cells[0][1:], {row[0]: row[1:] for row in cells[1:]}


@cache
def element_table(name: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the column names and f8[119, C] of a table (row Z; NaN where nothing is known, also in row 0)."""
    columns, rows = _rows(name)
    table = np.full((MAX_Z + 1, len(columns)), np.nan)
    for symbol, cells in rows.items():
        table[SYMBOLS.index(symbol)] = [float(cell) if cell else np.nan for cell in cells]
    table.flags.writeable = False
    return tuple(columns), table


def xray_coefficients() -> np.ndarray:
    """Return a₁, b₁ … a₄, b₄ (Å^2) of the X-ray form factor of each element, f8[119, 8]."""
    return element_table("xray_scattering.csv")[1]


@cache
def atomic_masses() -> np.ndarray:
    """Return standard atomic masses in u, f8[119]."""
    return _column("AtomicMass")


@cache
def atomic_radii() -> np.ndarray:
    """Return Slater's empirical atomic radii in Å, f8[119]."""
    return _column("AtomicRadius")


@cache
def electron_shells() -> tuple[tuple[tuple[int, str, int], ...], ...]:
    """Return, for each Z, the occupied shells (n, letter, electrons) in the order in which they fill."""
    columns, rows = _rows("elements.csv")
    at = columns.index("Shells")
    shells: list[tuple[tuple[int, str, int], ...]] = [()] * (MAX_Z + 1)
    for symbol, cells in rows.items():
        shells[SYMBOLS.index(symbol)] = tuple((int(s[0]), s[1], int(s[2:])) for s in cells[at].split())
    return tuple(shells)


def _column(name: str) -> np.ndarray:
    columns, rows = _rows("elements.csv")
    at = columns.index(name)
    values = np.full(MAX_Z + 1, np.nan)
    for symbol, cells in rows.items():
        if cells[at]:
            values[SYMBOLS.index(symbol)] = float(cells[at])
    values.flags.writeable = False
    return values
