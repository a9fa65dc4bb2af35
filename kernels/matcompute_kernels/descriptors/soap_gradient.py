"""Kernel of the derivatives of SOAP: of each site's row by its neighbours' positions, by strain and by the cell."""

from __future__ import annotations

import numpy as np

from matcompute_kernels.compiled import njit
from matcompute_kernels.descriptors.soap_kernel import (
    density_slope,
    density_weight,
    expand_site,
    order_neighbors,
    slots_of_site,
)
from matcompute_kernels.descriptors.soap_product import contract
from matcompute_kernels.descriptors.soap_rows import sum_slots

__all__ = ["derivative_rows", "harmonics_gradient", "neighbor_sites"]


@njit(cache=True, nogil=True)
def harmonics_gradient(
    l_max: int, x: float, y: float, z: float, table: np.ndarray, value: np.ndarray, slope: np.ndarray
) -> None:
    """Y_lm(u) of a unit vector and r·∇Y_lm(r·u), tangential (OUTPUT: value f8[k], slope f8[3, k], k = (l_max + 1)²).

    Y_lm = Q_lm(z)·C_m(x, y) is differentiated as a polynomial of three free variables; the part along u is taken off.
    """
    cosine, sine, cosine_before, sine_before = 1.0, 0.0, 0.0, 0.0
    for m in range(l_max + 1):
        if m > 0:
            cosine_before, sine_before = cosine, sine
            cosine, sine = x * cosine - y * sine, x * sine + y * cosine
        q_before, q, dq_before, dq = 0.0, table[2, m, m], 0.0, 0.0
        for l in range(m, l_max + 1):
            if l > m:
                a, b = table[0, l, m], table[1, l, m]
                q_before, q, dq_before, dq = q, a * z * q - b * q_before, dq, a * (q + z * dq) - b * dq_before
            for sign in range(2 if m > 0 else 1):
                k = l * l + l + (m if sign == 0 else -m)
                angular = cosine if sign == 0 else sine
                by_x = m * (cosine_before if sign == 0 else sine_before)
                by_y = m * (-sine_before if sign == 0 else cosine_before)
                gx, gy, gz = q * by_x, q * by_y, dq * angular
                along = gx * x + gy * y + gz * z
                value[k] = q * angular
                slope[0, k], slope[1, k], slope[2, k] = gx - along * x, gy - along * y, gz - along * z


@njit(cache=True, nogil=True)
def neighbor_sites(
    pair_ptr: np.ndarray,
    j: np.ndarray,
    first_site: int,
    seen: np.ndarray,
    ptr: np.ndarray,
    site: np.ndarray,
    write: bool,
) -> None:
    """The site itself and then its neighbours, each once. OUTPUT: ptr i8[n + 1]; site i4[ptr[-1]] if ``write``.

    ``seen`` i8[sites of the batch] is work space, -1 everywhere before a call.
    """
    n = 0
    for i in range(pair_ptr.shape[0] - 1):
        if write:
            site[n] = first_site + i
        seen[first_site + i] = i
        n += 1
        for p in range(pair_ptr[i], pair_ptr[i + 1]):
            if seen[j[p]] != i:
                seen[j[p]] = i
                if write:
                    site[n] = j[p]
                n += 1
        ptr[i + 1] = n


