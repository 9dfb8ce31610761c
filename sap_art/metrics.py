"""Accuracy of random predictions over images and draws: intervals, persistence, paired comparison."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from scipy.special import gammaln
from torch import Tensor

from sap_art.randomness import derive_seed

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
    images, draws = resampled(rng, n), resampled(rng, m)
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


def paired_difference(
    first: NDArray[np.float64], second: NDArray[np.float64], *, seed: int, comparisons: int = 1
) -> Estimate:
    """Mean of first - second over the same images (B,) with a bootstrap interval over images (2,000 resamples).

    The interval is one of ``comparisons`` that hold together with 95 % (Bonferroni).
    """
    if first.shape != second.shape or first.ndim != 1 or len(first) == 0:
        raise ValueError(f"paired shares must have one shape (B,), B > 0, got {first.shape} and {second.shape}")
    difference = first - second
    rng = np.random.default_rng(seed)
    means = difference[rng.integers(0, len(difference), (BOOTSTRAP, len(difference)))].mean(1)
    return Estimate(float(difference.mean()), *_middle(means, comparisons))


def accuracy_gap(first: Tensor, second: Tensor, *, per_example: bool, seed: int, comparisons: int = 1) -> Estimate:
    """Accuracy of first minus accuracy of second on the same images: (m, B), (m', B) bool -> in [-1, 1].

    As ``paired_difference``; where images share the noise of a draw (``per_example`` False) the draws of each side
    are resampled too, jointly for all images.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or not first.numel():
        raise ValueError(
            f"both sides must be draws (m, B) of the same images, got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    a, b = first.double().cpu().numpy(), second.double().cpu().numpy()
    if per_example:
        return paired_difference(a.mean(0), b.mean(0), seed=seed, comparisons=comparisons)
    rng = np.random.default_rng(seed)
    images = resampled(rng, a.shape[1])
    means = [np.einsum("bm,mn,bn->b", resampled(rng, len(side)), side, images, optimize=True) for side in (a, b)]
    return Estimate(float(a.mean() - b.mean()), *_middle(means[0] - means[1], comparisons))


def paired_differences(
    right: Mapping[str, Tensor], *, seed: int, shared_noise: Collection[str] = ()
) -> dict[tuple[str, str], Estimate]:
    """Accuracy of one entry minus that of another on the same images, for all pairs: (m, B) bool each -> in [-1, 1].

    The same bootstrap resamples of the images serve all entries (2,000), so an interval does not depend on who else is
    there; of the entries in ``shared_noise``, whose images share the noise of a draw, draws are resampled too. The
    first of a pair is the one whose name comes first.

    >>> one, other = torch.ones(4, 9, dtype=torch.bool), torch.zeros(2, 9, dtype=torch.bool)
    >>> paired_differences({"b": one, "a": other}, seed=1)
    {('a', 'b'): Estimate(value=-1.0, low=-1.0, high=-1.0)}
    """
    names = sorted(right)
    if len(names) < 2:
        return {}
    if len({right[name].shape[1] for name in names}) > 1 or not all(right[name].numel() for name in names):
        raise ValueError(f"all must be draws (m, B) of the same images, got {[tuple(right[n].shape) for n in names]}")
    shares = {name: right[name].double().cpu().numpy() for name in names}
    images = resampled(np.random.default_rng(derive_seed(seed, "images")), shares[names[0]].shape[1])
    means = np.stack(
        [_bootstrap(shares[n], images, seed=derive_seed(seed, n) if n in shared_noise else None) for n in names]
    )
    found = dict[tuple[str, str], Estimate]()
    for i, name in enumerate(names[:-1]):
        values = np.array([shares[name].mean() - shares[other].mean() for other in names[i + 1 :]])
        low, high = np.quantile(means[i] - means[i + 1 :], (0.025, 0.975), axis=1)
        exact = np.stack([values, low, high]).round(12).T.tolist()  # equal shares differ by 0, not by their rounding
        found |= {(name, other): Estimate(*row) for other, row in zip(names[i + 1 :], exact, strict=True)}
    return found


def _bootstrap(shares: NDArray[np.float64], images: NDArray[np.float64], *, seed: int | None) -> NDArray[np.float64]:
    """Means (2,000,) over resampled images and, given a seed, resampled draws."""
    if seed is None:
        return images @ shares.mean(0)
    draws = resampled(np.random.default_rng(seed), len(shares))
    return np.einsum("bm,mn,bn->b", draws, shares, images, optimize=True)


def ranks(names: Collection[str], differences: Mapping[tuple[str, str], Estimate]) -> dict[str, int]:
    """Rank of each of ``names``: 1 + those of them that are significantly better, by ``paired_differences``.

    Entries that no comparison separates, whose interval contains 0, share a rank.

    >>> ranks("abc", {("a", "b"): Estimate(0.4, 0.3, 0.5), ("a", "c"): Estimate(0.4, 0.2, 0.6),
    ...               ("b", "c"): Estimate(0.0, -0.1, 0.1)})
    {'a': 1, 'b': 2, 'c': 2}
    """
    better = dict.fromkeys(names, 0)
    for one, other in combinations(sorted(names), 2):
        better[other] += differences[one, other].low > 0
        better[one] += differences[one, other].high < 0
    return {name: 1 + count for name, count in better.items()}


def upper_bound(correct: Tensor, draws: int) -> Tensor:
    """One-sided 95 % Clopper-Pearson upper bound of each image's P(right): (B,) counts -> (B,) in [0, 1]."""
    _require_counts(correct, draws)
    s = correct.numpy()
    bound = stats.beta.ppf(0.95, s + 1, np.maximum(draws - s, 1))
    return torch.from_numpy(np.where(s == draws, 1.0, bound))


def resampled(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Weights (2,000, n) of bootstrap resamples of n things, each row with sum 1."""
    return rng.multinomial(n, np.full(n, 1 / n), BOOTSTRAP) / n


def _middle(means: NDArray[np.float64], comparisons: int) -> tuple[float, float]:
    """The percentile interval that, with as many others, holds with 95 %."""
    low, high = np.quantile(means, (0.025 / comparisons, 1 - 0.025 / comparisons))
    return float(low), float(high)


def _log_choose(n: NDArray[np.float64] | int, k: int) -> NDArray[np.float64]:
    n = np.asarray(n, dtype=np.float64)
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def _require_counts(correct: Tensor, draws: int) -> None:
    if correct.ndim != 1 or len(correct) == 0 or draws < 1:
        raise ValueError(f"counts must be (B,) with B > 0 of at least one draw, got {tuple(correct.shape)}, {draws}")
    if correct.is_floating_point() or correct.min() < 0 or correct.max() > draws:
        raise ValueError(f"counts must be integers from 0 to {draws}")
