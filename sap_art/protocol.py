"""RDP-1 on one entry: attacks, choice of the worst points, scoring on fresh draws, flags."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sap_art import diagnostics, metrics, probes
from sap_art.attacks.cost import count_passes
from sap_art.entries import Entry
from sap_art.evaluation import Evaluation, evaluate
from sap_art.flags import flag
from sap_art.portfolio import PlannedAttack, plan, sanity
from sap_art.randomness import derive_seed
from sap_art.record import Flag, GradientInfo
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
    """What one attack left: points (B, ...), which of them it computed (B,), its passes, or why it crashed."""

    planned: PlannedAttack
    points: Tensor
    done: Tensor
    forwards: int = 0
    backwards: int = 0
    error: str | None = None


@dataclass(frozen=True)
class Findings:
    """All that was measured on one entry. ``columns``: each attack by itself, on the stand-alone images."""

    outcomes: list[Outcome]
    columns: dict[str, Evaluation]
    clean: Evaluation
    worst: Evaluation
    worst_points: Tensor
    winners: list[str]
    gradient: dict[str, GradientInfo]
    flags: list[Flag]
    failed: bool


def run(job: Job) -> Findings:
    """Evaluate one entry. Finished units are read, not computed again; an attack that raises is kept as an error."""
    shared_noise = probes.batch_shared_noise(job.model, job.x, seed=job.seed_for("shared noise"))
    if shared_noise.state == "raised":
        job.model.per_example = False  # from here on draws are made one by one
    outcomes = run_attacks(job)
    columns = _score_columns(job, outcomes)
    finished = [outcome for outcome in outcomes if outcome.error is None]
    choice = _choose(job, finished)
    names = ["clean", *(o.planned.id for o in finished)]
    job.announce("probing the model")
    alone = job.x[:STAND_ALONE], job.y[:STAND_ALONE]
    gradient = probes.gradient_shares(job.model, *alone, draws=job.tier.draws, seed=job.seed_for("gradient"))
    large_eps = _large_eps(job)
    return Findings(
        outcomes=outcomes,
        columns=columns,
        clean=job.score(job.x, "clean"),
        worst=job.score(choice.points, "worst case"),
        worst_points=choice.points,
        winners=[names[number] for number in choice.candidate.tolist()],
        gradient=gradient,
        flags=[
            *_comparisons(job, outcomes, columns),
            *_probes(job),
            probes.zero_or_non_finite(gradient),
            shared_noise,
            large_eps,
        ],
        failed=len(finished) < len(outcomes) or large_eps.state == "not-checked",
    )


def run_attacks(job: Job) -> list[Outcome]:
    """The tier's attacks in order; those after the first ones skip images beyond the stand-alone ones once broken."""
    outcomes: list[Outcome] = []
    alive = torch.ones(len(job.x), dtype=torch.bool)
    attacks = plan(job.model, job.tier)
    for number, planned in enumerate(attacks):
        outcomes.append(_run_attack(job, planned, alive))
        last_of_first = planned.first and not any(a.first for a in attacks[number + 1 :])
        if last_of_first and len(job.x) > STAND_ALONE:
            alive = _survivors(job, [o for o in outcomes if o.error is None])
    return outcomes


def _run_attack(job: Job, planned: PlannedAttack, alive: Tensor) -> Outcome:
    job.announce(planned.id)
    outcome = Outcome(planned, job.x.clone(), torch.zeros(len(job.x), dtype=torch.bool))
    for number, block in enumerate(torch.arange(len(job.x)).split(BLOCK)):
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
    return outcome


def _unit(job: Job, planned: PlannedAttack, *, number: int, index: Tensor) -> Unit:
    """One attack on one block of images; the key holds what it depends on, the survivors included."""

    def compute() -> Unit:
        x, y = job.x[index], job.y[index]
        with count_passes(job.model) as passes:
            x_adv = planned.run(job.model, x, y, job.threat, seed=job.seed_for(planned.id, number))
        cost = {"forwards": torch.tensor(passes.forwards), "backwards": torch.tensor(passes.backwards)}
        return {"x_adv": x_adv, **cost}

    return job.store.unit(f"{job.entry.name}/{planned.id}/{number:04d}-{tensor_sha256(index)[:12]}", compute)


