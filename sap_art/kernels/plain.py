"""The draw by torch operations: any device, any type, nothing to compile."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sap_art.kernels.weights import normalise, not_finite, widen
from sap_art.randomness import spawn_generator

_MARGIN = 2.0
"""r' = r - _MARGIN * sqrt(r): about one row in forty overshoots and is drawn afresh."""

_CHUNK = 2**20
"""Elements that are worked on at a time on a CPU: temporaries stay small, calls stay few."""

_BLOCK = 16
"""Units that share a step of the first CDF of the top-up."""

Sampler = Callable[[Tensor, int, torch.Generator, torch.Generator], Tensor]


def keep_set(h: Tensor, draws: int, generator: torch.Generator, *, method: str) -> Tensor:
    """Which units are kept: (B, N) -> (B, N) bool."""
    parts = [keep for keep, _ in _chunks(h, draws, generator, method)]
    return torch.cat(parts) if parts else torch.zeros_like(h, dtype=torch.bool)


def prune(h: Tensor, draws: int, generator: torch.Generator, *, method: str, keep: Tensor | None = None) -> Tensor:
    """h keep / q: (B, N) -> (B, N), float32 or wider; the keep-set into ``keep`` (B, N) bool, if given."""
    out = torch.empty_like(h, dtype=torch.promote_types(h.dtype, torch.float32))
    first = 0
    for kept, p in _chunks(h, draws, generator, method):
        rows = slice(first, first + len(p))
        first += len(p)
        torch.mul(h[rows], _inverse_probability(p, draws, method).mul_(kept), out=out[rows])
        if keep is not None:
            keep[rows] = kept
    return out


def prune_gradient(h: Tensor, keep: Tensor, gradient: Tensor, draws: int, *, method: str, held: bool) -> Tensor:
    """The gradient by h (B, N) of h keep / q with the keep-set held, from its own: (B, N) -> (B, N) in h's type.

    ``held`` takes s = 1 / q for a constant too. Otherwise, with p = |h| / S, ds/dp = -s^2 dq/dp: for 1 - (1 - p)^r that
    is -r (s^2 - s) / (1 - p), for 1 - exp(-r p) it is -r (s^2 - s). No division where nothing is kept, where the naive
    form has 0 / 0 and autograd multiplies that NaN by the mask.
    """
    wide = widen(h.detach())
    p, total = normalise(wide.abs())
    scale = _inverse_probability(p.clone(), draws, method).mul_(keep)
    out = scale * gradient
    if not held:
        by_p = gradient * wide * (scale - scale.square()) * draws
        if method != "poisson":
            by_p = torch.where(p < 1, by_p / (1 - p), 0)  # a single live unit has q = 1 whatever its size
        # p_j = w_j / S: dp_j / dw_i = (delta_ij - p_j) / S
        out += (by_p - (by_p * p).sum(1, keepdim=True)) / total * wide.sign()
    return out.to(h.dtype)


def _inverse_probability(p: Tensor, draws: int, method: str) -> Tensor:
    """1 / q, in place of p (B, N); large and finite where p is 0."""
    minus_q = p.mul_(-draws).expm1_() if method == "poisson" else p.neg_().log1p_().mul_(draws).expm1_()
    return minus_q.neg_().clamp_(min=torch.finfo(p.dtype).tiny).reciprocal_()


