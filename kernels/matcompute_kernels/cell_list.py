"""Cell lists for packed structures: the kernels behind :mod:`matcompute_kernels.neighbors`.

Atoms and their images around the box (:mod:`matcompute_kernels.cell_images`) are sorted into rows of bins along the
first axis, so that the candidates of an atom are a few contiguous runs, which the distance loop reads with vector
instructions. Few images stay in one bin: that is the brute-force case.
"""

from __future__ import annotations

import numpy as np

from matcompute_kernels.cell_images import make_images, turn_cell, wrap_sites
from matcompute_kernels.compiled import njit
from matcompute_kernels.simd import PADDING, append_near

__all__ = ["fill_pairs"]

#: Fewer images than this are not binned.
BRUTE_FORCE = 320
#: Images that a row of bins should hold along the length of a cutoff, at least.
ROW_FILL = 8.0


@njit(cache=True, nogil=True)
def choose_bins(
    n_images: int, low: np.ndarray, high: np.ndarray, r_cut: float, bins: np.ndarray, size: np.ndarray
) -> None:
    """Choose bins so that rows are neither empty nor long.

    OUTPUT: bins i8[3] (numbers of bins), size f8[3] (Å). The grid spans the extent of the sites and r_cut around.
    """
    volume = 1.0
    for c in range(3):
        bins[c] = 1
        size[c] = high[c] - low[c] + 2.0 * r_cut
        volume *= size[c]
    if n_images < BRUTE_FORCE:
        return
    width = np.sqrt(ROW_FILL * volume / (1.5 * n_images * r_cut))
    width = min(max(width, 0.25 * r_cut), r_cut)
    total = 4.0 * n_images + 1024.0
    for _ in range(64):
        product = 1.0
        for c in range(3):
            wanted = size[c] / (width * (0.5 if c == 0 else 1.0))
            bins[c] = max(1, int(min(wanted, 1e6)))
            product *= bins[c]
        if product <= total:
            break
        width *= 1.26
    for c in range(3):
        size[c] /= bins[c]


@njit(cache=True, nogil=True)
def sort_images(
    xyz: np.ndarray,
    origin: np.ndarray,
    n: int,
    corner: np.ndarray,
    bins: np.ndarray,
    size: np.ndarray,
    place: np.ndarray,
    start: np.ndarray,
    xyz_out: np.ndarray,
    origin_out: np.ndarray,
) -> None:
    """Counting sort of the images by bin, the first axis fastest.

    OUTPUT: start i8[bins + 1], and the sorted ``xyz_out``, ``origin_out``; ``place`` i8[n] is work space.
    """
    total = bins[0] * bins[1] * bins[2]
    start[: total + 1] = 0
    per0, per1, per2 = 1.0 / size[0], 1.0 / size[1], 1.0 / size[2]
    for k in range(n):
        b0 = min(max(int((xyz[0, k] - corner[0]) * per0), 0), bins[0] - 1)
        b1 = min(max(int((xyz[1, k] - corner[1]) * per1), 0), bins[1] - 1)
        b2 = min(max(int((xyz[2, k] - corner[2]) * per2), 0), bins[2] - 1)
        b = (b2 * bins[1] + b1) * bins[0] + b0
        place[k] = b
        start[b + 1] += 1
    for b in range(total):
        start[b + 1] += start[b]
    for k in range(n):
        b = place[k]
        to = start[b]
        start[b] = to + 1
        for c in range(3):
            xyz_out[c, to] = xyz[c, k]
        for c in range(4):
            origin_out[to, c] = origin[k, c]
    for b in range(total, 0, -1):
        start[b] = start[b - 1]
    start[0] = 0


