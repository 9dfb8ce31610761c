"""Stochastic Activation Pruning (Dhillon et al. 2018, arXiv:1803.01442)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sap_art import kernels, sampling
from sap_art.kernels.weights import widen
from sap_art.policies.base import Affine, OnActivations, as_text, require_above_zero, require_activations


@dataclass(frozen=True)
class SAP(OnActivations):
    """Keep a random subset of the activations, with probability by magnitude, rescaled so that the mean is unchanged.

    Algorithm 1 of the paper, per image over all N non-batch elements: r = max(1, round(percent * N / 100)) draws
    with replacement from p_j = |h_j| / sum_k |h_k|; a unit drawn at least once becomes h_j / (1 - (1 - p_j)^r), the
    others 0. An image whose activations are all zero passes through unchanged.

    Args:
        percent: size of the draw in percent of N; > 0, may exceed 100.
        sampler: ``multinomial`` (the paper's law), ``bernoulli`` (independent units, the same marginals) or
            ``poisson`` (independent units, 1 - exp(-r p)).
        kernel: how a draw is computed (``sap_art.sampling.keep_set``); equal in law, not in bits.

    Raises:
        ValueError: percent not a finite number above 0, unknown sampler or kernel, activations with NaN or inf (on a
            GPU they give NaN instead, and ``DefendedModel`` raises), or more draws than the exact sampler can make.
    """

    percent: float = 100.0
    sampler: str = "multinomial"
    kernel: str = "auto"

    def __post_init__(self) -> None:
        require_above_zero("SAP's percent", self.percent)
        sampling.check_method(self.sampler)
        kernels.check_kernel(self.kernel)

    @property
    def spec(self) -> str:
        options = [self.sampler, self.kernel]
        while options and options[-1] in ("multinomial", "auto"):
            options.pop()
        return ":".join(["sap", as_text(self.percent), *options])

    def draws(self, units: int) -> int:
        """r, the number of draws with replacement for an activation map of ``units`` elements."""
        return max(1, round(self.percent * units / 100))

    def keep_probability(self, h: Tensor) -> Tensor:
        """Probability that each unit survives: (B, ...) -> (B, ...) in [0, 1], float32 or wider; differentiable."""
        weights = _weights(h)
        q = sampling.keep_probability(weights, self.draws(weights.shape[1]), method=self.sampler)
        return q.reshape(h.shape)

    def sample_mask(self, h: Tensor, generator: torch.Generator) -> Tensor:
        """One draw of the surviving units: (B, ...) -> (B, ...) bool."""
        weights = _weights(h.detach())
        draws = self.draws(weights.shape[1])
        keep = sampling.keep_set(weights, draws, generator, method=self.sampler, kernel=self.kernel)
        return keep.reshape(h.shape)

    def draw(self, h: Tensor, generator: torch.Generator) -> Affine:
        """One draw: scale = mask / q (B, ...), shift 0; differentiable in h through q where gradients are on."""
        keep = self.sample_mask(h, generator)
        return Affine(keep / torch.where(keep, self.keep_probability(h), 1), 0.0)

    def __call__(self, h: Tensor, generator: torch.Generator, *, held: bool = False) -> Tensor:
        """Pruned and rescaled activations: (B, ...) -> (B, ...), same dtype, mean h; differentiable like ``draw``.

        In one go: of the draw itself the backward pass keeps the mask alone. ``held`` takes 1 / q for a constant.
        """
        require_activations(h)
        if torch.is_grad_enabled() and h.requires_grad:
            return cast(Tensor, _Prune.apply(h, self, generator, held))
        return self.prune(h, generator)

    def prune(self, h: Tensor, generator: torch.Generator, *, keep: Tensor | None = None) -> Tensor:
        """As a call, without gradient; the mask into ``keep`` (B, N) bool, if given."""
        flat = h.flatten(1)
        draws, method, kernel = self.draws(flat.shape[1]), self.sampler, self.kernel
        out = sampling.prune(flat, draws, generator, method=method, kernel=kernel, keep=keep, wait=False)
        return out.resize_(h.shape).to(h.dtype)  # not a view, so that the net may work on it in place


class _Prune(torch.autograd.Function):
    """h keep / q of one draw, (B, ...) -> (B, ...), and its derivative with the keep-set held."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, policy: SAP, generator: torch.Generator, held: bool) -> Tensor:
        keep = torch.empty(len(h), math.prod(h.shape[1:]), dtype=torch.bool, device=h.device)
        out = policy.prune(h, generator, keep=keep)
        ctx.save_for_backward(h, keep)
        ctx.policy, ctx.held = policy, held
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor, None, None, None]:
        policy: SAP = ctx.policy
        h, keep = ctx.saved_tensors
        kernel, draws = kernels.choose(h, policy.kernel), policy.draws(keep.shape[1])
        gradient = kernel.prune_gradient(
            h.flatten(1), keep, gradients[0].flatten(1), draws, method=policy.sampler, held=ctx.held
        )
        return gradient.reshape(h.shape), None, None, None


def _weights(h: Tensor) -> Tensor:
    """|h| as rows: (B, ...) -> (B, N), float32 or wider."""
    require_activations(h)
    return widen(h).abs().flatten(1)
