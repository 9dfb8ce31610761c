"""RDP-1 on one entry: attacks, choice of the worst points, scoring on fresh draws, flags."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sap_art.diagnostics import probes
from sap_art.evaluation import Evaluation
from sap_art.protocol import budgets, checks, planting
from sap_art.protocol.campaign import Job, Outcome, choose, run_attacks, score_columns, told_right
from sap_art.protocol.refinement import refine
from sap_art.record import Flag, GradientInfo


@dataclass(frozen=True)
class Findings:
    """All that was measured on one entry. ``columns``: each attack by itself, on the stand-alone images.

    ``told``: (S, b) bool, right or not under each of S known seeds; ``curve``: eps -> the short attack within it;
    ``convergence``: the best attack with other budgets.
    """

    outcomes: list[Outcome]
    columns: dict[str, Evaluation]
    clean: Evaluation
    worst: Evaluation
    worst_points: Tensor
    winners: list[str]
    told: Tensor | None
    curve: dict[float, Evaluation]
    convergence: budgets.Convergence
    gradient: dict[str, GradientInfo]
    flags: list[Flag]
    failed: bool


def run(job: Job) -> Findings:
    """Evaluate one entry. Finished units are read, not computed again; an attack that raises is kept as an error."""
    shared_noise = probes.batch_shared_noise(job.model, job.restless, seed=job.seed_for("shared noise"))
    if shared_noise.state == "raised":
        job.model.per_example = False  # from here on draws are made one by one
    state = checks.state_between_calls(job)  # before anything else has called the model often
    outcomes = run_attacks(job)
    outcomes += refine(job, outcomes)
    columns = score_columns(job, outcomes)
    finished = [outcome for outcome in outcomes if outcome.error is None]
    choice = choose(job, finished)
    names = ["clean", *(o.planned.id for o in finished)]
    worst = job.score(choice.points, "worst case")
    told = told_right(job, finished)
    state = checks.really_deterministic(job, {**columns, "worst case": worst}) or state
    job.announce("probing the model")
    signals = checks.signals(job, finished)
    curve, monotone = checks.along_the_curve(job)
    large_eps = checks.large_eps(job)
    convergence, converged = budgets.vary(job, finished, worst)
    planted = planting.planted_examples(job, finished)
    flags = [
        *checks.of_the_attacks(job, outcomes, columns),
        *checks.known_seeds(job, worst, told),
        *checks.of_the_model(job),
        *state,
        *monotone,
        *converged,
        *planted,
        shared_noise,
        large_eps,
    ]
    return Findings(
        outcomes=outcomes,
        columns=columns,
        clean=job.score(job.x, "clean"),
        worst=worst,
        worst_points=choice.points,
        winners=[names[number] for number in choice.candidate.tolist()],
        told=told,
        curve=curve,
        convergence=convergence,
        gradient=checks.gradient_info(job, signals),
        flags=[*flags, *checks.of_the_gradient(job, signals, flags)],
        failed=len(finished) < len(outcomes) or checks.crashed(*flags),
    )
