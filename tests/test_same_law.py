"""Exact two-sample tests, and the probes that rest on them: state between calls, draws of a batch that are alike."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import reference
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from sap_art import wrap
from sap_art.diagnostics import probes, same_law

Series = Callable[[np.random.Generator, int], NDArray[np.float64]]
HONEST: dict[str, Series] = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "coin": lambda rng, n: rng.binomial(1, 0.3, n).astype(float),
    "dropout": lambda rng, n: np.round(rng.binomial(10, 0.5, (n, 3)) @ np.array([1.0, 0.1, 3.0]), 6),
    "constant": lambda rng, n: np.ones(n),
    "heavy": lambda rng, n: rng.standard_cauchy(n),
}


@pytest.mark.parametrize("n", [1, 4, 30, 400])
def test_the_p_value_is_scipy_s_exact_one(n: int) -> None:
    """For continuous numbers, without a tolerance."""
    rng = np.random.default_rng(n)
    for shift in (0.0, 0.2, 1.0):
        a, b = rng.standard_normal(n), rng.standard_normal(n) + shift
        found = stats.ks_2samp(a, b, method="exact")

        assert same_law.ks_distance(a, b, tolerance=0.0) == pytest.approx(found.statistic)
        assert same_law.same_law(a, b, tolerance=0.0) == pytest.approx(found.pvalue, rel=1e-6)


@pytest.mark.parametrize("name", HONEST)
def test_honest_series_keep_the_promised_level(name: str) -> None:
    """2,000 series of 2,000 draws of one law, in halves: at most as many below p = .05 and .001 as promised."""
    rng = np.random.default_rng(7)
    p = np.array([same_law.same_law(*np.split(HONEST[name](rng, 2000), 2), tolerance=1e-4) for _ in range(2000)])

    for level in (0.05, 1e-3):
        assert (p < level).sum() <= stats.binom.ppf(1 - 1e-6, 2000, level)
    if name in ("normal", "heavy"):  # exact, not only conservative
        assert (p < 0.05).sum() >= stats.binom.ppf(1e-6, 2000, 0.04)


def test_the_tolerance_forgives_rounding_and_nothing_else() -> None:
    """Two atoms that move by less or more than it; continuous numbers all the same."""
    rng = np.random.default_rng(1)
    a, b = (rng.binomial(1, 0.5, 1000) * 10.0 for _ in range(2))
    usual = same_law.same_law(a, b, tolerance=0.0)

    assert usual > 0.01
    assert same_law.same_law(a, b + 0.9e-4, tolerance=1e-4) == same_law.same_law(a, b - 0.9e-4, tolerance=1e-4)
    assert same_law.same_law(a, b + 0.9e-4, tolerance=1e-4) >= usual
    assert same_law.same_law(a, b + 1.1e-4, tolerance=1e-4) < 1e-6
    assert same_law.same_law(a, b - 1.1e-4, tolerance=1e-4) < 1e-6


def test_samples_of_two_sizes_raise() -> None:
    """The exact law is for equal sizes."""
    with pytest.raises(ValueError, match=r"of one size \(n,\), n > 0, got \(3,\) and \(4,\)"):
        same_law.same_law(np.zeros(3), np.zeros(4), tolerance=0.0)


def test_groups_that_are_alike_are_seen_and_others_keep_the_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the variance shared within groups of 8; 400 honest ones at the 5 % level; numbers that are all equal."""
    rng = np.random.default_rng(3)
    shared = rng.standard_normal((32, 1)) + rng.standard_normal((32, 8))
    assert same_law.independent_groups(shared, seed=1) == 1e-4
    assert same_law.independent_groups(np.ones((32, 8)) / 3, seed=1) == 1
    odd = np.full((5, 7), 0.1)
    odd[0, 0] = 0.7  # whichever group it falls into, the spread is the same but for rounding
    assert same_law.independent_groups(odd, seed=1) == 1

    monkeypatch.setattr(same_law, "PERMUTATIONS", 199)
    p = np.array([same_law.independent_groups(rng.standard_cauchy((8, 4)), seed=s) for s in range(400)])
    assert stats.binom.ppf(1e-6, 400, 0.05) <= (p <= 0.05).sum() <= stats.binom.ppf(1 - 1e-6, 400, 0.05)


X, Y = torch.full((2, 3, 2, 2), 0.5), torch.tensor([1, 0])


