"""Calibration of the mean of K draws of a random classifier, for each K."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sap_art.calibration.predictions import (
    Predictions,
    Values,
    as_floats,
    exponential,
    read_log_predictions,
    require_distributions,
)
from sap_art.calibration.scores import BINS, Scores, scores
from sap_art.calibration.uncertainty import RESAMPLES, SIMULATIONS, Intervals, NullFloor, floor_of, intervals_of

DRAWS = (1, 2, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class MeanOfDraws:
    """Calibration of the mean softmax over K = ``draws`` draws.

    Attributes:
        draws: K; only entries at equal K are comparable, as averaging lowers confidence.
        groups: scores of each disjoint group of K draws. With K = 1 these are the rows of a ``single`` predictor.
        intervals: of the mean over groups, by bootstrap over images: an image is drawn with all its draws.
        floor: of the mean ECE over groups; its p-value is approximate for more than one group.
    """

    draws: int
    groups: tuple[Scores, ...]
    intervals: Intervals
    floor: NullFloor


def mean_of_draws(
    draw_log_probabilities: Values,
    labels: Values,
    *,
    draws: int,
    seed: int,
    bins: int = BINS,
    resamples: int = RESAMPLES,
    simulations: int = SIMULATIONS,
) -> MeanOfDraws:
    """Calibration at K = ``draws`` from m draws: (m, B, C) log-probabilities, (B,) labels -> MeanOfDraws.

    Scores are computed in each of the m // K disjoint groups of K successive draws and then averaged, so that each is
    a score of B images and its bias from few images is the same at any m and any number of groups. Draws beyond the
    last whole group are left out. One seed resamples the same images at each K.

    Raises:
        ValueError: rows that are not log-probabilities (logits), labels that do not fit, K < 1 or K > m, fewer than
            two images, a label of probability 0 in all K draws.
    """
    m = _require_draws(draw_log_probabilities)
    if not 1 <= draws <= m:
        raise ValueError(f"K must be from 1 to the number of draws, {m}, got {draws}")
    groups = [_mean(draw_log_probabilities[i : i + draws], labels) for i in range(0, m - draws + 1, draws)]
    floor = floor_of(groups, seed=seed, bins=bins, simulations=simulations)
    return MeanOfDraws(
        draws=draws,
        groups=tuple(scores(group, bins) for group in groups),
        intervals=intervals_of(groups, floor, seed=seed, bins=bins, resamples=resamples),
        floor=floor,
    )


def calibration_curve(draw_log_probabilities: Values, labels: Values, *, seed: int) -> tuple[MeanOfDraws, ...]:
    """``mean_of_draws`` at each K of 1, 2, 5, 10, 20, 50, 100 that is at most m: (m, B, C), (B,)."""
    enough = (k for k in DRAWS if k <= len(draw_log_probabilities))
    return tuple(mean_of_draws(draw_log_probabilities, labels, draws=k, seed=seed) for k in enough)


def _require_draws(draw_log_probabilities: Values) -> int:
    """How many there are; one at a time is looked at, for they are many."""
    shape = tuple(draw_log_probabilities.shape)
    if len(shape) != 3 or 0 in shape:
        raise ValueError(f"expected log-probabilities (m, B, C), none of them 0, got {shape}")
    for draw in draw_log_probabilities:
        require_distributions(exponential(as_floats(draw)))
    return shape[0]


def _mean(draws: Values, labels: Values) -> Predictions:
    """Log of the mean softmax of (K, B, C), with its labels."""
    logs = as_floats(draws)
    return read_log_predictions(np.logaddexp.reduce(logs, axis=0) - np.log(len(logs)), labels)
