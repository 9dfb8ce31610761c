"""Accuracy over images and draws: intervals that cover, persistence without bias, paired comparison."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sap_art import metrics


def test_wilson_and_exact_intervals() -> None:
    """Against their closed forms: Wilson's centre formula, and the beta quantiles at 0 of n."""
    z, n, p = metrics.Z95, 50, 0.3
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    found = metrics.proportion(15, 50)

    assert found == pytest.approx((p, centre - half, centre + half))
    assert metrics.proportion(0, 50, method="exact").high == pytest.approx(1 - 0.025 ** (1 / 50))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_interval_at_zero_or_one_is_wilson_s(share: float) -> None:
    """No spread between images does not mean no uncertainty."""
    found = metrics.accuracy(torch.full((64,), int(16 * share)), 16)

    assert found == pytest.approx(metrics.proportion(int(64 * share), 64))


def test_the_interval_covers() -> None:
    """Beta-distributed images, binomial draws: 2,000 intervals hold the truth in 95 % less five s.e. or more."""
    rng = np.random.default_rng(0)
    truth, hits = 2 / 7, 0
    for _ in range(2000):
        s = rng.binomial(16, rng.beta(2, 5, 64))
        found = metrics.accuracy(torch.from_numpy(s), 16)
        hits += found.low <= truth <= found.high

    assert hits / 2000 > 0.95 - 5 * math.sqrt(0.95 * 0.05 / 2000)


@pytest.mark.parametrize("submissions", [1, 2, 10, 16])
def test_persistence_is_unbiased(submissions: int) -> None:
    """C(s, M) / C(m, M) averaged over Binomial(m, p) is p^M, exactly."""
    m, p = 16, 0.7
    values = [metrics.persistent(torch.tensor([s]), m, submissions).value for s in range(m + 1)]
    mean = sum(math.comb(m, s) * p**s * (1 - p) ** (m - s) * v for s, v in enumerate(values))

    assert mean == pytest.approx(p**submissions, rel=1e-9)


def test_persistence_needs_enough_draws() -> None:
    """M > m cannot be estimated."""
    with pytest.raises(ValueError, match="M = 17 with 16 draws"):
        metrics.persistent(torch.tensor([3]), 16, 17)


def test_paired_intervals_cover_and_see_differences() -> None:
    """Correlated shares with a true difference of .1 and of 0."""
    rng = np.random.default_rng(1)
    base = rng.beta(1, 1, 400)
    second = np.clip(base - 0.1 + 0.02 * rng.standard_normal(400), 0, 1)
    found = metrics.paired_difference(base, second, seed=3)

    assert found.low < float((base - second).mean()) < found.high
    assert found.low > 0.05
    error = float((base - second).std(ddof=1)) / 20
    assert (found.high - found.low) / 2 == pytest.approx(metrics.Z95 * error, rel=0.1)
    same = metrics.paired_difference(base, base[::-1].copy(), seed=3)
    assert same.low < 0 < same.high
    assert metrics.paired_difference(base, second, seed=3) == found


def test_the_upper_bound_is_clopper_pearson_s() -> None:
    """0 of 14 is just below 20 %, 0 of 13 just above; all right is 1."""
    assert metrics.upper_bound(torch.tensor([0]), 14).item() == pytest.approx(1 - 0.05 ** (1 / 14))
    assert metrics.upper_bound(torch.tensor([0]), 14).item() < 0.2 < metrics.upper_bound(torch.tensor([0]), 13).item()
    assert metrics.upper_bound(torch.tensor([14]), 14).item() == 1.0


@pytest.mark.parametrize("counts", [torch.tensor([1.0]), torch.tensor([-1]), torch.tensor([17]), torch.tensor([])])
def test_bad_counts_raise(counts: torch.Tensor) -> None:
    """Integers from 0 to m, at least one image."""
    with pytest.raises(ValueError, match="counts must be"):
        metrics.accuracy(counts, 16)


def test_noise_shared_by_all_images_widens_the_interval() -> None:
    """Coins tossed once a draw for all 64 images: 500 intervals hold .7 in 95 % less what 16 draws cost a bootstrap."""
    rng = np.random.default_rng(2)
    hits = narrow = 0
    for seed in range(500):
        right = torch.from_numpy(np.repeat(rng.random((16, 1)) < 0.7, 64, axis=1))
        found = metrics.shared_noise_accuracy(right, seed=seed)
        plain = metrics.accuracy(right.sum(0), 16)
        hits += found.low <= 0.7 <= found.high
        narrow += plain.low <= 0.7 <= plain.high

    assert hits / 500 > 0.85
    assert narrow / 500 < 0.5


def test_noise_shared_by_all_images_widens_a_gap_too() -> None:
    """Two equal coins tossed once a draw for all 16 images: intervals hold 0 where plain ones do not."""
    rng = np.random.default_rng(4)
    hits = narrow = 0
    for seed in range(200):
        first, second = (torch.from_numpy(np.repeat(rng.random((16, 1)) < 0.7, 16, axis=1)) for _ in range(2))
        found = metrics.accuracy_gap(first, second, per_example=False, seed=seed)
        plain = metrics.accuracy_gap(first, second, per_example=True, seed=seed)
        assert found.value == pytest.approx(plain.value)
        hits += found.low <= 0 <= found.high
        narrow += plain.low <= 0 <= plain.high

    assert hits / 200 > 0.85
    assert narrow / 200 < 0.5


