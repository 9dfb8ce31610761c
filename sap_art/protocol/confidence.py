"""The calibration part of a record: scores with intervals, null floor, curve over K, temperature."""

from __future__ import annotations

from dataclasses import asdict

from sap_art.calibration import (
    MeanOfDraws,
    before_softmax,
    bootstrap_intervals,
    calibration_curve,
    calibration_report,
    expected_calibration_error,
    null_floor,
    temperature_scaling,
)
from sap_art.evaluation import Evaluation
from sap_art.record import Bin, Calibration, DrawsPoint, NullFloor, Temperature, Value

SCORES = ("ece", "brier", "nll", "gap")


def calibration_of(
    evaluation: Evaluation, *, seed: int, fit_on: Evaluation | None, softmax_output: bool = False
) -> Calibration:
    """Calibration of the mean of all draws; intervals and null floor from two images on.

    Args:
        seed: of resamples and simulations.
        fit_on: clean draws on the same images to fit a temperature on; then the curve over K is computed too.
        softmax_output: the model returns probabilities, so that the evaluation is of a softmax of them.
    """
    p, y, logs = evaluation.probabilities, evaluation.labels, evaluation.log_probabilities
    report = calibration_report(p, y, log_probabilities=logs)
    enough = len(y) > 1
    return Calibration(
        draws=evaluation.draws,
        ece=report.ece,
        brier=report.brier,
        nll=report.nll,
        gap=report.gap,
        bins=[Bin(**asdict(b)) for b in report.bins],
        squared_l2=report.squared_l2,
        intervals=_intervals(evaluation, seed) if enough else None,
        null=NullFloor(**asdict(null_floor(p, y, seed=seed))) if enough else None,
        temperature=_temperature(evaluation, fit_on) if enough and fit_on is not None else None,
        curve=_curve(evaluation, seed) if enough and fit_on is not None else None,
        ece_of_outputs=_ece_of_outputs(evaluation) if softmax_output else None,
    )


def _ece_of_outputs(evaluation: Evaluation) -> float:
    mean = before_softmax(evaluation.draw_log_probabilities).mean(0)
    return expected_calibration_error(mean, evaluation.labels)


def _intervals(evaluation: Evaluation, seed: int) -> dict[str, Value]:
    found = bootstrap_intervals(
        evaluation.probabilities, evaluation.labels, log_probabilities=evaluation.log_probabilities, seed=seed
    )
    intervals = {"squared_l2": found.squared_l2, **{name: getattr(found, name) for name in SCORES}}
    return {name: Value(i.value, i.low, i.high) for name, i in intervals.items() if i is not None}


def _curve(evaluation: Evaluation, seed: int) -> list[DrawsPoint]:
    return [_point(at_k) for at_k in calibration_curve(evaluation.draw_log_probabilities, evaluation.labels, seed=seed)]


def _point(found: MeanOfDraws) -> DrawsPoint:
    values = {name: getattr(found.intervals, name) for name in SCORES}
    scores = {name: Value(i.value, i.low, i.high) for name, i in values.items()}
    return DrawsPoint(draws=found.draws, groups=len(found.groups), **scores)


def _temperature(evaluation: Evaluation, fit_on: Evaluation) -> Temperature | None:
    logs = fit_on.log_probabilities[: len(evaluation.labels)]
    found = temperature_scaling(evaluation.log_probabilities, evaluation.labels, fit_on=logs)
    return None if found is None else Temperature(found.temperature, found.before.ece, found.after.ece)