@njit(cache=True, nogil=True)
def search(
    x: float,
    y: float,
    z: float,
    r_cut: float,
    xyz: np.ndarray,
    corner: np.ndarray,
    bins: np.ndarray,
    size: np.ndarray,
    start: np.ndarray,
    hits: np.ndarray,
) -> int:
    """Find the images within r_cut of a point (OUTPUT: hits i4); return how many there are."""
    limit, reach = r_cut * r_cut, r_cut + 1e-9
    per0, per1, per2 = 1.0 / size[0], 1.0 / size[1], 1.0 / size[2]
    x, y, z = x - corner[0], y - corner[1], z - corner[2]
    y_low, y_high = max(int((y - reach) * per1), 0), min(int((y + reach) * per1), bins[1] - 1)
    z_low, z_high = max(int((z - reach) * per2), 0), min(int((z + reach) * per2), bins[2] - 1)
    found = 0
    for bz in range(z_low, z_high + 1):
        edge = bz * size[2]
        dz = max(0.0, max(edge - z, z - edge - size[2]) - 1e-9)
        for by in range(y_low, y_high + 1):
            edge = by * size[1]
            dy = max(0.0, max(edge - y, y - edge - size[1]) - 1e-9)
            rest = limit - dz * dz - dy * dy
            if rest < 0.0:
                continue
            side = np.sqrt(rest) + 1e-9
            x_low, x_high = max(int((x - side) * per0), 0), min(int((x + side) * per0), bins[0] - 1)
            row = (bz * bins[1] + by) * bins[0]
            found = append_near(
                x + corner[0],
                y + corner[1],
                z + corner[2],
                xyz,
                start[row + x_low],
                start[row + x_high + 1],
                limit,
                hits,
                found,
            )
    return found


@njit(cache=True, nogil=True)
def fill_pairs(
    positions: np.ndarray,
    cell: np.ndarray,
    pbc: np.ndarray,
    ptr: np.ndarray,
    r_cut: float,
    full: bool,
    first: int,
    last: int,
    n_pairs: int,
    pair_ptr: np.ndarray,
    j_out: np.ndarray,
    shift_out: np.ndarray,
    distance_out: np.ndarray,
    vector_out: np.ndarray,
) -> tuple[int, int]:
    """Write the pairs of the sites ``first:last``, from place ``n_pairs`` of the output on.

    OUTPUT: pair_ptr i8[sites + 1] (the entries after ``first``), j i4[P], shift i4[P, 3], distance f8[P],
    vector f8[P, 3] with vector = r_j - r_i + shift · cell.

    Returns
    -------
    site, n_pairs
        The site that did not fit any more (``last`` if all did) and the pairs written: the caller makes more room and
        calls again.
    """
    axes, bins = np.zeros(3, np.int64), np.zeros(3, np.int64)
    frame, tri = np.zeros((3, 3)), np.zeros((3, 3))
    low, high, corner, size = np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3)
    room_sites = room = room_bins = 0
    wrapped, wraps = np.empty((3, 0)), np.empty((3, 0), np.int64)
    xyz_a, xyz_b = np.empty((3, 0)), np.empty((3, 0))
    origin_a, origin_b = np.empty((0, 4), np.int32), np.empty((0, 4), np.int32)
    hits, place, start = np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int64)
    structure = np.searchsorted(ptr, first, side="right") - 1
    site = first
    while site < last:
        begin, end = ptr[structure], ptr[structure + 1]
        n_sites = end - begin
        n_periodic = turn_cell(cell[structure], pbc[structure], axes, frame, tri)
        if n_sites > room_sites:
            room_sites = n_sites + n_sites // 4
            wrapped, wraps = np.empty((3, room_sites)), np.empty((3, room_sites), np.int64)
        box, box_wraps = wrapped[:, :n_sites], wraps[:, :n_sites]
        wrap_sites(
            positions[begin:end],
            frame,
            tri,
            n_periodic,
            box,
            box_wraps,
            site - begin,
            last - begin,
            low,
            high,
        )
        n = make_images(box, box_wraps, tri, n_periodic, low, high, r_cut, False, xyz_a, origin_a)
        if n + PADDING > room:
            room = n + n // 4 + PADDING
            xyz_a, xyz_b = np.empty((3, room)), np.empty((3, room))
            origin_a, origin_b = np.empty((room, 4), np.int32), np.empty((room, 4), np.int32)
            hits, place = np.empty(room + PADDING, np.int32), np.empty(room, np.int64)
        make_images(box, box_wraps, tri, n_periodic, low, high, r_cut, True, xyz_a, origin_a)
        choose_bins(n, low, high, r_cut, bins, size)
        total = bins[0] * bins[1] * bins[2]
        xyz, origin = xyz_a, origin_a
        if total > 1:
            for c in range(3):
                corner[c] = low[c] - r_cut
            if total + 1 > room_bins:
                room_bins = total + 1
                start = np.empty(room_bins, np.int64)
            sort_images(xyz_a, origin_a, n, corner, bins, size, place, start, xyz_b, origin_b)
            xyz, origin = xyz_b, origin_b
        while site < min(end, last):
            i = site - begin
            x, y, z = box[0, i], box[1, i], box[2, i]
            if total == 1:
                found = append_near(x, y, z, xyz, 0, n, r_cut * r_cut, hits, 0)
            else:
                found = search(x, y, z, r_cut, xyz, corner, bins, size, start, hits)
            if n_pairs + found > j_out.shape[0]:
                return site, n_pairs
            n_pairs = _write(
                begin,
                i,
                hits[:found],
                x,
                y,
                z,
                box_wraps[:, i],
                xyz,
                origin,
                axes,
                frame,
                full,
                np.uint64(n_pairs),
                j_out,
                shift_out,
                distance_out,
                vector_out,
            )
            site += 1
            pair_ptr[site] = n_pairs
        structure += 1
        if site < last:
            site = ptr[structure]
    return last, n_pairs


