"""Vector code that Numba's loops do not become by themselves: the points of a run that lie within a cutoff.

LLVM has no loop transformation for "keep those that pass"; its ``vector.compress`` (LLVM 19 and later, one
instruction with AVX-512, a short sequence elsewhere) does eight candidates at once, about four times the speed of the
best scalar loop. With an older LLVM the scalar loop is used.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic as numba_intrinsic

from matcompute_kernels.compiled import njit

__all__ = ["PADDING", "append_near"]

# An intrinsic is written as (typing context, types) → (signature, code) and called with values.
intrinsic: Any = numba_intrinsic

_WIDTH = 8
#: Readable entries that :func:`append_near` needs behind the last candidate, and writable ones behind the last hit.
PADDING = _WIDTH


@intrinsic
def _address(typing_context: Any, array: Any) -> Any:
    """Pointer to the first element of an array."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.make_array(signature.args[0])(context, builder, arguments[0]).data

    return types.CPointer(array.dtype)(array), codegen


@intrinsic
def _append_eight(
    typing_context: Any,
    px: Any,
    py: Any,
    pz: Any,
    x: Any,
    y: Any,
    z: Any,
    limit: Any,
    k: Any,
    end: Any,
    hits: Any,
    n: Any,
) -> Any:
    """One step of :func:`append_near`: candidates k to k + 7, those from ``end`` on left out."""
    real, place = types.CPointer(types.float64), types.CPointer(types.int32)
    f8, i8 = types.float64, types.int64

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        px, py, pz, x, y, z, limit, k, end, hits, n = arguments
        double, int32, bit = ir.DoubleType(), ir.IntType(32), ir.IntType(1)
        vector, places = ir.VectorType(double, _WIDTH), ir.VectorType(int32, _WIDTH)

        def splat(value: Any, kind: Any) -> Any:
            nothing = ir.Constant(kind, ir.Undefined)
            one = builder.insert_element(nothing, value, ir.Constant(int32, 0))
            return builder.shuffle_vector(one, nothing, ir.Constant(places, [0] * _WIDTH))

        total = None
        for pointer, centre in ((px, x), (py, y), (pz, z)):
            source = builder.bitcast(builder.gep(pointer, [k]), ir.PointerType(vector))
            loaded = builder.load(source, align=8)
            difference = builder.fsub(loaded, splat(centre, vector))
            square = builder.fmul(difference, difference)
            total = square if total is None else builder.fadd(total, square)
        near = builder.fcmp_ordered("<", total, splat(limit, vector))
        lanes = ir.Constant(places, list(range(_WIDTH)))
        numbers = builder.add(splat(builder.trunc(k, int32), places), lanes)
        inside = builder.icmp_signed("<", numbers, splat(builder.trunc(end, int32), places))
        mask = builder.and_(near, inside)
        name = f"llvm.experimental.vector.compress.v{_WIDTH}i32"
        kind = ir.FunctionType(places, [places, ir.VectorType(bit, _WIDTH), places])
        compress = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        kept = builder.call(compress, [numbers, mask, ir.Constant(places, ir.Undefined)])
        target = builder.bitcast(builder.gep(hits, [n]), ir.PointerType(places))
        builder.store(kept, target, align=4)
        count = builder.ctpop(builder.bitcast(mask, ir.IntType(_WIDTH)))
        return builder.add(n, builder.zext(count, ir.IntType(64)))

    return i8(real, real, real, f8, f8, f8, f8, i8, i8, place, i8), codegen


@njit(cache=True, nogil=True)
def _append_near_vector(
    x: float,
    y: float,
    z: float,
    xyz: np.ndarray,
    begin: int,
    end: int,
    limit: float,
    hits: np.ndarray,
    n: int,
) -> int:
    px, py, pz, place = _address(xyz[0]), _address(xyz[1]), _address(xyz[2]), _address(hits)
    k = begin
    while k < end:
        n = _append_eight(px, py, pz, x, y, z, limit, k, end, place, n)
        k += 8
    return n


@njit(cache=True, nogil=True)
def _append_near_scalar(
    x: float,
    y: float,
    z: float,
    xyz: np.ndarray,
    begin: int,
    end: int,
    limit: float,
    hits: np.ndarray,
    n: int,
) -> int:
    gx, gy, gz = xyz[0], xyz[1], xyz[2]
    for k in range(begin, end):
        dx, dy, dz = gx[k] - x, gy[k] - y, gz[k] - z
        hits[n] = k
        n += dx * dx + dy * dy + dz * dz < limit
    return n


#: ``append_near(x, y, z, xyz, begin, end, limit, hits, n)``: append to ``hits[n:]`` (OUTPUT, i4) the numbers of those
#: among the points ``xyz[:, begin:end]`` whose squared distance to (x, y, z) is below ``limit``; return the new n.
append_near = _append_near_vector if llvm.llvm_version_info[0] >= 19 else _append_near_scalar
