"""Starting magnetic moments: from an earlier stage, else by element; sites with different moments become kinds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["ELEMENT_MOMENTS", "kinds_of", "starting_moments"]

#: Moments in μ_B with which a calculation starts where nothing is known: high spin, lowered a little for metals.
ELEMENT_MOMENTS: dict[str, float] = {
    **{"V": 2.0, "Cr": 3.0, "Mn": 4.0, "Fe": 3.0, "Co": 2.0, "Ni": 1.0},
    **{"Ce": 1.0, "Pr": 2.0, "Nd": 3.0, "Pm": 4.0, "Sm": 5.0, "Eu": 6.5, "Gd": 7.0},
    **{"Tb": 6.0, "Dy": 5.0, "Ho": 4.0, "Er": 3.0, "Tm": 2.0, "Yb": 1.0, "U": 2.0, "Np": 3.0, "Pu": 4.0},
}
#: Moments that differ by less are one kind, in μ_B.
_SAME = 0.5
#: A structure whose moments are all smaller is not magnetic, in μ_B.
_NOTHING = 0.1


def starting_moments(symbols: Sequence[str], known: np.ndarray | None = None) -> np.ndarray | None:
    """Return the moment of each site in μ_B; None for a structure that is not magnetic.

    Parameters
    ----------
    symbols
        Of the sites.
    known
        Moments that an earlier stage found (CHGNet gives their sizes), f8[n]; NaN where it found none.
    """
    by_element = np.array([ELEMENT_MOMENTS.get(symbol, 0.0) for symbol in symbols])
    if known is None or not np.isfinite(known).all():
        return by_element if by_element.any() else None
    return np.asarray(known, dtype=float) if np.abs(known).max(initial=0.0) >= _NOTHING else None


def kinds_of(symbols: Sequence[str], moments: np.ndarray | None) -> tuple[list[str], dict[str, float]]:
    """Return the kind of each site and the moment of each kind.

    Sites of one element whose moments differ by half a μ_B or more are kinds of their own: ``Fe``, ``Fe1`` …

    Returns
    -------
    names
        Of the kinds, one a site.
    moments
        Kind → mean moment in μ_B; empty without moments.
    """
    if moments is None:
        return list(symbols), {}
    groups: dict[str, list[tuple[float, list[int]]]] = {}
    for site in np.argsort(-np.asarray(moments), kind="stable").tolist():
        mine = groups.setdefault(symbols[site], [])
        if mine and abs(mine[-1][0] - moments[site]) < _SAME:
            mine[-1][1].append(site)
        else:
            mine.append((float(moments[site]), [site]))
    names = [""] * len(symbols)
    found = {}
    for symbol, parts in groups.items():
        for number, (_, sites) in enumerate(parts):
            name = symbol if number == 0 else f"{symbol}{number}"
            found[name] = float(np.mean(np.asarray(moments)[sites]))
            for site in sites:
                names[site] = name
    return names, found
