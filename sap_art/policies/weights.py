"""Noise and pruning on weights: the paper's baselines RNW, RSW, DWP and SWP (Dhillon et al. 2018, arXiv:1803.01442).

One draw of the weights is one net, which all images of a batch share: ``per_example`` is False. A draw does not depend
on the images, so for them ``autograd``, ``frozen`` and ``bpda`` are one: the exact gradient of the drawn net. They
differ for the weights alone.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sap_art.kernels.numbers import normal_like
from sap_art.policies.base import GaussianNoise, OnWeights, as_text, require_above_zero
from sap_art.policies.sap import SAP


class RNW(OnWeights, GaussianNoise):
    """Random noisy weights, w + N(0, s^2), weight by weight: mean w, variance s^2.

    Args:
        sd: s, the standard deviation, in units of the weights; above 0.

    Raises:
        ValueError: an sd out of its range.
    """

    def __call__(self, w: Tensor, generator: torch.Generator, *, held: bool = False) -> Tensor:
        """As ``draw``; what is added does not depend on w, so ``held`` changes nothing."""
        return (w + self.sd * _normal(w, generator)).to(w.dtype)


class RSW(OnWeights, GaussianNoise):
    """Random scaled weights, w N(1, s^2), weight by weight: mean w, variance s^2 w^2.

    Args:
        sd: s, the standard deviation of the factor; above 0.

    Raises:
        ValueError: an sd out of its range.
    """

    def __call__(self, w: Tensor, generator: torch.Generator, *, held: bool = False) -> Tensor:
        """As ``draw``; the factor does not depend on w, so ``held`` changes nothing."""
        return (w * (1 + self.sd * _normal(w, generator))).to(w.dtype)


@dataclass(frozen=True)
class DWP(OnWeights):
    """Deterministic weight pruning: the largest weights of each tensor by magnitude stay as they are, the rest are 0.

    Nothing is random here, and the mean is not kept. Of N weights max(1, round(percent N / 100)) stay; which of several
    equal ones is not said.

    Args:
        percent: share that stays, in (0, 100].

    Raises:
        ValueError: a percent out of its range.
    """

    percent: float

    def __post_init__(self) -> None:
        if not 0 < self.percent <= 100:
            raise ValueError(f"DWP's percent must be above 0 and at most 100, got {self.percent}")

    @property
    def spec(self) -> str:
        return f"dwp:{as_text(self.percent)}"

    def __call__(self, w: Tensor, generator: torch.Generator, *, held: bool = False) -> Tensor:
        """As ``draw``; the mask has no derivative, so ``held`` changes nothing."""
        kept = max(1, round(self.percent * w.numel() / 100))
        largest = w.detach().abs().flatten().topk(kept, sorted=False).indices
        mask = torch.zeros(w.numel(), dtype=w.dtype, device=w.device)
        return w * mask.index_fill_(0, largest, 1).view(w.shape)

    @torch.no_grad()
    def prune(self, net: nn.Module) -> nn.Module:
        """A copy of ``net`` for good: what every draw of ``DefendedModel(net, self)`` is, at the price of the net."""
        pruned, unused = deepcopy(net), torch.Generator()
        for w in pruned.parameters():
            if w.ndim > 1:
                w.copy_(self(w, unused))
        return pruned


@dataclass(frozen=True)
class SWP(OnWeights):
    """Stochastic weight pruning: ``SAP``'s draw on each weight tensor, flattened to N weights.

    r = max(1, round(percent N / 100)) draws with replacement from p_j = |w_j| / sum_k |w_k|; a weight drawn at least
    once becomes w_j / q_j with q_j = 1 - (1 - p_j)^r, the others 0. Mean w, variance w^2 (1/q - 1).

    Args:
        percent: as of ``SAP``, like ``sampler`` and ``kernel``.
        sampler: the law.
        kernel: how a draw is computed.

    Raises:
        ValueError: as ``SAP``.
    """

    percent: float
    sampler: str = "multinomial"
    kernel: str = "auto"

    def __post_init__(self) -> None:
        require_above_zero("SWP's percent", self.percent)
        self._sap()

    @property
    def spec(self) -> str:
        return self._sap().spec.replace("sap", "swp", 1)

    def keep_probability(self, w: Tensor) -> Tensor:
        """Probability that each weight survives: any shape -> same shape in [0, 1]."""
        return self._sap().keep_probability(w.reshape(1, -1)).reshape(w.shape)

    def __call__(self, w: Tensor, generator: torch.Generator, *, held: bool = False) -> Tensor:
        """As ``draw``; ``held`` takes 1 / q for a constant."""
        return self._sap()(w.reshape(1, -1), generator, held=held).reshape(w.shape)

    def _sap(self) -> SAP:
        return SAP(self.percent, self.sampler, self.kernel)


def _normal(w: Tensor, generator: torch.Generator) -> Tensor:
    """A standard normal number for each weight, float32 or wider."""
    return normal_like(w[None], generator)[0]
