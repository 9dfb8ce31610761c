"""AutoAttack-rand and our evaluator on the same images and model, one after the other on one clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sap_art import AttackerView, ThreatModel, evaluate
from sap_art.attacks.library import LibraryResult, reported_autoattack
from sap_art.portfolio import PlannedAttack, plan
from sap_art.portfolio.plan import random_estimators
from sap_art.randomness import derive_seed
from sap_art.selection import choose_worst
from sap_art.stochastic import StochasticModel
from sap_art.tiers import Tier

TARGET = 50.0
"""How many times sooner our worst case has to be at or below rand's number."""


@dataclass(frozen=True)
class Case:
    """What both attack: x (B, ...) in [0, 1] and y (B,) on the model's device; ``tier`` holds our budgets."""

    model: StochasticModel
    x: Tensor
    y: Tensor
    threat: ThreatModel
    tier: Tier
    seed: int

    def seed_for(self, *labels: object) -> int:
        """The seed of one named part."""
        return derive_seed(self.seed, *labels)

    def plan(self) -> list[PlannedAttack]:
        """The tier's attacks on the model."""
        with torch.no_grad():
            classes = self.model.single(self.x[:1]).shape[1]
        return plan(self.model, self.tier, self.threat, classes=classes)

    def score(self, points: Tensor, label: str) -> float:
        """Accuracy on points (B, ...) over report draws that nothing else has seen."""
        seed = self.seed_for("report", label)
        return evaluate(self.model, points, self.y, draws=self.tier.report_draws, seed=seed).accuracy

    def now(self) -> float:
        """Seconds, once the device has done what it was given."""
        if self.x.device.type == "cuda":
            torch.cuda.synchronize(self.x.device)
        return time.perf_counter()


@dataclass(frozen=True)
class Rand:
    """AutoAttack-rand: how long it took, what it reports, and what its points score on fresh draws, in [0, 1]."""

    seconds: float
    reported: float
    scored: float


@dataclass(frozen=True)
class Step:
    """Our worst case after one attack more, in [0, 1], and the seconds until it was known."""

    attack: str
    seconds: float
    accuracy: float


@dataclass(frozen=True)
class Result:
    """Both sides; the last step is the first at or below rand's reported number, or the last there was."""

    rand: Rand
    steps: tuple[Step, ...]

    @property
    def reached(self) -> bool:
        """Whether our worst case ever got to rand's reported number."""
        return self.steps[-1].accuracy <= self.rand.reported

    @property
    def ratio(self) -> float | None:
        """Rand's seconds over ours until there; None if we never got there."""
        return self.rand.seconds / self.steps[-1].seconds if self.reached else None

    @property
    def met(self) -> bool:
        """Whether the ratio is at least ``TARGET``."""
        return self.ratio is not None and self.ratio >= TARGET


def warm_up(case: Case) -> None:
    """Import, compile and allocate: AutoAttack with one step on one image, then a gradient of each estimator on all."""
    _autoattack(case, 1, steps=1, draws=1)
    for estimator in case.model.estimators:
        x = case.x.clone().requires_grad_()
        torch.autograd.grad(AttackerView(case.model, gradient=estimator)(x)[:, 0].sum(), x)


def time_rand(case: Case, *, steps: int, draws: int) -> Rand:
    """AutoAttack-rand as its users run it: one draw a call of the model, AutoAttack's own loop over ``draws``."""
    start = case.now()
    result = _autoattack(case, len(case.x), steps=steps, draws=draws)
    seconds = case.now() - start
    return Rand(seconds, result.reported_accuracy, case.score(result.x_adv, "rand"))


def our_steps(case: Case, *, until: float) -> Iterator[Step]:
    """The tier's attacks one after the other, on all images, to the first worst case at or below ``until``.

    After each the worst point so far is chosen among the clean image and all attacks' ones and scored, on selection
    and report draws of its own. Seconds are those of all attacks, choices and scores so far.
    """
    points, seconds = [case.x], 0.0
    for planned in case.plan():
        start = case.now()
        seed = case.seed_for("attack", planned.id)
        points.append(planned.run(case.model, case.x, case.y, case.threat, seed=seed).x_adv)
        accuracy = _worst_case(case, torch.stack(points), planned.id)
        seconds += case.now() - start
        yield Step(planned.id, seconds, accuracy)
        if accuracy <= until:
            return


def _worst_case(case: Case, candidates: Tensor, label: str) -> float:
    valid = torch.ones(candidates.shape[:2], dtype=torch.bool)
    draws, seed = case.tier.selection_draws, case.seed_for("selection", label)
    choice = choose_worst(case.model, candidates, valid, case.y, draws=draws, seed=seed)
    return case.score(choice.points, label)


def _autoattack(case: Case, images: int, *, steps: int, draws: int) -> LibraryResult:
    view = AttackerView(case.model, gradient=random_estimators(case.model)[0], draws=1)
    seed = case.seed_for("rand")
    return reported_autoattack(
        view, case.x[:images], case.y[:images], case.threat, seed=seed, version="rand", steps=steps, draws=draws
    )
