"""A run of one entry as stages of units, which wait for each other: what it costs, and what can be done at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sap_art.portfolio.plan import plan, random_estimators
from sap_art.portfolio.planned import PlannedAttack
from sap_art.portfolio.refine import again, can_be_refined, refined
from sap_art.portfolio.short import along_the_curve, budgets, sanity
from sap_art.stochastic import StochasticModel
from sap_art.threat import ThreatModel
from sap_art.tiers import STAND_ALONE, Tier

BLOCK = 64
"""Images of a unit, and ``PLANTED_BLOCK`` where examples are planted."""
PLANTED_BLOCK = 8
PLANTING = 260
"""Passes that plant one example, besides its draws."""
CALLS_COMPARED = 2000
AS_IF_NEW = 2
"""Answers at each attack's points that are held against those of the model before anybody called it."""
PROBES = 1000
"""Passes of the probes of a model, at most."""


@dataclass(frozen=True)
class Stage:
    """Units that are submitted together, as their passes; they may be begun once the stages ``after`` are done."""

    name: str
    units: tuple[float, ...]
    after: tuple[str, ...] = ()

    @property
    def passes(self) -> float:
        """Of all its units."""
        return math.fsum(self.units)


@dataclass(frozen=True)
class Work:
    """What is evaluated: a model of so many classes in a tier, on so many images.

    ``left`` is the share of images beyond the stand-alone ones that the first of the first attacks leaves to the
    others, and ``standing`` that of all images on which the refinement runs; 1 for at most.
    """

    model: StochasticModel
    tier: Tier
    threat: ThreatModel
    images: int
    classes: int
    left: float = 1.0
    standing: float = 1.0

    @property
    def alone(self) -> int:
        """Stand-alone images."""
        return min(self.images, STAND_ALONE)

    def blocks(self, start: int = 0) -> list[int]:
        """Images of each block, from that image on."""
        return [min(BLOCK, self.images - first) for first in range(start, self.images, BLOCK)]


def stages(work: Work) -> list[Stage]:
    """One entry, in the order in which its stages are submitted; of equal claim, later ones are begun first.

    What the driver computes itself is a unit too. Units that nothing waits for fill the time in which others wait.
    """
    tier, attacks = work.tier, plan(work.model, work.tier, work.threat, classes=work.classes)
    climbs = [attack for attack in attacks if can_be_refined(attack)]
    found = [Stage("probes", (PROBES,)), Stage("before", tuple(_before(work)), ("probes",))]
    found += _attacks(work, attacks)
    attacked = tuple(stage.name for stage in found[2:])
    candidates = len(attacks) + 1
    if tier.refinement:
        more = refined(climbs[: tier.refinement.best], tier.refinement, classes=work.classes)
        found += _refinement(work, more, climbs=len(climbs), candidates=candidates, after=attacked)
        attacked, candidates = ("refinement",), candidates + len(more)
    alone, draws = work.alone, tier.report_draws
    found += [
        Stage("columns", (alone * draws,) * len(attacks), attacked),
        Stage("signal", _signal(work), ("columns",)),
        Stage("choice", _choice(work, candidates), ("columns",)),
        Stage("worst", tuple(b * draws for b in work.blocks()), ("choice",)),
        Stage("as if new", (AS_IF_NEW * len(attacks) * alone,), ("worst",)),
    ]
    if tier.converged:
        found += _convergence(work, climbs, candidates=candidates)
    if tier.planted:
        found += _planted(work, climbs, after=found[-1].name)
    if tier.directions:
        estimators = len(random_estimators(work.model))
        passes = 2 * tier.draws * (2 * tier.directions + estimators) * alone
        found.append(Stage("finite differences", (passes,), (found[-1].name,)))
    return found


def expected_passes(model: StochasticModel, tier: Tier, threat: ThreatModel, *, images: int, classes: int) -> int:
    """Forward and backward passes that an entry takes in all if no image is dropped or left early, about."""
    return round(math.fsum(stage.passes for stage in stages(Work(model, tier, threat, images, classes))))


