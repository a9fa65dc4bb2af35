"""Pictures of a campaign's dataset: hulls of its binary systems, property against property, densities of states."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute.dataset import Dataset, Status
from matcompute.units import format_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

_PAIRS = (
    ("equilibrium_volume", "bulk_modulus"),
    ("volume_per_atom", "bulk_modulus"),
    ("volume_per_atom", "formation_energy"),
    ("volume_per_atom", "energy_per_atom"),
)
_MAX_PANELS = 6
_STABLE = 1e-6  # eV/atom: on the hull, but for rounding


def draw(data: Dataset, out: Path, highlight: np.ndarray) -> list[Path]:
    """Draw what the dataset has to show.

    Parameters
    ----------
    data
        An open dataset.
    out
        Folder of the PNG files.
    highlight
        Rows that are marked by their formula.

    Returns
    -------
    list of Path
        The files, most telling first.
    """
    # Matplotlib's cache of fonts would go into the user's home.
    os.environ.setdefault(
        "MPLCONFIGDIR", str(Path(tempfile.gettempdir()) / f"matcompute-matplotlib-{os.getuid()}")
    )
    # The object interface: pyplot would look for a display and keep figures alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = {
        name: _masked(data, name)
        for name, info in data.properties.items()
        if info.per == "entry" and info.shape == ()
    }
    formulas = np.asarray(data.entry_column("formula"))
    pictures: list[Path] = []

    def save(figure: Figure, name: str) -> None:
        FigureCanvasAgg(figure)
        path = out / name
        figure.savefig(path, dpi=150)
        pictures.append(path)

    if "formation_energy" in columns and "e_above_hull" in columns:
        systems = _binary_systems(data, np.isfinite(columns["formation_energy"]))
        if systems:
            # Where there are too many, those whose compounds bind most.
            energy = columns["formation_energy"]
            shown = sorted(systems.items(), key=lambda s: (float(energy[s[1][0]].min()), s[0]))[:_MAX_PANELS]
            wide = min(3, len(shown))
            tall = -(-len(shown) // wide)
            figure = Figure(figsize=(4.2 * wide, 3.4 * tall), layout="constrained")
            for k, (system, (rows, fraction)) in enumerate(sorted(shown)):
                axes = figure.add_subplot(tall, wide, k + 1)
                _hull_panel(axes, system, rows, fraction, columns, formulas)
            some = f" ({len(shown)} of {len(systems)} binary systems)" if len(shown) < len(systems) else ""
            figure.suptitle(f"Formation energy and convex hull{some}")
        else:
            figure = Figure(figsize=(6, 4), layout="constrained")
            axes = figure.add_subplot()
            finite = columns["e_above_hull"][np.isfinite(columns["e_above_hull"])]
            axes.hist(finite, bins=min(60, max(5, int(np.sqrt(len(finite))))), color="tab:blue")
            axes.set(xlabel="energy above hull (eV/atom)", ylabel="entries", title="Distance from the hull")
        save(figure, "hull.png")

    for x, y in _PAIRS:
        if x in columns and y in columns and np.any(np.isfinite(columns[x]) & np.isfinite(columns[y])):
            figure = Figure(figsize=(6.4, 4.6), layout="constrained")
            _pair_panel(figure.add_subplot(), figure, x, y, data, columns, formulas, highlight)
            save(figure, "properties.png")
            break

    # `dos_energy` comes with it.
    shown = np.asarray(data.status("dos", highlight)) == int(Status.OK) if "dos" in data.properties else []
    curves = [int(row) for row, has in zip(highlight, shown, strict=False) if has][:_MAX_PANELS]
    if curves:
        figure = Figure(figsize=(6.4, 1.0 + 1.5 * len(curves)), layout="constrained")
        above: Axes | None = None
        for k, row in enumerate(curves):
            above = figure.add_subplot(len(curves), 1, k + 1, sharex=above)
            _dos_panel(above, data, row, columns, str(formulas[row]), last=k + 1 == len(curves))
        some = f" ({len(curves)} of {len(highlight)} entries)" if len(curves) < len(highlight) else ""
        figure.suptitle(f"Density of states{some}")
        figure.supylabel("states (1/eV/atom)", fontsize=10)
        save(figure, "dos.png")
    return pictures


def _masked(data: Dataset, name: str) -> np.ndarray:
    values = np.asarray(data.column(name), dtype=float).copy()
    values[np.asarray(data.status(name)) != int(Status.OK)] = np.nan
    return values


def _binary_systems(
    data: Dataset, usable: np.ndarray
) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """Return, per pair of elements, rows of its entries (the elements too) and the fraction of the second."""
    from ase.data import chemical_symbols

    counts = np.zeros((len(data), 119), dtype=np.int32)
    first = 0
    for batch in data.iter_batches():
        np.add.at(
            counts,
            (first + np.repeat(np.arange(len(batch)), np.diff(batch.ptr)), np.asarray(batch.numbers)),
            1,
        )
        first += len(batch)
    kinds = np.count_nonzero(counts, axis=1)
    pairs = {tuple(np.flatnonzero(row)) for row in counts[usable & (kinds == 2)]}
    systems = {}
    for a, b in pairs:
        both = counts[:, a] + counts[:, b]
        rows = np.flatnonzero(usable & (both == counts.sum(axis=1)))
        systems[chemical_symbols[a], chemical_symbols[b]] = (rows, counts[rows, b] / both[rows])
    return systems


def _hull_panel(
    axes: Axes,
    system: tuple[str, str],
    rows: np.ndarray,
    fraction: np.ndarray,
    columns: dict[str, np.ndarray],
    formulas: np.ndarray,
) -> None:
    energy, above = columns["formation_energy"][rows], columns["e_above_hull"][rows]
    on_hull = above < _STABLE
    axes.axhline(0, color="0.8", linewidth=0.8)
    axes.scatter(fraction[~on_hull], energy[~on_hull], s=18, color="tab:orange", label="above the hull")
    order = np.argsort(fraction[on_hull], kind="stable")
    x, y = fraction[on_hull][order], energy[on_hull][order]
    axes.plot(x, y, "o-", color="tab:blue", markersize=5, linewidth=1.2, label="on the hull")
    for xi, yi, formula in zip(x, y, formulas[rows][on_hull][order], strict=True):
        if 0 < xi < 1:
            axes.annotate(
                _subscripts(str(formula)), (xi, yi), xytext=(3, -11), textcoords="offset points", fontsize=8
            )
    axes.set_xlabel(f"fraction of {system[1]}", fontsize=9)
    axes.set_ylabel("formation energy (eV/atom)", fontsize=9)
    axes.set_title("–".join(system), fontsize=10)
    axes.margins(y=0.15)
    axes.tick_params(labelsize=8)


def _pair_panel(
    axes: Axes,
    figure: Any,
    x: str,
    y: str,
    data: Dataset,
    columns: dict[str, np.ndarray],
    formulas: np.ndarray,
    highlight: np.ndarray,
) -> None:
    colour = columns.get("formation_energy")
    both = np.isfinite(columns[x]) & np.isfinite(columns[y])
    style: dict[str, Any] = {"s": 30, "edgecolor": "white", "linewidth": 0.4}
    if colour is not None and np.any(np.isfinite(colour[both])):
        points = axes.scatter(columns[x][both], columns[y][both], c=colour[both], cmap="viridis_r", **style)
        figure.colorbar(points, ax=axes, label="formation energy (eV/atom)")
    else:
        axes.scatter(columns[x][both], columns[y][both], **style)
    # What the gates chose stands out among what was computed.
    chosen = highlight[both[highlight]]
    axes.scatter(
        columns[x][chosen], columns[y][chosen], s=80, facecolor="none", edgecolor="0.2", linewidth=0.9
    )
    for row in highlight[:15]:
        if both[row]:
            axes.annotate(
                _subscripts(str(formulas[row])),
                (columns[x][row], columns[y][row]),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=8,
            )
    for name, setter in ((x, axes.set_xlabel), (y, axes.set_ylabel)):
        info = data.properties[name]
        unit = format_unit(info.units)
        setter(info.long_name + (f" ({unit})" if unit else ""))


def _dos_panel(
    axes: Axes, data: Dataset, row: int, columns: dict[str, np.ndarray], formula: str, *, last: bool
) -> None:
    energy = np.asarray(data.column("dos_energy", slice(row, row + 1)), dtype=float)[0]
    # By atom, so that cells of different sizes share an axis.
    states = np.asarray(data.column("dos", slice(row, row + 1)), dtype=float)[0] / len(data.atoms(row))
    axes.fill_between(energy, states, color="tab:blue", alpha=0.25, linewidth=0)
    axes.plot(energy, states, color="tab:blue", linewidth=1.0)
    axes.axvline(0, color="0.3", linewidth=0.8, linestyle=":")
    gap = columns["band_gap"][row] if "band_gap" in columns else np.nan
    said = "" if not np.isfinite(gap) else f"gap {gap:.2f} eV" if gap > 0 else "metal"
    axes.set_title(f"{_subscripts(formula)}  {said}".rstrip(), fontsize=9, loc="left")
    axes.set_xlim(energy[0], energy[-1])
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=8, labelbottom=last)
    if last:
        axes.set_xlabel("energy − Fermi energy (eV)", fontsize=10)


def _subscripts(formula: str) -> str:
    return formula.translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
