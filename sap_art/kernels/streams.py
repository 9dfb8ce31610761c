"""The random numbers of a row for ``compiled``: Philox, counted by unit or number, image, purpose and draw."""

# pyright: reportUntypedFunctionDecorator=false, reportMissingTypeStubs=false, reportUnknownParameterType=false
# pyright: reportCallIssue=false

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from sap_art.kernels.lanes import compile_rows, philox, u32, uniform

# Purposes; the attempt is added.
FIRST_ARRIVALS, TOP_UP, LATER_ARRIVALS, ARRIVALS_AFTER_LOOK = 0, 1 << 30, 1 << 31, 3 << 30


class Row(NamedTuple):
    """What a row is to the random numbers."""

    image: np.uint32
    draw: np.uint32


@compile_rows()
def fill(bits: Any, lanes: int, start: int, purpose: int, row: Row, key: Any) -> None:
    """Random bits from ``lanes`` counters on: their first outputs, then their second ones, and so on."""
    b0, b1, b2, b3 = bits[:lanes], bits[lanes : 2 * lanes], bits[2 * lanes : 3 * lanes], bits[3 * lanes : 4 * lanes]
    for i in range(lanes):
        b0[i], b1[i], b2[i], b3[i] = philox((u32(start + i), row.image, u32(purpose), row.draw), key)


@compile_rows()
def poisson(mean: float, purpose: int, row: Row, key: Any) -> int:
    """A Poisson number: by products of uniforms below 10, else by Hörmann's transformed rejection (1993, PTRS)."""
    if mean < 10:
        count, product, end = 0, uniform(0, purpose, row, key), math.exp(-mean)
        while product > end:
            count += 1
            product *= uniform(count, purpose, row, key)
        return count
    b = 0.931 + 2.53 * math.sqrt(mean)
    a = -0.059 + 0.02483 * b
    inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
    n = 0
    while True:
        u, v = uniform(n, purpose, row, key) - 0.5, uniform(n + 1, purpose, row, key)
        n += 2
        distance = 0.5 - abs(u)
        count = math.floor((2 * a / distance + b) * u + mean + 0.43)
        if distance >= 0.07 and v <= 0.9277 - 3.6224 / (b - 2):
            return int(count)
        if count < 0 or (distance < 0.013 and v > distance):
            continue
        if math.log(v * inverse_alpha / (a / distance**2 + b)) <= count * math.log(mean) - mean - math.lgamma(
            count + 1
        ):
            return int(count)
