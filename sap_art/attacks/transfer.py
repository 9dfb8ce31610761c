"""FGSM and PGD, run on the dense counterpart (a view with ``gradient="dense"``) and carried over."""

from __future__ import annotations

from torch import Tensor

from sap_art.attacker import AttackerView
from sap_art.attacks.objective import loss_and_gradient, prepare
from sap_art.randomness import derive_seed, make_generator
from sap_art.threat import ThreatModel


def fgsm(view: AttackerView, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int, loss: str = "ce") -> Tensor:
    """One step of size eps from the clean image (Goodfellow et al. 2015, arXiv:1412.6572): (B, ...) in [0, 1]."""
    prepare(view, x, y)
    with view.seeded(derive_seed(seed, "view")):
        gradient = loss_and_gradient(view, x, y, loss=loss).gradient
    return threat.project(x, x + threat.eps * threat.ascent_direction(gradient))


def pgd(
    view: AttackerView,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    steps: int = 20,
    step_size: float | None = None,
    loss: str = "ce",
) -> Tensor:
    """Projected gradient ascent from a random start, last iterate (Madry et al. 2018, arXiv:1706.06083).

    ``step_size`` is in units of the pixel range (of the L2 norm for L2); None is 2.5 eps / steps.
    """
    prepare(view, x, y, steps=steps)
    if step_size is not None and step_size <= 0:
        raise ValueError(f"step_size must be above 0, got {step_size}")
    size = 2.5 * threat.eps / steps if step_size is None else step_size
    point = threat.random_start(x, make_generator(x.device, seed, "start"))
    with view.seeded(derive_seed(seed, "view")):
        for _ in range(steps):
            gradient = loss_and_gradient(view, point, y, loss=loss).gradient
            point = threat.project(x, point + size * threat.ascent_direction(gradient))
    return point
