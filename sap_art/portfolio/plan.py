"""Which attacks one tier of RDP-1 runs on a model, cheapest and strongest first."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from sap_art.attacks import (
    em_apgd,
    fgsm,
    hopskipjump,
    known_seed,
    long_apgd,
    maximin_apgd,
    noise,
    pgd,
    square,
)
from sap_art.attacks.library import TARGETS
from sap_art.portfolio.planned import PlannedAttack, apgd
from sap_art.portfolio.references import references
from sap_art.stochastic import StochasticModel
from sap_art.threat import ThreatModel
from sap_art.tiers import Tier

LEAST_CLASSES = {"dlr": 3, "targeted dlr": 4}


def random_estimators(model: StochasticModel) -> list[str]:
    """The model's estimators that differentiate through its randomness, the protocol's first choice first."""
    return [name for name in model.estimators if name != "dense"]


def plan(model: StochasticModel, tier: Tier, threat: ThreatModel, *, classes: int) -> list[PlannedAttack]:
    """The tier's attacks for what the model offers.

    Transfer needs a dense counterpart, and whatever is about draws a model that is random. The DLR loss needs 3
    classes, towards a target 4; with fewer the margin stands in. The paper's attack is one in Linf, by ``frozen``.
    """
    best, *others = random_estimators(model)
    losses = [loss for loss in tier.losses if classes >= LEAST_CLASSES.get(loss, 2)]
    climb = partial(apgd, draws=tier.draws, steps=tier.steps, stop_draws=tier.stop_draws)
    first, *more = [climb(f"eot-apgd-{loss}-{best}", best, loss) for loss in losses]
    white = [
        replace(first, first=True),
        *(replace(attack, alone=tier.white_box_alone) for attack in more),
        *(
            replace(climb(f"eot-apgd-{loss}-{name}", name, loss), alone=tier.others_alone)
            for name in others
            for loss in tier.other_losses
        ),
        *(replace(attack, alone=tier.white_box_alone) for attack in _of_draws(model, best, tier)),
    ]
    return [
        *_transfer(model, tier, classes=classes),
        *white,
        *_blind(best, tier),
        *_single_step(model),
        *_told(model, best, tier, classes=classes),
        *(references(model, best, threat, classes=classes) if tier.references else []),
    ]


def targeted_loss(classes: int) -> str:
    """The loss of climbs towards a class."""
    return "dlr" if classes >= LEAST_CLASSES["targeted dlr"] else "margin"


def _transfer(model: StochasticModel, tier: Tier, *, classes: int) -> list[PlannedAttack]:
    if model.dense is None:
        return []
    if not tier.transfer_losses:
        steps = (("steps", tier.steps),)
        return [PlannedAttack("pgd-dense", pgd, "dense", "ce", 1, tier.steps, 2 * tier.steps, steps, first=True)]
    climb = partial(apgd, draws=1, steps=tier.steps)
    attacks = [climb(f"apgd-{loss}-dense", "dense", loss) for loss in tier.transfer_losses]
    if targets := min(tier.transfer_targets, classes - 1):
        attacks.append(climb("apgd-t-dense", "dense", targeted_loss(classes), targets=targets))
    return [replace(attack, first=True) for attack in attacks]


def _of_draws(model: StochasticModel, best: str, tier: Tier) -> list[PlannedAttack]:
    """Attacks that spend or weigh draws in another way, which a deterministic model has not."""
    if model.deterministic:
        return []
    stop = ("stop_draws", tier.stop_draws)
    steps = (("steps", tier.steps), stop)
    passes = 2 * tier.draws * tier.steps
    selective = {"em-apgd": em_apgd, "maximin-apgd": maximin_apgd} if tier.selective else {}
    attacks = [
        PlannedAttack(f"{name}-{best}", attack, best, name, tier.draws, tier.steps, passes, steps)
        for name, attack in selective.items()
    ]
    if tier.long_steps:
        n, loss = tier.long_steps, "margin"  # which does not vanish where cross-entropy saturates
        options = (("steps", n), ("loss", loss), stop)
        attacks.append(PlannedAttack(f"long-apgd-{best}", long_apgd, best, loss, 1, n, 2 * n, options))
    return attacks


def _blind(best: str, tier: Tier) -> list[PlannedAttack]:
    """Without gradients: random points, and queries where the tier has them."""
    points, iterations, draws = tier.noise_points, tier.square_iterations, tier.square_draws
    attacks = [PlannedAttack("noise", noise, best, "margin", 1, points, points, (("points", points),))]
    if iterations:
        queries = _square("square", best, iterations=iterations, draws=draws, stop_draws=tier.stop_draws)
        attacks.append(replace(queries, alone=tier.square_alone))
    if n := tier.boundary_queries:
        options = (("queries", n),)
        attacks.append(
            PlannedAttack(
                "hopskipjump", hopskipjump, best, "decision", tier.draws, n, n * tier.draws, options, alone=True
            )
        )
    return attacks


def _single_step(model: StochasticModel) -> list[PlannedAttack]:
    return [] if model.dense is None else [PlannedAttack("fgsm-dense", fgsm, "dense", "ce", 1, 1, 2, ())]


def _told(model: StochasticModel, best: str, tier: Tier, *, classes: int) -> list[PlannedAttack]:
    """The attacker who is told the random numbers; two more forwards see that they can be fixed."""
    if model.deterministic:
        return []
    climb = apgd("", best, "ce", draws=1, steps=tier.steps)
    attacks = [climb]
    if tier.told_all:
        targets = min(TARGETS, classes - 1)
        towards = apgd("-t", best, targeted_loss(classes), draws=1, steps=tier.steps, targets=targets)
        attacks += [towards, _square("-square", best, iterations=tier.square_iterations, draws=1)]
    return [
        replace(
            a,
            id=f"known-seed-{number}{a.id}",
            attack=known_seed,
            passes=a.passes + 2,
            options=(("noise_seed", number), ("attack", a.attack), *a.options),
            alone=True,
        )
        for number in range(tier.known_seeds)
        for a in attacks
    ]


def _square(name: str, best: str, *, iterations: int, draws: int, stop_draws: int = 0) -> PlannedAttack:
    options = (("iterations", iterations), ("stop_draws", stop_draws))
    return PlannedAttack(name, square, best, "margin", draws, iterations, draws * (2 * iterations + 4), options)
