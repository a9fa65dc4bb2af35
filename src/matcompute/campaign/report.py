"""The result of a campaign for a person: the best entries as a table, the funnel, and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute.campaign.crossmethod import Comparison, compare_methods
from matcompute.dataset import Dataset, Quality, Selection, Status
from matcompute.dataset.descriptors import descriptor_status
from matcompute.errors import InputError, did_you_mean
from matcompute.units import format_unit

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Report", "build_report", "report_place"]

#: Columns that the table prefers, in this order; those that a dataset lacks are left out.
_PREFERRED = (
    "e_above_hull",
    "formation_energy",
    "band_gap",
    "bulk_modulus",
    "total_magnetization",
    "bulk_modulus_derivative",
    "equilibrium_volume",
    "volume_per_atom",
    "energy_per_atom",
)
_SHORT = {
    "e_above_hull": "E hull",
    "formation_energy": "ΔE form",
    "band_gap": "gap",
    "total_magnetization": "moment",
    "bulk_modulus": "B₀",
    "bulk_modulus_derivative": "B₀′",
    "equilibrium_volume": "V₀",
    "volume_per_atom": "V",
    "energy_per_atom": "E",
}
_DIGITS = {"eV/atom": 3, "GPa": 1, "angstrom^3/atom": 2, "1": 2}


@dataclass
class Report:
    """What there is to show.

    Attributes
    ----------
    dataset
        The HDF5 file.
    columns
        ``(name, unit)`` of the table's numbers.
    rows
        Per entry: id, formula, its name in the source and the numbers (None where there is none).
    funnel
        ``(gate, its expression, entries that passed)`` in order.
    failures
        Cause → number of entries.
    pictures
        PNG files that were drawn.
    methods
        What several methods say of the same quantities.
    """

    dataset: Path
    title: str
    columns: list[tuple[str, str]]
    rows: list[tuple[str, str, str, list[float | None]]]
    funnel: list[tuple[str, str, int]]
    failures: dict[str, int]
    selection: str = ""
    pictures: list[Path] = field(default_factory=list)
    methods: list[Comparison] = field(default_factory=list)

    def table(self) -> Table:
        """Return the entries as a rich table."""
        from rich import box
        from rich.table import Table

        table = Table(
            title=self.title,
            caption=self.selection or None,
            title_justify="left",
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            collapse_padding=True,
            pad_edge=False,
        )
        # An entry's id starts with its formula.
        table.add_column("entry", no_wrap=True)
        if any(label for _, _, label, _ in self.rows):
            table.add_column("structure", no_wrap=True, overflow="ellipsis", max_width=16)
        for name, unit in self.columns:
            shown = format_unit(unit)
            table.add_column(
                _SHORT.get(name, name) + (f"\n{shown}" if shown else "\n"), justify="right", no_wrap=True
            )
        for entry, _, label, numbers in self.rows:
            cells = [
                "–" if value is None else f"{value:.{_DIGITS.get(unit, 3)}f}"
                for value, (_, unit) in zip(numbers, self.columns, strict=True)
            ]
            table.add_row(entry, *([label] if len(table.columns) > len(cells) + 1 else []), *cells)
        return table

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {
            "dataset": str(self.dataset),
            "title": self.title,
            "selection": self.selection,
            "columns": [{"name": name, "unit": unit} for name, unit in self.columns],
            "entries": [
                {
                    "id": entry,
                    "formula": formula,
                    "label": label,
                    **dict(zip([n for n, _ in self.columns], numbers, strict=True)),
                }
                for entry, formula, label, numbers in self.rows
            ],
            "funnel": [{"gate": g, "expression": e, "passed": n} for g, e, n in self.funnel],
            "failures": self.failures,
            "pictures": [str(picture) for picture in self.pictures],
            "methods": [comparison.as_dict() for comparison in self.methods],
        }


def build_report(dataset: Path, out: Path | None = None, *, limit: int = 20) -> Report:
    """Read a campaign's dataset and draw its pictures.

    Parameters
    ----------
    dataset
        The final dataset.
    out
        Folder for the pictures; none are drawn without it.
    limit
        Most rows in the table.
    """
    with Dataset(dataset) as data:
        columns = [
            (name, data.properties[name].units)
            for name in _PREFERRED
            if name in data.properties and _scalar(data, name)
        ]
        # Once the equation of state has given a volume, the relaxed one says the same twice.
        if ("equilibrium_volume", "angstrom^3/atom") in columns:
            columns = [column for column in columns if column[0] != "volume_per_atom"]
        columns = columns[:5]
        values = {name: _values(data, name) for name, _ in columns}
        chosen, why = _chosen(data)
        order = _order(chosen, values, data)[:limit]
        formulas = np.asarray(data.entry_column("formula"))
        labels = np.asarray(data.entry_column("label"))
        ids = np.asarray(data.ids)
        report = Report(
            dataset=Path(dataset),
            title=data.metadata.title or Path(dataset).stem,
            columns=columns,
            rows=[
                (str(ids[i]), str(formulas[i]), str(labels[i]), [_number(values[n][i]) for n, _ in columns])
                for i in order
            ],
            funnel=[
                (name, s.expression, int(np.count_nonzero(s.mask))) for name, s in data.selections.items()
            ],
            failures=_failures(data),
            selection=why,
            methods=compare_methods(data),
        )
        if out is not None:
            from matcompute.campaign.pictures import draw

            out.mkdir(parents=True, exist_ok=True)
            report.pictures = draw(data, out, highlight=np.asarray(order))
    return report


def report_place(name: str) -> tuple[Path, Path]:
    """Return the dataset of a campaign (or of a path) and the folder for its pictures.

    Raises
    ------
    InputError
        If there is no such dataset; names that exist are given.
    """
    if name.endswith((".h5", ".hdf5")):
        path = Path(name)
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        return path, path.parent / f"{path.stem}-report"
    from matcompute._env import prepare_environment
    from matcompute.workspace import Workspace

    workspace = Workspace.find()
    prepare_environment(workspace.root, aiida=False)  # Matplotlib's caches
    path = workspace.datasets_dir / f"{name}.h5"
    if not path.is_file():
        known = [file.stem for file in workspace.datasets_dir.glob("*.h5")]
        raise InputError(
            f"no dataset of a campaign '{name}'{did_you_mean(name, known)}",
            hint=f"matcompute campaign status {name}",
        )
    return path, workspace.root / "reports" / name


def _scalar(data: Dataset, name: str) -> bool:
    info = data.properties[name]
    return info.per == "entry" and info.shape == () and bool(np.any(data.status(name) == int(Status.OK)))


def _values(data: Dataset, name: str) -> np.ndarray:
    values = np.asarray(data.column(name), dtype=float).copy()
    values[np.asarray(data.status(name)) != int(Status.OK)] = np.nan
    return values


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _chosen(data: Dataset) -> tuple[np.ndarray, str]:
    """Rows to show: what the last gate let pass, else all that did not fail."""
    quality = np.asarray(data.entry_column("quality"))
    if data.selections:
        name, selection = list(data.selections.items())[-1]
        rows = np.flatnonzero(np.asarray(selection.mask, dtype=bool))
        return rows, f"{len(rows)} of {len(data)} entries passed {name}: {selection.expression}"
    rows = np.flatnonzero((quality & int(Quality.FAILED)) == 0)
    return rows, f"{len(rows)} of {len(data)} entries"


def _order(rows: np.ndarray, values: dict[str, np.ndarray], data: Dataset) -> Sequence[int]:
    """Sort by the order in which the last gate chose, or its column if it names one, else by energy above hull."""
    key, sign = "e_above_hull", 1.0
    if data.selections:
        selection = list(data.selections.values())[-1]
        ranks = _ranks(data, selection)
        if ranks is not None:
            return [int(row) for row in rows[np.argsort(ranks[rows], kind="stable")]]
        named = [name for name in selection.inputs if name in values]
        if named:
            key = named[0]
            sign = -1.0 if "descending" in selection.expression else 1.0
    if key not in values:
        return [int(row) for row in rows]
    return [int(row) for row in rows[np.argsort(sign * values[key][rows], kind="stable")]]


def _ranks(data: Dataset, selection: Selection) -> np.ndarray | None:
    """Return the place at which a gate chose each entry, if it chose them in an order."""
    if "selection_rank" not in data.properties:
        return None
    ranks = np.asarray(data.column("selection_rank"))
    # The plain name is the last such gate's: it is this one if exactly what it let pass has a rank.
    return ranks if np.array_equal(ranks > 0, np.asarray(selection.mask, dtype=bool)) else None


def _failures(data: Dataset) -> dict[str, int]:
    fine = {int(Status.OK), int(Status.NOT_ATTEMPTED), int(Status.NOT_SELECTED)}
    worst = np.zeros(len(data), dtype=np.uint8)
    statuses = [np.asarray(data.status(n)) for n, info in data.properties.items() if info.per == "entry"]
    for status in [*statuses, *(descriptor_status(data, name) for name in data.descriptors)]:
        worst = np.where(np.isin(status, list(fine)), worst, status)
    codes, counts = np.unique(worst[worst != 0], return_counts=True)
    return {Status(int(code)).label: int(count) for code, count in zip(codes, counts, strict=True)}
