"""Eight float64 in one value: vector registers inside Numba kernels.

Numba's loops become vector code only where LLVM sees a plain loop over long arrays. The kernels of SOAP need short
products kept in registers, so this module gives Numba a type ``Vec8`` (LLVM ``<8 x double>``) with loads, stores and
arithmetic, and tuples of it ("rows") as accumulators. One AVX-512 register holds it; other machines use two or four.

Inside ``@njit`` functions::

    v = load8(array, offset)            # eight entries of a contiguous array, from the flat ``offset`` on
    v = a * b + splat8(2.0)             # Vec8 with Vec8
    v = fma8(a, b, c)                   # a·b + c, fused where the machine can
    store8(array, offset, v)
    rows = zero_rows((0,) * 5)          # five accumulators
    rows = add_outer(rows, v, array, offset, stride)   # rows[k] += array[offset + k·stride] · v

Offsets count elements from the array's first and are **not checked**: a kernel that uses them pads its arrays.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic as numba_intrinsic
from numba.extending import lower_builtin, models, register_model

__all__ = [
    "LANES",
    "MANY_REGISTERS",
    "add_distance",
    "add_full",
    "add_max",
    "add_outer",
    "add_rows",
    "address",
    "aligned_zeros",
    "fma8",
    "load8",
    "load_rows",
    "save_rows",
    "shift",
    "splat8",
    "store8",
    "store_full",
    "store_rows",
    "zero_rows",
]

# An intrinsic is written as (typing context, types) → (signature, code) and called with values.
intrinsic: Any = numba_intrinsic

#: Entries of a Vec8.
LANES = 8
#: Whether a dozen Vec8 fit into registers: AVX-512 has 32 registers of eight lanes, AVX2 16 of four.
MANY_REGISTERS = bool(llvm.get_host_cpu_features().get("avx512f"))

_DOUBLE, _FLOAT, _INT = ir.DoubleType(), ir.FloatType(), ir.IntType(32)
_VECTOR = ir.VectorType(_DOUBLE, LANES)
_SINGLE = ir.VectorType(_FLOAT, LANES)
_PLACES = ir.VectorType(_INT, LANES)
_MASK = ir.VectorType(ir.IntType(1), LANES)


class Vec8Type(types.Type):
    """Numba's type of eight float64."""

    def __init__(self) -> None:
        super().__init__(name="Vec8")


vec8 = Vec8Type()


@register_model(Vec8Type)
class _Vec8Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


