"""Atoms of a structure wrapped into a box that spans the lattice, and their images around it.

Every structure is turned so that its periodic vectors form a lower triangular matrix. The box spanned by the
diagonal of that matrix is then a fundamental domain of the lattice, however skewed the cell: atoms are wrapped into
it one coordinate after the other, and their images within r_cut of it are found by exact index ranges.
"""

from __future__ import annotations

import numpy as np

from matcompute_kernels.compiled import njit

__all__ = ["make_images", "turn_cell", "wrap_sites"]


@njit(cache=True, nogil=True)
def turn_cell(cell: np.ndarray, pbc: np.ndarray, axes: np.ndarray, frame: np.ndarray, tri: np.ndarray) -> int:
    """Orthonormal frame in which the periodic vectors are lower triangular; return how many there are.

    OUTPUT: axes i8[3] (periodic axes first), frame f8[3, 3] (rows), tri f8[3, 3] (row k: vector axes[k]).
    """
    n = 0
    for k in range(3):
        if pbc[k]:
            axes[n] = k
            n += 1
    rest = n
    for k in range(3):
        if not pbc[k]:
            axes[rest] = k
            rest += 1
    frame[:] = 0.0
    tri[:] = 0.0
    done = 0
    for k in range(n):
        for c in range(3):
            frame[k, c] = cell[axes[k], c]
        _orthonormalize(frame, k)
        done = k + 1
    while done < 3:
        # The Cartesian axis that lies least along the frame so far.
        best, best_axis = 2.0, 0
        for c in range(3):
            along = 0.0
            for k in range(done):
                along += frame[k, c] ** 2
            if along < best - 1e-9:
                best, best_axis = along, c
        frame[done, best_axis] = 1.0
        _orthonormalize(frame, done)
        done += 1
    for k in range(n):
        for c in range(k + 1):
            tri[k, c] = (
                cell[axes[k], 0] * frame[c, 0]
                + cell[axes[k], 1] * frame[c, 1]
                + cell[axes[k], 2] * frame[c, 2]
            )
    return n


@njit(cache=True, nogil=True)
def _orthonormalize(frame: np.ndarray, k: int) -> None:
    for _ in range(2):  # twice is enough (Kahan, Parlett)
        for m in range(k):
            dot = frame[k, 0] * frame[m, 0] + frame[k, 1] * frame[m, 1] + frame[k, 2] * frame[m, 2]
            for c in range(3):
                frame[k, c] -= dot * frame[m, c]
        norm = np.sqrt(frame[k, 0] ** 2 + frame[k, 1] ** 2 + frame[k, 2] ** 2)
        for c in range(3):
            frame[k, c] /= norm


@njit(cache=True, nogil=True)
def wrap_sites(
    positions: np.ndarray,
    frame: np.ndarray,
    tri: np.ndarray,
    n_periodic: int,
    wrapped: np.ndarray,
    wraps: np.ndarray,
    first: int,
    last: int,
    low: np.ndarray,
    high: np.ndarray,
) -> None:
    """Turn the sites into the frame and wrap them into the box.

    OUTPUT: wrapped f8[3, n], wraps i8[3, n] (lattice vectors taken off), low and high f8[3] (extent of the sites
    ``first:last``, the centres).
    """
    low[:] = np.inf
    high[:] = -np.inf
    for i in range(positions.shape[0]):
        px, py, pz = positions[i, 0], positions[i, 1], positions[i, 2]
        for c in range(3):
            wrapped[c, i] = frame[c, 0] * px + frame[c, 1] * py + frame[c, 2] * pz
            wraps[c, i] = 0
        for k in range(n_periodic - 1, -1, -1):
            n = np.floor(wrapped[k, i] / tri[k, k])
            wraps[k, i] = np.int64(n)
            for c in range(k + 1):
                wrapped[c, i] -= n * tri[k, c]
        if first <= i < last:
            for c in range(3):
                low[c] = min(low[c], wrapped[c, i])
                high[c] = max(high[c], wrapped[c, i])


@njit(cache=True, nogil=True, inline="always")
def _first(low: float, value: float, step: float) -> int:
    return int(np.ceil((low - value) / step))


@njit(cache=True, nogil=True, inline="always")
def _last(high: float, value: float, step: float) -> int:
    return int(np.floor((high - value) / step))


@njit(cache=True, nogil=True)
def make_images(
    wrapped: np.ndarray,
    wraps: np.ndarray,
    tri: np.ndarray,
    n_periodic: int,
    low: np.ndarray,
    high: np.ndarray,
    r_cut: float,
    write: bool,
    xyz: np.ndarray,
    origin: np.ndarray,
) -> int:
    """Find all images within r_cut of the centres' extent; return how many there are.

    OUTPUT if ``write``: xyz f8[3, n], origin i4[n, 4] (site from 0, lattice vectors from its given position).
    """
    count = 0
    reach = r_cut * (1.0 + 1e-12) + 1e-12
    limit = reach * reach
    for i in range(wrapped.shape[1]):
        z0, y0, x0 = wrapped[2, i], wrapped[1, i], wrapped[0, i]
        a3 = b3 = a2 = b2 = a1 = b1 = 0
        if n_periodic > 2:
            a3, b3 = _first(low[2] - reach, z0, tri[2, 2]), _last(high[2] + reach, z0, tri[2, 2])
        for n3 in range(a3, b3 + 1):
            z = z0 + n3 * tri[2, 2]
            y3 = y0 + n3 * tri[2, 1]
            x3 = x0 + n3 * tri[2, 0]
            dz = max(0.0, max(low[2] - z, z - high[2]))
            if n_periodic > 1:
                a2, b2 = _first(low[1] - reach, y3, tri[1, 1]), _last(high[1] + reach, y3, tri[1, 1])
            for n2 in range(a2, b2 + 1):
                y = y3 + n2 * tri[1, 1]
                x2 = x3 + n2 * tri[1, 0]
                dy = max(0.0, max(low[1] - y, y - high[1]))
                rest = limit - dz * dz - dy * dy
                if rest < 0.0:
                    continue
                if n_periodic > 0:
                    side = np.sqrt(rest)
                    a1, b1 = _first(low[0] - side, x2, tri[0, 0]), _last(high[0] + side, x2, tri[0, 0])
                if write:
                    for n1 in range(a1, b1 + 1):
                        xyz[0, count] = x2 + n1 * tri[0, 0]
                        xyz[1, count] = y
                        xyz[2, count] = z
                        origin[count, 0] = i
                        origin[count, 1] = n1 - wraps[0, i]
                        origin[count, 2] = n2 - wraps[1, i]
                        origin[count, 3] = n3 - wraps[2, i]
                        count += 1
                else:
                    count += max(0, b1 - a1 + 1)
    return count
