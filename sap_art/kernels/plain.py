"""The draw by torch operations: any device, any type, nothing to compile.

Every operation is a pass over memory, so there are few, in place, and on a CPU over so many rows at a time that what
they share stays in the caches.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sap_art.kernels.arrivals import keep_exactly
from sap_art.kernels.splitmix import RowNumbers
from sap_art.kernels.weights import Weights, two_rows, weigh
from sap_art.randomness import numbering

_CHUNK = 3 * 2**19
"""Elements that are worked on at a time on a CPU: temporaries stay small, calls stay few."""

_MANY_DRAWS = 2**12
"""From here on two terms of r log(1 - p) do for float32, see ``minus_kept_probability``."""


def keep_set(h: Tensor, draws: int, generator: torch.Generator, *, method: str) -> Tensor:
    """Which units are kept: (B, N) -> (B, N) bool."""
    keep = torch.empty_like(h, dtype=torch.bool)
    for rows, weights, numbers in _chunks(h, generator):
        kept, _ = _draw(weights, draws, numbers, method=method)
        keep[rows] = kept[:, : h.shape[1]]
    return keep


def prune(h: Tensor, draws: int, generator: torch.Generator, *, method: str, keep: Tensor | None = None) -> Tensor:
    """h keep / q: (B, N) -> (B, N), float32 or wider; the keep-set into ``keep`` (B, N) bool, if given."""
    out = torch.empty_like(h, dtype=torch.promote_types(h.dtype, torch.float32))
    nothing = torch.zeros((), dtype=out.dtype, device=h.device)
    for rows, weights, numbers in _chunks(h, generator):
        kept, minus_q = _draw(weights, draws, numbers, method=method)
        if minus_q is None:
            minus_q = minus_kept_probability(weights, draws, method)
        kept, minus_q = kept[:, : h.shape[1]], minus_q[:, : h.shape[1]]
        if keep is not None:
            keep[rows] = kept
        torch.addcdiv(nothing, kept.mul_(h[rows]), minus_q, value=-1, out=out[rows])
    return out


def prune_gradient(h: Tensor, keep: Tensor, gradient: Tensor, draws: int, *, method: str, held: bool) -> Tensor:
    """The gradient by h (B, N) of h keep / q with the keep-set held, from its own: (B, N) -> (B, N) in h's type.

    ``held`` takes s = 1 / q for a constant too. Otherwise, with p = |h| / S, ds/dp = -s^2 dq/dp: for 1 - (1 - p)^r that
    is -r (s^2 - s) / (1 - p), for 1 - exp(-r p) it is -r (s^2 - s). No division where nothing is kept, where the naive
    form has 0 / 0 and autograd multiplies that NaN by the mask.
    """
    out = torch.empty_like(h)
    for rows in _slices(h):
        out[rows] = _prune_gradient(h[rows], keep[rows], gradient[rows], draws, method=method, held=held)
    return out


def _prune_gradient(h: Tensor, keep: Tensor, gradient: Tensor, draws: int, *, method: str, held: bool) -> Tensor:
    weights = weigh(h)
    w, minus_q = weights.w[:, : h.shape[1]], minus_kept_probability(weights, draws, method)[:, : h.shape[1]]
    minus_scale = keep.view(torch.uint8).to(w.dtype).div_(minus_q)  # read as numbers, bool is slow
    out = torch.addcmul(torch.zeros_like(w[0, 0]), minus_scale, gradient, value=-1)
    if held:
        return out
    by_p = torch.addcmul(out, out, minus_scale, out=minus_scale).mul_(
        h
    )  # g s (1 - s) h; times r S / (S - w) it is that
    total = weights.column(weights.total)
    if method == "poisson":
        by_p.div_(total)
    else:  # a single live unit has q = 1 whatever its size, and 0 / tiny
        by_p.div_(torch.sub(total, w, out=minus_q).clamp_(min=torch.finfo(w.dtype).tiny))
    # it lacks r S now; p_j = w_j / S gives dp_j / dw_i = (delta_ij - p_j) / S
    by_p.sub_(torch.linalg.vecdot(two_rows(by_p), two_rows(w))[: len(w), None] / total)
    return out.add_(by_p.mul_(torch.sign(h)), alpha=draws)


def _slices(h: Tensor) -> Iterator[slice]:
    """The rows of h (B, N), some at a time on a CPU."""
    step = max(1, _CHUNK // max(1, h.shape[1])) if h.device.type == "cpu" else max(1, len(h))
    for first in range(0, len(h) if h.numel() else 0, step):
        yield slice(first, min(first + step, len(h)))


def _chunks(h: Tensor, generator: torch.Generator) -> Iterator[tuple[slice, Weights, RowNumbers]]:
    """Some rows at a time, with their random numbers."""
    numbers = RowNumbers.of(*numbering(generator, len(h)), len(h))
    for rows in _slices(h):
        yield rows, weigh(h[rows]), numbers.rows(rows)


def _draw(weights: Weights, draws: int, numbers: RowNumbers, *, method: str) -> tuple[Tensor, Tensor | None]:
    """The keep-set as 0 and 1 (B, M), to be overwritten, and -q where the draw had to know it."""
    if method == "multinomial":
        return keep_exactly(weights, draws, numbers), None
    minus_q = minus_kept_probability(weights, draws, method)
    return numbers.minus_uniform(weights.w).sub_(minus_q).gt_(0), minus_q


def minus_kept_probability(weights: Weights, draws: int, method: str) -> Tensor:
    """-q = (1 - p)^r - 1 or exp(-r p) - 1, a little below 0 where the weight is 0, so that 0 / q is 0: (B, M).

    In float32 and for many draws, r log(1 - p) is taken for -x - x^2 / 2r with x = r p. That leaves out less than
    x^3 / 3 r^2 (1 - p), so q is wrong by a share below x^3 / (e^x - 1) / 3 r^2 (1 - p), at most 0.48 / r^2: half a unit
    of the last place.
    """
    few = draws < _MANY_DRAWS or weights.w.dtype == torch.float64
    if few and method != "poisson":
        x = (weights.w * weights.column(-1 / weights.total)).log1p_().mul_(draws)
    else:
        x = weights.w * weights.column(-draws / weights.total)
    if not few and method != "poisson":
        x.addcmul_(x, x, value=-1 / (2 * draws))
    return x.expm1_().sub_(8 * torch.finfo(x.dtype).tiny)