@njit(cache=True, nogil=True)
def _write(
    begin: int,
    i: int,
    hits: np.ndarray,
    x: float,
    y: float,
    z: float,
    wraps: np.ndarray,
    xyz: np.ndarray,
    origin: np.ndarray,
    axes: np.ndarray,
    frame: np.ndarray,
    full: bool,
    n: np.uint64,
    j_out: np.ndarray,
    shift_out: np.ndarray,
    distance_out: np.ndarray,
    vector_out: np.ndarray,
) -> int:
    """Write the pairs of site ``i`` from place ``n`` on; return the next place (unsigned: no negative indices)."""
    w0, w1, w2 = np.int32(wraps[0]), np.int32(wraps[1]), np.int32(wraps[2])
    a0, a1, a2 = np.uint64(axes[0]), np.uint64(axes[1]), np.uint64(axes[2])
    f00, f01, f02 = frame[0, 0], frame[0, 1], frame[0, 2]
    f10, f11, f12 = frame[1, 0], frame[1, 1], frame[1, 2]
    f20, f21, f22 = frame[2, 0], frame[2, 1], frame[2, 2]
    gx, gy, gz = xyz[0], xyz[1], xyz[2]
    for h in range(hits.shape[0]):
        k = np.uint64(hits[h])
        j = origin[k, 0]
        s0, s1, s2 = origin[k, 1] + w0, origin[k, 2] + w1, origin[k, 3] + w2
        if j == i and s0 == 0 and s1 == 0 and s2 == 0:
            continue
        if not full and (j < i or (j == i and _negative(s0, s1, s2))):
            continue
        dx, dy, dz = gx[k] - x, gy[k] - y, gz[k] - z
        j_out[n] = begin + j
        shift_out[n, a0] = s0
        shift_out[n, a1] = s1
        shift_out[n, a2] = s2
        distance_out[n] = np.sqrt(dx * dx + dy * dy + dz * dz)
        vector_out[n, 0] = dx * f00 + dy * f10 + dz * f20
        vector_out[n, 1] = dx * f01 + dy * f11 + dz * f21
        vector_out[n, 2] = dx * f02 + dy * f12 + dz * f22
        n += np.uint64(1)
    return np.int64(n)  # type: ignore[return-value]


@njit(cache=True, nogil=True)
def _negative(s0: int, s1: int, s2: int) -> bool:
    """Whether the first shift that is not zero is negative: of each pair of an atom with its image, one is kept."""
    if s0 != 0:
        return s0 < 0
    if s1 != 0:
        return s1 < 0
    return s2 < 0
