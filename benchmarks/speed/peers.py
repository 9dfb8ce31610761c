"""What SAP is compared with, written as one would write it from the formulas."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sap_art.policies import Affine, Where

CATEGORIES = 2**24
"""``torch.multinomial`` takes fewer units than this."""


def multinomial(weights: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """The exact draw, one by one: (B, N) weights -> (B, N) bool."""
    index = torch.multinomial(weights, draws, replacement=True, generator=generator)
    return torch.zeros_like(weights, dtype=torch.bool).scatter_(1, index, True)


def bernoulli(weights: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """Independent units with the same marginals 1 - (1 - p)^r: (B, N) weights -> (B, N) bool."""
    p = weights / weights.sum(1, keepdim=True)
    return torch.rand(p.shape, generator=generator, device=p.device) < 1 - (1 - p) ** draws


@dataclass(frozen=True)
class NaiveSAP:
    """SAP-100 that draws one by one."""

    where: Where = "activation"
    per_example: bool = True
    spec: str = "naive-sap:100"

    def draw(self, h: Tensor, generator: torch.Generator) -> Affine:
        weights = h.detach().abs().flatten(1)
        draws = weights.shape[1]
        keep = multinomial(weights, draws, generator)
        p = weights / weights.sum(1, keepdim=True)
        q = -torch.expm1(draws * torch.log1p(-p))  # 1 - (1 - p)^r, without the rounding that makes it 0
        return Affine(torch.where(keep, 1 / q, 0).reshape(h.shape), 0.0)

    def __call__(self, h: Tensor, generator: torch.Generator, *, held: bool = False) -> Tensor:
        return self.draw(h, generator)(h)  # its scale never depends on h
