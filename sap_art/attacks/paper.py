"""The attack in the paper that proposed SAP (Dhillon et al. 2018, arXiv:1803.01442, sections 2 and 5).

The paper's own setting is a view with ``gradient="frozen"``, its operator's backward pass, and ``FGSM_DRAWS`` or
``ITERATIVE_DRAWS`` draws. It is a reference, not a strong attack: its gradient is mostly noise.
"""

from __future__ import annotations

import math

from torch import Tensor

from sap_art.attacker import AttackerView
from sap_art.attacks.objective import loss_and_gradient, prepare
from sap_art.randomness import derive_seed
from sap_art.threat import ThreatModel

FGSM_DRAWS, ITERATIVE_DRAWS = 100, 10
PIXEL = 1 / 255


def paper_fgsm(view: AttackerView, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    """x + eps * sign of the mean over draws of the cross-entropy's gradient: (B, ...) in [0, 1], Linf only.

    Passes an image: k forwards and backwards.
    """
    return _signed_steps(view, x, y, threat, seed=seed, steps=1, size=threat.eps)


def paper_iterative(view: AttackerView, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    """Such steps of one pixel value (1/255), as many as eps has, rounded up: (B, ...) in [0, 1], Linf only.

    From the clean image, without a random start; each step is cut back to the ball. Returns the last iterate.
    Passes an image: k forwards and backwards a step.
    """
    return _signed_steps(view, x, y, threat, seed=seed, steps=iterations(threat), size=PIXEL)


def iterations(threat: ThreatModel) -> int:
    """Steps of ``paper_iterative``: 8 for eps = 8/255, 1 for half a pixel value."""
    return math.ceil(threat.eps / PIXEL)


def _signed_steps(
    view: AttackerView, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int, steps: int, size: float
) -> Tensor:
    prepare(view, x, y)
    if threat.norm != "Linf":
        raise ValueError(f"the paper attacks in Linf only, got {threat.norm}: take eot_apgd")
    point = x
    with view.seeded(derive_seed(seed, "view")):
        for _ in range(steps):
            gradient = loss_and_gradient(view, point, y, loss="ce").gradient
            point = threat.project(x, point + size * threat.ascent_direction(gradient))
    return point
