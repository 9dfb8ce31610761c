"""Arithmetic and random numbers within the kernels of ``fused``: logarithm, 1 / q, uniforms, Poisson numbers."""

# pyright: reportUntypedFunctionDecorator=false, reportMissingTypeStubs=false, reportUnknownParameterType=false
# pyright: reportMissingParameterType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

ROUNDS = tl.constexpr(7)


@triton.jit
def minus_log(v, u):
    """-log u from u and v = 1 - u, float32: a series for small v, else the logarithm with u's rounding undone."""
    series = v * (1 + v * (1 / 2 + v * (1 / 3 + v * (1 / 4 + v * (1 / 5)))))
    rounding = tl.where(v < 0.5, ((1 - u) - v) / u, 0.0)
    return tl.where(v < 1 / 32, series, -tl.log(u) - rounding)


@triton.jit
def inverse_probability(p, c, d):
    """1 / q with 1 - q = exp(-(c p - d log(1 - p))), float32."""
    x = c * p + d * minus_log(p, tl.maximum(1 - p, 1e-38))
    series = x * (1 - x / 2 * (1 - x / 3 * (1 - x / 4 * (1 - x / 5))))
    return 1 / tl.maximum(tl.where(x < 1 / 16, series, 1 - tl.exp(-x)), 1.2e-38)


@triton.jit
def uniform(n, purpose, image, draw, key):
    """The n-th float64 in (0, 1) of a stream, from 64 random bits."""
    high, low, _, _ = tl.philox(key, n.to(tl.uint32), image, purpose, draw, n_rounds=ROUNDS)
    return (high.to(tl.float64) + (low.to(tl.float64) + 0.5) * 2.3283064365386963e-10) * 2.3283064365386963e-10


@triton.jit
def _log_factorial(k):
    """log k! by Stirling's series at k + 9, float64."""
    z = k + 9.0
    product = (k + 1) * (k + 2) * (k + 3) * (k + 4) * (k + 5) * (k + 6) * (k + 7) * (k + 8)
    series = (1 / 12 - (1 / 360 - (1 / 1260 - 1 / (1680 * z * z)) / (z * z)) / (z * z)) / z
    return (z - 0.5) * tl.log(z) - z + 0.9189385332046727 + series - tl.log(product)


@triton.jit
def poisson(mean, purpose, image, draw, key):
    """A Poisson number, int64: products of uniforms below 10, else transformed rejection (Hörmann 1993, PTRS)."""
    n = tl.full((), 0, tl.int64)
    result = tl.full((), -1, tl.int64)
    if mean < 10:
        product = uniform(n, purpose, image, draw, key)
        end = tl.exp(-mean)
        while product > end:
            n += 1
            product *= uniform(n, purpose, image, draw, key)
        result = n
    else:
        b = 0.931 + 2.53 * tl.sqrt(mean)
        a = -0.059 + 0.02483 * b
        while result < 0:
            u = uniform(n, purpose, image, draw, key) - 0.5
            v = uniform(n + 1, purpose, image, draw, key)
            n += 2
            distance = 0.5 - tl.abs(u)
            count = tl.floor((2 * a / distance + b) * u + mean + 0.43)
            inside = (distance >= 0.07) & (v <= 0.9277 - 3.6224 / (b - 2))
            possible = (count >= 0) & ((distance >= 0.013) | (v <= distance))
            safe = tl.maximum(count, 0.0)
            bound = safe * tl.log(mean) - mean - _log_factorial(safe)
            accepted = tl.log(v * (1.1239 + 1.1328 / (b - 3.4)) / (a / (distance * distance) + b)) <= bound
            result = tl.where(inside | (possible & accepted), count.to(tl.int64), result)
    return result
