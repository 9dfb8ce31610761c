"""How nets are trained: recipes by name, and the attack that adversarial training makes on each batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from sap_art.threat import ThreatModel


@dataclass(frozen=True)
class Attack:
    """Linf projected gradient ascent from a uniform random start; one step of it is FGSM with a random start.

    Args:
        eps: radius in units of the pixel range, above 0.
        step: length of a step in each pixel, same units, above 0.
        steps: gradient evaluations an image, at least 1.

    Raises:
        ValueError: a number out of its range.
    """

    eps: float
    step: float
    steps: int

    def __post_init__(self) -> None:
        ThreatModel("Linf", self.eps)
        if not (math.isfinite(self.step) and self.step > 0):
            raise ValueError(f"step must be a finite number above 0, got {self.step}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")


@dataclass(frozen=True)
class Recipe:
    """SGD with Nesterov momentum and a one-cycle rate on randomly cropped and flipped images.

    With an ``attack``, adversarial training: each batch is attacked as the net stands then, and the net learns from
    the attacked images alone.
    """

    epochs: int
    batch_size: int = 128
    peak_rate: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    attack: Attack | None = None

    def settings(self) -> dict[str, Any]:
        """All fields as plain numbers, as cards and states have them; ``attack`` only where there is one."""
        return {name: value for name, value in asdict(self).items() if value is not None}


EPS = 8 / 255
RECIPES = {
    "standard": Recipe(epochs=60),
    # FGSM with a random start and a step of 1.25 eps: Wong, Rice & Kolter 2020, arXiv:2001.03994.
    "fast": Recipe(epochs=24, attack=Attack(EPS, step=1.25 * EPS, steps=1)),
    # PGD with 7 steps of 2/255: Madry et al. 2018, arXiv:1706.06083, section 5.
    "madry": Recipe(epochs=60, attack=Attack(EPS, step=2 / 255, steps=7)),
}


def recipe_named(name: str) -> Recipe:
    """The recipe of that name; raises ValueError for a name that is not in ``RECIPES``."""
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; known: {', '.join(RECIPES)}")
    return RECIPES[name]


def checkpoint_name(architecture: str, recipe: str) -> str:
    """What the zoo calls a net: its architecture, followed by the recipe unless that is ``standard``.

    >>> checkpoint_name("preact-resnet20", "standard"), checkpoint_name("preact-resnet20", "fast")
    ('preact-resnet20', 'preact-resnet20-fast')
    """
    return architecture if recipe == "standard" else f"{architecture}-{recipe}"


def perturb(x: Tensor, attack: Attack, *, loss: Callable[[Tensor], Tensor], generator: torch.Generator) -> Tensor:
    """Images that raise ``loss``, last iterate: (B, ...) in [0, 1] -> (B, ...) in [0, 1], at most eps away in Linf.

    x_0 is uniform in the eps-cube around x, clipped to [0, 1]; x_(t+1) = P(x_t + step sign(grad loss(x_t))), where P
    clips to the cube, then to [0, 1] (arXiv:1706.06083, section 2.1). ``loss`` maps a batch to a scalar, and what it
    does besides is up to it: through a net in training mode, each call moves the running statistics of batch norms.
    Only the gradient of the images is computed, parameters receive none.

    Raises:
        FloatingPointError: a gradient with NaN or inf.
    """
    threat = ThreatModel("Linf", attack.eps)
    point = threat.random_start(x, generator)
    for _ in range(attack.steps):
        point = point.requires_grad_()
        gradient = torch.autograd.grad(loss(point), point)[0]
        if not torch.isfinite(gradient).all():
            raise FloatingPointError("the gradient of the loss is NaN or inf: the net has diverged")
        point = threat.project(x, point.detach() + attack.step * threat.ascent_direction(gradient))
    return point
