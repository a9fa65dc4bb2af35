"""Structure factors and powder peaks of all reflections in a shell."""

from __future__ import annotations

import numpy as np
from numba import prange

from matcompute_kernels.compiled import njit

__all__ = ["count_reflections", "powder_patterns"]

_TWO_THETA_STEP = 1e-5  # degrees: reflections in one step are one peak (pymatgen's TWO_THETA_TOL)
_FAINTEST = 1e-5  # of the strongest peak (pymatgen's SCALED_INTENSITY_TOL, there in per cent)


@njit(cache=True)
def _line(metric: np.ndarray, h: int, k: int, radius: float) -> tuple[int, int]:
    """Return the first and last l of the reflections (h, k, l) in the sphere of ``radius`` (1/Å), half space."""
    linear = h * metric[0, 2] + k * metric[1, 2]
    constant = h * h * metric[0, 0] + 2 * h * k * metric[0, 1] + k * k * metric[1, 1] - radius * radius
    root = linear * linear - metric[2, 2] * constant
    if root < 0.0:
        return 1, 0
    root = np.sqrt(root)
    low = int(np.ceil((-linear - root) / metric[2, 2] - 1e-9))
    high = int(np.floor((-linear + root) / metric[2, 2] + 1e-9))
    if h == 0 and k == 0:
        low = max(low, 1)
    return low, high


@njit(cache=True)
def count_reflections(cell: np.ndarray, metric: np.ndarray, radius: float, out: np.ndarray) -> None:
    """Count the reflections of each structure in one Friedel half space, OUTPUT i8[N]."""
    for i in range(cell.shape[0]):
        total = 0
        top_h = int(np.floor(radius * np.sqrt((cell[i, 0] ** 2).sum()) + 1e-6))
        top_k = int(np.floor(radius * np.sqrt((cell[i, 1] ** 2).sum()) + 1e-6))
        for h in range(top_h + 1):
            for k in range(-top_k if h > 0 else 0, top_k + 1):
                low, high = _line(metric[i], h, k, radius)
                total += max(high - low + 1, 0)
        out[i] = total


@njit(cache=True, fastmath={"reassoc", "contract", "nsz"})
def _phases(fractional: np.ndarray, axis: int, top: int, real: np.ndarray, imag: np.ndarray) -> None:
    """Write exp(2πi h x) for h = 0 … top along one axis, OUTPUT f8[top + 1, n] each."""
    for j in range(fractional.shape[0]):
        x = fractional[j, axis]
        for h in range(top + 1):
            turn = h * x
            angle = 2.0 * np.pi * (turn - np.rint(turn))
            real[h, j] = np.cos(angle)
            imag[h, j] = np.sin(angle)


@njit(cache=True, fastmath={"reassoc", "contract", "nsz"})
def _reflections(
    fractional: np.ndarray,
    kind_ptr: np.ndarray,
    kind: np.ndarray,
    weight: np.ndarray,
    coefficients: np.ndarray,
    damping: np.ndarray,
    cell: np.ndarray,
    metric: np.ndarray,
    wavelength: float,
    low_radius: float,
    radius: float,
    g_of: np.ndarray,
    strength: np.ndarray,
    index: np.ndarray,
) -> int:
    """Write |g|, Lorentz-weighted |F|² and (h, k, l) of all reflections in the shell; return their number.

    Atoms come sorted by element: kind[e] owns the atoms kind_ptr[e]:kind_ptr[e + 1]. l and -l share the four sums
    Re·Re, Im·Im, Re·Im and Im·Re of the phase of (h, k) with that of l.
    """
    n = fractional.shape[0]
    kinds = kind.shape[0]
    tops = np.zeros(3, dtype=np.int64)
    for a in range(3):
        tops[a] = int(np.floor(radius * np.sqrt((cell[a] ** 2).sum()) + 1e-6))
    xr, xi = np.empty((tops[0] + 1, n)), np.empty((tops[0] + 1, n))
    yr, yi = np.empty((tops[1] + 1, n)), np.empty((tops[1] + 1, n))
    zr, zi = np.empty((tops[2] + 1, n)), np.empty((tops[2] + 1, n))
    _phases(fractional, 0, tops[0], xr, xi)
    _phases(fractional, 1, tops[1], yr, yi)
    _phases(fractional, 2, tops[2], zr, zi)
    for j in range(n):
        for h in range(tops[0] + 1):
            xr[h, j] *= weight[j]
            xi[h, j] *= weight[j]
    ar, ai = np.empty(n), np.empty(n)
    sums = np.empty((tops[2] + 1, kinds, 4))
    used = 0
    for h in range(tops[0] + 1):
        for k in range(-tops[1] if h > 0 else 0, tops[1] + 1):
            low, high = _line(metric, h, k, radius)
            if high < low:
                continue
            side = 1.0 if k >= 0 else -1.0
            back = abs(k)
            for j in range(n):
                ar[j] = xr[h, j] * yr[back, j] - side * xi[h, j] * yi[back, j]
                ai[j] = xi[h, j] * yr[back, j] + side * xr[h, j] * yi[back, j]
            nearest = 0
            if low > 0:
                nearest = low
            elif high < 0:
                nearest = -high
            for m in range(nearest, min(max(abs(low), abs(high)), tops[2]) + 1):
                for e in range(kinds):
                    rr, ii, ri, ir = 0.0, 0.0, 0.0, 0.0
                    for j in range(kind_ptr[e], kind_ptr[e + 1]):
                        rr += ar[j] * zr[m, j]
                        ii += ai[j] * zi[m, j]
                        ri += ar[j] * zi[m, j]
                        ir += ai[j] * zr[m, j]
                    sums[m, e, 0], sums[m, e, 1], sums[m, e, 2], sums[m, e, 3] = rr, ii, ri, ir
            for m in range(high, low - 1, -1):
                g2 = (
                    h * h * metric[0, 0]
                    + k * k * metric[1, 1]
                    + m * m * metric[2, 2]
                    + 2.0 * (h * k * metric[0, 1] + h * m * metric[0, 2] + k * m * metric[1, 2])
                )
                g = np.sqrt(g2)
                if g > radius or g < low_radius or abs(m) > tops[2]:
                    continue
                s2 = 0.25 * g2
                sign = 1.0 if m >= 0 else -1.0
                real, imag = 0.0, 0.0
                for e in range(kinds):
                    c = coefficients[kind[e]]
                    f = kind[e] - 41.78214 * s2 * (
                        c[0] * np.exp(-c[1] * s2)
                        + c[2] * np.exp(-c[3] * s2)
                        + c[4] * np.exp(-c[5] * s2)
                        + c[6] * np.exp(-c[7] * s2)
                    )
                    if damping[kind[e]] != 0.0:
                        f *= np.exp(-damping[kind[e]] * s2)
                    q = sums[abs(m), e]
                    real += f * (q[0] - sign * q[1])
                    imag += f * (q[3] + sign * q[2])
                sine = min(0.5 * wavelength * g, 1.0)
                cosine = np.sqrt(1.0 - sine * sine)
                double = 1.0 - 2.0 * sine * sine
                if cosine > 0.0:
                    factor = (1.0 + double * double) / (sine * sine * cosine)
                else:
                    factor = np.inf
                g_of[used] = g
                strength[used] = 2.0 * (real * real + imag * imag) * factor
                index[used, 0], index[used, 1], index[used, 2] = h, k, m
                used += 1
    return used


