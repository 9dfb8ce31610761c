"""How nets are trained: recipes by name, and the attacks that adversarial training makes on each batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
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
class Mixture:
    """FGSM on a share of each batch, made by the net as the epoch before left it; the first epoch has none before it.

    Args:
        eps: lambda, the length of the step in each pixel, in units of the pixel range, above 0.
        share: of the batch that is attacked, in (0, 1]; the rest stays clean.

    Raises:
        ValueError: a number out of its range.
    """

    eps: float
    share: float

    def __post_init__(self) -> None:
        ThreatModel("Linf", self.eps)
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, got {self.share}")


@dataclass(frozen=True)
class Decay:
    """A learning rate that is multiplied by ``factor`` once each number of epochs in ``after`` is done."""

    factor: float
    after: tuple[int, ...]

    def scale(self, epochs: float) -> float:
        """What the rate is multiplied by when so many epochs are done."""
        return self.factor ** sum(epochs >= end for end in self.after)


@dataclass(frozen=True)
class Recipe:
    """SGD on randomly cropped and flipped images: one cycle of the rate with Nesterov momentum, or steps of ``decay``.

    With an ``attack``, adversarial training: each batch is attacked as the net stands then, and the net learns from
    the attacked images alone; with a ``mixture`` it learns from clean and attacked ones together. ``decay`` goes with
    plain momentum and starts at ``peak_rate``. ``dropout`` is the rate of dropout after each activation, in training.

    Raises:
        ValueError: an attack and a mixture.
    """

    epochs: int
    batch_size: int = 128
    peak_rate: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    attack: Attack | None = None
    decay: Decay | None = None
    dropout: float | None = None
    mixture: Mixture | None = None

    def __post_init__(self) -> None:
        if self.attack is not None and self.mixture is not None:
            raise ValueError("a recipe has an attack on all images or a mixture, not both")

    @property
    def schedule(self) -> str:
        """What becomes of the learning rate: ``one-cycle`` or ``step-decay``."""
        return "one-cycle" if self.decay is None else "step-decay"

    def over(self, epochs: int) -> Recipe:
        """The recipe in another number of epochs, where steps of the rate mean nothing: one cycle instead."""
        return self if epochs == self.epochs else replace(self, epochs=epochs, decay=None)

    def settings(self) -> dict[str, Any]:
        """All fields as plain numbers and lists, as cards and states have them; what there is none of is left out."""
        plain = asdict(self)
        if self.decay is not None:
            plain["decay"]["after"] = list(self.decay.after)
        return {name: value for name, value in plain.items() if value is not None}


EPS = 8 / 255
_PRINTED = Recipe(epochs=150, batch_size=512, peak_rate=0.5, weight_decay=1e-4, decay=Decay(0.1, (100, 130)))
RECIPES = {
    "standard": Recipe(epochs=60),
    # The dense net and ADV as Dhillon et al. 2018 print them, arXiv:1803.01442.
    "paper": _PRINTED,
    "adv": replace(
        _PRINTED, epochs=100, decay=Decay(0.5, tuple(range(10, 100, 10))), mixture=Mixture(2 / 255, share=0.2)
    ),
    # FGSM with a random start and a step of 1.25 eps: Wong, Rice & Kolter 2020, arXiv:2001.03994.
    "fast": Recipe(epochs=24, attack=Attack(EPS, step=1.25 * EPS, steps=1)),
    # PGD with 7 steps of 2/255: Madry et al. 2018, arXiv:1706.06083, section 5.
    "madry": Recipe(epochs=60, attack=Attack(EPS, step=2 / 255, steps=7)),
}


def dropout_recipe(rate: float) -> Recipe:
    """The paper's nets that are trained with dropout: 250 epochs, a rate of .5 that falls four times to a tenth.

    Raises:
        ValueError: a rate not between 0 and 1.
    """
    if not 0 < rate < 1:
        raise ValueError(f"the rate of dropout must be a number between 0 and 1, both left out, got {rate}")
    return replace(_PRINTED, epochs=250, decay=Decay(0.1, (100, 150, 190, 220)), dropout=rate)


def recipe_named(name: str) -> Recipe:
    """The recipe of that name: one of ``RECIPES``, or ``dropout:RATE``.

    >>> recipe_named("dropout:0.1").dropout
    0.1

    Raises:
        ValueError: a name that is neither, a rate that is none.
    """
    if name.partition(":")[0] == "dropout":
        try:
            rate = float(name.partition(":")[2])
        except ValueError as error:
            raise ValueError(f"recipe {name!r} must be dropout:RATE, for example dropout:0.1") from error
        return dropout_recipe(rate)
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; known: {', '.join(RECIPES)}, dropout:RATE")
    return RECIPES[name]


def canonical_name(name: str) -> str:
    """The one spelling of a recipe's name, so that one recipe has one checkpoint and one card.

    >>> canonical_name("dropout:0.10"), canonical_name("adv")
    ('dropout:0.1', 'adv')

    Raises:
        ValueError: a name that ``recipe_named`` refuses.
    """
    rate = recipe_named(name).dropout
    return name if rate is None else f"dropout:{rate!r}"


def checkpoint_name(architecture: str, recipe: str) -> str:
    """What the zoo calls a net: its architecture, followed by the recipe's one name unless that is ``standard``.

    >>> checkpoint_name("preact-resnet20", "standard"), checkpoint_name("preact-resnet20", "dropout:0.10")
    ('preact-resnet20', 'preact-resnet20-dropout-0.1')

    Raises:
        ValueError: a name that ``recipe_named`` refuses.
    """
    return architecture if recipe == "standard" else f"{architecture}-{canonical_name(recipe).replace(':', '-')}"


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
        point = threat.project(x, point + attack.step * _direction(point, loss))
    return point


def fgsm(x: Tensor, eps: float, *, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """One step of eps in the direction of sign(grad loss(x)), clipped to [0, 1]: (B, ...) -> (B, ...).

    The paper's lambda sign(grad J), lambda = eps; ``loss``, parameters and errors as for ``perturb``.
    """
    threat = ThreatModel("Linf", eps)
    return threat.project(x, x + eps * _direction(x, loss))


def _direction(point: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """The sign of the gradient of ``loss`` at ``point``."""
    point = point.detach().requires_grad_()
    gradient = torch.autograd.grad(loss(point), point)[0]
    if not torch.isfinite(gradient).all():
        raise FloatingPointError("the gradient of the loss is NaN or inf: the net has diverged")
    return gradient.sign()
