"""What first-principles codes share: meshes of k-points, and the magnetic moments from which a calculation starts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["ELEMENT_MOMENTS", "mesh_of", "starting_moments"]

#: Moments in μ_B with which a calculation starts where nothing is known: high spin, lowered a little for metals.
ELEMENT_MOMENTS: dict[str, float] = {
    **{"V": 2.0, "Cr": 3.0, "Mn": 4.0, "Fe": 3.0, "Co": 2.0, "Ni": 1.0},
    **{"Ce": 1.0, "Pr": 2.0, "Nd": 3.0, "Pm": 4.0, "Sm": 5.0, "Eu": 6.5, "Gd": 7.0},
    **{"Tb": 6.0, "Dy": 5.0, "Ho": 4.0, "Er": 3.0, "Tm": 2.0, "Yb": 1.0, "U": 2.0, "Np": 3.0, "Pu": 4.0},
}
#: A structure whose moments are all smaller is not magnetic, in μ_B.
_NOTHING = 0.1


def mesh_of(
    cell: np.ndarray, spacing: float, pbc: Sequence[bool] = (True, True, True)
) -> tuple[int, int, int]:
    """Return the mesh of k-points whose neighbours are at most ``spacing`` apart.

    Parameters
    ----------
    cell
        Row vectors in Å, f8[3, 3].
    spacing
        In 1/Å, 2π contained: the reciprocal vectors are those of a_i·b_j = 2π δ_ij.
    pbc
        Along a direction that is not periodic there is one point.
    """
    lengths = 2 * np.pi * np.linalg.norm(np.linalg.inv(np.asarray(cell, dtype=float)).T, axis=1)
    # As aiida-core's set_kpoints_mesh_from_density: a length that is a whole number of spacings but for rounding is no
    # more than that.
    counts = np.maximum(1, np.ceil(np.round(lengths / spacing, 5))).astype(int)
    a, b, c = (int(n) if periodic else 1 for n, periodic in zip(counts, pbc, strict=True))
    return a, b, c


def starting_moments(symbols: Sequence[str], known: np.ndarray | None = None) -> np.ndarray | None:
    """Return the moment of each site in μ_B; None for a structure that is not magnetic.

    Parameters
    ----------
    symbols
        Of the sites.
    known
        Moments that an earlier stage found (CHGNet gives their sizes), f8[n]; NaN where it found none.
    """
    if known is not None and np.isfinite(known).all():
        moments = np.asarray(known, dtype=float)
        return moments if np.abs(moments).max(initial=0.0) >= _NOTHING else None
    by_element = np.array([ELEMENT_MOMENTS.get(symbol, 0.0) for symbol in symbols])
    return by_element if by_element.any() else None
