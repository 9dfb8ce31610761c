"""Random noise: the weakest attack, and the floor that every other one must go below."""

from __future__ import annotations

import torch
from torch import Tensor

from sap_art.attacker import AttackerView
from sap_art.attacks.objective import mean_loss, prepare
from sap_art.randomness import derive_seed, make_generator
from sap_art.threat import ThreatModel


def noise(view: AttackerView, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int, points: int = 100) -> Tensor:
    """The worst of ``points`` random points by mean margin: even ones uniform in the ball, odd ones at its corners.

    A corner is x +- eps in each pixel for Linf and a uniform direction at radius eps for L2. No gradient is used.
    """
    prepare(view, x, y, points=points)
    generator = make_generator(x.device, seed, "points")
    worst, worst_margin = x, torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
    with view.seeded(derive_seed(seed, "view")):
        for number in range(points):
            inside = threat.random_start(x, generator)
            point = inside if number % 2 == 0 else _corner(x, threat, generator)
            value = mean_loss(view, point, y, loss="margin")
            better = value > worst_margin
            worst = torch.where(better.view(-1, *[1] * (x.ndim - 1)), point, worst)
            worst_margin = torch.where(better, value, worst_margin)
    return worst


def _corner(x: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
    direction = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return threat.project(x, x + threat.eps * threat.ascent_direction(direction))