@njit(cache=True, nogil=True)
def _pair_gradient(
    d: float,
    vector: np.ndarray,
    weight: float,
    slope: float,
    pieces: np.ndarray,
    scale: float,
    table: np.ndarray,
    y: np.ndarray,
    dy: np.ndarray,
    out: np.ndarray,
) -> None:
    """∂(w R_nl Y_lm)/∂vector of one pair; OUTPUT: out f8[3, (l_max + 1)², 8·blocks]."""
    l_max, blocks = pieces.shape[1] - 1, pieces.shape[2]
    ux, uy, uz = vector[0] / d, vector[1] / d, vector[2] / d
    harmonics_gradient(l_max, ux, uy, uz, table, y, dy)
    at = d * scale
    interval = min(int(at), pieces.shape[0] - 1)
    t = 2.0 * (at - interval) - 1.0
    for l in range(l_max + 1):
        for block in range(blocks):
            for lane in range(8):
                radial, radial_slope = 0.0, 0.0
                for q in range(pieces.shape[3]):
                    radial_slope = radial_slope * t + radial
                    radial = radial * t + pieces[interval, l, block, q, lane]
                along = weight * radial_slope * 2.0 * scale + slope * radial
                across = weight * radial / d
                n = 8 * block + lane
                for k in range(l * l, (l + 1) ** 2):
                    out[0, k, n] = along * y[k] * ux + across * dy[0, k]
                    out[1, k, n] = along * y[k] * uy + across * dy[1, k]
                    out[2, k, n] = along * y[k] * uz + across * dy[2, k]


@njit(cache=True, nogil=True)
def _row(
    c: np.ndarray,
    dc: np.ndarray,
    touched: np.ndarray,
    n_slots: int,
    present: np.ndarray,
    lookup: np.ndarray,
    triangle: np.ndarray,
    offset: np.ndarray,
    n_max: int,
    l_max: int,
    l_scale: np.ndarray,
    cross: float,
    out: np.ndarray,
    base: int,
) -> None:
    """Add dc·c + c·dc, block by block (OUTPUT: flat out from ``base`` on)."""
    wide, n_channels = c.shape[2], lookup.shape[0]
    for s in range(n_slots):
        for t in range(s, n_slots + 1):
            block = lookup[present[s], n_channels if t == n_slots else present[t]]
            if block < 0:
                continue
            factor = 1.0 if (s == t or t == n_slots) else cross
            target = base + offset[block]
            if touched[s]:
                contract(
                    dc, s, c, t, 1, n_max, l_max, wide, l_scale, factor, triangle[block], out, target, True
                )
            if t == n_slots or touched[t]:
                contract(
                    c, s, dc, t, 1, n_max, l_max, wide, l_scale, factor, triangle[block], out, target, True
                )


