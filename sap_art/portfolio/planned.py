"""An attack with its budget, before it is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from sap_art.attacker import AttackerView
from sap_art.attacks.apgd import FIRST_STEP
from sap_art.attacks.eot_apgd import CHECKS, eot_apgd
from sap_art.attacks.library import LibraryResult
from sap_art.stochastic import StochasticModel
from sap_art.threat import ThreatModel


class Points(NamedTuple):
    """Adversarial images (B, ...), and for a library's attack the images (B,) that it counts as still right."""

    x_adv: Tensor
    right: Tensor | None


@dataclass(frozen=True)
class PlannedAttack:
    """An attack with its budget; ``passes`` are forward and backward ones an image, at most.

    Without the looks of an attack that may leave an image early: few draws where the model is often right.

    ``first`` attacks may spare the others images: those that they break are dropped. ``alone`` ones run on the
    stand-alone images only. A ``partial`` one runs where the model still stands, and has no column of its own.
    """

    id: str
    attack: Callable[..., Tensor | LibraryResult]
    estimator: str
    loss: str
    draws: int
    steps: int
    passes: int
    options: tuple[tuple[str, Any], ...]
    restarts: int = 1
    first: bool = False
    alone: bool = False
    partial: bool = False

    def view(self, model: StochasticModel) -> AttackerView:
        """What this attack sees of the model."""
        return AttackerView(model, gradient=self.estimator, draws=self.draws)

    def run(self, model: StochasticModel, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Points:
        """The adversarial images, checked against the threat model."""
        found = self.attack(self.view(model), x, y, threat, seed=seed, **dict(self.options))
        points = Points(*found) if isinstance(found, LibraryResult) else Points(found, None)
        threat.require(x, points.x_adv)
        return points

    @property
    def climbs_the_defence(self) -> bool:
        """Whether it is EOT-APGD through the model's own randomness."""
        return self.attack is eot_apgd and self.estimator != "dense"


def apgd(
    name: str,
    estimator: str,
    loss: str,
    *,
    draws: int,
    steps: int,
    restarts: int = 1,
    targets: int = 0,
    first_step: float = FIRST_STEP,
    stop_draws: int = 0,
) -> PlannedAttack:
    """EOT-APGD with this budget."""
    climbs = restarts * max(1, targets)
    checks = CHECKS * draws * climbs if climbs > 1 else 0
    budget = {"steps": steps, "loss": loss, "restarts": restarts, "targets": targets}
    ends = {"first_step": first_step, "stop_draws": stop_draws}
    return PlannedAttack(
        name,
        eot_apgd,
        estimator,
        loss,
        draws=draws,
        steps=steps,
        passes=2 * draws * steps * climbs + checks + (draws if targets else 0),
        options=tuple({**budget, **ends}.items()),
        restarts=restarts,
    )