class Noisy(nn.Module):
    """Two logits, (0, s) with s normal; mean and sd depend on the number of the call."""

    def __init__(self, mean: Callable[[int], float], sd: Callable[[int], float]) -> None:
        super().__init__()
        self.mean, self.sd, self.calls = mean, sd, 0

    def forward(self, x: Tensor) -> Tensor:
        score = self.mean(self.calls) + self.sd(self.calls) * torch.randn(len(x))
        self.calls += 1
        return torch.stack([torch.zeros_like(score), score], 1)


class DropoutThatDrifts(nn.Module):
    """Its rate goes from .3 to .6 within 2,000 calls, or stays."""

    def __init__(self, *, drift: float) -> None:
        super().__init__()
        self.drift, self.calls = drift, 0

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.dropout(torch.ones(len(x), 20), 0.3 + self.drift * self.calls / 2000, training=True)
        self.calls += 1
        return torch.stack([torch.zeros(len(x)), h.mean(1)], 1)


CHANGING: dict[str, Callable[[], nn.Module]] = {
    "better after 1,000 calls": lambda: Noisy(lambda n: 0.5 * (n >= 1000), lambda n: 1.0),
    "scale grows": lambda: Noisy(lambda n: 1.0, lambda n: 1.0 + n / 2000),
    "mean drifts": lambda: Noisy(lambda n: n / 2000, lambda n: 1.0),
    "dropout drifts": lambda: DropoutThatDrifts(drift=0.3),
    "saturated": lambda: Noisy(lambda n: 100 + 0.5 * (n >= 1000), lambda n: 1.0),
    "mask that wanders": lambda: Noisy(lambda n: np.sin(n / 700).item(), lambda n: 0.1),
}
STEADY: dict[str, Callable[[], nn.Module]] = {
    "normal": lambda: Noisy(lambda n: 1.0, lambda n: 1.0),
    "dropout": lambda: DropoutThatDrifts(drift=0.0),
    "coin": lambda: reference.Coin(0.7),
    "deterministic": lambda: Noisy(lambda n: 3.0, lambda n: 0.0),
    "rounding": lambda: Noisy(lambda n: 3.0 + 1e-6 * (n >= 1000), lambda n: 0.0),
    "large logits": lambda: Noisy(lambda n: 3e4 + 1e-2 * (n >= 1000), lambda n: 0.0),
}


@pytest.mark.parametrize("name", CHANGING)
def test_a_state_between_calls_is_seen(name: str) -> None:
    """A model that counts its calls, whatever it does with the number."""
    found = probes.state_between_calls(wrap(CHANGING[name]()), X, Y, seed=1)

    assert found.state == "raised"
    assert found.value is not None
    assert found.threshold is not None
    assert found.value < found.threshold == 1e-3


@pytest.mark.parametrize("name", STEADY)
def test_models_without_a_state_are_clear(name: str) -> None:
    """Random, discrete, deterministic or rounded otherwise."""
    assert probes.state_between_calls(wrap(STEADY[name]()), X, Y, seed=1).state == "clear"


def test_the_threshold_is_on_the_p_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below 1e-3, not at it."""
    for p, state in ((1e-3, "clear"), (0.99e-3, "raised")):
        monkeypatch.setattr(probes, "same_law", lambda *a, p=p, **k: p)
        assert probes.state_between_calls(wrap(STEADY["coin"]()), X, Y, seed=1).state == state


def test_nan_is_not_called_clear() -> None:
    """It cannot be compared."""
    model = wrap(Noisy(lambda n: float("nan"), lambda n: 1.0))

    assert probes.state_between_calls(model, X, Y, seed=1).state == "not-checked"
    assert probes.batch_shared_noise(model, X, seed=1).state == "not-checked"


class Batch(nn.Module):
    """Noise of which a share is common to the batch, or whose size depends on the batch."""

    def __init__(self, common: float, power: float) -> None:
        super().__init__()
        self.common, self.power = common, power

    def forward(self, x: Tensor) -> Tensor:
        noise = self.common**0.5 * torch.randn(1) + (1 - self.common) ** 0.5 * torch.randn(len(x))
        score = len(x) ** self.power * noise
        return torch.stack([torch.zeros_like(score), score], 1)


@pytest.mark.parametrize(
    ("common", "power", "state"),
    [(1.0, 0.0, "raised"), (0.5, 0.0, "raised"), (0.0, -0.5, "raised"), (0.0, 0.5, "raised"), (0.0, 0.0, "clear")],
)
def test_batched_and_looped_draws_that_differ_are_seen(common: float, power: float, state: str) -> None:
    """All or half of the noise shared; noise that shrinks or grows with the batch; honest noise."""
    for seed in range(3):
        assert probes.batch_shared_noise(wrap(Batch(common, power)), X, seed=seed).state == state
