"""Slow, obvious versions of what the package does fast, and models whose right answers are known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sap_art.policies import SAP, Affine


def keep_set(weights: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """SAP's keep-set as the paper words it: draw one index after the other, mark it. (B, N) -> (B, N) bool."""
    keep = torch.zeros_like(weights, dtype=torch.bool)
    for row, marks in zip(weights, keep, strict=True):
        for _ in range(draws):
            marks[torch.multinomial(row, 1, generator=generator)] = True
    return keep


def keep_set_law(weights: Sequence[float], draws: int) -> dict[tuple[bool, ...], float]:
    """The exact probability of each keep-set, by going through all N^r sequences of draws."""
    total = sum(weights)
    law: dict[tuple[bool, ...], float] = {}
    for sequence in itertools.product(range(len(weights)), repeat=draws):
        kept = tuple(j in sequence for j in range(len(weights)))
        law[kept] = law.get(kept, 0.0) + math.prod(weights[j] / total for j in sequence)
    return {kept: p for kept, p in law.items() if p > 0}


def number_kept(p: Tensor, draws: int) -> tuple[float, float]:
    """Mean and variance of the size of the keep-set: inclusion-exclusion over pairs, in float64. p (N,)."""
    p = p.double()
    missed = (draws * torch.log1p(-p)).exp()
    pair = (1 - p[:, None] - p[None]).clamp(min=0) ** draws
    covariance = pair - missed[:, None] * missed[None]
    covariance.fill_diagonal_(0)
    return (1 - missed).sum().item(), (missed * (1 - missed)).sum().item() + covariance.sum().item()


@dataclass(frozen=True)
class NaiveSAP(SAP):
    """SAP with the gradient that must never come back: 0 / 0 where nothing is kept, hidden by the mask."""

    def draw(self, h: Tensor, generator: torch.Generator) -> Affine:
        keep, q = self.sample_mask(h, generator), self.keep_probability(h)
        return Affine(torch.where(keep, 1 / q, 0.0), 0.0)


class Coin(nn.Module):
    """Right with probability p whatever the input: labels are read from the first pixel, classes are two."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        label = (x.flatten(1)[:, 0] > 0.5).long()
        right = torch.rand(len(x), device=x.device) < self.p
        predicted = torch.where(right, label, 1 - label)
        return nn.functional.one_hot(predicted, 2).float() + 0.0 * x.flatten(1).sum(1, keepdim=True)


def coin_data(n: int) -> tuple[Tensor, Tensor]:
    """Images whose first pixel is far from .5 and tells the label."""
    y = torch.arange(n) % 2
    x = torch.full((n, 3, 4, 4), 0.5)
    x[:, 0, 0, 0] = y.float()
    return x, y


class SmallMemory(nn.Module):
    """A net on a GPU with memory for ``rows`` images; ``sizes`` are those that were tried."""

    def __init__(self, net: nn.Module, rows: int) -> None:
        super().__init__()
        self.net, self.rows = net, rows
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        if len(x) > self.rows:
            raise torch.OutOfMemoryError(f"no memory for {len(x)} images")
        out: Tensor = self.net(x)
        return out


class Linear(nn.Module):
    """Two classes, logits (0, w.x + b): the worst perturbation is known in closed form."""

    def __init__(self, w: Tensor, b: float) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(w), b

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1) @ self.w + self.b
        return torch.stack([torch.zeros_like(score), score], 1)


class NoisyLinear(nn.Module):
    """Logits (0, (w + sigma z).x + b) with z standard normal, drawn for each image from the global generator."""

    def __init__(self, w: Tensor, b: float, sigma: float) -> None:
        super().__init__()
        self.w, self.b, self.sigma = nn.Parameter(w), b, sigma

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        noise = torch.randn(flat.shape, device=x.device)
        score = flat @ self.w + self.b + self.sigma * (noise * flat).sum(1)
        return torch.stack([torch.zeros_like(score), score], 1)
