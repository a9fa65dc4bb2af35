"""Elementary functions that LLVM can vectorise: called in a plain loop, they become eight values at a time.

``np.exp`` and ``np.cos`` in a compiled loop are one library call per value unless Intel's SVML is installed.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from matcompute_kernels.compiled import njit

__all__ = ["cosine_cutoff", "exp_negative"]

_intrinsic: Any = intrinsic  # Numba types it as a class

_ROUND = 6755399441055744.0  # 1.5 · 2^52: adding it leaves the nearest integer in the low bits
_LOG2E = 1.4426950408889634
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
_E = tuple(1.0 / math.factorial(k) for k in range(13))
_C = tuple((-1) ** k * (math.pi / 2) ** (2 * k) / math.factorial(2 * k) for k in range(12))


@_intrinsic
def _bits(typing_context: Any, value: Any) -> Any:
    """The bits of a double as an integer."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), codegen


@_intrinsic
def _double(typing_context: Any, value: Any) -> Any:
    """The double that has the given bits."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), codegen


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def exp_negative(x: float) -> float:
    """e^x for x ≤ 300 to 4e-16 relative; below -700 it stays at e^-700 (1e-304).

    ``contract`` only lets the compiler fuse a product with a sum.
    """
    x = max(x, -700.0)
    shifted = x * _LOG2E + _ROUND
    n = shifted - _ROUND
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    p = _E[12]
    p = p * r + _E[11]
    p = p * r + _E[10]
    p = p * r + _E[9]
    p = p * r + _E[8]
    p = p * r + _E[7]
    p = p * r + _E[6]
    p = p * r + _E[5]
    p = p * r + _E[4]
    p = p * r + _E[3]
    p = p * r + _E[2]
    p = p * r + _E[1]
    p = p * r + _E[0]
    return _double(_bits(p) + (_bits(shifted) << 52))


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def cosine_cutoff(square: float) -> float:
    """(1 + cos πu)/2 = cos²(πu/2) from u² in [0, 1], to 2e-16 of 1.

    u is a distance over its cutoff: no square root is needed.
    """
    p = _C[11]
    p = p * square + _C[10]
    p = p * square + _C[9]
    p = p * square + _C[8]
    p = p * square + _C[7]
    p = p * square + _C[6]
    p = p * square + _C[5]
    p = p * square + _C[4]
    p = p * square + _C[3]
    p = p * square + _C[2]
    p = p * square + _C[1]
    p = p * square + _C[0]
    return p * p
