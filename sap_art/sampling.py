"""Which units are drawn at least once: exact and approximate draws of SAP's keep-set.

A row of N non-negative weights is drawn from r times with replacement, unit j with probability p_j = w_j / sum(w).
Drawing one by one costs r categorical draws a row. ``multinomial`` has the same joint law at the price of an
independent draw, by *first arrivals*:

1. Let unit j receive a Poisson stream of rate l_j = r' p_j on [0, 1], with r' a little below r. Its first arrival
   is at E_j / l_j with E_j = -log U_j, so it is kept if E_j < l_j: one uniform a unit.
2. Given the first arrivals, all later ones of a row together are one Poisson number of mean sum_j (l_j - E_j)+,
   so the row's total is M = (number kept) + that number: no counts per unit are needed.
3. If M <= r, add r - M categorical draws. If M > r, draw the row afresh.

Why it is exact: independent Poisson counts given their total m are multinomial(m, p); with r - m independent draws
added they are multinomial(r, p), whatever m was; and a redrawn row is multinomial(r, p) too. The choice of r' changes
the speed only. What remains is floating point: float32 uniforms lie on a grid of 2**-24.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sap_art.randomness import spawn_generator

MAX_EXACT_DRAWS = 2**32
"""Most draws a row that ``multinomial`` makes; the top-up needs memory for a few times their square root."""

_MARGIN = 2.0
"""r' = r - _MARGIN * sqrt(r): about one row in forty overshoots and is drawn afresh."""

_CHUNK = 2**20
"""Elements that are worked on at a time on a CPU: temporaries stay small, calls stay few."""

Sampler = Callable[[Tensor, int, torch.Generator, torch.Generator], Tensor]


def keep_set(weights: Tensor, draws: int, generator: torch.Generator, *, method: str = "multinomial") -> Tensor:
    """Which units are drawn at least once: (B, N) weights >= 0 -> (B, N) bool.

    Args:
        weights: one distribution a row, not necessarily normalised; a row of zeros keeps nothing.
        draws: r >= 1, the number of draws with replacement (Dhillon et al. 2018, arXiv:1803.01442, Algorithm 1).
        generator: source of the uniforms, on the device of ``weights``.
        method: ``multinomial`` (exact joint law), ``bernoulli`` (independent units with the exact marginals
            1 - (1 - p)^r) or ``poisson`` (independent units with 1 - exp(-r p)).

    Raises:
        ValueError: wrong shape, non-finite or negative weights, ``draws`` < 1 or, for ``multinomial``, above
            ``MAX_EXACT_DRAWS``; unknown method.
    """
    _check(weights, draws, method)
    if weights.numel() and weights.amin() < 0:
        raise ValueError(f"weights must not be negative, got {weights.amin().item():.6g}")
    parts = [keep for keep, _ in _chunks(weights, draws, generator, method)]
    return torch.cat(parts) if parts else torch.zeros_like(weights, dtype=torch.bool)


@torch.no_grad()
def keep_scale(h: Tensor, draws: int, generator: torch.Generator, *, method: str = "multinomial") -> Tensor:
    """One draw's rescaling keep / q for the weights |h|: (B, N) -> (B, N), float32 or wider, mean 1 where q > 0.

    The same draw as ``keep_set`` makes from |h| and the same generator, and the same errors; without gradient.
    """
    _check(h, draws, method)
    scale = torch.empty_like(h, dtype=torch.promote_types(h.dtype, torch.float32))
    first = 0
    for keep, p in _chunks(h, draws, generator, method):
        q = scale[first : first + len(p)]
        first += len(p)
        minus_q = p.mul_(-draws).expm1_() if method == "poisson" else p.neg_().log1p_().mul_(draws).expm1_()
        # A unit of weight 0 is never kept: 0 / tiny, not 0 / 0.
        torch.div(keep, minus_q.neg_().clamp_(min=torch.finfo(p.dtype).tiny), out=q)
    return scale


