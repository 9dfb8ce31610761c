"""Nets that take milliseconds, so that a suite of them is seconds of work in many units."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def linear() -> nn.Module:
    """Two layers on 48 pixels; the same weights each time."""
    net = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10))
    generator = torch.Generator().manual_seed(3)
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator) / p.shape[-1] ** 0.5
    return net.eval()


class Noisy(nn.Module):
    """Random by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.net = linear()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + 0.1 * torch.randn_like(x))


def noisy() -> nn.Module:
    return Noisy().eval()
