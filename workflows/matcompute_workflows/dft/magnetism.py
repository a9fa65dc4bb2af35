"""Sites of one element with different starting magnetic moments become kinds of AiiDA structures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["kinds_of"]

#: Moments that differ by less are one kind, in μ_B.
_SAME = 0.5


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