@njit(cache=True, parallel=True)
def powder_patterns(
    numbers: np.ndarray,
    fractional: np.ndarray,
    ptr: np.ndarray,
    cell: np.ndarray,
    metric: np.ndarray,
    coefficients: np.ndarray,
    damping: np.ndarray,
    wavelength: float,
    low_radius: float,
    radius: float,
    start: np.ndarray,
    two_theta: np.ndarray,
    intensity: np.ndarray,
    hkl: np.ndarray,
    multiplicity: np.ndarray,
    found: np.ndarray,
) -> None:
    """Write the peaks of structure i from ``start[i]`` on, and their number into found (OUTPUT from two_theta on)."""
    for i in prange(ptr.shape[0] - 1):
        a, b = ptr[i], ptr[i + 1]
        order = np.argsort(numbers[a:b], kind="mergesort")
        sites = fractional[a:b][order]
        z = numbers[a:b][order]
        kind_ptr = np.zeros(b - a + 1, dtype=np.int64)
        kind = np.zeros(b - a, dtype=np.int64)
        kinds = 0
        for j in range(b - a):
            if j == 0 or z[j] != z[j - 1]:
                kind[kinds] = z[j]
                kind_ptr[kinds] = j
                kinds += 1
        kind_ptr[kinds] = b - a
        room = start[i + 1] - start[i]
        g_of, strength = np.empty(room), np.empty(room)
        index = np.empty((room, 3), dtype=np.int32)
        used = _reflections(
            sites, kind_ptr, kind[:kinds], np.ones(b - a), coefficients, damping, cell[i], metric[i],
            wavelength, low_radius, radius, g_of, strength, index,
        )  # fmt: skip
        rising = np.argsort(g_of[:used], kind="mergesort")
        peaks = 0
        last = -1
        at = start[i]
        for r in rising:
            angle = np.degrees(2.0 * np.arcsin(min(0.5 * wavelength * g_of[r], 1.0)))
            key = int(np.rint(angle / _TWO_THETA_STEP))
            if key != last:
                last = key
                two_theta[at + peaks] = angle
                intensity[at + peaks] = strength[r]
                hkl[at + peaks] = index[r]
                multiplicity[at + peaks] = 2
                peaks += 1
            else:
                intensity[at + peaks - 1] += strength[r]
                multiplicity[at + peaks - 1] += 2
        strongest = 0.0
        for p in range(peaks):
            strongest = max(strongest, intensity[at + p])
        kept = 0
        for p in range(peaks):
            if intensity[at + p] / strongest > _FAINTEST:
                two_theta[at + kept] = two_theta[at + p]
                intensity[at + kept] = intensity[at + p]
                hkl[at + kept] = hkl[at + p]
                multiplicity[at + kept] = multiplicity[at + p]
                kept += 1
        found[i] = kept
