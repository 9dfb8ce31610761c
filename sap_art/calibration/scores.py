"""Calibration scores of one set of predictions: expected calibration error, debiased squared L2, Brier, NLL, gap.

All are functions of sums over images (``contributions``), so that a resample of the images is a matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from sap_art.calibration.predictions import Floats, Integers, Predictions, Values, read_predictions

BINS = 15


@dataclass(frozen=True)
class ReliabilityBin:
    """The images whose confidence falls in (low, high]; means are absent when there are none."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


class Scores(NamedTuple):
    """Scores of one set of predictions, as ``calibration_report`` explains them."""

    ece: float
    squared_l2: float | None
    brier: float
    nll: float
    gap: float


@dataclass(frozen=True)
class CalibrationReport:
    """Calibration of one set of predictions.

    Attributes:
        ece: expected calibration error over ``bins``, in [0, 1]; never 0 in expectation, see ``null_floor``.
        squared_l2: debiased squared L2 error over ``mass_bins``, near 0 and often below it for calibrated
            predictions; None when no bin has two images.
        brier: in [0, 2].
        nll: negative log-likelihood in nats.
        gap: mean confidence minus accuracy, above 0 when overconfident.
        bins: equal width.
        mass_bins: equal mass.
    """

    ece: float
    squared_l2: float | None
    brier: float
    nll: float
    gap: float
    bins: tuple[ReliabilityBin, ...]
    mass_bins: tuple[ReliabilityBin, ...]


def expected_calibration_error(probabilities: Values, labels: Values, bins: int = BINS) -> float:
    """(N, C), (N,) -> sum_b (n_b / N) |accuracy_b - confidence_b| in [0, 1], equal-width bins (lo, hi].

    Confidence is the largest probability, so 1.0 belongs to the last bin (Guo et al. 2017, arXiv:1706.04599).

    >>> import torch
    >>> probabilities = torch.tensor([[0.95, 0.05], [1.0, 0.0]])
    >>> round(expected_calibration_error(probabilities, torch.tensor([0, 1])), 3)
    0.475

    Raises:
        ValueError: wrong shapes, no images, rows that are not distributions, labels out of range, bins < 1.
    """
    predictions = read_predictions(probabilities, labels)
    excess = predictions.confidence - predictions.right
    return float(np.abs(excess @ one_hot(equal_width(predictions, bins), bins)).sum()) / len(predictions)


def calibration_report(
    probabilities: Values, labels: Values, *, log_probabilities: Values | None = None, bins: int = BINS
) -> CalibrationReport:
    """Scores and reliability bins: (N, C), (N,) -> CalibrationReport.

    Give ``log_probabilities`` (N, C) when there are any: a probability that has underflowed to 0 has no logarithm.

    With n_b images in equal-mass bin b, the debiased squared L2 error is
    sum_b (n_b / N) [(accuracy_b - confidence_b)^2 - accuracy_b (1 - accuracy_b) / (n_b - 1)] over bins with n_b >= 2
    (Ferro & Fricker 2012, doi:10.1002/qj.1924; Kumar et al. 2019, arXiv:1909.10155). It has expectation 0 when
    predictions are calibrated and confidence is constant within bins; otherwise -(1 / N) sum_b var_b n_b / (n_b - 1),
    where var_b is the variance of confidence within bin b. Its raw value is kept when negative.

    Raises:
        ValueError: as ``expected_calibration_error``, or the NLL is infinite.
    """
    predictions = read_predictions(probabilities, labels, log_probabilities)
    return CalibrationReport(
        **scores(predictions, bins)._asdict(),
        bins=_width_bins(predictions, bins),
        mass_bins=_mass_bins(predictions, bins),
    )


def scores(predictions: Predictions, bins: int) -> Scores:
    """The scores of one set of predictions."""
    values = score(contributions(predictions, bins).sum(0), len(predictions))
    ece, squared_l2, brier, nll, gap = map(float, values)
    return Scores(ece, None if np.isnan(squared_l2) else squared_l2, brier, nll, gap)


def contributions(predictions: Predictions, bins: int) -> Floats:
    """What each image adds to the sums that ``score`` needs: (n, 4 * bins + 2)."""
    predictions.require_finite_nll()
    excess = (predictions.confidence - predictions.right)[:, None]
    mass = one_hot(equal_mass(predictions, bins), bins)
    return np.concatenate(
        [
            excess * one_hot(equal_width(predictions, bins), bins),
            mass,
            mass * predictions.right[:, None],
            mass * excess,
            predictions.brier[:, None],
            predictions.nll[:, None],
        ],
        axis=1,
    )


def score(sums: Floats, images: int, *, debias: bool = True) -> Floats:
    """(..., 4 * bins + 2) sums over n images -> (..., 5) in the order of ``Scores``; NaN when no bin has two images."""
    width_excess, count, right, excess = np.moveaxis(sums[..., :-2].reshape(*sums.shape[:-1], 4, -1), -2, 0)
    pairs = count >= 2
    size = np.where(pairs, count, 2.0)
    accuracy = right / size
    noise = accuracy * (1 - accuracy) / (size - 1) if debias else 0.0
    squared = np.where(pairs, size / images * ((excess / size) ** 2 - noise), 0.0).sum(-1)
    return np.stack(
        [
            np.abs(width_excess).sum(-1) / images,
            np.where(pairs.any(-1), squared, np.nan),
            sums[..., -2] / images,
            sums[..., -1] / images,
            width_excess.sum(-1) / images,
        ],
        axis=-1,
    )


def equal_width(predictions: Predictions, bins: int) -> Integers:
    """(n,) bin numbers: b where b / bins < confidence <= (b + 1) / bins."""
    _require_bins(bins)
    return np.searchsorted(np.arange(1, bins) / bins, predictions.confidence)


def equal_mass(predictions: Predictions, bins: int) -> Integers:
    """(n,) bin numbers by rank of confidence, sizes that differ by at most one but for ties, which stay together."""
    _require_bins(bins)
    twice_rank = np.rint(2 * rankdata(predictions.confidence)).astype(np.int64)
    return (twice_rank - 1) * bins // (2 * len(predictions))


def one_hot(index: Integers, bins: int) -> Floats:
    """(n,) -> (n, bins)."""
    return (index[:, None] == np.arange(bins)).astype(np.float64)


def _width_bins(predictions: Predictions, bins: int) -> tuple[ReliabilityBin, ...]:
    index = equal_width(predictions, bins)
    return tuple(_bin(predictions, index == b, (b / bins, (b + 1) / bins)) for b in range(bins))


def _mass_bins(predictions: Predictions, bins: int) -> tuple[ReliabilityBin, ...]:
    index = equal_mass(predictions, bins)
    high = [float(predictions.confidence[index <= b].max(initial=0.0)) for b in range(bins)]
    return tuple(_bin(predictions, index == b, (low, high[b])) for b, low in enumerate([0.0, *high[:-1]]))


def _bin(predictions: Predictions, inside: NDArray[np.bool_], edges: tuple[float, float]) -> ReliabilityBin:
    count = int(inside.sum())
    return ReliabilityBin(
        low=edges[0],
        high=edges[1],
        count=count,
        confidence=float(predictions.confidence[inside].mean()) if count else None,
        accuracy=float(predictions.right[inside].mean()) if count else None,
    )


def _require_bins(bins: int) -> None:
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
