"""Rows of SOAP: the loops over the sites of a chunk, per site or averaged over a structure."""

from __future__ import annotations

import numpy as np

from matcompute_kernels.compiled import njit
from matcompute_kernels.descriptors.soap_kernel import (
    density_weight,
    expand_site,
    order_neighbors,
    slots_of_site,
)
from matcompute_kernels.descriptors.soap_product import contract

__all__ = ["GROUP", "count_site_blocks", "count_structure_blocks", "site_rows", "structure_rows", "sum_slots"]

#: Sites whose coefficients an outer average holds at a time: the product then sums over all of them in registers.
GROUP = 12


@njit(cache=True, nogil=True)
def _blocks_of(present: np.ndarray, n: int, lookup: np.ndarray, sizes: np.ndarray) -> tuple[int, int]:
    """Blocks and values of a row with the first n channels of ``present``."""
    n_channels, n_blocks, n_values = lookup.shape[0], 0, 0
    for s in range(n):
        for t in range(s, n + 1):
            block = lookup[present[s], n_channels if t == n else present[t]]
            if block >= 0:
                n_blocks += 1
                n_values += sizes[block]
    return n_blocks, n_values


@njit(cache=True, nogil=True)
def count_site_blocks(
    pair_ptr: np.ndarray,
    j: np.ndarray,
    first_site: int,
    channel: np.ndarray,
    lookup: np.ndarray,
    sizes: np.ndarray,
    n_blocks: np.ndarray,
    n_values: np.ndarray,
) -> None:
    """Blocks and values of each site's row (OUTPUT: n_blocks i8[n], n_values i8[n])."""
    n_channels = lookup.shape[0]
    counts, present = np.zeros(n_channels, np.int64), np.zeros(n_channels, np.int64)
    for i in range(pair_ptr.shape[0] - 1):
        n = slots_of_site(channel[first_site + i], j, pair_ptr[i], pair_ptr[i + 1], channel, counts, present)
        for s in range(n):
            counts[present[s]] = 0
        n_blocks[i], n_values[i] = _blocks_of(present, n, lookup, sizes)


@njit(cache=True, nogil=True)
def count_structure_blocks(
    ptr: np.ndarray,
    channel: np.ndarray,
    lookup: np.ndarray,
    sizes: np.ndarray,
    n_blocks: np.ndarray,
    n_values: np.ndarray,
) -> None:
    """Blocks and values of each structure's row (OUTPUT: n_blocks i8[N], n_values i8[N])."""
    n_channels = lookup.shape[0]
    there, present = np.zeros(n_channels, np.bool_), np.zeros(n_channels, np.int64)
    for i in range(ptr.shape[0] - 1):
        there[:] = False
        for k in range(ptr[i], ptr[i + 1]):
            there[channel[k]] = True
        n = 0
        for c in range(n_channels):
            if there[c]:
                present[n] = c
                n += 1
        n_blocks[i], n_values[i] = _blocks_of(present, n, lookup, sizes)


@njit(cache=True, nogil=True)
def _write_row(
    coefficients: np.ndarray,
    n_slots: int,
    present: np.ndarray,
    group: int,
    lookup: np.ndarray,
    triangle: np.ndarray,
    offset: np.ndarray,
    n_max: int,
    l_max: int,
    wide: int,
    l_scale: np.ndarray,
    factor: float,
    cross: float,
    out: np.ndarray,
    base: int,
    blocks: np.ndarray,
    first_block: int,
    add: bool,
) -> None:
    """All blocks of one row. Sparse if ``blocks`` has entries (OUTPUT: out flat from ``base`` on, blocks)."""
    n_channels = lookup.shape[0]
    sparse = blocks.shape[0] > 0
    for s in range(n_slots):
        summed = lookup[present[s], n_channels]
        for t in range(s, n_slots + 1):
            block = summed if t == n_slots else lookup[present[s], present[t]]
            if block < 0:
                continue
            size = offset[block + 1] - offset[block]
            if sparse:
                target = base
                blocks[first_block] = block
                first_block += 1
                base += size
            else:
                target = base + offset[block]
            scale = factor if (s == t or t == n_slots) else factor * cross
            contract(
                coefficients,
                s,
                coefficients,
                t,
                group,
                n_max,
                l_max,
                wide,
                l_scale,
                scale,
                triangle[block],
                out,
                target,
                add,
            )


@njit(cache=True, nogil=True)
def sum_slots(coefficients: np.ndarray, n_slots: int, used: int) -> None:
    """Sum of the slots, into the slot behind them (mu1nu1)."""
    total = coefficients[n_slots]
    total[:used] = 0.0
    for s in range(n_slots):
        for row in range(used):
            for k in range(total.shape[1]):
                total[row, k] += coefficients[s, row, k]


