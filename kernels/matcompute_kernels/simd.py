"""Vector code that Numba's loops do not become by themselves: the points of a run that lie within a cutoff.

LLVM has no loop transformation for "keep those that pass". Here eight candidates are compared at once; the eight
answers are the bits of a number, and a table has the lanes that are kept for each of the 256. (LLVM's
``vector.compress`` is one instruction with AVX-512, but without it a branch a lane.)
"""

from __future__ import annotations

from typing import Any

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


def _kept_lanes(builder: Any) -> Any:
    """Table of the module under construction: for each of the masks, its lanes, the lowest first (2 kB)."""
    name = "matcompute_kept_lanes"
    there = builder.module.globals.get(name)
    if there is not None:
        return there
    byte = ir.IntType(8)
    row = ir.VectorType(byte, _WIDTH)
    rows = []
    for mask in range(1 << _WIDTH):
        lanes = [lane for lane in range(_WIDTH) if mask >> lane & 1]
        rows.append(ir.Constant(row, lanes + [0] * (_WIDTH - len(lanes))))
    table = ir.GlobalVariable(builder.module, ir.ArrayType(row, len(rows)), name)
    table.linkage, table.global_constant = "internal", True
    table.initializer = ir.Constant(table.value_type, rows)
    return table


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
        double, int32 = ir.DoubleType(), ir.IntType(32)
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
        bits = builder.bitcast(mask, ir.IntType(_WIDTH))
        row = builder.gep(_kept_lanes(builder), [int32(0), builder.zext(bits, int32)], inbounds=True)
        kept = builder.zext(builder.load(row), places)
        kept = builder.add(kept, splat(builder.trunc(k, int32), places))
        target = builder.bitcast(builder.gep(hits, [n]), ir.PointerType(places))
        builder.store(kept, target, align=4)
        count = builder.ctpop(bits)
        return builder.add(n, builder.zext(count, ir.IntType(64)))

    return i8(real, real, real, f8, f8, f8, f8, i8, i8, place, i8), codegen


@njit(cache=True, nogil=True)
def append_near(
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
    """Append to ``hits[n:]`` the numbers of the points of a run within a distance of (x, y, z); return the new n.

    Parameters
    ----------
    x, y, z
        Centre.
    xyz
        Points, f8[3, m], readable for PADDING places behind ``end``.
    begin, end
        The run.
    limit
        Squared distance (exclusive).
    hits
        OUTPUT: i4, with PADDING places behind the last hit.
    n
        Hits that are there already.
    """
    px, py, pz, place = _address(xyz[0]), _address(xyz[1]), _address(xyz[2]), _address(hits)
    k = begin
    while k < end:
        n = _append_eight(px, py, pz, x, y, z, limit, k, end, place, n)
        k += 8
    return n
