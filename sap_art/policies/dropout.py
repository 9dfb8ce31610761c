"""Dropout at test time, on activations: the paper's baseline DRO."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sap_art.kernels.numbers import uniform_like
from sap_art.policies.base import Affine, OnActivations, as_text, require_activations


@dataclass(frozen=True)
class DRO(OnActivations):
    """Each unit by itself becomes 0 with probability ``rate``, else h / (1 - rate).

    Mean h, variance h^2 rate / (1 - rate): dropout (Srivastava et al. 2014) after each activation, also at test time,
    as in Dhillon et al. 2018, arXiv:1803.01442.

    Args:
        rate: share of the units that is dropped, in (0, 1).

    Raises:
        ValueError: a rate out of its range, activations that are not floating (B, ...).
    """

    rate: float

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(f"DRO's rate must be a number between 0 and 1, both left out, got {self.rate}")

    @property
    def spec(self) -> str:
        return f"dro:{as_text(self.rate)}"

    def draw(self, h: Tensor, generator: torch.Generator) -> Affine:
        """One draw: scale is 0 or 1 / (1 - rate) (B, ...), shift 0."""
        require_activations(h)
        keep = uniform_like(h, generator) >= self.rate
        return Affine(keep / (1 - self.rate), 0.0)

    def __call__(self, h: Tensor, generator: torch.Generator, *, held: bool = False) -> Tensor:
        """(B, ...) -> (B, ...), same dtype; what is drawn does not depend on h, so ``held`` changes nothing."""
        return self.draw(h, generator)(h).to(h.dtype)
