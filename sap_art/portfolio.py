"""Which attacks one tier of RDP-1 runs on a model, cheapest and strongest first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sap_art.attacker import AttackerView
from sap_art.attacks import eot_apgd, fgsm, known_seed, noise, pgd, square
from sap_art.stochastic import StochasticModel
from sap_art.threat import ThreatModel
from sap_art.tiers import STAND_ALONE, Tier

SANITY_EPS = 0.5
SANITY_STEPS = 10
CURVE_STEPS, CURVE_DRAWS = 10, 2
Attack = Callable[..., Tensor]


@dataclass(frozen=True)
class PlannedAttack:
    """An attack with its budget; ``passes`` are forward and backward ones an image.

    ``first`` attacks may spare the others images: those that they break are dropped. ``alone`` ones run on the
    stand-alone images only.
    """

    id: str
    attack: Attack
    estimator: str
    loss: str
    draws: int
    steps: int
    passes: int
    options: tuple[tuple[str, Any], ...]
    first: bool = False
    alone: bool = False

    def view(self, model: StochasticModel) -> AttackerView:
        """What this attack sees of the model."""
        return AttackerView(model, gradient=self.estimator, draws=self.draws)

    def run(self, model: StochasticModel, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
        """The adversarial images, checked against the threat model."""
        x_adv = self.attack(self.view(model), x, y, threat, seed=seed, **dict(self.options))
        threat.require(x, x_adv)
        return x_adv

    @property
    def climbs_the_defence(self) -> bool:
        """Whether it is EOT-APGD through the model's own randomness."""
        return self.attack is eot_apgd and self.estimator != "dense"


def random_estimators(model: StochasticModel) -> list[str]:
    """The model's estimators that differentiate through its randomness, the protocol's first choice first."""
    return [name for name in model.estimators if name != "dense"]


def plan(model: StochasticModel, tier: Tier) -> list[PlannedAttack]:
    """The tier's attacks for what the model offers: transfer needs a dense counterpart, a known seed randomness."""
    best, *others = random_estimators(model)
    compared, *more = tier.losses
    white = [
        _eot_apgd(best, compared, tier, first=True),
        *(_eot_apgd(best, loss, tier) for loss in more),
        *(_eot_apgd(name, compared, tier, alone=len(tier.losses) > 1) for name in others),
    ]
    return [*_transfer(model, tier), *white, *_blind(best, tier), *_last(model, best, tier)]


def _transfer(model: StochasticModel, tier: Tier) -> list[PlannedAttack]:
    if model.dense is None:
        return []
    steps, passes = (("steps", tier.steps),), 2 * tier.steps
    if not tier.transfer_losses:
        return [PlannedAttack("pgd-dense", pgd, "dense", "ce", 1, tier.steps, passes, steps, first=True)]
    return [
        PlannedAttack(
            f"apgd-{loss}-dense", eot_apgd, "dense", loss, 1, tier.steps, passes, (*steps, ("loss", loss)), first=True
        )
        for loss in tier.transfer_losses
    ]


def _eot_apgd(estimator: str, loss: str, tier: Tier, *, first: bool = False, alone: bool = False) -> PlannedAttack:
    return PlannedAttack(
        f"eot-apgd-{loss}-{estimator}",
        eot_apgd,
        estimator,
        loss,
        draws=tier.draws,
        steps=tier.steps,
        passes=2 * tier.draws * tier.steps,
        options=(("steps", tier.steps), ("loss", loss)),
        first=first,
        alone=alone,
    )


def _blind(best: str, tier: Tier) -> list[PlannedAttack]:
    """Without gradients: random points, and queries where the tier has them."""
    points, iterations, draws = tier.noise_points, tier.square_iterations, tier.square_draws
    random = PlannedAttack("noise", noise, best, "margin", 1, points, points, (("points", points),))
    if not iterations:
        return [random]
    passes, options = draws * (2 * iterations + 4), (("iterations", iterations),)
    return [
        random,
        PlannedAttack("square", square, best, "margin", draws, iterations, passes, options, alone=True),
    ]


def _last(model: StochasticModel, best: str, tier: Tier) -> list[PlannedAttack]:
    """One step on the dense net, and the attacker who is told the random numbers."""
    single = [] if model.dense is None else [PlannedAttack("fgsm-dense", fgsm, "dense", "ce", 1, 1, 2, ())]
    seeds = range(0 if model.deterministic else tier.known_seeds)
    told = [
        PlannedAttack(
            f"known-seed-{number}",
            known_seed,
            best,
            "ce",
            draws=1,
            steps=tier.steps,
            passes=2 * tier.steps + 2,
            options=(("noise_seed", number), ("attack", eot_apgd), ("steps", tier.steps)),
            alone=True,
        )
        for number in seeds
    ]
    return [*single, *told]


def sanity(model: StochasticModel, threat: ThreatModel, *, size: int) -> tuple[PlannedAttack, ThreatModel]:
    """The attack at a radius that no defence survives: .5 for Linf, sqrt(d) / 2 for L2 with d = ``size`` pixels."""
    eps = SANITY_EPS if threat.norm == "Linf" else size**0.5 / 2
    return _short("large-eps", model, draws=1, steps=SANITY_STEPS), ThreatModel(threat.norm, eps)


def along_the_curve(model: StochasticModel, threat: ThreatModel, tier: Tier) -> list[tuple[PlannedAttack, ThreatModel]]:
    """One short attack at each radius of the tier's curve."""
    radii = [threat.eps * factor for factor in tier.curve]
    return [
        (_short(f"curve-{number}", model, draws=CURVE_DRAWS, steps=CURVE_STEPS), ThreatModel(threat.norm, eps))
        for number, eps in enumerate(radii)
    ]


def _short(name: str, model: StochasticModel, *, draws: int, steps: int) -> PlannedAttack:
    best = random_estimators(model)[0]
    return PlannedAttack(name, eot_apgd, best, "ce", draws, steps, 2 * draws * steps, (("steps", steps),), alone=True)


def forecast(model: StochasticModel, tier: Tier, *, images: int) -> int:
    """Forward and backward passes that an entry takes in all if no image is dropped."""
    attacks = plan(model, tier)
    alone = min(images, STAND_ALONE)
    spent = sum(attack.passes * (alone if attack.alone else images) for attack in attacks)
    columns = len(attacks) * tier.report_draws * alone
    selection = (len(attacks) + 1) * tier.selection_draws * images
    gradients = 2 * tier.signal_points * tier.signal_draws * len(random_estimators(model)) * alone
    short = (2 * SANITY_STEPS + tier.report_draws) * alone
    curve = len(tier.curve) * (2 * CURVE_STEPS * CURVE_DRAWS + tier.report_draws) * alone
    return spent + columns + selection + gradients + short + curve + 2 * images * tier.report_draws
