"""Numbers behind the pictures: histograms, pairs and hull diagrams of the columns of a release."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "BINS",
    "HullDiagram",
    "TernaryDiagram",
    "amounts",
    "histogram",
    "hull_diagram",
    "lower_hull",
    "spread",
    "ternary_diagram",
]

#: Most bars of a histogram.
BINS = 40

_SYMBOL = re.compile(r"([A-Z][a-z]?)(\d*)")


def histogram(values: np.ndarray, bins: int = BINS) -> dict[str, Any]:
    """Return counts between round edges, and the quartiles.

    Parameters
    ----------
    values
        Any numbers; those that are not finite are left out.
    bins
        At most about this many bars; fewer for few values.

    Returns
    -------
    dict
        ``count``, ``edges`` (n + 1), ``counts`` (n), ``min``, ``q1``, ``median``, ``q3``, ``max``, ``mean``.
    """
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return {"count": 0, "edges": [], "counts": []}
    low, high = float(values.min()), float(values.max())
    wanted = int(np.clip(2 * values.size ** (1 / 3), 10, bins))  # Rice's rule, within bounds
    step = _round_step((high - low) / wanted) if high > low else max(abs(low), 1.0) * 0.1
    first, last = np.floor(low / step), np.floor(high / step) + 1
    edges = np.arange(first, last + 0.5) * step
    counts, _ = np.histogram(values, edges)
    q1, median, q3 = np.percentile(values, [25, 50, 75])
    return {
        "count": int(values.size),
        "edges": [float(f"{e:.12g}") for e in edges],
        "counts": counts.tolist(),
        "min": low,
        "q1": float(q1),
        "median": float(median),
        "q3": float(q3),
        "max": high,
        "mean": float(values.mean()),
    }


def _round_step(step: float) -> float:
    """Return the nearest of 1, 2, 2.5, 5, 10 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(step))
    return float(min((1, 2, 2.5, 5, 10), key=lambda m: abs(np.log(m * power / step))) * power)


def spread(n: int, most: int) -> np.ndarray:
    """Return at most ``most`` of n places, evenly spread: the same ones each time."""
    if n <= most:
        return np.arange(n)
    return np.linspace(0, n - 1, most).round().astype(np.int64)


def amounts(formula: str) -> dict[str, int]:
    """Return how many atoms of each element a formula has: ``{"Al": 1, "Ni": 3}`` for ``AlNi3``."""
    found: dict[str, int] = {}
    for symbol, count in _SYMBOL.findall(formula):
        found[symbol] = found.get(symbol, 0) + int(count or 1)
    return found


def lower_hull(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the places of the points on the lower convex hull, by growing x (Andrew's monotone chain).

    Of points with one x only the lowest can be on it.
    """
    order = np.lexsort((y, x))
    chain: list[int] = []
    for k in order.tolist():
        if chain and x[k] == x[chain[-1]]:
            continue
        while len(chain) > 1:
            a, b = chain[-2], chain[-1]
            if (x[b] - x[a]) * (y[k] - y[a]) - (y[b] - y[a]) * (x[k] - x[a]) > 0:
                break
            chain.pop()
        chain.append(k)
    return np.array(chain, dtype=np.int64)


@dataclass(frozen=True)
class HullDiagram:
    """Formation energies of a binary system over the fraction of its second element."""

    system: tuple[str, str]
    x: np.ndarray
    y: np.ndarray
    #: Places of the points that make the line.
    hull: np.ndarray
    #: For each point, where it stood in what `hull_diagram` was given.
    rows: np.ndarray


def hull_diagram(system: tuple[str, str], formulas: list[str], energies: np.ndarray) -> HullDiagram:
    """Return the hull diagram of a binary system.

    Parameters
    ----------
    system
        The two elements.
    formulas
        Formula of each entry; those with other elements are left out.
    energies
        Formation energy per atom of each; those that are not finite are left out.
    """
    at, fractions, ys = _of_system(system, formulas, energies)
    xs = fractions[:, 1]
    below = np.flatnonzero(ys <= 1e-9)
    hull = below[lower_hull(xs[below], ys[below])] if below.size else below
    return HullDiagram(system, xs, ys, hull, at)


@dataclass(frozen=True)
class TernaryDiagram:
    """Formation energies of a ternary system over its triangle of compositions."""

    system: tuple[str, str, str]
    #: Place in the triangle: its corners, the pure elements in order, are (0, 0), (1, 0) and (1/2, √3/2).
    x: np.ndarray
    y: np.ndarray
    energy: np.ndarray
    #: Energy above the hull, per atom.
    above: np.ndarray
    #: Ends of the lines between phases that exist together: x, y of the one and of the other.
    lines: np.ndarray
    #: For each point, where it stood in what `ternary_diagram` was given.
    rows: np.ndarray


def ternary_diagram(
    system: tuple[str, str, str], formulas: list[str], energies: np.ndarray
) -> TernaryDiagram:
    """Return the hull diagram of a ternary system, its binaries and elements included.

    Parameters
    ----------
    system
        The three elements.
    formulas
        Formula of each entry; those with other elements are left out.
    energies
        Formation energy per atom of each; those that are not finite are left out.

    Notes
    -----
    An element's energy of formation is zero, so the hull has all three corners, whether or not the elements are there.
    """
    at, fractions, energy = _of_system(system, formulas, energies)
    x, y = fractions[:, 1] + fractions[:, 2] / 2, fractions[:, 2] * np.sqrt(0.75)
    corners = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5, np.sqrt(0.75), 0.0]])
    points = np.concatenate([corners, np.column_stack([x, y, energy])[energy < -1e-9]])
    planes, ends = np.zeros((1, 3)), np.array([[0, 1], [1, 2], [0, 2]])
    if len(points) > 3:
        from scipy.spatial import ConvexHull

        hull = ConvexHull(points)
        down = hull.equations[:, 2] < -1e-9  # the others are the lid and the sides
        normal = hull.equations[down]
        planes = -normal[:, [0, 1, 3]] / normal[:, 2:3]  # height = p0 x + p1 y + p2
        corner = np.sort(hull.simplices[down], axis=1)
        ends = np.unique(np.concatenate([corner[:, [0, 1]], corner[:, [1, 2]], corner[:, [0, 2]]]), axis=0)
    height = np.full(x.size, -np.inf)
    for a, b, c in planes:  # the lower hull is the upper edge of its planes
        np.maximum(height, a * x + b * y + c, out=height)
    lines = np.concatenate([points[ends[:, 0], :2], points[ends[:, 1], :2]], axis=1)
    above = np.maximum(energy - height, 0.0)
    return TernaryDiagram(system, x, y, energy, above, lines, at)


def _of_system(
    system: tuple[str, ...], formulas: list[str], energies: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, atomic fractions (in the order of the elements) and energies of what belongs to a system."""
    rows, fractions = [], []
    for row, (formula, energy) in enumerate(zip(formulas, energies)):
        parts = amounts(formula)
        if parts and parts.keys() <= set(system) and np.isfinite(energy):
            rows.append(row)
            fractions.append([parts.get(symbol, 0) / sum(parts.values()) for symbol in system])
    at = np.array(rows, dtype=np.int64)
    return at, np.array(fractions).reshape(-1, len(system)), np.asarray(energies, dtype=float)[at]
