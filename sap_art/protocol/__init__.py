"""RDP-1 on one entry: attacks, choice of the worst points, scoring on fresh draws, flags."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from sap_art.diagnostics import probes
from sap_art.evaluation import Evaluation
from sap_art.protocol import budgets, checks, planting
from sap_art.protocol.campaign import run_attacks
from sap_art.protocol.confidence import calibration_of
from sap_art.protocol.job import Job
from sap_art.protocol.outcome import Outcome
from sap_art.protocol.refinement import refine
from sap_art.protocol.scoring import choose, evaluation, keep_together, report, score_columns, told_right
from sap_art.record import Calibration, Flag, GradientInfo


@dataclass(frozen=True)
class Findings:
    """All that was measured on one entry. ``columns``: each attack by itself, on the stand-alone images.

    ``calibration``: on clean images and on the worst points; where the tier looks at radii, on noise too.
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
    calibration: dict[str, Calibration]
    flags: list[Flag]
    failed: bool


def run(job: Job) -> Findings:
    """Evaluate one entry. Finished units are read, not computed again; an attack that raises is kept as an error.

    What needs nothing but the model is submitted before the attacks, to fill the time in which those wait for others.
    """
    shared_noise = probes.batch_shared_noise(job.model, job.restless, seed=job.seed_for("shared noise"))
    if shared_noise.state == "raised":
        job.model.per_example = False  # from here on draws are made one by one
    job.submit(checks.successive_calls(job))
    of_clean = report(job, job.x, "clean")
    job.submit([*of_clean, *checks.curve_calls(job).values(), checks.large_eps_call(job)])
    outcomes = run_attacks(job)
    outcomes += refine(job, outcomes)
    columns = score_columns(job, outcomes)
    finished = [outcome for outcome in outcomes if outcome.error is None]
    signal_calls = checks.signal_calls(job, finished)
    job.submit(signal_calls)
    choice = choose(job, finished)
    keep_together(job, choice)
    names = ["clean", *(o.planned.id for o in finished)]
    of_worst = report(job, choice.points, "worst case")
    job.submit(of_worst)
    of_model, on_clean = checks.of_the_model(job), evaluation(job, of_clean)
    calibrated = partial(_calibrated, job, fit_on=on_clean, flags=of_model)
    calibration = {"clean": calibrated("clean", on_clean)}  # while worst points are scored elsewhere
    if job.tier.curve and "noise" in columns:
        calibration["noise"] = calibrated("noise", columns["noise"])
    state = checks.state_between_calls(job, finished)
    worst = evaluation(job, of_worst)
    calibration["adversarial"] = calibrated("adversarial", worst)
    told = told_right(job, finished)
    state = checks.really_deterministic(job, {**columns, "worst case": worst}) or state
    curve, monotone = checks.along_the_curve(job)
    large_eps = checks.large_eps(job)
    convergence, converged = budgets.vary(job, finished, worst)
    planted = planting.planted_examples(job, finished)
    signals = checks.signals(job, signal_calls)
    flags = [
        *checks.of_the_attacks(job, outcomes, columns),
        *checks.known_seeds(job, worst, told),
        *of_model,
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
        clean=on_clean,
        worst=worst,
        worst_points=choice.points,
        winners=[names[number] for number in choice.candidate.tolist()],
        told=told,
        curve=curve,
        convergence=convergence,
        gradient=checks.gradient_info(job, signals),
        calibration=calibration,
        flags=[*flags, *checks.of_the_gradient(job, signals, flags)],
        failed=len(finished) < len(outcomes) or checks.crashed(*flags),
    )


def _calibrated(job: Job, name: str, found: Evaluation, *, fit_on: Evaluation, flags: list[Flag]) -> Calibration:
    """Where the tier looks at radii, over K and after temperature scaling too."""
    return calibration_of(
        found,
        seed=job.seed_for("calibration", name),
        fit_on=fit_on if job.tier.curve else None,
        softmax_output=any(flag.code == "softmax-output" and flag.state == "raised" for flag in flags),
    )
