"""Powder X-ray diffraction patterns of periodic structures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from matcompute_kernels.batch import Batch, as_batch
from matcompute_kernels.checks import check_batch, check_mapping, check_positive
from matcompute_kernels.descriptors.diffraction import count_reflections, powder_patterns
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

    def to_ragged(self) -> Any:
        """Return the peaks as :class:`.Ragged` with the parts ``two_theta`` and ``intensity``, as a job keeps them."""
        from matcompute_kernels.drivers.ragged import Ragged

        return Ragged({"two_theta": (self.ptr, self.two_theta), "intensity": (self.ptr, self.intensity)})


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
        none = np.zeros(0)
        return Patterns(none, none, np.zeros((0, 3), "i4"), np.zeros(0, "i8"), np.zeros(1, "i8"))
    flat = np.flatnonzero(~(batch.volumes > 0))
    if flat.size:
        raise KernelInputError("has no three-dimensional cell; a powder pattern needs one", int(flat[0]))
    inverse = np.linalg.inv(batch.cell)
    metric = np.ascontiguousarray(inverse.transpose(0, 2, 1) @ inverse)
    counts = np.zeros(n, "i8")
    count_reflections(batch.cell, metric, radius, counts)

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
        powder_patterns(
            some.numbers.astype("i8"), fractional, some.ptr, some.cell, metric[first:last], coefficients, damping,
            length, low_radius, radius, start, two_theta, intensity, hkl, multiplicity, found,
        )  # fmt: skip
        if found.min() == 0:
            raise KernelInputError("no reflection in two_theta_range", first + int(np.argmin(found)))
        begin = np.repeat(start[:-1], found)
        rows = np.arange(found.sum()) - np.repeat(np.cumsum(found) - found, found) + begin
        if scaled:
            top = np.maximum.reduceat(intensity[rows], np.cumsum(found) - found)
            intensity[rows] *= np.repeat(100.0 / top, found)
        ptr[first + 1 : last + 1] = found
        parts.append((two_theta[rows], intensity[rows], hkl[rows], multiplicity[rows]))
    two_theta, intensity, hkl, multiplicity = (np.concatenate(column) for column in zip(*parts))
    return Patterns(two_theta, intensity, hkl, multiplicity, np.cumsum(ptr))


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
    try:
        low, high = two_theta_range
        float(low), float(high)
    except (TypeError, ValueError):
        raise KernelInputError(
            f"two_theta_range must be two angles in degrees, not {two_theta_range!r}"
        ) from None
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
    check_mapping(debye_waller_factors=debye_waller_factors)
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
