"""Calibration of predicted probabilities, and of a random classifier at each number of averaged draws.

``predictions`` checks what comes in, ``scores`` has the definitions, ``uncertainty`` the null floor and the bootstrap,
``curve`` the means of K draws, ``temperature`` temperature scaling, ``outputs`` nets that return no logits.
"""

from __future__ import annotations

from sap_art.calibration.curve import MeanOfDraws, calibration_curve, mean_of_draws
from sap_art.calibration.outputs import OutputCalibration, Reading, before_softmax, output_calibration, output_kind
from sap_art.calibration.scores import (
    CalibrationReport,
    ReliabilityBin,
    Scores,
    calibration_report,
    expected_calibration_error,
)
from sap_art.calibration.temperature import (
    TemperatureScaling,
    apply_temperature,
    fit_temperature,
    temperature_scaling,
)
from sap_art.calibration.uncertainty import Interval, Intervals, NullFloor, bootstrap_intervals, null_floor

__all__ = [
    "CalibrationReport",
    "Interval",
    "Intervals",
    "MeanOfDraws",
    "NullFloor",
    "OutputCalibration",
    "Reading",
    "ReliabilityBin",
    "Scores",
    "TemperatureScaling",
    "apply_temperature",
    "before_softmax",
    "bootstrap_intervals",
    "calibration_curve",
    "calibration_report",
    "expected_calibration_error",
    "fit_temperature",
    "mean_of_draws",
    "null_floor",
    "output_calibration",
    "output_kind",
    "temperature_scaling",
]
