"""AutoAttack and ART's PGD on one model, as other people run them: with what budget, and at what price."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from sap_art.attacks.library import LibraryResult
    from sap_art.stochastic import StochasticModel
    from sap_art.threat import ThreatModel

RAND, STANDARD, PGD = "autoattack-rand", "autoattack-standard", "art-pgd"
WITH_STANDARD = ("trained_dense",)
"""The controls without randomness whose worth nobody knows better than AutoAttack's version ``standard``."""
TARGETS = 9


@dataclass(frozen=True)
class Budget:
    """Steps and draws a gradient of each library, queries of Square, and fresh draws an image for the points."""

    autoattack_steps: int
    autoattack_draws: int
    queries: int
    pgd_steps: int
    pgd_draws: int
    report_draws: int


FULL = Budget(
    autoattack_steps=100, autoattack_draws=20, queries=5000, pgd_steps=20, pgd_draws=10, report_draws=50
)  # AutoAttack's own settings; for ART those of most papers


def libraries(name: str) -> tuple[str, ...]:
    """Which libraries are run on the control."""
    return (RAND, PGD, STANDARD) if name in WITH_STANDARD else (RAND, PGD)


def passes(library: str, budget: Budget) -> int:
    """Forward and backward passes that an image takes in all if every attack of the library is run on it."""
    steps = 2 * (budget.autoattack_steps + 1)
    attacks = {
        RAND: 2 * steps * budget.autoattack_draws,
        STANDARD: (1 + 2 * TARGETS) * steps + budget.queries,
        PGD: 2 * budget.pgd_steps * budget.pgd_draws,
    }
    return attacks[library] + budget.report_draws


def attack(
    library: str, model: StochasticModel, x: Tensor, y: Tensor, *, threat: ThreatModel, budget: Budget, seed: int
) -> LibraryResult:
    """Points and report of the library. AutoAttack averages gradients over draws itself; ART is given the average."""
    from sap_art import AttackerView
    from sap_art.attacks.library import reported_art_pgd, reported_autoattack

    view = AttackerView(model, gradient="autograd", draws=budget.pgd_draws if library == PGD else 1)
    if library == PGD:
        return reported_art_pgd(view, x, y, threat, seed=seed, steps=budget.pgd_steps)
    return reported_autoattack(
        view,
        x,
        y,
        threat,
        seed=seed,
        version="rand" if library == RAND else "standard",
        draws=budget.autoattack_draws if library == RAND else 1,
        steps=budget.autoattack_steps,
        queries=budget.queries,
    )
