"""The derivative of h keep / q with the keep-set held, row by row, for ``compiled``; the formula is in ``plain``."""

# pyright: reportUntypedFunctionDecorator=false, reportMissingTypeStubs=false, reportUnknownParameterType=false
# pyright: reportCallIssue=false

from __future__ import annotations

from typing import Any

import numpy as np

from sap_art.kernels.lanes import TINY, add_in_any_order, compile_rows, f32, log_complement, one_minus_exp
from sap_art.kernels.law import Exponents
from sap_art.kernels.rows import BLOCK, TILE, block_sums


@compile_rows()
def differentiate_rows(
    h: Any, keep: Any, gradient: Any, out: Any, law: Exponents, draws: Any, held: bool, first: int, last: int
) -> bool:
    """Rows first to last of the gradient by h into ``out``; ``held`` takes 1 / q for a constant."""
    sums = np.empty((h.shape[1] + BLOCK - 1) // BLOCK, f32)
    by_p = np.empty(h.shape[1], f32)
    for r in range(first, last):
        total, _ = block_sums(h[r], sums)
        if total == 0:
            out[r] = 0
            continue
        inner = 0.0
        for start in range(0, h.shape[1], TILE):
            part = slice(start, min(start + TILE, h.shape[1]))
            inner += _differentiate(
                h[r, part], keep[r, part], gradient[r, part], out[r, part], by_p[part], law, draws, f32(total)
            )
        if not held:
            _add_by_weight(h[r], out[r], by_p, f32(inner), f32(total))
    return True


@compile_rows(fastmath={"contract"})
def _differentiate(
    h: Any, keep: Any, gradient: Any, out: Any, by_p: Any, law: Exponents, draws: Any, total: Any
) -> Any:
    """The gradient with 1 / q held into ``out``, that by p into ``by_p``; the sum of the latter's products with p."""
    inner = f32(0)
    for j in range(len(h)):
        p = abs(h[j]) / total
        complement = f32(1) - p
        minus_log = -log_complement(p, complement)
        scale = f32(keep[j]) / max(one_minus_exp(law.c * p + law.d * minus_log), TINY)
        out[j] = gradient[j] * scale
        slope = gradient[j] * h[j] * (scale - scale * scale) * draws
        if law.d > f32(0):
            slope = slope / complement if complement > f32(0) else f32(0)
        by_p[j] = slope
        inner = add_in_any_order(inner, slope * p)
    return inner


@compile_rows(fastmath={"contract"})
def _add_by_weight(h: Any, out: Any, by_p: Any, inner: Any, total: Any) -> None:
    for j in range(len(h)):
        slope = (by_p[j] - inner) / total
        out[j] += slope if h[j] > f32(0) else (-slope if h[j] < f32(0) else f32(0))
