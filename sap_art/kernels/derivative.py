"""The derivative of keep / q with the keep-set held, row by row, for ``compiled``; the formula is in ``plain``."""

# pyright: reportUntypedFunctionDecorator=false, reportMissingTypeStubs=false, reportUnknownParameterType=false
# pyright: reportCallIssue=false

from __future__ import annotations

from typing import Any

import numpy as np

from sap_art.kernels.lanes import add_in_any_order, compile_rows, f32
from sap_art.kernels.rows import BLOCK, TILE, block_sums


@compile_rows(fastmath={"contract"})
def differentiate_rows(
    h: Any, scale: Any, gradient: Any, out: Any, draws: Any, exact: bool, first: int, last: int
) -> bool:
    """Rows first to last of the gradient by h into ``out``; ``exact`` unless q = 1 - exp(-r p)."""
    sums = np.empty((h.shape[1] + BLOCK - 1) // BLOCK, f32)
    for r in range(first, last):
        total, _ = block_sums(h[r], sums)
        if total == 0:
            out[r] = 0
            continue
        inner = 0.0
        for start in range(0, h.shape[1], TILE):
            part = slice(start, min(start + TILE, h.shape[1]))
            inner += _by_probability(
                h[r, part], scale[r, part], gradient[r, part], out[r, part], draws, f32(total), exact
            )
        _by_weight(h[r], out[r], f32(inner), f32(total))
    return True


@compile_rows(fastmath={"contract"})
def _by_probability(h: Any, scale: Any, gradient: Any, out: Any, draws: Any, total: Any, exact: bool) -> Any:
    """The derivative by p into ``out``; the sum of its products with p."""
    inner = f32(0)
    for j in range(len(h)):
        p = abs(h[j]) / total
        by_p = gradient[j] * (scale[j] - scale[j] * scale[j]) * draws
        if exact:
            by_p = by_p / (f32(1) - p) if p < f32(1) else f32(0)
        out[j] = by_p
        inner = add_in_any_order(inner, by_p * p)
    return inner


@compile_rows(fastmath={"contract"})
def _by_weight(h: Any, out: Any, inner: Any, total: Any) -> None:
    for j in range(len(h)):
        slope = (out[j] - inner) / total
        out[j] = slope if h[j] > f32(0) else (-slope if h[j] < f32(0) else f32(0))