def keep_probability(weights: Tensor, draws: int, *, method: str = "multinomial") -> Tensor:
    """Probability that ``keep_set`` keeps each unit: (B, N) >= 0 -> (B, N) in [0, 1].

    1 - (1 - p)^r for ``multinomial`` and ``bernoulli``, 1 - exp(-r p) for ``poisson``. Differentiable in
    ``weights``; a row of zeros gives zeros and a single live unit exactly 1 (in the first form).
    """
    check_method(method)
    p, _ = normalise(weights)
    if method == "poisson":
        return -torch.expm1(-draws * p)
    certain = p >= 1  # log1p(-1) is -inf, with a NaN for a gradient
    return torch.where(certain, torch.ones_like(p), -torch.expm1(draws * torch.log1p(-torch.where(certain, 0, p))))


def check_method(method: str) -> None:
    """Raise ValueError for a name that is not in ``METHODS``."""
    if method not in METHODS:
        raise ValueError(f"unknown sampler {method!r}; known: {', '.join(METHODS)}")


def normalise(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Each row over its sum, and the sums, 1 for a row of zeros: (B, N) >= 0 -> (B, N), (B, 1)."""
    total = weights.sum(1, keepdim=True)
    total = torch.where(total == 0, 1, total)
    return weights / total, total


def widen(h: Tensor) -> Tensor:
    """Half precision to float32, for sums and probabilities; wider types unchanged."""
    return h.float() if h.dtype in (torch.float16, torch.bfloat16) else h


def _check(weights: Tensor, draws: int, method: str) -> None:
    check_method(method)
    if weights.ndim != 2 or not weights.is_floating_point():
        raise ValueError(f"weights must be floating (B, N), got {weights.dtype} {tuple(weights.shape)}")
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    if method == "multinomial" and draws > MAX_EXACT_DRAWS:
        raise ValueError(
            f"the exact sampler makes at most {MAX_EXACT_DRAWS} draws a row, asked for {draws}; "
            "use sampler='bernoulli', which has the same marginals at any number of draws"
        )


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
            raise ValueError("activations or weights contain NaN or inf: did the net overflow? Try a wider type")
        yield METHODS[method](p, draws, generator, other), p


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
    # log U with U on the middle points of the generator's grid, so never log 0.
    slack = torch.rand(p.shape, generator=generator, dtype=p.dtype, device=p.device)
    slack = slack.add_(torch.finfo(p.dtype).eps / 4).log_().add_(p, alpha=rate)
    keep = slack > 0
    later = torch.poisson(slack.relu_().sum(1).double(), other)
    return keep, draws - keep.sum(1) - later.long()


def _top_up(keep: Tensor, p: Tensor, missing: Tensor, generator: torch.Generator) -> None:
    """Step 3: mark ``missing`` (B,) further categorical draws a row in ``keep``, by inverting one CDF of all rows."""
    cdf = p.view(-1).cumsum(0, dtype=torch.float64)
    end = cdf[p.shape[1] - 1 :: p.shape[1]]
    start = torch.cat([end.new_zeros(1), end[:-1]])
    missing = torch.where(end > start, missing, 0)  # a row of zeros has nothing to draw
    row = torch.repeat_interleave(torch.arange(len(keep), device=keep.device), missing)
    uniform = torch.rand(len(row), generator=generator, dtype=torch.float64, device=keep.device)
    # Rounding must not reach the row's end; `right` steps over units of weight 0.
    point = torch.minimum(start[row] + uniform * (end - start)[row], torch.nextafter(end, start)[row])
    keep.view(-1)[torch.searchsorted(cdf, point, right=True)] = True


def _bernoulli(p: Tensor, draws: int, generator: torch.Generator, other: torch.Generator) -> Tensor:
    return _below(-torch.expm1(draws * torch.log1p(-p)), generator)


def _poisson(p: Tensor, draws: int, generator: torch.Generator, other: torch.Generator) -> Tensor:
    return _below(-torch.expm1(-draws * p), generator)


def _below(q: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(q.shape, generator=generator, dtype=q.dtype, device=q.device) < q


METHODS: dict[str, Sampler] = {"multinomial": _multinomial, "bernoulli": _bernoulli, "poisson": _poisson}
