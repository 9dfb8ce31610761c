"""How far calibration scores can be trusted: their null distribution and bootstrap intervals over images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sap_art.calibration.predictions import Floats, Predictions, Values, read_predictions
from sap_art.calibration.scores import BINS, contributions, equal_width, one_hot, score
from sap_art.randomness import derive_seed

SIMULATIONS = 1000
RESAMPLES = 2000
TAIL = 0.025
AT_ONCE = 2**21
"""Numbers of resampled or simulated images, 16 MiB of them: with so few images that all fit, they are one product."""


@dataclass(frozen=True)
class NullFloor:
    """ECE of perfectly calibrated predictions with the same confidences: mean, 95 % quantile; p-value of the data."""

    mean: float
    quantile: float
    p_value: float


class Interval(NamedTuple):
    """A score as measured, the bootstrap's estimate of its bias (0 for means), and the 95 % interval."""

    value: float
    bias: float
    low: float
    high: float


@dataclass(frozen=True)
class Intervals:
    """An interval for each of the scores; ``squared_l2`` is None where there are too few images for it."""

    ece: Interval
    squared_l2: Interval | None
    brier: Interval
    nll: Interval
    gap: Interval


def null_floor(
    probabilities: Values, labels: Values, *, seed: int, bins: int = BINS, simulations: int = SIMULATIONS
) -> NullFloor:
    """ECE under perfect calibration, by labels drawn from the predictions: (N, C), (N,) -> NullFloor.

    Such a label is the predicted class with probability confidence, which is all that ECE sees of it. The p-value is
    (1 + #{simulated ECE >= ECE}) / (1 + simulations): uniform when the predictions are calibrated (Bröcker & Smith
    2007, doi:10.1175/WAF993.1, consistency resampling; Roelofs et al. 2022, arXiv:2012.08668, on the bias).

    Raises:
        ValueError: bad predictions or labels, simulations < 1.
    """
    return floor_of([read_predictions(probabilities, labels)], seed=seed, bins=bins, simulations=simulations)


def bootstrap_intervals(
    probabilities: Values,
    labels: Values,
    *,
    seed: int,
    log_probabilities: Values | None = None,
    bins: int = BINS,
    resamples: int = RESAMPLES,
) -> Intervals:
    """95 % intervals by bootstrap over images, bins held where they are: (N, C), (N,) -> Intervals.

    Means (Brier, NLL, gap) have percentile intervals. Squared L2 has the basic one, value - quantiles of error, where
    error is score of a resample - score of the images taken as a population (Davison & Hinkley 1997, section 5.2).

    ECE is biased upwards, least where it is large. Its interval is the basic one with bias = mean of error subtracted
    at the low end alone: at the high end the correction would be too much where it matters, and the truth left above.
    It begins at 0 where ``null_floor`` does not reject perfect calibration at 2.5 %, a point at which the bootstrap
    alone fails, is kept in [0, 1], and always holds the value.

    Raises:
        ValueError: bad predictions or labels, an infinite NLL, resamples < 1, fewer than two images.
    """
    predictions = [read_predictions(probabilities, labels, log_probabilities)]
    floor = floor_of(predictions, seed=seed, bins=bins, simulations=SIMULATIONS)
    return intervals_of(predictions, floor, seed=seed, bins=bins, resamples=resamples)


def floor_of(groups: Sequence[Predictions], *, seed: int, bins: int, simulations: int) -> NullFloor:
    """Null floor of the mean ECE of several predictions of the same images.

    Each of them is calibrated in the simulation. An image has one uniform number for all, so that they are right
    together, as predictions of one label mostly are; for more than one the p-value is approximate.
    """
    if simulations < 1:
        raise ValueError(f"simulations must be at least 1, got {simulations}")
    n = len(groups[0])
    rng = np.random.default_rng(derive_seed(seed, "null"))
    total = np.zeros(1 + simulations)
    for rows in _pieces(simulations, n):
        uniform = rng.random((rows.stop - rows.start, n))
        for group in groups:
            total[1:][rows] += _excess(uniform < group.confidence, group, bins)
    for group in groups:
        total[:1] += _excess(group.right[None], group, bins)
    simulated = total[1:] / (n * len(groups))
    return NullFloor(
        mean=float(simulated.mean()),
        quantile=float(np.quantile(simulated, 0.95)),
        p_value=float((total >= total[0]).mean()),
    )


def _excess(right: NDArray[Any], group: Predictions, bins: int) -> Floats:
    """Number of images times ECE for each row of labels: (rows, n) -> (rows,)."""
    member = one_hot(equal_width(group, bins), bins)
    return np.abs(right @ member - group.confidence @ member).sum(1)


def _pieces(rows: int, images: int) -> list[slice]:
    """Rows of so many numbers, as many at a time as memory is meant for."""
    size = max(1, AT_ONCE // images)
    return [slice(first, min(rows, first + size)) for first in range(0, rows, size)]


def intervals_of(groups: Sequence[Predictions], floor: NullFloor, *, seed: int, bins: int, resamples: int) -> Intervals:
    """Intervals of the mean score of several predictions of the same images; an image is drawn with all of them."""
    n = len(groups[0])
    if n < 2 or resamples < 1:
        raise ValueError(f"a bootstrap needs at least 2 images and 1 resample, got {n} and {resamples}")
    rng = np.random.default_rng(derive_seed(seed, "bootstrap"))
    value, population, resampled = np.zeros(5), np.zeros(5), np.zeros((resamples, 5))
    for rows in _pieces(resamples, n):
        times = rng.multinomial(n, np.full(n, 1 / n), rows.stop - rows.start).astype(np.float64)
        for group in groups:
            resampled[rows] += score(times @ contributions(group, bins), n) / len(groups)
    for sums in (contributions(group, bins).sum(0) for group in groups):
        value += score(sums, n) / len(groups)
        population += score(sums, n, debias=False) / len(groups)
    ece, squared_l2, *means = zip(value.tolist(), population.tolist(), resampled.T, strict=True)
    brier, nll, gap = (_percentile(mean, spread) for mean, _, spread in means)
    return Intervals(
        ece=_ece_interval(_basic(*ece), calibrated=floor.p_value > TAIL),
        squared_l2=None if np.isnan([value[1], *resampled[:, 1]]).any() else _basic(*squared_l2),
        brier=brier,
        nll=nll,
        gap=gap,
    )


def _basic(value: float, population: float, resampled: Floats) -> Interval:
    error = resampled - population
    low, high = np.quantile(error, (TAIL, 1 - TAIL))
    return Interval(value, float(error.mean()), value - float(high), value - float(low))


def _percentile(value: float, resampled: Floats) -> Interval:
    low, high = np.quantile(resampled, (TAIL, 1 - TAIL))
    return Interval(value, 0.0, float(low), float(high))


def _ece_interval(basic: Interval, *, calibrated: bool) -> Interval:
    low = 0.0 if calibrated else max(0.0, basic.low)
    return basic._replace(low=low, high=min(1.0, basic.high + max(0.0, basic.bias)))
