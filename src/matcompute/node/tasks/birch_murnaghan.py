"""Third-order Birch–Murnaghan equation of state by linear least squares.

F. Birch, Phys. Rev. 71, 809 (1947). With x = V^(-2/3) the third-order form is exactly a cubic polynomial in x, so its
four parameters follow from a linear fit with one solution: no starting values, no iterations that may end elsewhere.
The same fit is used by the Delta test (K. Lejaeghere et al., Science 351, aad3000 (2016), ``eosfit.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["BirchMurnaghan", "FitError", "fit_birch_murnaghan"]

#: eV/Å^3 in GPa (CODATA 2018 elementary charge).
EV_PER_A3_IN_GPA = 160.2176634


class FitError(Exception):
    """The points have no minimum that they enclose."""


@dataclass(frozen=True)
class BirchMurnaghan:
    """Parameters of the fit.

    ``volume`` Å^3/atom, ``energy`` eV/atom, ``bulk_modulus`` GPa, ``bulk_modulus_derivative`` 1, ``rms_error`` eV/atom
    (per the units of the input).
    """

    volume: float
    energy: float
    bulk_modulus: float
    bulk_modulus_derivative: float
    rms_error: float


def fit_birch_murnaghan(volumes: np.ndarray, energies: np.ndarray) -> BirchMurnaghan:
    """Fit energies over volumes.

    Parameters
    ----------
    volumes, energies
        float64 [K], K ≥ 4: Å^3/atom and eV/atom.

    Raises
    ------
    FitError
        If the curve has no minimum inside the range of the volumes, or the values are not finite.
    """
    volumes = np.asarray(volumes, dtype=float)
    energies = np.asarray(energies, dtype=float)
    if not (np.isfinite(volumes).all() and np.isfinite(energies).all() and (volumes > 0).all()):
        raise FitError("volumes or energies are not finite")
    # Scaled to x ≈ 1 and centred energies the normal equations are well conditioned for strains of a few percent.
    scale = float(np.mean(volumes))
    shift = float(np.mean(energies))
    x = (volumes / scale) ** (-2 / 3)
    centre = float(x.mean())
    poly = np.polynomial.Polynomial.fit(x, energies - shift, 3, domain=[float(x.min()), float(x.max())])
    slope, curvature, third = poly.deriv(1), poly.deriv(2), poly.deriv(3)
    minima = [r for r in _stationary(slope) if r > 0 and curvature(r) > 0]
    if not minima:
        raise FitError(
            "the energies have no minimum: the curvature is nowhere positive at a stationary point"
        )
    x0 = float(min(minima, key=lambda r: abs(r - centre)))
    v0 = scale * x0**-1.5
    if not volumes.min() <= v0 <= volumes.max():
        raise FitError(
            f"the minimum at {v0:.4g} Å^3/atom is outside of the volumes {volumes.min():.4g} to {volumes.max():.4g}"
        )
    # d²E/dV² and d³E/dV³ at the minimum in units of the scaled volume, from E(x) and x = v^(-2/3).
    second_v = 4 / 9 * x0**5 * curvature(x0)
    third_v = -20 / 9 * x0**6.5 * curvature(x0) - 8 / 27 * x0**7.5 * third(x0)
    bulk = second_v * x0**-1.5 / scale * EV_PER_A3_IN_GPA
    derivative = -1 - x0**-1.5 * third_v / second_v
    residual = poly(x) - (energies - shift)
    return BirchMurnaghan(
        volume=v0,
        energy=float(poly(x0)) + shift,
        bulk_modulus=float(bulk),
        bulk_modulus_derivative=float(derivative),
        rms_error=float(np.sqrt(np.mean(residual**2))),
    )


def _stationary(slope: np.polynomial.Polynomial) -> list[float]:
    """Return the real roots of a quadratic.

    Where B0' is about 4 its leading coefficient is only rounding, and one root is far out: eigenvalues of the companion
    matrix (``Polynomial.roots``) then lose the digits of the near one. Here each root has its own formula (N. Higham,
    Accuracy and Stability of Numerical Algorithms, 2nd ed., section 1.8).
    """
    c, b, a = (float(value) for value in slope.coef)
    discriminant = b * b - 4 * a * c
    if discriminant < 0:
        return []
    q = -0.5 * (b + np.copysign(np.sqrt(discriminant), b))
    scaled = [q / a] if abs(a) > 1e-300 else []
    if q:
        scaled.append(c / q)
    # The coefficients belong to the domain mapped to [-1, 1].
    offset, factor = slope.mapparms()
    return [(root - offset) / factor for root in scaled]
