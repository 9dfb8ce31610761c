"""The draw by torch operations: any device, any type, nothing to compile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sap_art.kernels.law import Exponents, exponents
from sap_art.kernels.numbers import Numbers, numbers_for
from sap_art.kernels.weights import normalise, not_finite, widen

MARGIN = 1.5
"""r' = r - MARGIN * sqrt(r): one row in fifteen overshoots and is drawn afresh."""

_CHUNK = 2**20
"""Elements that are worked on at a time on a CPU: temporaries stay small, calls stay few."""

_BLOCK = 8
"""Units that share a step of the first CDF of the top-up."""


def keep_set(h: Tensor, draws: int, generator: torch.Generator, *, method: str) -> Tensor:
    """Which units are kept: (B, N) -> (B, N) bool."""
    keep = torch.empty_like(h, dtype=torch.bool)
    for rows, kept, _ in _chunks(h, draws, generator, method):
        keep[rows] = kept
    return keep


def prune(h: Tensor, draws: int, generator: torch.Generator, *, method: str, keep: Tensor | None = None) -> Tensor:
    """h keep / q: (B, N) -> (B, N), float32 or wider; the keep-set into ``keep`` (B, N) bool, if given."""
    out = torch.empty_like(h, dtype=torch.promote_types(h.dtype, torch.float32))
    for rows, kept, log_missed in _chunks(h, draws, generator, method):
        torch.div(h[rows], _kept_probability(log_missed), out=out[rows]).mul_(kept)
        if keep is not None:
            keep[rows] = kept
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
    wide = widen(h.detach())
    p, total = normalise(wide.abs())
    scale = keep / _kept_probability(_log_missed(p, exponents(draws, method, margin=0)))
    out = scale * gradient
    if held:
        return out
    by_p = gradient * wide * (scale - scale.square()) * draws
    if method != "poisson":
        by_p = torch.where(p < 1, by_p / (1 - p), 0)  # a single live unit has q = 1 whatever its size
    # p_j = w_j / S: dp_j / dw_i = (delta_ij - p_j) / S
    return out + (by_p - (by_p * p).sum(1, keepdim=True)) / total * wide.sign()


def _slices(h: Tensor) -> Iterator[slice]:
    """The rows of h (B, N), some at a time on a CPU."""
    step = max(1, _CHUNK // max(1, h.shape[1])) if h.device.type == "cpu" else max(1, len(h))
    for first in range(0, len(h) if h.numel() else 0, step):
        yield slice(first, min(first + step, len(h)))


def _chunks(h: Tensor, draws: int, generator: torch.Generator, method: str) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Some rows at a time: which, their keep-set as 0 and 1, and log(1 - q); both are the caller's to overwrite."""
    law = exponents(draws, method, margin=MARGIN)
    numbers = numbers_for(h, generator)
    for rows in _slices(h):
        p, total = normalise(widen(h[rows].detach()).abs())
        if not torch.isfinite(total).all():  # a NaN or inf anywhere shows in its row's sum
            raise not_finite()
        log_missed = _log_missed(p, law)
        rate = log_missed.neg() if law.b else p * law.a
        if method == "multinomial":
            keep = _multinomial(p, rate, draws, numbers, range(rows.start, rows.stop))
        else:
            keep = _positive(numbers.log_uniform(p, range(rows.start, rows.stop), attempt=0).add_(rate))
        yield rows, keep, log_missed


def _log_missed(p: Tensor, law: Exponents) -> Tensor:
    """log(1 - q), -inf for a single live unit."""
    return p.neg().log1p_().mul_(law.d) if law.d else p * -law.c


def _kept_probability(log_missed: Tensor) -> Tensor:
    """q from log(1 - q), which is overwritten; a unit of weight 0 gets a little, so that it gives 0 and not 0 / 0."""
    return log_missed.expm1_().neg_().add_(8 * torch.finfo(log_missed.dtype).tiny)


def _multinomial(p: Tensor, rate: Tensor, draws: int, numbers: Numbers, rows: Sequence[int]) -> Tensor:
    keep, missing = _first_arrivals(rate, draws, numbers, rows, attempt=0)
    attempt = 0
    while len(overshot := (missing < 0).nonzero()[:, 0]):
        attempt += 1
        again = [rows[i] for i in overshot.tolist()]
        keep[overshot], missing[overshot] = _first_arrivals(rate[overshot], draws, numbers, again, attempt=attempt)
    missing = torch.where(p.amax(1) > 0, missing, 0)  # a row of zeros has nothing to draw
    _top_up(keep, p, missing, numbers.uniform(missing, rows))
    return keep


def _first_arrivals(
    rate: Tensor, draws: int, numbers: Numbers, rows: Sequence[int], *, attempt: int
) -> tuple[Tensor, Tensor]:
    """Steps 1 and 2: the units kept (B, N) and how many draws each row still lacks (B,), negative if too many."""
    slack = numbers.log_uniform(rate, rows, attempt=attempt).add_(rate).clamp_(min=0)
    later = numbers.poisson(slack.sum(1), rows, attempt=attempt)
    keep = _positive(slack)
    kept = sum(part.sum(1).long() for part in keep.split(2**24, dim=1))  # a float32 counts so far
    return keep, draws - kept - later


def _positive(x: Tensor) -> Tensor:
    """1 where x is positive, else 0, in place: faster than bool at all that follows."""
    return x.clamp_(min=0).sign_()


def _top_up(keep: Tensor, p: Tensor, missing: Tensor, uniform: Tensor) -> None:
    """Step 3: mark further categorical draws in ``keep``, one for each of ``uniform``, row by row, ``missing`` (B,).

    By inverting one CDF of all rows' blocks of ``_BLOCK`` units; a second one, of the block found, tells the unit.
    """
    units = p.shape[1]
    padded = F.pad(p, (0, -units % _BLOCK)) if units % _BLOCK else p  # pad copies even if there is nothing to add
    blocks = padded.unflatten(1, (-1, _BLOCK))
    size = blocks.sum(2)
    cdf = size.view(-1).cumsum(0, dtype=torch.float64)
    end = cdf[size.shape[1] - 1 :: size.shape[1]]
    start = torch.cat([end.new_zeros(1), end[:-1]])
    row = torch.repeat_interleave(torch.arange(len(keep), device=keep.device), missing)
    point = _below(start[row] + uniform * (end - start)[row], end[row])
    block = torch.searchsorted(cdf, point, right=True)  # `right` steps over what has no weight
    within = blocks.view(-1, _BLOCK)[block].cumsum(1, dtype=torch.float64)
    rest = _below((point - cdf[block] + size.view(-1)[block]).clamp(min=0), within[:, -1])
    unit = (within <= rest[:, None]).sum(1)
    keep[row, (block - row * size.shape[1]) * _BLOCK + unit] = 1


def _below(point: Tensor, end: Tensor) -> Tensor:
    """Points that rounding has not carried to the end."""
    return torch.minimum(point, torch.nextafter(end, torch.zeros_like(end)))
