"""Scalar arithmetic that LLVM turns into vector lanes: random bits, logarithm, exponential; for ``compiled``.

Everything is float32 with branches only where LLVM can select, because a call into libm is not vectorised. The
polynomials are those of Cephes (S. L. Moshier, 1984-2000: logf, expf), good to one unit in the last place or two.

Numba keeps compiled code until the file of the outer function changes: whoever edits this one deletes __pycache__.
"""

# pyright: reportUntypedFunctionDecorator=false, reportMissingTypeStubs=false, reportUnknownParameterType=false
# pyright: reportCallIssue=false

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

# Compiled once per machine where the package's folder may be written, else once per process.
compile_rows = partial(njit, nogil=True, error_model="numpy", cache=os.access(Path(__file__).parent, os.W_OK))
f32, i32, u32, u64 = np.float32, np.int32, np.uint32, np.uint64

_MULTIPLIERS = u64(0xD2511F53), u64(0xCD9E8D57)
_WEYL = u32(0x9E3779B9), u32(0xBB67AE85)
_ROUNDS = 7  # the fewest with which Philox4x32 passes BigCrush (Salmon et al. 2011, table 2)
_LOG = (
    *(f32(7.0376836292e-2), f32(-1.1514610310e-1), f32(1.1676998740e-1), f32(-1.2420140846e-1), f32(1.4249322787e-1)),
    *(f32(-1.6668057665e-1), f32(2.0000714765e-1), f32(-2.4999993993e-1), f32(3.3333331174e-1)),
)
_EXP = (
    *(f32(1.9875691500e-4), f32(1.3981999507e-3), f32(8.3334519073e-3)),
    *(f32(4.1665795894e-2), f32(1.6666665459e-1), f32(5.0000001201e-1)),
)
TINY = f32(np.finfo(f32).tiny)


@intrinsic
def _bits(_context: Any, x: Any) -> Any:
    """The 32 bits of a float32 as an int32."""
    return types.int32(types.float32), lambda _c, builder, _s, args: builder.bitcast(args[0], ir.IntType(32))


@intrinsic
def _from_bits(_context: Any, x: Any) -> Any:
    """The float32 that has these 32 bits."""
    return types.float32(types.int32), lambda _c, builder, _s, args: builder.bitcast(args[0], ir.FloatType())


@intrinsic
def add_in_any_order(_context: Any, x: Any, y: Any) -> Any:
    """x + y in float32, as part of a sum that may be reordered into lanes."""
    signature = types.float32(types.float32, types.float32)
    return signature, lambda _c, builder, _s, args: builder.fadd(*args, flags=("reassoc", "nsz"))


@intrinsic
def prefetch(_context: Any, row: Any, unit: Any) -> Any:
    """Ask for the cache line of ``row[unit]``, to read it soon; the row is a contiguous array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        address = cgutils.get_item_pointer(context, builder, signature.args[0], array, [args[1]])
        line = builder.bitcast(address, ir.IntType(8).as_pointer())
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [line, word(0), word(2), word(1)])  # for reading, second-level cache, data
        return context.get_dummy_value()

    return types.void(row, types.intp), generate


@njit(inline="always")
def philox(counter: Any, key: Any) -> Any:
    """Four random uint32 for a counter of four and a key of two uint32 (Salmon et al. 2011)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        a, b = _MULTIPLIERS[0] * u64(c0), _MULTIPLIERS[1] * u64(c2)
        c0, c1, c2, c3 = (
            u32(u32(b >> u64(32)) ^ c1 ^ k0),
            u32(b),
            u32(u32(a >> u64(32)) ^ c3 ^ k1),
            u32(a),
        )
        k0, k1 = u32(k0 + _WEYL[0]), u32(k1 + _WEYL[1])
    return c0, c1, c2, c3


@njit(inline="always")
def log_complement(v: Any, u: Any) -> Any:
    """log u = log(1 - v) for u in (0, 1], from u and v = 1 - u: near u = 1 it is v that has the digits."""
    bits = _bits(u)
    exponent = i32(i32(bits - i32(0x3F3504F3)) >> i32(23))  # u = mantissa * 2^exponent with the mantissa around 1
    m = -v if exponent == i32(0) else _from_bits(i32(bits - i32(exponent << i32(23)))) - f32(1)
    y = _LOG[0]
    y = y * m + _LOG[1]
    y = y * m + _LOG[2]
    y = y * m + _LOG[3]
    y = y * m + _LOG[4]
    y = y * m + _LOG[5]
    y = y * m + _LOG[6]
    y = y * m + _LOG[7]
    y = y * m + _LOG[8]
    z = m * m
    return m + (y * m * z - f32(0.5) * z) + f32(exponent) * f32(0.6931471805599453)


@njit(inline="always")
def one_minus_exp(x: Any) -> Any:
    """1 - exp(-x) for x >= 0, with full relative precision near 0."""
    x = min(x, f32(40))
    n = i32(x * f32(1.4426950408889634) + f32(0.5))
    r = f32(n) * f32(0.693359375) - x  # ln 2 in two parts, so that n ln 2 - x keeps its digits
    r = r + f32(n) * f32(-2.12194440e-4)
    y = _EXP[0]
    y = y * r + _EXP[1]
    y = y * r + _EXP[2]
    y = y * r + _EXP[3]
    y = y * r + _EXP[4]
    y = y * r + _EXP[5]
    power = _from_bits(i32(i32(i32(127) - n) << i32(23)))  # 2^-n
    return (f32(1) - power) - power * (y * r * r + r)


@njit(inline="always")
def exponential(bits: Any) -> Any:
    """A standard exponential from 31 of 32 random bits: on a grid of 2^-31 at both ends of the uniform."""
    k = i32(u32(bits >> u32(1)))
    below = (f32(k) + f32(0.5)) * f32(2**-31)
    above = (f32(i32(i32(0x7FFFFFFF) - k)) + f32(0.5)) * f32(2**-31)
    return -log_complement(below, above)


@njit(inline="always")
def uniform(n: Any, purpose: Any, row: Any, key: Any) -> Any:
    """The n-th float64 in (0, 1) for a row, from 64 random bits."""
    high, low, _, _ = philox((u32(n), row.image, u32(purpose), row.draw), key)
    return (float(high) + (float(low) + 0.5) * 2.0**-32) * 2.0**-32
