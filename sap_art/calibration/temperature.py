"""Temperature scaling, fitted on one half of the images and judged on the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import root_scalar
from scipy.special import log_softmax

from sap_art.calibration.predictions import (
    Floats,
    Integers,
    Values,
    as_floats,
    exponential,
    read_labels,
    require_distributions,
)
from sap_art.calibration.scores import BINS, CalibrationReport, calibration_report


@dataclass(frozen=True)
class TemperatureScaling:
    """The temperature, and calibration of the held-out images before and after it."""

    temperature: float
    before: CalibrationReport
    after: CalibrationReport


def temperature_scaling(
    log_probabilities: Values, labels: Values, *, fit_on: Values, bins: int = BINS
) -> TemperatureScaling | None:
    """Fit T on every second image, from the first; report on the others: (B, C) and (B,) -> TemperatureScaling.

    A mean of draws is scaled after averaging, as one prediction (Rahaman & Thiery 2021, arXiv:2007.08792).

    Args:
        log_probabilities: (B, C), what is judged.
        labels: (B,).
        fit_on: (B, C), log-probabilities of the same images that T is fitted on: ``log_probabilities`` again, or those
            of the clean images where attacked ones are judged, as a defender knows no others.
        bins: of the reports.

    Returns:
        None where no temperature fits best, see ``fit_temperature``.

    Raises:
        ValueError: fewer than two images, shapes that differ, rows that are not finite log-probabilities (logits),
            labels that do not fit.
    """
    logs, y = _read(log_probabilities, labels)
    clean, _ = _read(fit_on, labels)
    if logs.shape != clean.shape or len(logs) < 2:
        raise ValueError(f"expected two or more images, the same in both, got {logs.shape} and {clean.shape}")
    temperature = fit_temperature(clean[::2], y[::2])
    if temperature is None:
        return None
    judged, truth = logs[1::2], y[1::2]
    scaled = apply_temperature(judged, temperature)
    return TemperatureScaling(
        temperature=temperature,
        before=calibration_report(np.exp(judged), truth, log_probabilities=judged, bins=bins),
        after=calibration_report(np.exp(scaled), truth, log_probabilities=scaled, bins=bins),
    )


def fit_temperature(log_probabilities: Values, labels: Values) -> float | None:
    """The T > 0 with the least NLL of softmax(log p / T): (N, C), (N,) -> T (Guo et al. 2017, arXiv:1706.04599).

    NLL is convex in 1 / T, so T is the root of its slope.

    Returns:
        None where NLL falls for ever: towards T = 0 when the most probable class is right on every image, towards
        T = inf when uniform predictions are better than any that keep the order of the classes.

    Raises:
        ValueError: wrong shapes, no images, rows that are not finite log-probabilities (logits), labels that do not
            fit.
    """
    logs, y = _read(log_probabilities, labels)
    true = logs[np.arange(len(logs)), y]
    if _slope(0.0, logs, true) >= 0 or (true == logs.max(1)).all():
        return None
    high = 1.0
    while _slope(high, logs, true) < 0:
        high *= 2
    return 1 / float(root_scalar(_slope, args=(logs, true), bracket=(0.0, high)).root)


def apply_temperature(log_probabilities: Values, temperature: float) -> Floats:
    """log softmax(log p / T): (N, C) -> (N, C) float64; T above 1 lowers confidence."""
    if not 0 < temperature < np.inf:
        raise ValueError(f"the temperature must be positive and finite, got {temperature}")
    return np.asarray(log_softmax(as_floats(log_probabilities) / temperature, axis=1))


def _slope(inverse: float, logs: Floats, true: Floats) -> float:
    """Derivative of the NLL by 1 / T: mean of E_softmax(log p / T)[log p] - log p_y."""
    p = np.exp(log_softmax(inverse * logs, axis=1))
    return float(((p * logs).sum(1) - true).mean())


def _read(log_probabilities: Values, labels: Values) -> tuple[Floats, Integers]:
    logs = as_floats(log_probabilities)
    y = read_labels(labels, logs)
    require_distributions(exponential(logs))
    if not np.isfinite(logs).all():
        raise ValueError("log-probabilities must be finite: scale logits, not probabilities that underflow to 0")
    return logs, y
