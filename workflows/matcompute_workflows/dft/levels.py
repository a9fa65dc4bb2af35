"""Gap and Fermi level from eigenvalues, by counting electrons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["TOUCHING", "Edges", "LevelsError", "band_edges"]

#: Edges of bands that are closer are taken to touch, in eV: eigenvalues are no better than that.
TOUCHING = 1e-3


class LevelsError(ValueError):
    """The eigenvalues do not tell whether there is a gap."""


@dataclass(frozen=True)
class Edges:
    """The edges of the gap over all k-points and both spins.

    Attributes
    ----------
    gap
        In eV; 0 for a metal.
    direct
        Whether both edges are at one k-point; None without a gap.
    middle
        Energy half way between the edges in eV; None without a gap.
    """

    gap: float
    direct: bool | None
    middle: float | None


def band_edges(
    eigenvalues: Sequence[np.ndarray], electrons: float, fermi: float, *, per_band: int = 2
) -> Edges:
    """Return the gap that remains between occupied and empty levels at zero temperature.

    Smearing leaves fractions of electrons on both sides of a narrow gap, so occupations do not tell whether there is
    one. Counts do: the ``electrons`` of an insulator fill whole bands, n of spin up and m of spin down, and
    everything below them lies below everything above them at every k-point. There is at most one such pair (n, m).

    Parameters
    ----------
    eigenvalues
        Sets of k-points (path, mesh) on one zero of energy, each f8[spins, k-points, bands] in eV, sorted by band.
    electrons
        In the cell.
    fermi
        Fermi level of the program in eV; only used to see whether there are enough bands.
    per_band
        Electrons in a band of the only spin there is: 1 for spinors. Each of two spins has 1.

    Raises
    ------
    LevelsError
        If the highest band that was computed is not empty everywhere.
    """
    sets = [np.asarray(item, dtype=float) for item in eigenvalues]
    spins, bands = sets[0].shape[0], min(item.shape[2] for item in sets)
    levels = np.concatenate([item[:, :, :bands] for item in sets], axis=1)
    if levels[:, :, -1].min() <= fermi:
        raise LevelsError(
            f"too few bands: the highest of {bands} lies below the Fermi level somewhere; the gap is not known"
        )
    metal = Edges(0.0, None, None)
    count = round(electrons)
    if abs(electrons - count) > 1e-3 or (spins == 1 and count % per_band):
        return metal
    fillings = [(count // per_band,)] if spins == 1 else [(n, count - n) for n in range(count + 1)]
    for filling in fillings:
        if max(filling) >= bands:
            continue  # the highest band is empty: that many cannot be filled
        # f8[k-points]: highest occupied and lowest empty level of both spins.
        occupied = [levels[s, :, n - 1] for s, n in enumerate(filling) if n > 0]
        empty = [levels[s, :, n] for s, n in enumerate(filling)]
        if not occupied:
            return metal
        below, above = np.max(occupied, axis=0), np.min(empty, axis=0)
        gap = float(above.min() - below.max())
        if gap > TOUCHING:
            direct = float((above - below).min()) - gap <= TOUCHING
            return Edges(gap, direct, float(above.min() + below.max()) / 2)
    return metal
