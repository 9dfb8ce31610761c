"""Attacks outside of the plan: at other radii, and the best one with other budgets."""

from __future__ import annotations

from sap_art.attacks.apgd import FIRST_STEP
from sap_art.portfolio.plan import random_estimators
from sap_art.portfolio.planned import PlannedAttack, apgd
from sap_art.portfolio.refine import again
from sap_art.stochastic import StochasticModel
from sap_art.threat import ThreatModel
from sap_art.tiers import Tier

SANITY_EPS = 0.5
SANITY_STEPS = 10
CURVE_STEPS, CURVE_DRAWS = 10, 2
FACTORS = (0.25, 0.5, 1, 2)
"""Of the tier's steps and draws; the last one is what convergence is judged by."""
RESTARTS = (1, 5, 10)
FIRST_STEPS = (0.5, 1.0, FIRST_STEP)


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


def budgets(best: PlannedAttack) -> dict[str, dict[float, PlannedAttack]]:
    """The attack with other steps, draws, restarts and first steps: what is varied -> its value -> the attack."""
    steps = sorted({max(1, round(f * best.steps)) for f in FACTORS})
    draws = sorted({max(1, round(f * best.draws)) for f in FACTORS})
    return {
        "steps": {n: again(best, f"steps-{n}", steps=n) for n in steps},
        "draws": {n: again(best, f"draws-{n}", draws=n) for n in draws},
        "restarts": {n: again(best, f"restarts-{n}", restarts=n) for n in RESTARTS},
        "first_step": {f: again(best, f"first-step-{f:g}", first_step=f) for f in FIRST_STEPS},
    }


def _short(name: str, model: StochasticModel, *, draws: int, steps: int) -> PlannedAttack:
    return apgd(name, random_estimators(model)[0], "ce", draws=draws, steps=steps)
