"""One entry's attacks: run block by block, kept, counted, scored each by itself; a crash is an error in the record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sap_art import metrics
from sap_art.attacks import evaluate_known_seed, known_seed
from sap_art.attacks.cost import count_passes
from sap_art.diagnostics import probes
from sap_art.entries import Entry
from sap_art.evaluation import Evaluation, evaluate
from sap_art.portfolio import PlannedAttack, plan
from sap_art.randomness import derive_seed, make_generator
from sap_art.selection import Choice, choose_worst
from sap_art.stochastic import StochasticModel
from sap_art.store import Store, Unit, tensor_sha256
from sap_art.threat import ThreatModel
from sap_art.tiers import STAND_ALONE, Tier

BLOCK = 64
"""Images of one unit of work: what an interruption can cost at most."""


@dataclass(frozen=True)
class Job:
    """One entry to evaluate: x (B, ...) in [0, 1], y (B,), what is allowed, how much is spent, where work is kept."""

    entry: Entry
    x: Tensor
    y: Tensor
    threat: ThreatModel
    tier: Tier
    seed: int
    store: Store
    announce: Callable[[str], None] = lambda stage: None

    @property
    def model(self) -> StochasticModel:
        """The model under attack."""
        return self.entry.model

    @cached_property
    def restless(self) -> Tensor:
        """Images (B, ...) to probe the noise at: x, or points around them if draws differ only there."""
        if self.model.deterministic:
            return self.x
        seed = self.seed_for("restless")
        near = self.threat.random_start(self.x, make_generator(self.x.device, seed, "start"))
        return next((at for at in (self.x, near) if probes.is_restless(self.model, at, seed=seed)), self.x)

    def seed_for(self, *labels: object) -> int:
        """The seed of one named part of this entry's evaluation."""
        return derive_seed(self.seed, self.entry.name, *labels)

    def score(self, x: Tensor, label: str) -> Evaluation:
        """Report draws on points for the first len(x) images; no attack, choice or other label has seen them."""
        self.announce(f"scoring {label}")
        seed = self.seed_for("report", label)
        return evaluate(self.model, x, self.y[: len(x)], draws=self.tier.report_draws, seed=seed)


@dataclass
class Outcome:
    """What one attack left: points (B, ...), which of them it computed (B,), its passes, or why it crashed.

    ``reported_right``: how many images a library's attack counts as still right.
    """

    planned: PlannedAttack
    points: Tensor
    done: Tensor
    forwards: int = 0
    backwards: int = 0
    reported_right: int | None = None
    error: str | None = None

    @property
    def reported(self) -> float | None:
        """The accuracy that a library's attack would print."""
        return None if self.reported_right is None else self.reported_right / int(self.done.sum())


def run_attacks(job: Job) -> list[Outcome]:
    """The tier's attacks in order; after each of the first ones, images beyond the stand-alone ones that it broke go.

    Who cannot be told the random numbers, for the model does not repeat them, is left out.
    """
    outcomes: list[Outcome] = []
    alive = torch.ones(len(job.x), dtype=torch.bool)
    repeats = probes.repeats_its_draws(job.model, job.restless, seed=job.seed_for("repeats"))
    for planned in plan(job.model, job.tier, job.threat, classes=job.entry.classes):
        if planned.attack is known_seed and not repeats:
            continue
        outcomes.append(run_attack(job, planned, alive))
        if planned.first and len(job.x) > STAND_ALONE and outcomes[-1].error is None:
            alive &= _survivors(job, outcomes[-1])
    return outcomes


def run_attack(job: Job, planned: PlannedAttack, alive: Tensor) -> Outcome:
    """One attack on the images that are alive (B,), block by block."""
    job.announce(planned.id)
    outcome = Outcome(planned, job.x.clone(), torch.zeros(len(job.x), dtype=torch.bool))
    last = STAND_ALONE if planned.alone else len(job.x)
    for number, block in enumerate(torch.arange(len(job.x))[:last].split(BLOCK)):
        index = block[alive[block]]
        if len(index) == 0:
            continue
        try:
            unit = _unit(job, planned, number=number, index=index)
        except Exception as error:  # noqa: BLE001  whatever it dies of is reported, never taken for robustness
            outcome.error = f"{type(error).__name__}: {error}"
            break
        outcome.points[index] = unit["x_adv"].to(job.x.device)
        outcome.done[index] = True
        outcome.forwards += int(unit["forwards"])
        outcome.backwards += int(unit["backwards"])
        if "right" in unit:
            outcome.reported_right = (outcome.reported_right or 0) + int(unit["right"].sum())
    return outcome


