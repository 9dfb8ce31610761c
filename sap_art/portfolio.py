"""Which attacks one tier of RDP-1 runs on a model, cheapest and strongest first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from sap_art.attacker import AttackerView
from sap_art.attacks import eot_apgd, fgsm, noise, pgd
from sap_art.stochastic import StochasticModel
from sap_art.threat import ThreatModel
from sap_art.tiers import STAND_ALONE, Tier

SANITY_EPS = 0.5
SANITY_STEPS = 10
Attack = Callable[..., Tensor]


@dataclass(frozen=True)
class PlannedAttack:
    """An attack with its budget. ``first`` attacks see all images, the others drop those already broken."""

    id: str
    attack: Attack
    estimator: str
    loss: str
    draws: int
    steps: int
    first: bool = False
    options: tuple[tuple[str, int], ...] = ()

    def run(self, model: StochasticModel, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
        """The adversarial images, checked against the threat model."""
        view = AttackerView(model, gradient=self.estimator, draws=self.draws)
        x_adv = self.attack(view, x, y, threat, seed=seed, **dict(self.options))
        threat.require(x, x_adv)
        return x_adv

    @property
    def passes(self) -> int:
        """Forward and backward passes an image that it will take."""
        return self.draws * self.steps * (1 if self.attack is noise else 2)


def random_estimators(model: StochasticModel) -> list[str]:
    """The model's estimators that differentiate through its randomness, the protocol's first choice first."""
    return [name for name in model.estimators if name != "dense"]


def plan(model: StochasticModel, tier: Tier) -> list[PlannedAttack]:
    """The tier's attacks for what the model offers: transfer needs a dense counterpart."""
    steps = (("steps", tier.steps),)
    best, *others = random_estimators(model)
    white = [_eot_apgd(name, tier, first=name == best) for name in (best, *others)]
    blind = PlannedAttack(
        "noise", noise, best, "margin", draws=1, steps=tier.noise_points, options=(("points", tier.noise_points),)
    )
    if model.dense is None:
        return [*white, blind]
    return [
        PlannedAttack("pgd-dense", pgd, "dense", "ce", draws=1, steps=tier.steps, first=True, options=steps),
        *white,
        blind,
        PlannedAttack("fgsm-dense", fgsm, "dense", "ce", draws=1, steps=1),
    ]


def sanity(model: StochasticModel, threat: ThreatModel, *, size: int) -> tuple[PlannedAttack, ThreatModel]:
    """The attack at a radius that no defence survives: .5 for Linf, sqrt(d) / 2 for L2 with d = ``size`` pixels."""
    eps = SANITY_EPS if threat.norm == "Linf" else size**0.5 / 2
    name = random_estimators(model)[0]
    planned = PlannedAttack(
        "large-eps", eot_apgd, name, "ce", draws=1, steps=SANITY_STEPS, options=(("steps", SANITY_STEPS),)
    )
    return planned, ThreatModel(threat.norm, eps)


def forecast(model: StochasticModel, tier: Tier, *, images: int) -> int:
    """Forward and backward passes that an entry takes in all if no image is dropped."""
    attacks = plan(model, tier)
    alone = min(images, STAND_ALONE)
    columns = (len(attacks) + 1) * tier.report_draws * alone
    selection = (len(attacks) + 1) * tier.selection_draws * images
    gradients = 2 * tier.draws * len(random_estimators(model)) * alone
    large = (2 * SANITY_STEPS + tier.report_draws) * alone
    return (
        sum(a.passes for a in attacks) * images
        + columns
        + selection
        + gradients
        + large
        + 2 * images * (tier.report_draws)
    )


def _eot_apgd(estimator: str, tier: Tier, *, first: bool) -> PlannedAttack:
    return PlannedAttack(
        f"eot-apgd-ce-{estimator}",
        eot_apgd,
        estimator,
        "ce",
        draws=tier.draws,
        steps=tier.steps,
        first=first,
        options=(("steps", tier.steps),),
    )
