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
the speed only; on a CPU the kernels stop twice on the way to r (``sap_art.kernels.arrivals``). What remains is floating
point: sums and logarithms in float32, and uniforms on a grid of 2**-31 or finer where they are near 1, so that small
rates keep their digits; near 0 too in the numba and triton kernels, 2**-24 in the torch kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sap_art.kernels import choose
from sap_art.kernels.weights import normalise, not_finite

METHODS = ("multinomial", "bernoulli", "poisson")
"""The laws of a draw: exact, independent with the exact marginals, independent with 1 - exp(-r p)."""

MAX_EXACT_DRAWS = 2**32
"""Most draws a row that ``multinomial`` makes; the top-up needs memory for a few times their square root."""


def keep_set(
    weights: Tensor, draws: int, generator: torch.Generator, *, method: str = "multinomial", kernel: str = "auto"
) -> Tensor:
    """Which units are drawn at least once: (B, N) weights >= 0 -> (B, N) bool.

    Args:
        weights: one distribution a row, not necessarily normalised; a row of zeros keeps nothing.
        draws: r >= 1, the number of draws with replacement (Dhillon et al. 2018, arXiv:1803.01442, Algorithm 1).
        generator: source of the uniforms, on the device of ``weights``.
        method: ``multinomial`` (exact joint law), ``bernoulli`` (independent units with the exact marginals
            1 - (1 - p)^r) or ``poisson`` (independent units with 1 - exp(-r p)).
        kernel: how it is computed: ``numba`` (CPU), ``triton`` (GPU), ``torch`` or ``auto``, the fastest that is
            installed and fits. Equal in law, not in bits.

    Raises:
        ValueError: wrong shape, non-finite or negative weights, ``draws`` < 1 or, for ``multinomial``, above
            ``MAX_EXACT_DRAWS``; unknown method; a kernel that is unknown, not installed or does not fit.
    """
    _check(weights, draws, method)
    if weights.numel() and weights.amin() < 0:
        raise ValueError(f"weights must not be negative, got {weights.amin().item():.6g}")
    return choose(weights, kernel).keep_set(weights, draws, generator, method=method)


def prune(
    h: Tensor,
    draws: int,
    generator: torch.Generator,
    *,
    method: str = "multinomial",
    kernel: str = "auto",
    keep: Tensor | None = None,
    wait: bool = True,
) -> Tensor:
    """h keep / q for one draw from the weights |h|, in one go: (B, N) -> (B, N), float32 or wider, with mean h.

    The same draw as ``keep_set`` makes from |h|, the same generator and kernel, and the same errors; without gradient.

    Args:
        h: activations, of any sign.
        draws: as for ``keep_set``, like ``generator``, ``method`` and ``kernel``.
        generator: on the device of ``h``.
        method: the law.
        kernel: how it is computed.
        keep: (B, N) bool, contiguous, to be filled with the keep-set.
        wait: False for not waiting on a GPU: there, a row with NaN or inf comes out as NaN and raises nothing.
    """
    _check(h, draws, method)
    out = choose(h, kernel).prune(h.detach(), draws, generator, method=method, keep=keep)
    if wait and out.numel() and out[:, 0].isnan().any():
        raise not_finite()
    return out


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