def _unit(job: Job, planned: PlannedAttack, *, number: int, index: Tensor) -> Unit:
    """One attack on one block of images; the key holds what it depends on, the survivors included."""

    def compute() -> Unit:
        x, y = job.x[index], job.y[index]
        with count_passes(job.model) as passes:
            x_adv, right = planned.run(job.model, x, y, job.threat, seed=job.seed_for(planned.id, number))
        cost = {"forwards": torch.tensor(passes.forwards), "backwards": torch.tensor(passes.backwards)}
        return {"x_adv": x_adv, **cost} | ({} if right is None else {"right": right})

    return job.store.unit(f"{job.entry.name}/{planned.id}/{number:04d}-{tensor_sha256(index)[:12]}", compute)


def score_columns(job: Job, outcomes: list[Outcome]) -> dict[str, Evaluation]:
    """Each attack by itself; one whose points the model answers with NaN is an error too."""
    columns: dict[str, Evaluation] = {}
    for outcome in (o for o in outcomes if o.error is None and not o.planned.partial):
        try:
            columns[outcome.planned.id] = job.score(outcome.points[:STAND_ALONE], outcome.planned.id)
        except ValueError as error:
            outcome.error = f"scoring failed: {error}"
    return columns


def _survivors(job: Job, outcome: Outcome) -> Tensor:
    """(B,) images still worth attacking: the stand-alone ones, and those that this attack has not broken."""
    draws, seed = job.tier.drop_draws, job.seed_for("drop", outcome.planned.id)
    index = outcome.done.nonzero()[:, 0]
    correct = evaluate(job.model, outcome.points[index], job.y[index], draws=draws, seed=seed).correct
    alive = torch.ones(len(job.x), dtype=torch.bool)
    alive[index] = metrics.upper_bound(correct, draws) >= job.tier.drop_bound
    alive[:STAND_ALONE] = True
    return alive


def choose(job: Job, outcomes: list[Outcome], *, stage: str = "selection", draws: int | None = None) -> Choice:
    """The worst point of each image among the clean one and all attacks' ones; ``draws`` or the tier's a candidate."""
    job.announce("choosing worst points")
    candidates = torch.stack([job.x, *(o.points for o in outcomes)])
    valid = torch.stack([torch.ones(len(job.x), dtype=torch.bool), *(o.done for o in outcomes)])

    def compute() -> Unit:
        choice = choose_worst(
            job.model, candidates, valid, job.y, draws=draws or job.tier.selection_draws, seed=job.seed_for(stage)
        )
        return {"points": choice.points, "candidate": choice.candidate}

    unit = job.store.unit(f"{job.entry.name}/{stage}-{tensor_sha256(candidates, valid)[:12]}", compute)
    return Choice(unit["points"].to(job.x.device), unit["candidate"])


def told_right(job: Job, outcomes: list[Outcome]) -> Tensor | None:
    """(S, b) bool: right under each known seed whatever it was attacked by, on the b stand-alone images; None without.

    A seed under which one of its attacks crashed has the others alone.
    """
    rows: dict[int, Tensor] = {}
    for outcome in (o for o in outcomes if o.planned.attack is known_seed):
        noise_seed = dict(outcome.planned.options)["noise_seed"]
        points = outcome.points[:STAND_ALONE]
        view, y = outcome.planned.view(job.model), job.y[: len(points)]
        right = evaluate_known_seed(view, points, y, noise_seed=noise_seed).right[0]
        rows[noise_seed] = rows.get(noise_seed, torch.ones_like(right)) & right
    return torch.stack(list(rows.values())) if rows else None


def points_alone(job: Job, planned: PlannedAttack, threat: ThreatModel) -> Tensor:
    """What an attack outside of the plan finds within a threat model of its own, on the stand-alone images."""
    job.announce(planned.id)
    x, y = job.x[:STAND_ALONE], job.y[:STAND_ALONE]

    def compute() -> Unit:
        return {"x_adv": planned.run(job.model, x, y, threat, seed=job.seed_for(planned.id)).x_adv}

    return job.store.unit(f"{job.entry.name}/{planned.id}", compute)["x_adv"].to(x.device)


def attack_alone(job: Job, planned: PlannedAttack, threat: ThreatModel) -> Evaluation:
    """Report draws on what such an attack finds; raises if it does."""
    return job.score(points_alone(job, planned, threat), planned.id)
