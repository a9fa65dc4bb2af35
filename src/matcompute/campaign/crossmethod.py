"""The same quantity by several methods: how far CHGNet and first principles, or two codes, are apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute.dataset import Dataset, Status

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Comparison", "compare_methods", "comparison_table"]

#: What is compared → columns that hold it, the best first.
_QUANTITIES: dict[str, tuple[str, ...]] = {
    "volume": ("equilibrium_volume", "volume_per_atom"),
    "bulk modulus": ("bulk_modulus",),
    "formation energy": ("formation_energy",),
}
#: Compared by order alone: energies of two codes have no common zero.
_ENERGY = "energy_per_atom"


@dataclass(frozen=True)
class Comparison:
    """One quantity by two methods.

    Attributes
    ----------
    quantity
        ``volume``, ``bulk modulus``, ``formation energy`` or ``energy order``.
    method, against
        Names of the methods; deviations are those of the first from the second.
    n
        Entries that both have; of ``energy order``, pairs of structures of one composition.
    mean, spread, largest
        Mean, mean absolute and largest absolute deviation: in % of volumes and moduli, in eV/atom of formation
        energies; None for ``energy order``.
    entry
        The entry with the largest deviation.
    order
        Share of pairs that both methods put in the same order, 0 to 1; None for fewer than two entries.
    unit
        Of the deviations.
    """

    quantity: str
    method: str
    against: str
    n: int
    mean: float | None
    spread: float | None
    largest: float | None
    entry: str
    order: float | None
    unit: str

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return dict(vars(self))


def compare_methods(data: Dataset) -> list[Comparison]:
    """Compare what a finished dataset holds of each quantity by each method, earlier methods against later ones."""
    ids = [str(name) for name in data.ids]
    found = []
    for quantity, names in _QUANTITIES.items():
        sources = _sources(data, names)
        for (method, a), (against, b) in combinations(sources.items(), 2):
            both = np.flatnonzero(np.isfinite(a) & np.isfinite(b))
            if both.size:
                found.append(_compare(quantity, method, against, a[both], b[both], [ids[k] for k in both]))
    formulas = np.asarray(data.entry_column("formula")).astype(str)
    reduced = np.array([_reduced(formula) for formula in formulas])
    for (method, a), (against, b) in combinations(_sources(data, (_ENERGY,)).items(), 2):
        pairs, agree = _ordered(a, b, reduced)
        if pairs:
            found.append(
                Comparison("energy order", method, against, pairs, None, None, None, "", agree / pairs, "1")
            )
    return found


def _sources(data: Dataset, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return method → values (NaN where there are none), in the order of the stages; the best column of each."""
    found: dict[str, tuple[int, int, np.ndarray]] = {}
    for rank, name in enumerate(names):
        columns = [column for column in data.properties if column == name or column.endswith(f"__{name}")]
        for column in columns:
            if data.properties[column].shape != ():
                continue
            status = np.asarray(data.status(column))
            values = np.where(status == int(Status.OK), np.asarray(data.column(column), dtype=float), np.nan)
            place, method = _method_of(data, column, status)
            if method and np.isfinite(values).any() and (method not in found or found[method][0] > rank):
                found[method] = (rank, place, values)
    ordered = sorted(found.items(), key=lambda item: item[1][1])
    return {method: values for method, (_, _, values) in ordered}


def _method_of(data: Dataset, column: str, status: np.ndarray) -> tuple[int, str]:
    """Return the row of ``/methods`` by which a column was computed, and the method's name."""
    rows = np.flatnonzero(status == int(Status.OK))
    if not rows.size:
        return -1, ""
    process = int(data.process(column, rows[:1])[0])
    if process < 0:
        return -1, ""
    place = data.provenance[process].method_index
    return (place, data.methods[place].name) if place >= 0 else (-1, "")


def _compare(
    quantity: str, method: str, against: str, a: np.ndarray, b: np.ndarray, ids: list[str]
) -> Comparison:
    energies = quantity == "formation energy"
    deviation = a - b if energies else 100.0 * (a / b - 1.0)
    worst = int(np.argmax(np.abs(deviation)))
    pairs, agree = _ordered(a, b, np.zeros(len(a)))
    return Comparison(
        quantity,
        method,
        against,
        len(a),
        float(deviation.mean()),
        float(np.abs(deviation).mean()),
        float(np.abs(deviation[worst])),
        ids[worst],
        agree / pairs if pairs else None,
        "eV/atom" if energies else "%",
    )


def _ordered(a: np.ndarray, b: np.ndarray, groups: np.ndarray) -> tuple[int, int]:
    """Return the number of pairs within groups, and of those that both put in the same order."""
    pairs = agree = 0
    for rows in _within(a, b, groups):
        # Counted by sorting would be O(n log n); a report has thousands of entries at most.
        first, second = np.triu_indices(len(rows), 1)
        x, y = a[rows][second] - a[rows][first], b[rows][second] - b[rows][first]
        pairs += x.size
        agree += int(np.count_nonzero(np.sign(x) == np.sign(y)))
    return pairs, agree


def _within(a: np.ndarray, b: np.ndarray, groups: np.ndarray) -> Iterator[np.ndarray]:
    both = np.isfinite(a) & np.isfinite(b)
    for group in np.unique(groups[both]):
        rows = np.flatnonzero(both & (groups == group))
        if 1 < len(rows) <= _MOST:
            yield rows


#: Entries of a group whose pairs are counted: 2,000 make two million pairs.
_MOST = 2000


def _reduced(formula: str) -> str:
    from ase.formula import Formula

    return str(Formula(formula).reduce()[0])


def comparison_table(found: list[Comparison]) -> Table:
    """Return the comparisons as a rich table."""
    from rich import box
    from rich.table import Table

    table = Table(
        title="Methods compared",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    for name, justify in (
        ("quantity", "left"),
        ("method", "left"),
        ("against", "left"),
        ("n", "right"),
        ("mean", "right"),
        ("mean |Δ|", "right"),
        ("largest", "right"),
        ("same order", "right"),
    ):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for item in found:
        digits = ".3f" if item.unit == "eV/atom" else ".1f"
        numbers = [
            "–" if value is None else f"{value:{sign}{digits}} {item.unit}"
            for value, sign in ((item.mean, "+"), (item.spread, ""), (item.largest, ""))
        ]
        numbers[2] += f" ({item.entry.split('-')[0]})" if item.entry else ""
        order = "–" if item.order is None else f"{100 * item.order:.0f} %"
        table.add_row(item.quantity, item.method, item.against, str(item.n), *numbers, order)
    return table
