"""Calibration of predicted probabilities: expected calibration error, Brier score, negative log-likelihood."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TOLERANCE = 1e-3


@dataclass(frozen=True)
class ReliabilityBin:
    """The images whose confidence falls in (low, high]; means are absent when there are none."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class CalibrationReport:
    """Calibration of one set of predictions; ``gap`` is mean confidence minus accuracy, above 0 when overconfident."""

    ece: float
    brier: float
    nll: float
    gap: float
    bins: tuple[ReliabilityBin, ...]


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """(N, C), (N,) -> sum_b (n_b / N) |accuracy_b - confidence_b| in [0, 1], equal-width bins (lo, hi].

    Confidence is the largest probability, so 1.0 belongs to the last bin (Guo et al. 2017, arXiv:1706.04599).

    >>> probabilities = torch.tensor([[0.95, 0.05], [1.0, 0.0]])
    >>> round(expected_calibration_error(probabilities, torch.tensor([0, 1])), 3)
    0.475

    Raises:
        ValueError: wrong shapes, no images, rows that are not distributions, labels out of range, bins < 1.
    """
    confidence, right, index = _binned(probabilities, labels, bins)
    gap = torch.zeros(bins, dtype=torch.double).index_add(0, index, right - confidence)
    return gap.abs().sum().item() / len(labels)


def calibration_report(
    probabilities: Tensor, labels: Tensor, *, log_probabilities: Tensor | None = None, bins: int = 15
) -> CalibrationReport:
    """ECE, Brier score, NLL (nats), signed gap and reliability bins: (N, C), (N,) -> CalibrationReport.

    Give ``log_probabilities`` (N, C) when there are any: a probability that has underflowed to 0 has no logarithm.
    Brier is sum_c (p_c - 1[c = y])^2, in [0, 2] (Brier 1950).
    """
    confidence, right, index = _binned(probabilities, labels, bins)
    p = probabilities.double()
    true = torch.nn.functional.one_hot(labels.long(), p.shape[1])
    logs = p.log() if log_probabilities is None else log_probabilities.double()
    nll = -logs.gather(1, labels.long()[:, None]).mean().item()
    if nll == float("inf"):
        raise ValueError("the true class has probability 0 on some image: give log_probabilities for a finite NLL")
    return CalibrationReport(
        ece=expected_calibration_error(probabilities, labels, bins),
        brier=(p - true).square().sum(1).mean().item(),
        nll=nll,
        gap=(confidence - right).mean().item(),
        bins=tuple(_bin(b, bins, confidence[index == b], right[index == b]) for b in range(bins)),
    )


def _bin(number: int, bins: int, confidence: Tensor, right: Tensor) -> ReliabilityBin:
    some = len(confidence) > 0
    return ReliabilityBin(
        low=number / bins,
        high=(number + 1) / bins,
        count=len(confidence),
        confidence=confidence.mean().item() if some else None,
        accuracy=right.mean().item() if some else None,
    )


def _binned(probabilities: Tensor, labels: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Confidence (N,), right as 0.0 or 1.0 (N,), bin number (N,)."""
    _require_distributions(probabilities, labels, bins)
    confidence, prediction = probabilities.double().max(1)
    index = (confidence * bins).ceil().long().clamp(1, bins) - 1
    return confidence, (prediction == labels).double(), index


def _require_distributions(probabilities: Tensor, labels: Tensor, bins: int) -> None:
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    if probabilities.ndim != 2 or len(probabilities) == 0 or labels.shape != probabilities.shape[:1]:
        raise ValueError(
            f"expected probabilities (N, C) and labels (N,) with N > 0, got {tuple(probabilities.shape)} and "
            f"{tuple(labels.shape)}"
        )
    sums = probabilities.double().sum(1)
    if not (probabilities.min() >= 0 and (sums - 1).abs().max() <= TOLERANCE):
        raise ValueError("each row of probabilities must be a distribution: not negative, sum 1, no NaN")
    if labels.is_floating_point() or labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError(f"labels must be integers from 0 to {probabilities.shape[1] - 1}")