def _score_columns(job: Job, outcomes: list[Outcome]) -> dict[str, Evaluation]:
    """Each attack by itself; one whose points the model answers with NaN is an error too."""
    columns: dict[str, Evaluation] = {}
    for outcome in (o for o in outcomes if o.error is None):
        try:
            columns[outcome.planned.id] = job.score(outcome.points[:STAND_ALONE], outcome.planned.id)
        except ValueError as error:
            outcome.error = f"scoring failed: {error}"
    return columns


def _survivors(job: Job, outcomes: list[Outcome]) -> Tensor:
    """(B,) images still worth attacking: the stand-alone ones, and those no attack has brought below the bound."""
    alive = torch.ones(len(job.x), dtype=torch.bool)
    for outcome in outcomes:
        draws, seed = job.tier.drop_draws, job.seed_for("drop", outcome.planned.id)
        correct = evaluate(job.model, outcome.points, job.y, draws=draws, seed=seed).correct
        alive &= metrics.upper_bound(correct, draws) >= job.tier.drop_bound
    alive[:STAND_ALONE] = True
    return alive


def _choose(job: Job, outcomes: list[Outcome]) -> Choice:
    """The worst point of each image among the clean one and all attacks' ones."""
    job.announce("choosing worst points")
    candidates = torch.stack([job.x, *(o.points for o in outcomes)])
    valid = torch.stack([torch.ones(len(job.x), dtype=torch.bool), *(o.done for o in outcomes)])

    def compute() -> Unit:
        choice = choose_worst(
            job.model, candidates, valid, job.y, draws=job.tier.selection_draws, seed=job.seed_for("selection")
        )
        return {"points": choice.points, "candidate": choice.candidate}

    unit = job.store.unit(f"{job.entry.name}/selection-{tensor_sha256(candidates, valid)[:12]}", compute)
    return Choice(unit["points"].to(job.x.device), unit["candidate"])


def _comparisons(job: Job, outcomes: list[Outcome], columns: dict[str, Evaluation]) -> list[Flag]:
    seed = job.seed_for("comparisons")
    names = [outcome.planned.id for outcome in outcomes]
    # On a net without a defence transfer and white box attack the same function: nothing to compare.
    transfer = [] if job.model.deterministic else [name for name in names if name.endswith("-dense")]
    white = [name for name in names if name.startswith("eot-apgd")]
    return [
        diagnostics.transfer_beats_white_box(columns, transfer=transfer, white_box=white, seed=seed),
        diagnostics.single_step_beats_iterative(columns, single="fgsm-dense", iterative="pgd-dense", seed=seed),
        diagnostics.estimator_spread(columns, names=white, seed=seed),
    ]


def _probes(job: Job) -> list[Flag]:
    seed = job.seed_for("probes")
    return [
        probes.coupled_generator(job.model, job.x[:8], job.y[:8], seed=seed),
        probes.test_time_optimisation(job.model, job.x, seed=seed),
        probes.softmax_output(job.model, job.x[:STAND_ALONE], seed=seed),
    ]


def _large_eps(job: Job) -> Flag:
    """Attack the stand-alone images at a radius that nothing survives."""
    job.announce("large-eps sanity check")
    x, y = job.x[:STAND_ALONE], job.y[:STAND_ALONE]
    planned, threat = sanity(job.model, job.threat, size=x[0].numel())

    def compute() -> Unit:
        return {"x_adv": planned.run(job.model, x, y, threat, seed=job.seed_for(planned.id))}

    try:
        points = job.store.unit(f"{job.entry.name}/{planned.id}", compute)["x_adv"]
        result = job.score(points.to(x.device), planned.id)
    except Exception as error:  # noqa: BLE001  as in _run_attack
        return flag("large-eps-survives", "not-checked", f"the attack crashed: {type(error).__name__}: {error}")
    return diagnostics.large_eps_survives(result, eps=threat.eps)
