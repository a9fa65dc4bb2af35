"""Radial functions of SOAP: what a neighbour at distance r adds to the coefficients c_nlm, and tables of them.

Each convention gives R_nl(r) with c_nlm = Σ_j R_nl(r_j) Y_lm(r̂_j). The exact functions are evaluated once, at the
Chebyshev points of equal intervals; the kernels read piecewise polynomials of degree 7 (with a lower degree the table
grows beyond the L2 cache). There are as many intervals as it takes for the table to be within :data:`TABLE_ERROR` of
the exact function, relative to the largest value of the same l (or to within the rounding of the exact function, which
orthonormalisation amplifies: 10⁻¹⁰ for a dozen Gaussians).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import lru_cache

import numpy as np

from matcompute_kernels.errors import KernelInputError
from matcompute_kernels.vec8 import LANES, aligned_zeros

__all__ = ["DEGREE", "RadialTable", "radial_function", "radial_table", "reach"]

#: Degree of the pieces.
DEGREE = 7
#: Largest error of a table, relative to the largest value of its angular channel.
TABLE_ERROR = 2e-12
#: dscribe's Gaussians are followed until they have decayed to this.
_THRESHOLD = 1e-3

Radial = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class RadialTable:
    """Piecewise polynomials on [0, r_max].

    Attributes
    ----------
    pieces
        f8[intervals, l_max + 1, blocks, DEGREE + 1, 8]: coefficients in t of [-1, 1], highest power first, of eight
        radial functions at a time (padded with zeros).
    scale
        Intervals per Å.
    centre
        R_n0(0)·Y_00: what an atom adds to its own coefficients, f8[8·blocks].
    error
        Largest error found, relative to the largest value of the same l.
    """

    pieces: np.ndarray
    scale: float
    centre: np.ndarray
    error: float


def reach(convention: str, r_cut: float, sigma: float) -> float:
    """Distance in Å up to which neighbours count: dscribe adds σ·√(-2 ln 10⁻³) to r_cut, featomic nothing."""
    if convention == "featomic-gto":
        return r_cut
    return float(r_cut + sigma * np.sqrt(-2.0 * np.log(_THRESHOLD)))


@lru_cache(maxsize=16)
def radial_table(convention: str, r_cut: float, n_max: int, l_max: int, sigma: float) -> RadialTable:
    """Return the table of a convention (kept for the next call with the same parameters)."""
    exact = radial_function(convention, r_cut, n_max, l_max, sigma)
    r_max = reach(convention, r_cut, sigma)
    nodes = np.cos(np.pi * (2 * np.arange(DEGREE + 1) + 1) / (2 * DEGREE + 2))
    powers = np.linalg.inv(nodes[:, None] ** np.arange(DEGREE, -1, -1))
    probes = np.array([-0.999, -0.6, -0.05, 0.5, 0.97])
    largest = np.abs(exact(np.linspace(0.0, r_max, 512))).max(axis=(0, 2))
    largest = np.where(largest > 0, largest, 1.0)
    intervals, before = 32, np.inf
    while True:
        middle = (np.arange(intervals) + 0.5) * (r_max / intervals)
        half = 0.5 * r_max / intervals
        values = exact((middle[:, None] + half * nodes).ravel()).reshape(
            intervals, DEGREE + 1, l_max + 1, n_max
        )
        pieces = np.einsum("qk,iklm->ilqm", powers, values)
        wanted = exact((middle[:, None] + half * probes).ravel()).reshape(
            intervals, len(probes), l_max + 1, n_max
        )
        got = np.einsum("pq,ilqm->iplm", probes[:, None] ** np.arange(DEGREE, -1, -1), pieces)
        error = float((np.abs(got - wanted).max(axis=(0, 1, 3)) / largest).max())
        # The last clause: rounding of the exact function (ill-conditioned for many n), more intervals change nothing.
        if error < TABLE_ERROR or intervals >= 4096 or (error < 1e-8 and error > 0.5 * before):
            break
        before = error
        # The error falls with the sixth power of the width.
        factor = (error / TABLE_ERROR) ** (1.0 / (DEGREE + 1))
        intervals = min(4096, max(intervals + 16, int(np.ceil(1.02 * intervals * min(factor, 4.0)))))
    blocks = -(-n_max // LANES)
    padded = np.zeros((intervals, l_max + 1, DEGREE + 1, blocks * LANES))
    padded[..., :n_max] = pieces
    padded = padded.reshape(intervals, l_max + 1, DEGREE + 1, blocks, LANES).transpose(0, 1, 3, 2, 4)
    centre = np.zeros(blocks * LANES)
    centre[:n_max] = exact(np.zeros(1))[0, 0] * np.sqrt(0.25 / np.pi)
    table = aligned_zeros(padded.shape)
    table[...] = padded
    return RadialTable(table, intervals / r_max, centre, error)


def radial_function(convention: str, r_cut: float, n_max: int, l_max: int, sigma: float) -> Radial:
    """Return the exact function of distances, f8[k] → f8[k, l_max + 1, n_max].

    Raises
    ------
    KernelInputError
        If the radial functions cannot be made orthonormal in double precision.
    """
    make = {"dscribe-gto": _dscribe_gto, "featomic-gto": _featomic_gto, "polynomial": _polynomial}[convention]
    return make(r_cut, n_max, l_max, sigma)


def _dscribe_gto(r_cut: float, n_max: int, l_max: int, sigma: float) -> Radial:
    """Gaussians r^l exp(-α_kl r²) that fall to 10⁻³ at 1 Å … r_cut, Löwdin: dscribe ``soap.py:get_basis_gto``."""
    from scipy.linalg import inv, sqrtm
    from scipy.special import gamma

    if r_cut <= 1.0:
        raise KernelInputError(f"r_cut must be above 1 Å for the dscribe-gto radial functions, not {r_cut}")
    eta = 0.5 / sigma**2
    decay = np.linspace(1.0, r_cut, n_max)
    order = np.arange(l_max + 1)
    alpha = -np.log(_THRESHOLD / decay[None, :] ** order[:, None]) / decay**2
    beta = np.empty((l_max + 1, n_max, n_max))
    for l in order:
        overlap = 0.5 * gamma(l + 1.5) * (alpha[l][:, None] + alpha[l][None, :]) ** (-l - 1.5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ill-conditioned: looked at below
            root = sqrtm(inv(overlap))
        if np.iscomplexobj(root) or not np.isfinite(root).all():
            raise KernelInputError(
                f"the {n_max} dscribe-gto radial functions up to {r_cut} Å are linearly dependent; "
                "lower n_max or raise r_cut"
            )
        beta[l] = root
    total = alpha + eta
    front = (np.pi / total) ** 1.5 * (eta / total) ** order[:, None]
    rate = alpha * eta / total

    def evaluate(r: np.ndarray) -> np.ndarray:
        power = r[:, None] ** order
        primitive = front * np.exp(-rate * r[:, None, None] ** 2) * power[:, :, None]
        return np.einsum("rlk,lnk->rln", primitive, beta)

    return evaluate


def _featomic_gto(r_cut: float, n_max: int, l_max: int, sigma: float) -> Radial:
    """Gaussians r^n exp(-r²/2σ_n²): featomic ``basis/radial/gto.rs`` and ``soap/radial_integral/gto.rs``."""
    from scipy.special import gammaln

    order, n = np.arange(l_max + 1), np.arange(n_max)
    width = r_cut * np.maximum(np.sqrt(n), 1.0) / n_max
    d = 0.5 / width**2
    norm = np.sqrt(2.0 / (width ** (2 * n + 3) * np.exp(gammaln(n + 1.5))))
    power = 0.5 * (3 + n[:, None] + n[None, :])
    overlap = (
        np.exp(gammaln(power)) * (d[:, None] + d[None, :]) ** -power * 0.5 * norm[:, None] * norm[None, :]
    )
    values, vectors = np.linalg.eigh(overlap)
    if values[0] <= 1e-14 * values[-1]:
        raise KernelInputError(
            f"the {n_max} featomic-gto radial functions up to {r_cut} Å are linearly dependent; lower n_max"
        )
    mixing = (vectors / np.sqrt(values)) @ vectors.T * norm[None, :]
    c = 0.5 / sigma**2
    front = (np.pi / sigma**2) ** 0.75

    def evaluate(r: np.ndarray) -> np.ndarray:
        out = np.empty((len(r), l_max + 1, n_max))
        argument = (c * r[:, None]) ** 2 / (c + d)
        for l in order:
            a, b = 0.5 * (n + l + 3.0), l + 1.5
            scaled = _hyp1f1_scaled(a, b, argument) * np.exp(gammaln(a) - gammaln(b))
            decay = np.exp(argument - c * r[:, None] ** 2)
            integral = front * decay * (c * r[:, None]) ** l * (c + d) ** -a * scaled
            out[:, l] = integral @ mixing.T
        return out

    return evaluate


def _hyp1f1_scaled(a: np.ndarray, b: float, z: np.ndarray) -> np.ndarray:
    """e^-z ₁F₁(a; b; z) for z ≥ 0, without overflow: the series in double, the asymptotic series beyond z = 300."""
    from scipy.special import gammaln, hyp1f1

    small = np.minimum(z, 300.0)
    out = hyp1f1(a, b, small) * np.exp(-small)
    if z.max(initial=0.0) > 300.0:
        large = np.maximum(z, 300.0)
        total, term = np.ones(1), np.ones(1)
        for k in range(40):
            term = term * (b - a + k) * (1 - a + k) / ((k + 1) * large)
            total = total + term
        asymptotic = np.exp(gammaln(b) - gammaln(a)) * large ** (a - b) * total
        out = np.where(z > 300.0, asymptotic, out)
    return out


def _polynomial(r_cut: float, n_max: int, l_max: int, sigma: float) -> Radial:
    """Polynomials (r_cut - r)^(k + 2), Löwdin: dscribe ``soap.py:get_basis_poly``, with exact mathematics.

    dscribe's own numbers differ by up to about 4·10⁻⁶ of the largest feature (n_max 8): its S^(-1/2) loses ten
    digits in double precision, and it drops Gaussians far from a grid point and negative recurrence terms. Here
    S^(-1/2) has 60 digits and the integrals over the radius are Gauss–Legendre sums to full precision.
    """
    from scipy.special import ive

    eta = 0.5 / sigma**2
    x, weight = np.polynomial.legendre.leggauss(max(100, int(8 * r_cut / sigma) + 40))
    q, weight = 0.5 * r_cut * (x + 1.0), 0.5 * r_cut * weight
    basis = _orthonormal_polynomials(r_cut, n_max, q)
    weighted = 4.0 * np.pi * basis * weight * q * q
    order = np.arange(l_max + 1)

    def evaluate(r: np.ndarray) -> np.ndarray:
        out = np.empty((len(r), l_max + 1, n_max))
        z = 2.0 * eta * np.maximum(r, 1e-12)[:, None] * q
        gauss = np.sqrt(0.5 * np.pi / z) * np.exp(-eta * (q - r[:, None]) ** 2)
        for l in order:
            out[:, l] = (ive(l + 0.5, z) * gauss) @ weighted.T
        return out

    return evaluate


@lru_cache(maxsize=16)
def _inverse_root(n_max: int, r_cut: float) -> list[list[Decimal]]:
    """S^(-1/2) of S_ab = 2·r_cut^(7+a+b) / ((5+a+b)(6+a+b)(7+a+b)), a, b = 1…n_max, by Jacobi rotations, 60 digits."""
    with localcontext() as context:
        context.prec = 60
        cut, size = Decimal(r_cut), range(n_max)
        s = [[2 * cut ** (9 + a + b) / ((7 + a + b) * (8 + a + b) * (9 + a + b)) for b in size] for a in size]
        v = [[Decimal(int(a == b)) for b in size] for a in size]
        for _ in range(60):
            off = sum(s[a][b] ** 2 for a in size for b in range(a))
            if off < Decimal("1e-90") * sum(s[a][a] ** 2 for a in size):
                break
            for a in size:
                for b in range(a):
                    if s[a][b] == 0:
                        continue
                    theta = (s[b][b] - s[a][a]) / (2 * s[a][b])
                    t = 1 / (abs(theta) + (theta * theta + 1).sqrt())
                    t = -t if theta < 0 else t
                    cosine = 1 / (t * t + 1).sqrt()
                    sine = t * cosine
                    for matrix in (s, v):
                        for row in matrix:
                            row[a], row[b] = cosine * row[a] - sine * row[b], sine * row[a] + cosine * row[b]
                    top, bottom = s[a], s[b]
                    s[a] = [cosine * x - sine * y for x, y in zip(top, bottom)]
                    s[b] = [sine * x + cosine * y for x, y in zip(top, bottom)]
        roots = [1 / s[k][k].sqrt() for k in size]
        return [[sum((v[a][k] * roots[k] * v[b][k] for k in size), Decimal(0)) for b in size] for a in size]


def _orthonormal_polynomials(r_cut: float, n_max: int, q: np.ndarray) -> np.ndarray:
    """Values at q, f8[n_max, len(q)], summed with 60 digits: the coefficients alternate and reach 10^8."""
    matrix = _inverse_root(n_max, r_cut)
    out = np.empty((n_max, len(q)))
    with localcontext() as context:
        context.prec = 60
        for column, value in enumerate(q):
            rest = Decimal(r_cut) - Decimal(float(value))
            powers = [rest ** (k + 3) for k in range(n_max)]
            for row in range(n_max):
                out[row, column] = float(sum((c * p for c, p in zip(matrix[row], powers)), Decimal(0)))
    return out
