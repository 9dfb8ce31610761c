"""The three laws of a draw in one form, for the kernels that decide by first arrivals."""

from __future__ import annotations

import math
from typing import NamedTuple


class Exponents(NamedTuple):
    """In terms of p and l = -log(1 - p): a unit is kept if E < a p + b l, and 1 - q = exp(-(c p + d l))."""

    a: float
    b: float
    c: float
    d: float


def exponents(draws: int, method: str, *, margin: float) -> Exponents:
    """The law of ``method`` at r = ``draws``; for the exact one with arrivals at r' = r - margin sqrt(r)."""
    if method == "multinomial":
        return Exponents(max(0.0, draws - margin * math.sqrt(draws)), 0, 0, draws)
    return Exponents(0, draws, 0, draws) if method == "bernoulli" else Exponents(draws, 0, draws, 0)