def test_gaps_are_paired() -> None:
    """Easy and hard images that differ by the same in both: no uncertainty is left; other shapes raise."""
    first = torch.arange(10)[:, None] < torch.tensor([3, 6, 9])
    second = torch.arange(20)[:, None] < torch.tensor([4, 10, 16])

    assert metrics.accuracy_gap(first, second, per_example=True, seed=1) == pytest.approx((0.1, 0.1, 0.1))
    with pytest.raises(ValueError, match=r"same images, got \(10, 3\) and \(20, 2\)"):
        metrics.accuracy_gap(first, second[:, :2], per_example=False, seed=1)


def test_intervals_of_many_comparisons_are_wider() -> None:
    """Bonferroni: of 10 comparisons each at 99.5 %, so 2.81 instead of 1.96 standard errors."""
    rng = np.random.default_rng(6)
    first, second = rng.random(400), rng.random(400)
    one, ten = (metrics.paired_difference(first, second, seed=3, comparisons=n) for n in (1, 10))

    assert (ten.high - ten.low) / (one.high - one.low) == pytest.approx(2.807 / 1.96, rel=0.08)


def draws(shares: np.ndarray, m: int = 10) -> torch.Tensor:
    """(m, B) bool of which these shares (B,) are right, in whole draws."""
    return torch.arange(m)[:, None] < torch.from_numpy((shares * m).round()).long()


def test_paired_differences_are_those_of_the_bootstrap() -> None:
    """As wide as 1.96 paired standard errors; signs follow the names; 0 where two are right alike."""
    rng = np.random.default_rng(7)
    easy = rng.random(400).round(1)
    harder = np.clip(easy - rng.integers(0, 3, 400) / 10, 0, 1)
    right = {"b": draws(harder), "a": draws(easy), "same": draws(easy, 20)}
    found = metrics.paired_differences(right, seed=1)
    error = (easy - harder).std(ddof=1) / 20
    value, low, high = found["a", "b"]

    assert set(found) == {("a", "b"), ("a", "same"), ("b", "same")}
    assert value == pytest.approx((easy - harder).mean())
    assert (high - low) / (2 * 1.96 * error) == pytest.approx(1, rel=0.08)
    assert found["a", "same"] == (0, 0, 0)
    assert metrics.paired_differences({n: right[n] for n in "ab"}, seed=1)["a", "b"] == found["a", "b"]
    assert metrics.paired_differences({"a": right["a"]}, seed=1) == {}


def test_shared_noise_widens_a_paired_difference() -> None:
    """A coin tossed once for all images: sqrt(p (1 - p) / m), which resampling images alone does not see."""
    coin = (torch.arange(50)[:, None] < 25).expand(50, 64)
    right = {"coin": coin, "never": torch.zeros(50, 64, dtype=torch.bool)}
    alone = metrics.paired_differences(right, seed=1)["coin", "never"]
    value, low, high = metrics.paired_differences(right, seed=1, shared_noise=["coin"])["coin", "never"]

    always = {name: torch.ones(7, 9, dtype=torch.bool) for name in ("shared", "single")}

    assert metrics.paired_differences(always, seed=1, shared_noise=["shared"])["shared", "single"] == (0, 0, 0)
    assert alone == (0.5, 0.5, 0.5)
    assert value == 0.5
    assert (high - low) / (2 * 1.96 * math.sqrt(0.25 / 50)) == pytest.approx(1, rel=0.08)


def test_only_the_same_images_can_be_paired() -> None:
    """Other numbers of images, and no draws at all, are refused."""
    for other in (draws(np.ones(3)), torch.zeros(0, 4, dtype=torch.bool)):
        with pytest.raises(ValueError, match="same images"):
            metrics.paired_differences({"a": draws(np.ones(4)), "b": other}, seed=1)


def test_ranks_count_those_significantly_better() -> None:
    """Two leaders that nothing separates, a third between, a fourth that only the leaders beat."""
    up = np.full(64, 0.5)
    level = up.copy()
    level[:13], level[13:21] = 0, 1  # 1.1 standard errors below .5
    lower = up.copy()
    lower[:12], lower[12:15] = 0, 1  # 2.4 standard errors below .5
    shares = {"a": up + 0.2, "b": up + 0.2, "c": up, "d": level, "e": lower}
    found = metrics.paired_differences({name: draws(share) for name, share in shares.items()}, seed=1)

    assert metrics.ranks("abcde", found) == {"a": 1, "b": 1, "c": 3, "d": 3, "e": 4}
    assert metrics.ranks("ec", found) == {"c": 1, "e": 2}
    assert metrics.ranks(["e"], found) == {"e": 1}
    assert metrics.ranks("ab", {("a", "b"): metrics.Estimate(-0.4, -0.5, -0.3)}) == {"a": 2, "b": 1}
    assert metrics.ranks("ab", {("a", "b"): metrics.Estimate(-0.4, -0.9, 0.1)}) == {"a": 1, "b": 1}


def test_deterministic_images_are_a_plain_proportion() -> None:
    """Always right or always wrong: Wilson's interval over images."""
    correct = torch.tensor([16] * 40 + [0] * 24)

    assert metrics.accuracy(correct, 16) == metrics.proportion(40, 64)