@njit(cache=True, nogil=True)
def derivative_rows(
    pair_ptr: np.ndarray,
    j: np.ndarray,
    distance: np.ndarray,
    vector: np.ndarray,
    shift: np.ndarray,
    first_site: int,
    channel: np.ndarray,
    site_weight: np.ndarray,
    kind: int,
    parameters: np.ndarray,
    centre_weight: float,
    pieces: np.ndarray,
    scale: float,
    centre: np.ndarray,
    recurrence: np.ndarray,
    l_scale: np.ndarray,
    cross: float,
    n_max: int,
    lookup: np.ndarray,
    triangle: np.ndarray,
    offset: np.ndarray,
    xyzw: np.ndarray,
    r: np.ndarray,
    harmonics: np.ndarray,
    radial: np.ndarray,
    c: np.ndarray,
    dc: np.ndarray,
    tensors: np.ndarray,
    row_ptr: np.ndarray,
    row_site: np.ndarray,
    by_position: np.ndarray,
    by_strain: np.ndarray,
    by_cell: np.ndarray,
) -> None:
    """Derivatives of the rows of a chunk of sites.

    OUTPUT (flat f8, zero before; one of no length is left out): by_position [rows, 3, F] for the rows
    (site, row_site[k]), by_strain and by_cell [sites, 3, 3, F]. dc f8[3, slots, (l_max + 1)², 8·blocks] and tensors
    f8[9, slots, …] are work space.
    """
    l_max, wide = pieces.shape[1] - 1, c.shape[2]
    n_lm, n_features, n_channels = (l_max + 1) ** 2, offset[-1], lookup.shape[0]
    summing = lookup[0, n_channels] >= 0
    counts, present = np.zeros(n_channels, np.int64), np.zeros(n_channels, np.int64)
    place, ends, slot_of = (
        np.zeros(n_channels, np.int64),
        np.zeros(n_channels, np.int64),
        np.zeros(n_channels, np.int64),
    )
    touched, every = np.zeros(n_channels, np.bool_), np.ones(n_channels, np.bool_)
    y, dy, pair = np.zeros(n_lm), np.zeros((3, n_lm)), np.zeros((3, n_lm, wide))
    at_centre = density_weight(0.0, kind, parameters) if centre_weight < 0.0 else centre_weight
    for i in range(pair_ptr.shape[0] - 1):
        first, last, site = pair_ptr[i], pair_ptr[i + 1], first_site + i
        n_slots = slots_of_site(channel[site], j, first, last, channel, counts, present)
        begin = 0
        for s in range(n_slots):
            place[present[s]] = begin
            begin += counts[present[s]]
            ends[s] = begin
            counts[present[s]] = 0
            slot_of[present[s]] = s
            touched[s] = False
            c[s] = 0.0
        for k in range(wide):
            c[slot_of[channel[site]], 0, k] = at_centre * site_weight[site] * centre[k]
        order_neighbors(
            first, last, j, distance, vector, channel, site_weight, kind, parameters, place, xyzw, r
        )
        expand_site(last - first, xyzw, r, ends, pieces, scale, recurrence, harmonics, radial, c, 1, 0)
        if summing:
            sum_slots(c, n_slots, n_lm)
        # Positions: the neighbours one after the other, all images of each.
        own = 3 * n_features * row_ptr[i]
        if by_position.shape[0] > 0:
            for row in range(row_ptr[i] + 1, row_ptr[i + 1]):
                a = row_site[row]
                s = slot_of[channel[a]]
                dc[:, s] = 0.0
                for p in range(first, last):
                    if j[p] != a:
                        continue
                    d = distance[p]
                    weight = site_weight[a] * density_weight(d, kind, parameters)
                    slope = site_weight[a] * density_slope(d, kind, parameters)
                    _pair_gradient(d, vector[p], weight, slope, pieces, scale, recurrence, y, dy, pair)
                    for b in range(3):
                        for k in range(n_lm):
                            for n in range(wide):
                                dc[b, s, k, n] += pair[b, k, n]
                touched[s] = True
                for b in range(3):
                    if summing:
                        dc[b, n_slots] = dc[b, s]
                    target = (3 * row + b) * n_features
                    _row(
                        c,
                        dc[b],
                        touched,
                        n_slots,
                        present,
                        lookup,
                        triangle,
                        offset,
                        n_max,
                        l_max,
                        l_scale,
                        cross,
                        by_position,
                        target,
                    )
                touched[s] = False
                for k in range(3 * n_features):
                    by_position[own + k] -= by_position[3 * row * n_features + k]
        for which in range(2):
            out = by_strain if which == 0 else by_cell
            if out.shape[0] == 0:
                continue
            tensors[:, : n_slots + 1] = 0.0
            for p in range(first, last):
                a = j[p]
                s = slot_of[channel[a]]
                d = distance[p]
                weight = site_weight[a] * density_weight(d, kind, parameters)
                slope = site_weight[a] * density_slope(d, kind, parameters)
                _pair_gradient(d, vector[p], weight, slope, pieces, scale, recurrence, y, dy, pair)
                for g in range(3):
                    left = vector[p, g] if which == 0 else float(shift[p, g])
                    if left == 0.0:
                        continue
                    for b in range(3):
                        for k in range(n_lm):
                            for n in range(wide):
                                tensors[3 * g + b, s, k, n] += left * pair[b, k, n]
            for b in range(9):
                if summing:
                    sum_slots(tensors[b], n_slots, n_lm)
                target = (9 * i + b) * n_features
                _row(
                    c,
                    tensors[b],
                    every,
                    n_slots,
                    present,
                    lookup,
                    triangle,
                    offset,
                    n_max,
                    l_max,
                    l_scale,
                    cross,
                    out,
                    target,
                )
