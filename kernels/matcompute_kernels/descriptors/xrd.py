"""Powder X-ray diffraction patterns of periodic structures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit, prange

from matcompute_kernels.batch import Batch, as_batch
from matcompute_kernels.checks import check_batch, check_positive
from matcompute_kernels.elements import SYMBOLS
from matcompute_kernels.errors import KernelInputError
from matcompute_kernels.tables import xray_coefficients

__all__ = ["WAVELENGTHS", "Pattern", "Patterns", "labels", "xrd", "xrd_profile"]

#: Wavelengths in Å by radiation.
WAVELENGTHS = {
    "CuKa": 1.54184, "CuKa2": 1.54439, "CuKa1": 1.54056, "CuKb1": 1.39222,
    "MoKa": 0.71073, "MoKa2": 0.71359, "MoKa1": 0.70930, "MoKb1": 0.63229,
    "CrKa": 2.29100, "CrKa2": 2.29361, "CrKa1": 2.28970, "CrKb1": 2.08487,
    "FeKa": 1.93735, "FeKa2": 1.93998, "FeKa1": 1.93604, "FeKb1": 1.75661,
    "CoKa": 1.79026, "CoKa2": 1.79285, "CoKa1": 1.78896, "CoKb1": 1.63079,
    "AgKa": 0.560885, "AgKa2": 0.563813, "AgKa1": 0.559421, "AgKb1": 0.497082,
}  # fmt: skip

_TWO_THETA_STEP = 1e-5  # degrees: reflections in one step are one peak (pymatgen's TWO_THETA_TOL)
_FAINTEST = 1e-5  # of the strongest peak (pymatgen's SCALED_INTENSITY_TOL, there in per cent)
_SQUARE_SLACK = 1e-8  # 1/Å^2: pymatgen takes points with d^2 < r^2 + this
_POINTS_AT_ONCE = 1 << 21  # reflections held in memory (48 bytes each)


class Pattern(NamedTuple):
    """Peaks of one structure: 2θ in degrees (rising) and intensity."""

    two_theta: np.ndarray
    intensity: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Patterns:
    """Peaks of N structures; ``patterns[i]`` is a :class:`Pattern`.

    Attributes
    ----------
    two_theta, intensity
        f8[P], degrees and, if scaled, per cent of the structure's strongest peak.
    hkl
        i4[P, 3]: one of the reflections of the peak.
    multiplicity
        i8[P]: number of reflections in the peak, Friedel mates included.
    ptr
        i8[N + 1].
    """

    two_theta: np.ndarray
    intensity: np.ndarray
    hkl: np.ndarray
    multiplicity: np.ndarray
    ptr: np.ndarray

    def __len__(self) -> int:
        return self.ptr.shape[0] - 1

    def __getitem__(self, index: int) -> Pattern:
        if not -len(self) <= index < len(self):
            raise IndexError(f"pattern {index} of {len(self)}")
        index %= len(self)
        a, b = self.ptr[index], self.ptr[index + 1]
        return Pattern(self.two_theta[a:b], self.intensity[a:b])

    def __iter__(self) -> Iterator[Pattern]:
        return (self[i] for i in range(len(self)))


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
def _count(cell: np.ndarray, metric: np.ndarray, radius: float, out: np.ndarray) -> None:
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
            m = abs(k)
            for j in range(n):
                ar[j] = xr[h, j] * yr[m, j] - side * xi[h, j] * yi[m, j]
                ai[j] = xi[h, j] * yr[m, j] + side * xr[h, j] * yi[m, j]
            nearest = 0
            if low > 0:
                nearest = low
            elif high < 0:
                nearest = -high
            for l in range(nearest, min(max(abs(low), abs(high)), tops[2]) + 1):
                for e in range(kinds):
                    rr, ii, ri, ir = 0.0, 0.0, 0.0, 0.0
                    for j in range(kind_ptr[e], kind_ptr[e + 1]):
                        rr += ar[j] * zr[l, j]
                        ii += ai[j] * zi[l, j]
                        ri += ar[j] * zi[l, j]
                        ir += ai[j] * zr[l, j]
                    sums[l, e, 0], sums[l, e, 1], sums[l, e, 2], sums[l, e, 3] = rr, ii, ri, ir
            for l in range(high, low - 1, -1):
                g2 = (
                    h * h * metric[0, 0]
                    + k * k * metric[1, 1]
                    + l * l * metric[2, 2]
                    + 2.0 * (h * k * metric[0, 1] + h * l * metric[0, 2] + k * l * metric[1, 2])
                )
                g = np.sqrt(g2)
                if g > radius or g < low_radius or abs(l) > tops[2]:
                    continue
                s2 = 0.25 * g2
                sign = 1.0 if l >= 0 else -1.0
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
                    q = sums[abs(l), e]
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
                index[used, 0], index[used, 1], index[used, 2] = h, k, l
                used += 1
    return used


@njit(cache=True, parallel=True)
def _patterns(
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


def xrd(
    batch: Any,
    wavelength: str | float = "CuKa",
    *,
    two_theta_range: tuple[float, float] | None = (0.0, 90.0),
    scaled: bool = True,
    debye_waller_factors: Mapping[str, float] | None = None,
) -> Patterns:
    """Return the powder diffraction peaks of each structure.

    Parameters
    ----------
    batch
        Batch, ASE Atoms or pymatgen Structures, periodic in three directions.
    wavelength
        Radiation (a key of :data:`WAVELENGTHS`) or wavelength in Å.
    two_theta_range
        Degrees; None for the whole limiting sphere.
    scaled
        Scale the strongest peak of each structure to 100.
    debye_waller_factors
        Symbol → B in Å^2; exp(−B s²) multiplies the form factor.

    Returns
    -------
    Patterns
        ``patterns[i]`` is (two_theta, intensity) of structure i.

    Raises
    ------
    KernelInputError
        If a structure is unfit, has no full cell or an element without form factor, or no reflection lies in the
        range; ``index`` names it.

    Notes
    -----
    Definition: pymatgen's ``XRDCalculator`` (M. De Graef, M. E. McHenry, Structure of Materials, chapters 11 and 12):
    f(s) = Z − 41.78214 s² Σ a exp(−b s²), s = sin θ/λ; I = |F|² (1 + cos² 2θ)/(sin² θ cos θ) summed over all
    reflections whose 2θ round to the same 10⁻⁵ degree; peaks below 10⁻⁵ of the strongest are left out.
    """
    batch = as_batch(batch)
    check_batch(batch)
    length = _wavelength(wavelength)
    low_radius, radius = _shell(two_theta_range, length)
    coefficients, damping = _form_factors(batch, debye_waller_factors)
    n = len(batch)
    if n == 0:
        return Patterns(*(np.zeros(0),) * 2, np.zeros((0, 3), "i4"), np.zeros(0, "i8"), np.zeros(1, "i8"))
    flat = np.flatnonzero(~(batch.volumes > 0))
    if flat.size:
        raise KernelInputError("has no three-dimensional cell; a powder pattern needs one", int(flat[0]))
    inverse = np.linalg.inv(batch.cell)
    metric = np.ascontiguousarray(inverse.transpose(0, 2, 1) @ inverse)
    counts = np.zeros(n, "i8")
    _count(batch.cell, metric, radius, counts)

    parts: list[tuple[np.ndarray, ...]] = []
    ptr = np.zeros(n + 1, "i8")
    for first, last in _chunks(counts):
        some = batch[first:last]
        owner = np.repeat(np.arange(first, last), some.n_sites)
        fractional = np.einsum("mi,mij->mj", some.positions, inverse[owner])
        start = np.concatenate([[0], np.cumsum(counts[first:last])])
        room = int(start[-1])
        two_theta, intensity = np.empty(room), np.empty(room)
        hkl, multiplicity = np.empty((room, 3), "i4"), np.empty(room, "i8")
        found = np.zeros(last - first, "i8")
        _patterns(
            some.numbers.astype("i8"), fractional, some.ptr, some.cell, metric[first:last], coefficients, damping,
            length, low_radius, radius, start, two_theta, intensity, hkl, multiplicity, found,
        )  # fmt: skip
        if found.min() == 0:
            raise KernelInputError("no reflection in two_theta_range", first + int(np.argmin(found)))
        if scaled:
            begin = np.repeat(start[:-1], found)
            rows = np.arange(found.sum()) - np.repeat(np.cumsum(found) - found, found) + begin
            top = np.maximum.reduceat(intensity[rows], np.cumsum(found) - found)
            intensity[rows] *= np.repeat(100.0 / top, found)
        else:
            begin = np.repeat(start[:-1], found)
            rows = np.arange(found.sum()) - np.repeat(np.cumsum(found) - found, found) + begin
        ptr[first + 1 : last + 1] = found
        parts.append((two_theta[rows], intensity[rows], hkl[rows], multiplicity[rows]))
    return Patterns(*(np.concatenate(column) for column in zip(*parts)), np.cumsum(ptr))


def xrd_profile(
    batch: Any,
    wavelength: str | float = "CuKa",
    *,
    two_theta_range: tuple[float, float] = (0.0, 90.0),
    bins: int = 451,
    fwhm: float = 0.5,
    dtype: Any = np.float64,
) -> np.ndarray:
    """Return patterns of one length: peaks as Gaussians of ``fwhm`` degrees on a 2θ grid, [N, bins].

    The grid runs over ``two_theta_range`` with both ends; intensities are scaled as in :func:`xrd`, and a Gaussian's
    height is its peak's intensity.
    """
    check_positive(bins=bins, fwhm=fwhm)
    patterns = xrd(batch, wavelength, two_theta_range=two_theta_range)
    grid = np.linspace(*two_theta_range, bins)
    out = np.zeros((len(patterns), bins), dtype=dtype)
    factor = 4.0 * np.log(2.0) / fwhm**2
    for i, (two_theta, intensity) in enumerate(patterns):
        for chunk in range(0, len(two_theta), 4096):
            part = slice(chunk, chunk + 4096)
            shape = np.exp(-factor * (grid[None, :] - two_theta[part, None]) ** 2)
            out[i] += intensity[part] @ shape
    return out


def labels(two_theta_range: tuple[float, float] = (0.0, 90.0), bins: int = 451, **_: Any) -> list[str]:
    """Return the names of the columns of :func:`xrd_profile`."""
    return [f"XRD 2theta={angle:.4g}" for angle in np.linspace(*two_theta_range, bins)]


def _wavelength(wavelength: str | float) -> float:
    if isinstance(wavelength, str):
        if wavelength not in WAVELENGTHS:
            raise KernelInputError(
                f"radiation {wavelength!r} is not known; one of {', '.join(WAVELENGTHS)}, or a wavelength in Å"
            )
        return WAVELENGTHS[wavelength]
    check_positive(wavelength=wavelength)
    return float(wavelength)


def _shell(two_theta_range: tuple[float, float] | None, wavelength: float) -> tuple[float, float]:
    """Return the inner and outer radius of the shell of reflections in 1/Å."""
    if two_theta_range is None:
        return 0.0, float(np.sqrt((2.0 / wavelength) ** 2 + _SQUARE_SLACK))
    low, high = two_theta_range
    if not 0 <= low < high <= 180:
        raise KernelInputError(f"two_theta_range must rise within 0 … 180 degrees, not {two_theta_range!r}")
    inner, outer = (2.0 * np.sin(np.radians(t / 2)) / wavelength for t in (low, high))
    return float(inner), float(np.sqrt(outer**2 + _SQUARE_SLACK))


def _form_factors(
    batch: Batch, debye_waller_factors: Mapping[str, float] | None
) -> tuple[np.ndarray, np.ndarray]:
    coefficients = xray_coefficients()
    unknown = np.isnan(coefficients[:, 0])
    bad = np.flatnonzero(unknown[batch.numbers])
    if bad.size:
        index = int(np.searchsorted(batch.ptr, bad[0], side="right") - 1)
        raise KernelInputError(
            f"no X-ray form factor is known for {SYMBOLS[int(batch.numbers[bad[0]])]}", index
        )
    damping = np.zeros(len(coefficients))
    for symbol, value in (debye_waller_factors or {}).items():
        if symbol not in SYMBOLS:
            raise KernelInputError(f"debye_waller_factors has {symbol!r}, which is no chemical symbol")
        damping[SYMBOLS.index(symbol)] = value
    return np.ascontiguousarray(coefficients), damping


def _chunks(counts: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield ranges of structures whose reflections fit the memory budget (one structure at least)."""
    first, total = 0, 0
    for i, count in enumerate(counts.tolist()):
        if i > first and total + count > _POINTS_AT_ONCE:
            yield first, i
            first, total = i, 0
        total += count
    yield first, len(counts)
