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
AS_IF_NEW = 2
"""Answers at each attack's points that are held against those of the model before anybody called it."""
PROBES = 1000
"""Passes of the probes of a model, at most."""


def expected_passes(model: StochasticModel, tier: Tier, threat: ThreatModel, *, images: int, classes: int) -> int:
    """Forward and backward passes that an entry takes in all if no image is dropped or left early, about."""
    attacks = plan(model, tier, threat, classes=classes)
    climbs = [attack for attack in attacks if can_be_refined(attack)]
    more = refined(climbs[: tier.refinement.best], tier.refinement, classes=classes) if tier.refinement else []
    alone = min(images, STAND_ALONE)
    spent = sum(attack.passes * (alone if attack.alone else images) for attack in [*attacks, *more])
    columns = (len(attacks) * alone + 2 * images) * tier.report_draws
    anew = AS_IF_NEW * len(attacks) * alone
    estimators = len(random_estimators(model))
    gradients = 2 * tier.signal_points * tier.signal_draws * estimators * alone
    if tier.directions:
        gradients += 2 * tier.draws * (2 * tier.directions + estimators) * alone
    short = [sanity(model, threat, size=1)[0], *(a for a, _ in along_the_curve(model, threat, tier))]
    if tier.converged:
        short += [attack for values in budgets(_costliest(climbs)).values() for attack in values.values()]
    shorts = sum(attack.passes + tier.report_draws for attack in short) * alone
    choices = _choices(tier, candidates=len(attacks) + len(more) + 1, climbs=len(climbs), images=images)
    calls = CALLS_COMPARED if tier.calls_compared else 0
    planted = _planted(climbs, tier, alone=alone)
    return spent + columns + anew + gradients + shorts + choices + calls + planted + PROBES


def _choices(tier: Tier, *, candidates: int, climbs: int, images: int) -> int:
    """Selection draws: of the worst points, of what to refine and where, of the attack to repeat and to plant for."""
    alone = min(images, STAND_ALONE)
    worst = candidates * images * (1 + (tier.refinement is not None) + 2 * tier.converged)
    strongest = climbs * alone * ((tier.refinement is not None) + tier.converged + (tier.planted > 0))
    standing = images * (tier.refinement is not None)
    return tier.selection_draws * (worst + strongest + standing + 2 * alone * tier.converged)


def _planted(climbs: list[PlannedAttack], tier: Tier, *, alone: int) -> int:
    if not tier.planted:
        return 0
    restarts = tier.refinement.restarts if tier.refinement else 1
    attack = again(_costliest(climbs), "planted", restarts=restarts)
    return min(tier.planted, alone) * (PLANTING + 8 * tier.draws + attack.passes)


def _costliest(climbs: list[PlannedAttack]) -> PlannedAttack:
    return max(climbs, key=lambda attack: attack.passes)