def _declare(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    module = builder.module
    return module.globals.get(name) or ir.Function(module, ir.FunctionType(result, arguments), name)


def _pointer(context: Any, builder: Any, kind: Any, array: Any, offset: Any) -> Any:
    if not isinstance(kind, types.CPointer):
        array = context.make_array(kind)(context, builder, array).data
    return builder.gep(array, [offset])


def _splat(builder: Any, value: Any, kind: Any = _VECTOR) -> Any:
    nothing = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(nothing, value, ir.Constant(_INT, 0))
    return builder.shuffle_vector(one, nothing, ir.Constant(_PLACES, [0] * LANES))


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return builder.call(_declare(builder, "llvm.fmuladd.v8f64", _VECTOR, [_VECTOR] * 3), [a, b, c])


def aligned_zeros(shape: tuple[int, ...]) -> np.ndarray:
    """Zeros of float64 that begin at a multiple of 64 bytes: whole vectors then lie in one cache line."""
    size = math.prod(shape)
    room = np.zeros(size + LANES)
    first = (-room.ctypes.data // 8) % LANES
    return room[first : first + size].reshape(shape)


@infer_global(operator.add)
@infer_global(operator.sub)
@infer_global(operator.mul)
class _Arithmetic(ConcreteTemplate):
    cases = [signature(vec8, vec8, vec8)]


@lower_builtin(operator.add, vec8, vec8)
def _add(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.fadd(*args)


@lower_builtin(operator.sub, vec8, vec8)
def _subtract(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.fsub(*args)


@lower_builtin(operator.mul, vec8, vec8)
def _multiply(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.fmul(*args)


@intrinsic
def address(typing_context: Any, array: Any) -> Any:
    """Pointer to the first element, for all functions here in place of the array: one argument instead of seven.

    It does not keep the array alive. Take it only of arrays that are arguments of the calling function.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.make_array(sig.args[0])(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), codegen


@intrinsic
def shift(typing_context: Any, pointer: Any, offset: Any) -> Any:
    """The pointer ``offset`` elements further on."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.gep(args[0], [args[1]])

    return pointer(pointer, types.int64), codegen


@intrinsic
def splat8(typing_context: Any, value: Any) -> Any:
    """Eight times one number."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _splat(builder, args[0])

    return vec8(types.float64), codegen


@intrinsic
def fma8(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a·b + c."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _multiply_add(builder, *args)

    return vec8(vec8, vec8, vec8), codegen


@intrinsic
def load8(typing_context: Any, array: Any, offset: Any) -> Any:
    """``array.flat[offset : offset + 8]`` of a contiguous float64 array."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, sig.args[0], *args)
        return builder.load(builder.bitcast(pointer, ir.PointerType(_VECTOR)), align=8)

    return vec8(array, types.int64), codegen


@intrinsic
def store8(typing_context: Any, array: Any, offset: Any, value: Any) -> Any:
    """``array.flat[offset : offset + 8] = value`` (OUTPUT: array, float64)."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, sig.args[0], *args[:2])
        builder.store(args[2], builder.bitcast(pointer, ir.PointerType(_VECTOR)), align=8)
        return context.get_dummy_value()

    return types.void(array, types.int64, vec8), codegen


def _masked_rows(adding: bool) -> Any:
    def typing(
        typing_context: Any,
        array: Any,
        offset: Any,
        stride: Any,
        triangle: Any,
        first: Any,
        high: Any,
        scale: Any,
        rows: Any,
    ) -> Any:
        single = array.dtype == types.float32
        kind, size, suffix = (_SINGLE, 4, "v8f32.p0") if single else (_VECTOR, 8, "v8f64.p0")

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            array, offset, stride, triangle, first, high, scale, rows = args
            address = ir.PointerType(kind)
            load = _declare(builder, f"llvm.masked.load.{suffix}", kind, [address, _INT, _MASK, kind])
            store = _declare(
                builder, f"llvm.masked.store.{suffix}", ir.VoidType(), [kind, address, _INT, _MASK]
            )
            lanes, alignment = ir.Constant(_PLACES, list(range(LANES))), ir.Constant(_INT, size)
            below = builder.icmp_signed("<", lanes, _splat(builder, builder.trunc(high, _INT), _PLACES))
            factor = _splat(builder, scale)
            for k in range(len(sig.args[7])):
                least = _splat(builder, builder.trunc(first, _INT), _PLACES)
                mask = builder.and_(below, builder.icmp_signed(">=", lanes, least))
                value = builder.fmul(builder.extract_value(rows, k), factor)
                if single:
                    value = builder.fptrunc(value, kind)
                pointer = builder.bitcast(_pointer(context, builder, sig.args[0], array, offset), address)
                if adding:
                    there = builder.call(load, [pointer, alignment, mask, ir.Constant(kind, [0.0] * LANES)])
                    value = builder.fadd(there, value)
                builder.call(store, [value, pointer, alignment, mask])
                offset = builder.add(offset, stride)
                stride = builder.sub(stride, triangle)
                first = builder.add(first, triangle)
            return context.get_dummy_value()

        i8 = types.int64
        return types.void(array, i8, i8, i8, i8, i8, types.float64, rows), codegen

    return typing


#: ``store_rows(array, offset, stride, triangle, first, high, scale, rows)``: write scale · rows[k] to a contiguous
#: array (OUTPUT, float64 or float32), lanes ``first + k·triangle`` to ``high`` (excluded) only; row k + 1 starts
#: ``stride - k·triangle`` entries behind row k. triangle = 1 packs upper triangles, 0 rectangles.
store_rows = intrinsic(_masked_rows(adding=False))
#: The same, added to what is there.
add_rows = intrinsic(_masked_rows(adding=True))


def _full_rows(adding: bool) -> Any:
    def typing(
        typing_context: Any,
        array: Any,
        offset: Any,
        stride: Any,
        triangle: Any,
        first: Any,
        scale: Any,
        rows: Any,
    ) -> Any:
        single = array.dtype == types.float32
        kind, size = (_SINGLE, 4) if single else (_VECTOR, 8)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            array, offset, stride, triangle, first, scale, rows = args
            factor, lanes = _splat(builder, scale), ir.Constant(_PLACES, list(range(LANES)))
            i8 = ir.IntType(64)
            for k in reversed(range(len(sig.args[6]))):
                value = builder.fmul(builder.extract_value(rows, k), factor)
                if single:
                    value = builder.fptrunc(value, kind)
                place = builder.sub(builder.mul(stride, i8(k)), builder.mul(triangle, i8(k * (k - 1) // 2)))
                place = builder.add(offset, place)
                pointer = builder.bitcast(
                    _pointer(context, builder, sig.args[0], array, place), ir.PointerType(kind)
                )
                if adding:
                    least = builder.trunc(builder.add(first, builder.mul(triangle, i8(k))), _INT)
                    counts = builder.icmp_signed(">=", lanes, _splat(builder, least, _PLACES))
                    value = builder.select(counts, value, ir.Constant(kind, [0.0] * LANES))
                    value = builder.fadd(builder.load(pointer, align=size), value)
                builder.store(value, pointer, align=size)
            return context.get_dummy_value()

        i8 = types.int64
        return types.void(array, i8, i8, i8, i8, types.float64, rows), codegen

    return typing


#: :data:`store_rows` with whole vectors, much faster where the machine has no masks (AVX2). Lanes left of a row's first
#: are written too, and mended by the rows above: the last row is written first.
store_full = intrinsic(_full_rows(adding=False))
#: The same, added to what is there (lanes left of a row's first get a zero).
add_full = intrinsic(_full_rows(adding=True))


@intrinsic
def zero_rows(typing_context: Any, shape: Any) -> Any:
    """As many zero vectors as the tuple ``shape`` is long."""
    rows = types.UniTuple(vec8, len(shape))

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.make_tuple(builder, rows, [ir.Constant(_VECTOR, [0.0] * LANES)] * len(rows))

    return rows(shape), codegen


@intrinsic
def load_rows(typing_context: Any, shape: Any, array: Any, offset: Any, stride: Any) -> Any:
    """As many vectors as the tuple ``shape`` is long, from ``offset + k·stride`` on."""
    rows = types.UniTuple(vec8, len(shape))

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _, array, offset, stride = args
        results = []
        for _ in range(len(rows)):
            pointer = _pointer(context, builder, sig.args[1], array, offset)
            results.append(builder.load(builder.bitcast(pointer, ir.PointerType(_VECTOR)), align=8))
            offset = builder.add(offset, stride)
        return context.make_tuple(builder, rows, results)

    return rows(shape, array, types.int64, types.int64), codegen


@intrinsic
def save_rows(typing_context: Any, rows: Any, array: Any, offset: Any, stride: Any) -> Any:
    """Write rows[k] to ``offset + k·stride`` on (OUTPUT: array, float64)."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        rows, array, offset, stride = args
        for k in range(len(sig.args[0])):
            pointer = _pointer(context, builder, sig.args[1], array, offset)
            value = builder.extract_value(rows, k)
            builder.store(value, builder.bitcast(pointer, ir.PointerType(_VECTOR)), align=8)
            offset = builder.add(offset, stride)
        return context.get_dummy_value()

    return types.void(rows, array, types.int64, types.int64), codegen


@intrinsic
def add_outer(typing_context: Any, rows: Any, value: Any, array: Any, offset: Any, stride: Any) -> Any:
    """Return rows with ``rows[k] + array.flat[offset + k·stride] · value`` in place of rows[k]."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        rows, value, array, offset, stride = args
        results = []
        for k in range(len(sig.args[0])):
            scalar = builder.load(_pointer(context, builder, sig.args[2], array, offset))
            before = builder.extract_value(rows, k)
            results.append(_multiply_add(builder, _splat(builder, scalar), value, before))
            offset = builder.add(offset, stride)
        return context.make_tuple(builder, sig.return_type, results)

    return rows(rows, vec8, array, types.int64, types.int64), codegen


def _add_each(term: Any) -> Any:
    def typing(
        typing_context: Any, rows: Any, value: Any, array: Any, offset: Any, stride: Any, one: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            rows, value, array, offset, stride, one = args
            results = []
            for k in range(len(sig.args[0])):
                scalar = builder.load(_pointer(context, builder, sig.args[2], array, offset))
                more = term(builder, _splat(builder, scalar), value)
                results.append(_multiply_add(builder, more, one, builder.extract_value(rows, k)))
                offset = builder.add(offset, stride)
            return context.make_tuple(builder, sig.return_type, results)

        return rows(rows, vec8, array, types.int64, types.int64, vec8), codegen

    return intrinsic(typing)


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _distance(builder: Any, a: Any, b: Any) -> Any:
    return builder.call(_declare(builder, "llvm.fabs.v8f64", _VECTOR, [_VECTOR]), [builder.fsub(a, b)])


#: ``add_max(rows, value, array, offset, stride, one)``: rows with rows[k] + one · max(array.flat[offset + k·stride],
#: value). ``one`` is 1: a product and a sum have registers and units (of many processors) that a mere sum has not.
add_max = _add_each(_larger)
#: The same with |array.flat[offset + k·stride] - value|.
add_distance = _add_each(_distance)
