"""Bond-orientational order parameters (Steinhardt, Nelson and Ronchetti, Phys. Rev. B 28, 784, 1983)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from matcompute_kernels.batch import as_batch
from matcompute_kernels.checks import check_batch, check_dtype, check_integer, check_positive
from matcompute_kernels.compiled import njit
from matcompute_kernels.errors import KernelInputError
from matcompute_kernels.neighbors import NeighborList
from matcompute_kernels.tasks import MAX_PAIRS, run_tasks

__all__ = ["labels", "steinhardt"]

#: Largest degree.
L_MAX = 30


def steinhardt(
    batch: Any,
    r_cut: float,
    l: int | Iterable[int] = (4, 6),
    *,
    w: bool = True,
    average: bool = False,
    normalize_w: bool = True,
    dtype: Any = np.float64,
    neighbors: NeighborList | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Steinhardt order parameters q_l and w_l of every atom.

    With q_lm the mean of Y_lm over the neighbours within r_cut::

        q_l = √(4π/(2l+1) Σ_m |q_lm|²)
        w_l = Σ_{m1+m2+m3=0} (l l l; m1 m2 m3) q_lm1 q_lm2 q_lm3, over (Σ_m |q_lm|²)^(3/2) if ``normalize_w``

    Parameters
    ----------
    batch
        Packed structures, or ASE Atoms or pymatgen Structures.
    r_cut
        Cutoff in Å.
    l
        Degrees from 0 to 30.
    w
        Whether to add the w_l.
    average
        Local averages (Lechner and Dellago, J. Chem. Phys. 129, 114707, 2008): q_lm is first averaged over the atom
        and its neighbours.
    normalize_w
        Whether the w_l are those of the normalised q_lm (the ŵ_l of the paper).
    dtype
        float64 or float32 of the output.
    neighbors
        A full neighbour list of the batch that reaches at least as far, shared by several descriptors; None: made here.
    threads
        Threads to use; the result does not depend on it.

    Returns
    -------
    ndarray
        f[M, n or 2n]: the q_l, then the w_l; 0 for an atom that has no neighbours (and w_l = 0
        where q_l < 1e-12).

    Raises
    ------
    KernelInputError
        If a structure is unfit or a parameter is wrong.

    Examples
    --------
    >>> from ase.build import bulk
    >>> steinhardt(bulk("Al", "fcc", a=4.05), r_cut=3.5).round(4).tolist()
    [[0.1909, 0.5745, -0.1593, -0.0132]]
    """
    check_positive(r_cut=r_cut)
    degrees = _degrees(l)
    kind = check_dtype(dtype)
    packed = as_batch(batch)
    check_batch(packed)
    n_sites = len(packed.numbers)
    columns = np.concatenate([[0], np.cumsum(degrees + 1)])
    q = np.zeros((n_sites, columns[-1], 2))
    recurrence = _recurrence(int(degrees.max()))
    symbols = [_three_j(degree) if w else _NO_SYMBOLS for degree in degrees.tolist()]
    out = np.zeros((n_sites, len(degrees) * (2 if w else 1)))

    def finish(first: int, last: int, moments: np.ndarray) -> None:
        for k, symbol in enumerate(symbols):
            part = np.ascontiguousarray(moments[first:last, columns[k] : columns[k + 1]])
            _invariants(part, *symbol, normalize_w, w, k, len(degrees), out[first:last])

    def start() -> Any:
        def kernel(first: int, last: int, pairs: NeighborList) -> None:
            _means(first, last, pairs.ptr, pairs.distance, pairs.vector, degrees, columns, *recurrence, q)
            if not average:
                finish(first, last, q)

        return kernel

    def start_average() -> Any:
        def kernel(first: int, last: int, pairs: NeighborList) -> None:
            _averages(first, last, pairs.ptr, pairs.j, q, means)
            finish(first, last, means)

        return kernel

    run_tasks(packed, float(r_cut), MAX_PAIRS, start, neighbors=neighbors, threads=threads)
    if average:
        means = q.copy()
        run_tasks(packed, float(r_cut), MAX_PAIRS, start_average, neighbors=neighbors, threads=threads)
    return out.astype(kind, copy=False)


def labels(
    r_cut: float = 0.0,
    l: int | Iterable[int] = (4, 6),
    *,
    w: bool = True,
    average: bool = False,
    **_: Any,
) -> list[str]:
    """Return the name of each column."""
    degrees = _degrees(l).tolist()
    mark = " average" if average else ""
    return [f"q{d}{mark}" for d in degrees] + ([f"w{d}{mark}" for d in degrees] if w else [])


def _degrees(l: int | Iterable[int]) -> np.ndarray:
    values = list(l) if isinstance(l, Iterable) else [l]
    for value in values:
        check_integer(0, L_MAX, l=value)
    if not values:
        raise KernelInputError("l is empty; give at least one degree")
    return np.array(values, dtype=np.int64)


