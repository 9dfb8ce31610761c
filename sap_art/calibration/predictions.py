"""Checked predictions, reduced to what calibration needs of each image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Values = Tensor | NDArray[Any]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

TOLERANCE = 1e-3


@dataclass(frozen=True)
class Predictions:
    """(n,) float64 each: largest probability, whether its class is right (0 or 1), Brier score, NLL in nats."""

    confidence: Floats
    right: Floats
    brier: Floats
    nll: Floats

    def __len__(self) -> int:
        return len(self.confidence)

    def require_finite_nll(self) -> None:
        """Raise ValueError where the label had probability 0."""
        if np.isinf(self.nll).any():
            raise ValueError("the true class has probability 0 on some image: give log_probabilities for a finite NLL")


def read_predictions(probabilities: Values, labels: Values, log_probabilities: Values | None = None) -> Predictions:
    """(n, C) probabilities and (n,) labels -> Predictions; ``log_probabilities`` (n, C) serve the NLL if given.

    Brier is sum_c (p_c - 1[c = y])^2, in [0, 2] (Brier 1950). Of equally probable classes the first is predicted.

    Raises:
        ValueError: wrong shapes, no images, rows that are not distributions (logits, NaN), logarithms of something
            else, labels that are not integers from 0 to C - 1.
    """
    p = as_floats(probabilities)
    y = read_labels(labels, p)
    require_distributions(p)
    with np.errstate(divide="ignore"):
        logs = np.log(p) if log_probabilities is None else as_floats(log_probabilities)
    if logs.shape != p.shape or not (np.abs(exponential(logs) - p) <= TOLERANCE).all():
        raise ValueError(
            "log_probabilities must be the logarithms of probabilities, in the same shape; logits need log_softmax"
        )
    image = np.arange(len(p))
    true = np.zeros_like(p)
    true[image, y] = 1.0
    return Predictions(
        confidence=p.max(1),
        right=(p.argmax(1) == y).astype(np.float64),
        brier=np.square(p - true).sum(1),
        nll=-logs[image, y],
    )


def read_log_predictions(log_probabilities: Values, labels: Values) -> Predictions:
    """As ``read_predictions`` from logarithms alone: (n, C), (n,)."""
    logs = as_floats(log_probabilities)
    return read_predictions(exponential(logs), labels, logs)


def read_labels(labels: Values, p: Floats) -> Integers:
    """Labels (n,) that fit predictions (n, C)."""
    y = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if p.ndim != 2 or p.size == 0 or y.shape != p.shape[:1]:
        raise ValueError(f"expected probabilities (N, C) and labels (N,) with N > 0, got {p.shape} and {y.shape}")
    classes = p.shape[1]
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= classes:
        raise ValueError(f"labels must be integers from 0 to {classes - 1}, got {y.dtype} from {y.min()} to {y.max()}")
    return y.astype(np.int64)


def require_distributions(p: Floats) -> None:
    """Raise ValueError unless each row of (..., C) is not negative and has the sum 1, to within 0.001."""
    off = np.abs(p.sum(-1) - 1)
    if not ((p >= 0).all() and (off <= TOLERANCE).all()):
        raise ValueError(
            "each row of probabilities must be a distribution: not negative, sum 1, no NaN; "
            f"got values from {p.min():.4g} to {p.max():.4g}, sums up to {off.max():.4g} off. Logits need a softmax"
        )


def exponential(logs: Floats) -> Floats:
    """exp; logarithms too large for it give inf, which no distribution has."""
    with np.errstate(over="ignore"):
        return np.exp(logs)


def as_floats(values: Values) -> Floats:
    """float64 on the CPU, whatever device or width they come in."""
    if isinstance(values, Tensor):
        return values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)
