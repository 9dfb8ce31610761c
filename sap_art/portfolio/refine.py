"""More of the attacks that did most damage: from other starts and towards other classes."""

from __future__ import annotations

from dataclasses import replace

from sap_art.attacks import eot_apgd
from sap_art.attacks.apgd import FIRST_STEP
from sap_art.attacks.objective import TARGETED
from sap_art.portfolio.plan import targeted_loss
from sap_art.portfolio.planned import PlannedAttack, apgd
from sap_art.tiers import Refinement


def refined(best: list[PlannedAttack], refinement: Refinement, *, classes: int) -> list[PlannedAttack]:
    """Restarts of each attack, and climbs of it towards the likeliest wrong classes; all EOT-APGD."""
    return [replace(attack, partial=True) for one in best for attack in _more(one, refinement, classes=classes)]


def can_be_refined(planned: PlannedAttack) -> bool:
    """Whether it is EOT-APGD, on the defence or on the dense net, without targets."""
    return planned.attack is eot_apgd and not dict(planned.options)["targets"]


def again(
    planned: PlannedAttack,
    suffix: str,
    *,
    draws: int | None = None,
    steps: int | None = None,
    loss: str | None = None,
    restarts: int = 1,
    targets: int = 0,
    first_step: float = FIRST_STEP,
) -> PlannedAttack:
    """The same climb with another budget."""
    return apgd(
        f"{planned.id}-{suffix}",
        planned.estimator,
        loss or planned.loss,
        draws=draws or planned.draws,
        steps=steps or planned.steps,
        restarts=restarts,
        targets=targets,
        first_step=first_step,
        stop_draws=dict(planned.options)["stop_draws"],
    )


def _more(planned: PlannedAttack, refinement: Refinement, *, classes: int) -> list[PlannedAttack]:
    attacks = [again(planned, "restarts", restarts=refinement.restarts)]
    if targets := min(refinement.targets, classes - 1):
        loss = planned.loss if planned.loss in TARGETED else targeted_loss(classes)
        attacks.append(again(planned, "targeted", loss=loss, targets=targets))
    return attacks