@lru_cache(maxsize=8)
def _recurrence(l_max: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the normalised Legendre functions over sin^m: start f8[l], and for A_lm = up (z A_l-1,m - down A_l-2,m)."""
    start = np.empty(l_max + 1)
    up, down = np.zeros((l_max + 1, l_max + 1)), np.zeros((l_max + 1, l_max + 1))
    start[0] = math.sqrt(1.0 / (4.0 * math.pi))
    for m in range(1, l_max + 1):
        start[m] = -start[m - 1] * math.sqrt((2 * m + 1) / (2 * m))
    for k in range(1, l_max + 1):
        for m in range(k):
            up[k, m] = math.sqrt((4 * k * k - 1) / (k * k - m * m))
            down[k, m] = math.sqrt(((k - 1) ** 2 - m * m) / (4 * (k - 1) ** 2 - 1)) if k - 1 > m else 0.0
    return start, up, down


#: In place of :func:`_three_j` where no w_l is wanted.
_NO_SYMBOLS = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)


@lru_cache(maxsize=32)
def _three_j(degree: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """m1, m2 and the 3j symbol (l l l; m1 m2 -m1-m2), exact integers up to the last square root (Racah)."""
    f = math.factorial
    n = degree
    rows = []
    for m1 in range(-n, n + 1):
        for m2 in range(max(-n, -n - m1), min(n, n - m1) + 1):
            m3 = -m1 - m2
            terms = [
                ((-1) ** t, f(t) * f(t + m1) * f(t - m2) * f(n - t) * f(n - t - m1) * f(n - t + m2))
                for t in range(max(0, -m1, m2), min(n, n - m1, n + m2) + 1)
            ]
            common = math.lcm(*(divisor for _, divisor in terms))
            total = sum(sign * (common // divisor) for sign, divisor in terms)
            inside = f(n) ** 3 * f(n + m1) * f(n - m1) * f(n + m2) * f(n - m2) * f(n + m3) * f(n - m3)
            # sum² · inside / (3n + 1)! as a quotient of integers, so that nothing overflows.
            size = math.sqrt(Fraction(total * total * inside, common * common * f(3 * n + 1)))
            rows.append((m1, m2, math.copysign(size, total) * (-1) ** (m3 % 2) if total else 0.0))
    m1, m2, value = zip(*rows)
    return np.array(m1, np.int64), np.array(m2, np.int64), np.array(value)


@njit(cache=True, nogil=True, error_model="numpy")
def _means(
    first: int,
    last: int,
    pair_ptr: np.ndarray,
    distance: np.ndarray,
    vector: np.ndarray,
    degrees: np.ndarray,
    columns: np.ndarray,
    start: np.ndarray,
    up: np.ndarray,
    down: np.ndarray,
    q: np.ndarray,
) -> None:
    """Mean Y_lm of the neighbours, m ≥ 0. OUTPUT: adds to q f8[M, columns, 2] (real, imaginary part)."""
    l_max = start.shape[0] - 1
    slot = np.full(l_max + 1, -1, np.int64)
    for k in range(degrees.shape[0]):
        slot[degrees[k]] = columns[k]
    for i in range(first, last):
        begin, end = pair_ptr[i - first], pair_ptr[i - first + 1]
        for p in range(begin, end):
            weight = 1.0 / (end - begin)
            x, y, z = vector[p, 0] / distance[p], vector[p, 1] / distance[p], vector[p, 2] / distance[p]
            real, imag = weight, 0.0  # weight · (x + iy)^m
            for m in range(l_max + 1):
                below, here = 0.0, start[m]
                for k in range(m, l_max + 1):
                    if k > m:
                        below, here = here, up[k, m] * (z * here - down[k, m] * below)
                    if slot[k] >= 0:
                        q[i, slot[k] + m, 0] += here * real
                        q[i, slot[k] + m, 1] += here * imag
                real, imag = real * x - imag * y, real * y + imag * x
    # A degree that was asked for twice.
    for k in range(degrees.shape[0]):
        if slot[degrees[k]] != columns[k]:
            for i in range(first, last):
                for m in range(degrees[k] + 1):
                    q[i, columns[k] + m] = q[i, slot[degrees[k]] + m]


@njit(cache=True, nogil=True, error_model="numpy")
def _averages(
    first: int, last: int, pair_ptr: np.ndarray, neighbor: np.ndarray, single: np.ndarray, q: np.ndarray
) -> None:
    """Mean over the atom and its neighbours. OUTPUT: q f8[M, columns, 2], the rows ``first:last``."""
    for i in range(first, last):
        begin, end = pair_ptr[i - first], pair_ptr[i - first + 1]
        for p in range(begin, end):
            for c in range(q.shape[1]):
                q[i, c, 0] += single[neighbor[p], c, 0]
                q[i, c, 1] += single[neighbor[p], c, 1]
        q[i] /= end - begin + 1.0


@njit(cache=True, nogil=True, error_model="numpy")
def _invariants(
    q: np.ndarray,
    m1: np.ndarray,
    m2: np.ndarray,
    value: np.ndarray,
    normalize_w: bool,
    w: bool,
    k: int,
    n: int,
    out: np.ndarray,
) -> None:
    """q_l and w_l from q_lm f8[M, l + 1, 2]. OUTPUT: out f8[M, .], columns k and n + k."""
    degree = q.shape[1] - 1
    full = np.empty((2 * degree + 1, 2))
    for i in range(q.shape[0]):
        norm = 0.0
        for m in range(degree + 1):
            a, b = q[i, m, 0], q[i, m, 1]
            sign = -1.0 if m & 1 else 1.0
            full[degree + m, 0], full[degree + m, 1] = a, b
            full[degree - m, 0], full[degree - m, 1] = (a, b) if m == 0 else (sign * a, -sign * b)
            norm += (a * a + b * b) * (1.0 if m == 0 else 2.0)
        out[i, k] = np.sqrt(4.0 * np.pi / (2 * degree + 1) * norm)
        if not w or norm < 1e-24:  # zero by symmetry: w_l would be rounding over rounding
            continue
        total = 0.0
        for t in range(value.shape[0]):
            a, b = full[degree + m1[t], 0], full[degree + m1[t], 1]
            c, d = full[degree + m2[t], 0], full[degree + m2[t], 1]
            e, f = full[degree - m1[t] - m2[t], 0], full[degree - m1[t] - m2[t], 1]
            total += value[t] * ((a * c - b * d) * e - (a * d + b * c) * f)
        out[i, n + k] = total / norm**1.5 if normalize_w else total