def _before(work: Work) -> Iterable[float]:
    tier, alone = work.tier, work.alone
    if tier.calls_compared:
        yield CALLS_COMPARED
    yield from (b * tier.report_draws for b in work.blocks())
    short = [sanity(work.model, work.threat, size=1)[0]]
    short += [attack for attack, _ in along_the_curve(work.model, work.threat, tier)]
    yield from _shorts(work, short, alone)


def _shorts(work: Work, attacks: Iterable[PlannedAttack], alone: int) -> list[float]:
    return [(attack.passes + work.tier.report_draws) * alone for attack in attacks]


def _attacks(work: Work, attacks: Sequence[PlannedAttack]) -> list[Stage]:
    """The first attacks wait for each other, for each leaves fewer images; the others come last."""
    first = [attack for attack in attacks if attack.first and not attack.alone]
    rest = [attack for attack in attacks if attack not in first]
    beyond = work.blocks(STAND_ALONE)
    found = [Stage(f"{a.id} alone", (a.passes * work.alone,), ("probes",)) for a in first]
    found.append(Stage("alone", tuple(a.passes * work.alone for a in rest), ("probes",)))
    after, left = ("probes",), 1.0
    for attack in first:
        found.append(Stage(attack.id, tuple(attack.passes * left * b for b in beyond), after))
        after, left = (attack.id, f"{attack.id} alone"), work.left
    others = tuple(attack.passes * left * b for attack in rest if not attack.alone for b in beyond)
    found.append(Stage("others", others, after))
    return found


def _refinement(
    work: Work, more: Sequence[PlannedAttack], *, climbs: int, candidates: int, after: tuple[str, ...]
) -> list[Stage]:
    draws = work.tier.selection_draws
    candidates += len(more)  # as dear as the choice after it: an upper bound
    return [
        Stage("strongest", (work.alone * draws,) * climbs, after),
        Stage("first choice", _choice(work, candidates), ("strongest",)),
        Stage("standing", tuple(b * draws for b in work.blocks()), ("first choice",)),
        Stage(
            "refinement", tuple(a.passes * work.standing * b for a in more for b in work.blocks()), ("standing",)
        ),
    ]  # fmt: skip


def _choice(work: Work, candidates: int) -> tuple[float, ...]:
    return tuple(candidates * b * work.tier.selection_draws for b in work.blocks())


def _signal(work: Work) -> tuple[float, ...]:
    estimators = len(random_estimators(work.model))
    return (2 * work.tier.signal_draws * estimators * work.alone,) * work.tier.signal_points


def _convergence(work: Work, climbs: Sequence[PlannedAttack], *, candidates: int) -> list[Stage]:
    draws, alone = work.tier.selection_draws, work.alone
    short = [attack for values in budgets(_costliest(climbs)).values() for attack in values.values()]
    return [
        Stage("best", (alone * draws,) * len(climbs), ("as if new",)),
        Stage("budgets", tuple(_shorts(work, short, alone)), ("best",)),
        Stage("more restarts", (2 * draws * alone,), ("budgets",)),
        Stage("more draws", tuple(2 * passes for passes in _choice(work, candidates)), ("more restarts",)),
    ]


def _planted(work: Work, climbs: Sequence[PlannedAttack], *, after: str) -> list[Stage]:
    tier = work.tier
    attack = again(_costliest(climbs), "planted", restarts=tier.refinement.restarts if tier.refinement else 1)
    each, images = PLANTING + 8 * tier.draws + attack.passes, min(tier.planted, work.alone)
    sizes = [min(PLANTED_BLOCK, images - first) for first in range(0, images, PLANTED_BLOCK)]
    return [
        Stage("climbs", (work.alone * tier.selection_draws,) * len(climbs), (after,)),
        Stage("planted", tuple(each * size for size in sizes), ("climbs",)),
    ]


def _costliest(climbs: Sequence[PlannedAttack]) -> PlannedAttack:
    return max(climbs, key=lambda attack: attack.passes)
