"""Checks of feature matrices, and the vectorised exponential that kernels of them share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from matcompute_kernels.compiled import njit
from matcompute_kernels.errors import KernelInputError

__all__ = ["exp2_one", "exp_in_place", "exp_one", "feature_matrix", "local_features"]

_LOG2E = 1.4426950408889634
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
_MAGIC = 6755399441055744.0  # 1.5 · 2^52: adding it leaves the rounded integer in the low bits


def feature_matrix(features: Any, name: str = "features", columns: int | None = None) -> np.ndarray:
    """Return a C-contiguous float64 or float32 matrix [N, F] (float32 stays, everything else becomes float64).

    Raises
    ------
    KernelInputError
        If it is no matrix of finite numbers (``index`` names the row) or has not ``columns`` columns.
    """
    try:
        matrix = np.asarray(features)
        if matrix.dtype.kind == "c" or features is None:
            raise TypeError
        if matrix.dtype != np.float32:
            matrix = matrix.astype(np.float64, copy=False)
    except (TypeError, ValueError):
        raise KernelInputError(f"{name} must be a matrix of numbers, one row for each item") from None
    if matrix.ndim == 1:
        matrix = matrix[:, None]
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise KernelInputError(f"{name} must have the shape [items, columns], not {list(np.shape(features))}")
    if columns is not None and matrix.shape[1] != columns:
        raise KernelInputError(f"{name} has {matrix.shape[1]} columns where {columns} are expected")
    matrix = np.ascontiguousarray(matrix)
    with np.errstate(invalid="ignore", over="ignore"):
        total = matrix.sum(axis=1)
    if not np.isfinite(total).all():
        bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
        if bad.size:
            raise KernelInputError(f"{name} has a value that is not finite", int(bad[0]))
    return matrix


def local_features(features: Any, name: str = "features") -> tuple[np.ndarray, np.ndarray]:
    """Return (matrix f8[M, F], ptr i8[N + 1]) from a list of per-structure matrices or such a pair.

    Raises
    ------
    KernelInputError
        If structures have no row or differ in their columns; ``index`` names the first.
    """
    if isinstance(features, tuple) and len(features) == 2 and np.ndim(features[1]) == 1:
        matrix = feature_matrix(features[0], name).astype(np.float64, copy=False)
        ptr = np.ascontiguousarray(features[1], dtype=np.int64)
        if ptr.size < 1 or ptr[0] != 0 or ptr[-1] != len(matrix) or np.any(np.diff(ptr) < 0):
            raise KernelInputError(f"{name}: ptr must rise from 0 to the number of rows ({len(matrix)})")
    else:
        try:
            items: Sequence[Any] = list(features)
        except TypeError:
            raise KernelInputError(
                f"{name} must be a list of matrices, not {type(features).__name__}"
            ) from None
        if not items:
            return np.zeros((0, 1)), np.zeros(1, "i8")
        arrays = []
        for index, item in enumerate(items):
            try:
                array = np.asarray(item.todense() if hasattr(item, "todense") else item)
                if array.dtype.kind == "c":
                    raise TypeError
                array = array.astype(np.float64, copy=False)
            except (TypeError, ValueError):
                raise KernelInputError(
                    f"{name} must be matrices of numbers, a row for each site", index
                ) from None
            if array.ndim != 2 or array.shape[1] != np.shape(items[0])[1]:
                raise KernelInputError(
                    f"{name} must have the shape [sites, columns], not {list(array.shape)}", index
                )
            arrays.append(array)
        ptr = np.concatenate([[0], np.cumsum([len(a) for a in arrays])]).astype(np.int64)
        matrix = np.ascontiguousarray(np.concatenate(arrays))
        if not np.isfinite(matrix).all():
            row = int(np.flatnonzero(~np.isfinite(matrix).all(axis=1))[0])
            raise KernelInputError(
                f"{name} has a value that is not finite", int(np.searchsorted(ptr, row, side="right") - 1)
            )
    empty = np.flatnonzero(np.diff(ptr) == 0)
    if empty.size:
        raise KernelInputError(f"{name} has no sites", int(empty[0]))
    return matrix, ptr


@intrinsic
def _power_of_two(typing_context: Any, shifted: Any) -> Any:
    """2^n for ``shifted`` = n + 1.5 · 2^52, by its bits."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        bits = builder.bitcast(arguments[0], word)
        exponent = builder.shl(builder.add(bits, ir.Constant(word, 1023)), ir.Constant(word, 52))
        return builder.bitcast(exponent, ir.DoubleType())

    return types.float64(types.float64), codegen


@njit(cache=True, fastmath={"contract", "nsz", "nnan"})
def exp_one(x: float) -> float:
    """exp(x) for x ≤ 709 to 2 ulp without a branch, so that loops over it vectorise; about 10⁻³⁰⁸ below -708.

    Cody and Waite's reduction to |r| ≤ ln 2 / 2, minimax polynomial of degree 10 (relative error 2.2e-16), exponent
    bits by a shift.
    """
    x = x if x > -708.0 else -708.0
    shifted = x * _LOG2E + _MAGIC
    n = shifted - _MAGIC
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    r2 = r * r  # Estrin's scheme, see exp2_one
    r4 = r2 * r2
    low = (1.0 + 1.0000000000000067491 * r) + (0.50000000000000056225 + 0.16666666666554314583 * r) * r2
    middle = 4.1666666666573067732e-2 + 8.3333333856992117269e-3 * r
    middle += (1.3888888932514779355e-3 + 1.9841170230570286664e-4 * r) * r2
    high = 2.4801504313785540166e-5 + 2.7640197391694840465e-6 * r + 2.7626371065696356075e-7 * r2
    return (low + (middle + high * r4) * r4) * _power_of_two(shifted)  # type: ignore[call-arg]


@njit(cache=True, fastmath={"contract", "nsz", "nnan"})
def exp2_one(x: float) -> float:
    """2^x for x ≤ 1023 without a branch; the relative error is that of x itself, |x| · 10⁻¹⁶, or 5 · 10⁻¹⁶.

    Minimax polynomial of degree 10 (relative error 2.2e-16) on [-1/2, 1/2], exponent bits by a shift.
    """
    x = x if x > -1021.0 else -1021.0
    shifted = x + _MAGIC
    r = x - (shifted - _MAGIC)
    # Estrin's scheme: a third of the latency of Horner's, which is what a loop over it waits for.
    r2 = r * r
    r4 = r2 * r2
    low = (1.0 + 0.69314718055994999222 * r) + (0.24022650695910098274 + 0.055504108664447120259 * r) * r2
    middle = 0.0096181291076068539459 + 0.001333355823026557439 * r
    middle += (0.0001540353044179413737 + 0.000015252657198892810108 * r) * r2
    high = 1.3215442552522291478e-6 + 1.0208702559406536031e-7 * r + 7.0725930278789965681e-9 * r2
    return (low + (middle + high * r4) * r4) * _power_of_two(shifted)  # type: ignore[call-arg]


@njit(cache=True, fastmath={"contract", "nsz", "nnan"})
def exp_in_place(values: np.ndarray) -> None:
    """Replace a flat float64 array by its exponential, OUTPUT."""
    for i in range(values.shape[0]):
        values[i] = exp_one(values[i])
