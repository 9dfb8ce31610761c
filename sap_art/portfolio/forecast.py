"""What an entry will cost, before it is run."""

from __future__ import annotations

from sap_art.portfolio.plan import plan, random_estimators
from sap_art.portfolio.planned import PlannedAttack
from sap_art.portfolio.refine import again, can_be_refined, refined
from sap_art.portfolio.short import along_the_curve, budgets, sanity
from sap_art.stochastic import StochasticModel
from sap_art.threat import ThreatModel
from sap_art.tiers import STAND_ALONE, Tier

PLANTING = 260
"""Passes that plant one example, besides its draws."""
CALLS_COMPARED = 2000


def forecast(model: StochasticModel, tier: Tier, threat: ThreatModel, *, images: int, classes: int) -> int:
    """Forward and backward passes that an entry takes in all if no image is dropped."""
    attacks = plan(model, tier, threat, classes=classes)
    climbs = [attack for attack in attacks if can_be_refined(attack)]
    more = refined(climbs[: tier.refinement.best], tier.refinement, classes=classes) if tier.refinement else []
    alone = min(images, STAND_ALONE)
    spent = sum(attack.passes * (alone if attack.alone else images) for attack in [*attacks, *more])
    columns = len(attacks) * tier.report_draws * alone
    selection = (len(attacks) + len(more) + 1) * tier.selection_draws * images
    gradients = 2 * tier.signal_points * tier.signal_draws * len(random_estimators(model)) * alone
    short = [sanity(model, threat, size=1)[0], *(a for a, _ in along_the_curve(model, threat, tier))]
    if tier.converged:
        short += [attack for values in budgets(_costliest(climbs)).values() for attack in values.values()]
    shorts = sum(attack.passes + tier.report_draws for attack in short) * alone
    calls = CALLS_COMPARED if tier.calls_compared and not model.deterministic else 0
    return (
        spent
        + columns
        + selection
        + gradients
        + shorts
        + calls
        + _planted(climbs, tier, alone=alone)
        + (2 * images * tier.report_draws)
    )


def _planted(climbs: list[PlannedAttack], tier: Tier, *, alone: int) -> int:
    if not tier.planted:
        return 0
    restarts = tier.refinement.restarts if tier.refinement else 1
    attack = again(_costliest(climbs), "planted", restarts=restarts)
    return min(tier.planted, alone) * (PLANTING + 8 * tier.draws + attack.passes)


def _costliest(climbs: list[PlannedAttack]) -> PlannedAttack:
    return max(climbs, key=lambda attack: attack.passes)
