"""Calibration of a net whose outputs may be no logits: every reading is computed and named, none replaces another.

A softmax of outputs that are probabilities already is never sure of anything, and neither is one of cosines: on the
nets of RobustBench its calibration branch found errors of 67.8 % and 69.6 % that way, which say nothing of the nets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import log_softmax

from sap_art.calibration.predictions import TOLERANCE, Floats, Integers, Values, as_floats, read_labels
from sap_art.calibration.scores import BINS, expected_calibration_error

OutputKind = Literal["logits", "softmax-output", "bounded-output"]
SOFTMAX, AS_THEY_ARE = "softmax of the outputs", "the outputs as they are"


@dataclass(frozen=True)
class Reading:
    """One way to take outputs for probabilities: ECE over equal-width bins, mean confidence and accuracy in [0, 1]."""

    reading: str
    ece: float
    confidence: float
    accuracy: float

    def __str__(self) -> str:
        return f"ECE {100 * self.ece:.1f} % ({self.reading}; confidence {100 * self.confidence:.1f} %)"


@dataclass(frozen=True)
class OutputCalibration:
    """ECE of the mean of K = ``draws`` draws in each reading.

    Attributes:
        kind: ``softmax-output`` where the outputs are probabilities (the code of the flag), ``bounded-output`` where
            none is outside [-1, 1], as with cosines, else ``logits``.
        draws: K.
        ceiling: the largest confidence that a softmax of C outputs from smallest to largest seen can have.
        as_published: of a softmax of the outputs, whatever they are: what RobustBench's calibration branch computed.
        others: of what the outputs mean by their kind and scale; none for logits.
    """

    kind: OutputKind
    draws: int
    ceiling: float
    as_published: Reading
    others: tuple[Reading, ...]

    def __str__(self) -> str:
        """One line: kind, then each ECE with its reading."""
        return f"{self.kind}: {'; '.join(map(str, (self.as_published, *self.others)))}"


def output_calibration(
    outputs: Values, labels: Values, *, scale: float | None = None, bins: int = BINS
) -> OutputCalibration:
    """(K, N, C) outputs of K draws, (N,) labels -> OutputCalibration; probabilities are averaged over draws.

    Args:
        outputs: as the net returns them; K = 1 for one without randomness.
        labels: integers from 0 to C - 1.
        scale: what the net's outputs were multiplied by in training and are not now, such as 15 for cosines (Pang et
            al. 2020, arXiv:2002.08619); a reading more.
        bins: equal-width ones.

    Raises:
        ValueError: wrong shapes, outputs that are not finite, labels that do not fit, scale not above 0, bins < 1.
    """
    found = as_floats(outputs)
    if found.ndim != 3 or found.size == 0 or not np.isfinite(found).all():
        raise ValueError(f"expected finite outputs (K, N, C), none of them 0, got {found.shape}")
    if scale is not None and not 0 < scale < np.inf:
        raise ValueError(f"scale must be a finite number above 0, got {scale}")
    y, kind = read_labels(labels, found[0]), output_kind(found)
    others: list[Reading] = []
    if kind == "softmax-output":
        others.append(_reading(AS_THEY_ARE, found / found.sum(-1, keepdims=True), y, bins=bins))
    if scale is not None:
        others.append(_reading(f"softmax of {scale:g} x the outputs", _softmax(scale * found), y, bins=bins))
    return OutputCalibration(
        kind=kind,
        draws=len(found),
        ceiling=1 / (1 + (found.shape[2] - 1) * float(np.exp(found.min() - found.max()))),
        as_published=_reading(SOFTMAX, _softmax(found), y, bins=bins),
        others=tuple(others),
    )


def output_kind(outputs: Values) -> OutputKind:
    """What (..., C) outputs can be told to be: rows that are distributions to within 0.001, all in [-1, 1], or else."""
    found = as_floats(outputs)
    if (found >= 0).all() and (np.abs(found.sum(-1) - 1) < TOLERANCE).all():
        return "softmax-output"
    return "bounded-output" if (np.abs(found) <= 1 + TOLERANCE).all() else "logits"


def before_softmax(log_probabilities: Values) -> Floats:
    """The probabilities p that were taken for logits, from log softmax(p): (..., C) -> (..., C) float64.

    log softmax(p) is p minus a number for each row, which is known because p has the sum 1. What rounding leaves below
    0 is 0. Only for outputs of the kind ``softmax-output``: any other logits would be shifted all the same.
    """
    logs = as_floats(log_probabilities)
    p = np.maximum(logs + (1 - logs.sum(-1, keepdims=True)) / logs.shape[-1], 0)
    return p / p.sum(-1, keepdims=True)


def _softmax(logits: Floats) -> Floats:
    return np.exp(log_softmax(logits, axis=-1))


def _reading(name: str, probabilities: Floats, y: Integers, *, bins: int) -> Reading:
    mean = probabilities.mean(0)
    return Reading(
        reading=name,
        ece=expected_calibration_error(mean, y, bins),
        confidence=float(mean.max(1).mean()),
        accuracy=float((mean.argmax(1) == y).mean()),
    )