@njit(cache=True, nogil=True)
def site_rows(
    pair_ptr: np.ndarray,
    j: np.ndarray,
    distance: np.ndarray,
    vector: np.ndarray,
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
    coefficients: np.ndarray,
    out: np.ndarray,
    base: np.ndarray,
    block_base: np.ndarray,
    blocks: np.ndarray,
) -> None:
    """Power spectrum of each site of a chunk (OUTPUT: flat ``out`` from base[i] on, and ``blocks`` if sparse)."""
    l_max, wide = pieces.shape[1] - 1, 8 * pieces.shape[2]
    n_channels = lookup.shape[0]
    summing = lookup[0, n_channels] >= 0
    counts, present = np.zeros(n_channels, np.int64), np.zeros(n_channels, np.int64)
    place, ends = np.zeros(n_channels, np.int64), np.zeros(n_channels, np.int64)
    at_centre = density_weight(0.0, kind, parameters) if centre_weight < 0.0 else centre_weight
    for i in range(pair_ptr.shape[0] - 1):
        first, last, site = pair_ptr[i], pair_ptr[i + 1], first_site + i
        n_slots = slots_of_site(channel[site], j, first, last, channel, counts, present)
        begin = 0
        for s in range(n_slots):
            c = present[s]
            place[c] = begin
            begin += counts[c]
            ends[s] = begin
            counts[c] = 0
            coefficients[s] = 0.0
            if c == channel[site]:
                for k in range(wide):
                    coefficients[s, 0, k] = at_centre * site_weight[site] * centre[k]
        order_neighbors(
            first, last, j, distance, vector, channel, site_weight, kind, parameters, place, xyzw, r
        )
        expand_site(
            last - first, xyzw, r, ends, pieces, scale, recurrence, harmonics, radial, coefficients, 1, 0
        )
        if summing:
            sum_slots(coefficients, n_slots, (l_max + 1) ** 2)
        _write_row(
            coefficients,
            n_slots,
            present,
            1,
            lookup,
            triangle,
            offset,
            n_max,
            l_max,
            wide,
            l_scale,
            1.0,
            cross,
            out,
            base[i],
            blocks,
            block_base[i],
            False,
        )


@njit(cache=True, nogil=True)
def structure_rows(
    pair_ptr: np.ndarray,
    j: np.ndarray,
    distance: np.ndarray,
    vector: np.ndarray,
    first_site: int,
    ptr: np.ndarray,
    inner: bool,
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
    coefficients: np.ndarray,
    out: np.ndarray,
    base: np.ndarray,
    block_base: np.ndarray,
    blocks: np.ndarray,
) -> None:
    """Averages over structures of the sites of a chunk.

    Inner: the coefficients of a structure are summed over chunks in ``coefficients`` (kept by the caller) and
    multiplied at its last site. Outer: products of GROUP sites at a time are added to the row.
    OUTPUT: flat f8 ``out`` (zero before) from base[structure] on, and ``blocks`` if sparse.
    """
    l_max, wide = pieces.shape[1] - 1, 8 * pieces.shape[2]
    n_channels, n_lm = lookup.shape[0], (l_max + 1) ** 2
    summing = lookup[0, n_channels] >= 0
    group = 1 if inner else GROUP
    counts, slot_of = np.zeros(n_channels, np.int64), np.zeros(n_channels, np.int64)
    present, place = np.zeros(n_channels, np.int64), np.zeros(n_channels, np.int64)
    ends = np.zeros(n_channels, np.int64)
    at_centre = density_weight(0.0, kind, parameters) if centre_weight < 0.0 else centre_weight
    last_site = first_site + pair_ptr.shape[0] - 1
    structure = np.searchsorted(ptr, first_site, side="right") - 1
    site = first_site
    while site < last_site:
        begin_site, end_site = ptr[structure], ptr[structure + 1]
        counts[:] = 0
        for k in range(begin_site, end_site):
            counts[channel[k]] = 1
        n_slots = 0
        for c in range(n_channels):
            if counts[c] == 1:
                present[n_slots] = c
                slot_of[c] = n_slots
                n_slots += 1
        if not inner or site == begin_site:
            for s in range(n_slots):
                coefficients[s] = 0.0
        factor = 1.0 / (end_site - begin_site)
        member = 0
        while site < min(end_site, last_site):
            i = site - first_site
            first, last = pair_ptr[i], pair_ptr[i + 1]
            for s in range(n_slots):
                counts[present[s]] = 0
            for p in range(first, last):
                counts[channel[j[p]]] += 1
            begin = 0
            for s in range(n_slots):
                place[present[s]] = begin
                begin += counts[present[s]]
                ends[s] = begin
            own = slot_of[channel[site]]
            for k in range(wide):
                coefficients[own, member, k] += at_centre * site_weight[site] * centre[k]
            order_neighbors(
                first, last, j, distance, vector, channel, site_weight, kind, parameters, place, xyzw, r
            )
            expand_site(
                last - first,
                xyzw,
                r,
                ends,
                pieces,
                scale,
                recurrence,
                harmonics,
                radial,
                coefficients,
                group,
                member,
            )
            site += 1
            member = 0 if inner else member + 1
            if member == group or site == end_site or (not inner and site == last_site):
                if summing:
                    sum_slots(coefficients, n_slots, group * n_lm)
                _write_row(
                    coefficients,
                    n_slots,
                    present,
                    group,
                    lookup,
                    triangle,
                    offset,
                    n_max,
                    l_max,
                    wide,
                    l_scale,
                    factor * factor if inner else factor,
                    cross,
                    out,
                    base[structure],
                    blocks,
                    block_base[structure],
                    True,
                )
                member = 0
                if not inner:
                    for s in range(n_slots):
                        coefficients[s] = 0.0
        structure += 1