def _chunks(h: Tensor, draws: int, generator: torch.Generator, method: str) -> Iterator[tuple[Tensor, Tensor]]:
    """The keep-set and p for the weights |h|, some rows at a time; p is the caller's to overwrite.

    One uniform a unit comes from ``generator``, in order; the rest, whose number depends on the weights, from a second
    generator, so that a row's uniforms do not move when another row's weights do.
    """
    if h.numel() == 0:
        return
    other = spawn_generator(generator)
    rows = max(1, _CHUNK // h.shape[1]) if h.device.type == "cpu" else len(h)
    for part in h.split(rows):
        p, total = normalise(widen(part).abs())
        if not torch.isfinite(total).all():  # a NaN or inf anywhere shows in its row's sum
            raise not_finite()
        yield _METHODS[method](p, draws, generator, other), p


def _multinomial(p: Tensor, draws: int, generator: torch.Generator, other: torch.Generator) -> Tensor:
    keep, missing = _first_arrivals(p, draws, generator, other)
    overshot = (missing < 0).nonzero()[:, 0]
    if len(overshot):
        keep[overshot] = _multinomial(p[overshot], draws, other, other)
    _top_up(keep, p, missing.clamp_(min=0), other)
    return keep


def _first_arrivals(p: Tensor, draws: int, generator: torch.Generator, other: torch.Generator) -> tuple[Tensor, Tensor]:
    """Steps 1 and 2: the units kept (B, N) and how many draws each row still lacks (B,), negative if too many."""
    rate = max(0.0, draws - _MARGIN * draws**0.5)
    slack = _log_uniform(p, generator).add_(p, alpha=rate)
    keep = slack > 0
    later = torch.poisson(slack.relu_().sum(1).double(), other)
    return keep, draws - keep.sum(1) - later.long()


def _top_up(keep: Tensor, p: Tensor, missing: Tensor, generator: torch.Generator) -> None:
    """Step 3: mark ``missing`` (B,) further categorical draws a row in ``keep``, by inverting one CDF of all rows.

    The CDF is of blocks of ``_BLOCK`` units; a second one, of the block that is found, tells the unit.
    """
    units = p.shape[1]
    padded = F.pad(p, (0, -units % _BLOCK)) if units % _BLOCK else p  # pad copies even if there is nothing to add
    blocks = padded.unflatten(1, (-1, _BLOCK))
    size = blocks.sum(2)
    cdf = size.view(-1).cumsum(0, dtype=torch.float64)
    end = cdf[size.shape[1] - 1 :: size.shape[1]]
    start = torch.cat([end.new_zeros(1), end[:-1]])
    missing = torch.where(end > start, missing, 0)  # a row of zeros has nothing to draw
    row = torch.repeat_interleave(torch.arange(len(keep), device=keep.device), missing)
    uniform = torch.rand(len(row), generator=generator, dtype=torch.float64, device=keep.device)
    point = _below(start[row] + uniform * (end - start)[row], end[row])
    block = torch.searchsorted(cdf, point, right=True)  # `right` steps over what has no weight
    within = blocks.view(-1, _BLOCK)[block].cumsum(1, dtype=torch.float64)
    rest = _below((point - cdf[block] + size.view(-1)[block]).clamp(min=0), within[:, -1])
    unit = (within <= rest[:, None]).sum(1)
    keep[row, (block - row * size.shape[1]) * _BLOCK + unit] = True


def _below(point: Tensor, end: Tensor) -> Tensor:
    """Points that rounding has not carried to the end."""
    return torch.minimum(point, torch.nextafter(end, torch.zeros_like(end)))


def _bernoulli(p: Tensor, draws: int, generator: torch.Generator, other: torch.Generator) -> Tensor:
    return _log_uniform(p, generator) > torch.log1p(-p).mul_(draws)


def _poisson(p: Tensor, draws: int, generator: torch.Generator, other: torch.Generator) -> Tensor:
    return _log_uniform(p, generator) > p * -draws


def _log_uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    """log U, one for each element of ``like``; finite, and without steps near 0.

    A generator's float32 lie on a grid of 2**-24, too coarse for a unit that is kept with probability 1e-7. So U is
    uniform within its step: in the middle is near enough but for the few U next to 1, whose logarithms are small.
    """
    u = torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device)
    step = torch.finfo(like.dtype).eps / 2
    near_one = _indices((u > 1 - 2**-10).view(-1))
    distance = 1 - u.view(-1)[near_one].double()
    distance -= step * torch.rand(len(near_one), generator=generator, dtype=torch.float64, device=like.device)
    log = u.add_(step / 2).log_()
    log.view(-1)[near_one] = torch.log1p(-distance).to(log.dtype)
    return log


def _indices(mask: Tensor) -> Tensor:
    """Where a long and mostly false mask (n,) is true; numpy is ten times faster at it on a CPU."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero()[:, 0]


_METHODS: dict[str, Sampler] = {"multinomial": _multinomial, "bernoulli": _bernoulli, "poisson": _poisson}
