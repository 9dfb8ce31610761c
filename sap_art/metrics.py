"""Accuracy of random predictions over images and draws: intervals, persistence, paired comparison."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from scipy.special import gammaln
from torch import Tensor

Z95 = float(stats.norm.ppf(0.975))
BOOTSTRAP = 2000


class Estimate(NamedTuple):
    """A value with its two-sided 95 % interval."""

    value: float
    low: float
    high: float


def proportion(successes: int, trials: int, *, method: Literal["wilson", "exact"] = "wilson") -> Estimate:
    """Share of successes with its Wilson or Clopper-Pearson interval; all three in [0, 1]."""
    if trials < 1:
        raise ValueError(f"a proportion needs at least one trial, got {trials}")
    interval = stats.binomtest(int(successes), int(trials)).proportion_ci(0.95, method=method)
    return Estimate(successes / trials, float(interval.low), float(interval.high))


def accuracy(correct: Tensor, draws: int) -> Estimate:
    """Mean over images of the share of right draws: (B,) counts of ``draws`` -> value and interval in [0, 1].

    The interval is normal over images (draws of different images are independent) and never narrower than Wilson's
    for B images at 0 or 1; where each image is always right or always wrong it is a plain proportion with Wilson's.
    """
    _require_counts(correct, draws)
    if ((correct == 0) | (correct == draws)).all():
        return proportion(int((correct == draws).sum()), len(correct))
    return mean_interval((correct.double() / draws).numpy())


def mean_interval(shares: NDArray[np.float64]) -> Estimate:
    """Mean of per-image shares (B,) in [0, 1] with a 95 % interval at least as wide as Wilson's at 0 or 1."""
    n, value = len(shares), float(shares.mean())
    error = float(shares.std(ddof=1)) / n**0.5 if n > 1 else 0.0
    floor = Z95**2 / (n + Z95**2)  # the width of Wilson's interval when all n are 0, or all are 1
    if 2 * Z95 * error >= floor:
        return Estimate(value, max(0.0, value - Z95 * error), min(1.0, value + Z95 * error))
    low = min(max(0.0, value - floor / 2), 1 - floor)
    return Estimate(value, low, low + floor)


def shared_noise_accuracy(right: Tensor, *, seed: int) -> Estimate:
    """As ``accuracy`` where all images share the noise of a draw: (m, B) bool -> value and interval in [0, 1].

    Bootstrap over images and, jointly for all images, over draws (2,000 resamples).
    """
    shares = right.double().numpy()
    rng = np.random.default_rng(seed)
    m, n = shares.shape
    images = rng.multinomial(n, np.full(n, 1 / n), BOOTSTRAP) / n
    draws = rng.multinomial(m, np.full(m, 1 / m), BOOTSTRAP) / m
    low, high = np.quantile(np.einsum("bm,mn,bn->b", draws, shares, images, optimize=True), (0.025, 0.975))
    plain = mean_interval(shares.mean(0))
    return Estimate(plain.value, min(plain.low, float(low)), max(plain.high, float(high)))


def persistent(correct: Tensor, draws: int, submissions: int) -> Estimate:
    """P(right in all of M = ``submissions`` submissions of one image), mean over images, with interval.

    (B,) counts s of m = ``draws`` -> mean C(s, M) / C(m, M), unbiased for the mean of p^M.

    >>> round(persistent(torch.tensor([4, 2]), draws=4, submissions=2).value, 6)  # (1 + 1/6) / 2
    0.583333
    """
    _require_counts(correct, draws)
    if not 1 <= submissions <= draws:
        raise ValueError(f"persistent@M needs 1 <= M <= draws, got M = {submissions} with {draws} draws")
    s = correct.double().numpy()
    enough = s >= submissions
    log_share = _log_choose(np.where(enough, s, submissions), submissions) - _log_choose(draws, submissions)
    return mean_interval(np.where(enough, np.minimum(1.0, np.exp(log_share)), 0.0))


def paired_difference(first: NDArray[np.float64], second: NDArray[np.float64], *, seed: int) -> Estimate:
    """Mean of first - second over the same images (B,) with a bootstrap interval over images (2,000 resamples)."""
    if first.shape != second.shape or first.ndim != 1 or len(first) == 0:
        raise ValueError(f"paired shares must have one shape (B,), B > 0, got {first.shape} and {second.shape}")
    difference = first - second
    rng = np.random.default_rng(seed)
    means = difference[rng.integers(0, len(difference), (BOOTSTRAP, len(difference)))].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Estimate(float(difference.mean()), float(low), float(high))


def upper_bound(correct: Tensor, draws: int) -> Tensor:
    """One-sided 95 % Clopper-Pearson upper bound of each image's P(right): (B,) counts -> (B,) in [0, 1]."""
    _require_counts(correct, draws)
    s = correct.numpy()
    bound = stats.beta.ppf(0.95, s + 1, np.maximum(draws - s, 1))
    return torch.from_numpy(np.where(s == draws, 1.0, bound))


def _log_choose(n: NDArray[np.float64] | int, k: int) -> NDArray[np.float64]:
    n = np.asarray(n, dtype=np.float64)
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def _require_counts(correct: Tensor, draws: int) -> None:
    if correct.ndim != 1 or len(correct) == 0 or draws < 1:
        raise ValueError(f"counts must be (B,) with B > 0 of at least one draw, got {tuple(correct.shape)}, {draws}")
    if correct.is_floating_point() or correct.min() < 0 or correct.max() > draws:
        raise ValueError(f"counts must be integers from 0 to {draws}")
