"""The torch kernel's own parts: random numbers, Poisson numbers, looks at the arrivals, q from two terms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference
import torch
from numpy.typing import NDArray
from scipy import stats

from sap_art.kernels import arrivals, plain
from sap_art.kernels.poisson import poisson
from sap_art.kernels.splitmix import LATER_ARRIVALS, RowNumbers, mix, numbered, steps
from sap_art.kernels.weights import weigh
from sap_art.randomness import Place
from sap_art.sampling import keep_probability, keep_set, prune

KNOWN = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
"""SplitMix64 from seed 1234567 (S. Vigna's splitmix64.c)."""


def test_the_generator_gives_the_published_numbers() -> None:
    """By numpy and by torch, whose shifts carry the sign."""
    by_torch = mix(torch.tensor([1234567]) + steps(5)).numpy().view(np.uint64)

    assert numbered(np.array([1234567], np.uint64), np.arange(5, dtype=np.uint64)).tolist() == KNOWN
    assert by_torch.tolist() == KNOWN


def test_rows_share_the_low_bits_and_nothing_else() -> None:
    """15 bits of their own: two rows' decisions about a unit are uncorrelated, their fractions of 2^-15 are equal."""
    v = RowNumbers.of(3, Place(0, 0, 2), 2).minus_uniform(torch.empty(2, 400_000)).neg().double()
    high = (v * 2**15).floor()

    apart = ((v * 2**15) % 1).diff(dim=0).abs()
    assert torch.minimum(apart, 1 - apart).max() < 2.0**-7  # digits of a float32 near 1
    assert abs(torch.corrcoef(high)[0, 1].item()) < 5 / math.sqrt(400_000)
    assert abs(torch.corrcoef(torch.stack([high[0, 1:], high[0, :-1]]))[0, 1].item()) < 5 / math.sqrt(400_000)
    assert len(high[0].unique()) > 0.999 * 2**15


def _poisson_numbers(mean: float, rows: int) -> NDArray[np.int64]:
    numbers = RowNumbers.of(7, Place(0, 0, rows), rows)
    return poisson(np.full(rows, mean), lambda row, number: numbers.uniform(LATER_ARRIVALS, row, number))


@pytest.mark.parametrize("mean", [0.0, 0.3, 4.0, 9.99, 10.0, 30.0, 250.0])
def test_the_poisson_number_has_its_law(mean: float) -> None:
    """Each count's frequency over 100,000 rows, within five standard errors; below and above the change of method."""
    rows = 100_000
    counts = _poisson_numbers(mean, rows)
    values = np.arange(counts.max() + 2)
    p = stats.poisson.pmf(values, mean)
    seen = np.bincount(counts, minlength=len(values)) / rows
    common = p * rows > 20

    assert (np.abs(seen - p)[common] <= 5 * np.sqrt(p * (1 - p) / rows)[common]).all()
    assert seen[~common].sum() < p[~common].sum() + 5 * math.sqrt(p[~common].sum() / rows) + 1e-9


@pytest.mark.parametrize("mean", [1e3, 1e6, 4e9])
def test_the_poisson_number_does_not_underflow_at_large_means(mean: float) -> None:
    """Mean, variance and quantiles over 100,000 rows."""
    rows = 100_000
    standardised = (_poisson_numbers(mean, rows) - mean) / math.sqrt(mean)

    assert abs(standardised.mean()) < 5 / math.sqrt(rows)
    assert abs(standardised.var() - 1) < 5 * math.sqrt(2 / rows)
    assert stats.kstest(standardised, "norm").pvalue > 1e-6 or mean == 1e3  # which has steps


@pytest.mark.parametrize("margin", [-0.4, 0.0, 1.0, 100.0])
@pytest.mark.parametrize(("weights", "draws"), [([5.0, 1.0, 0.5, 0.0], 6), ([3.0, 2.0, 1.0], 12)])
def test_when_the_kernel_looks_does_not_matter(
    weights: list[float], draws: int, margin: float, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exact whether most rows overshoot, or are topped up by few draws, or consist of them; by enumeration."""
    monkeypatch.setattr(arrivals, "MARGIN", margin)
    rows = torch.tensor(weights).expand(100_000, -1).contiguous()

    assert (
        reference.worst_deviation(
            keep_set(rows, draws, generator, kernel="torch"), reference.keep_set_law(weights, draws)
        )
        < 5
    )


def test_the_number_missing_at_the_last_look_is_small_and_seldom_negative() -> None:
    """At r = 16,384 about c^1.5 r^(1/4) = 74 draws are left to top up, and less than one row in 500 overshoots."""
    weights = weigh(torch.rand(2000, 16_384, generator=torch.Generator().manual_seed(1)))
    _, missing = arrivals.arrive(weights, 16_384, RowNumbers.of(1, Place(0, 0, 2000), 2000))

    assert 50 < missing.mean() < 100
    assert (missing < 0).mean() < 1 / 500


def test_arrivals_and_draws_missing_are_uncorrelated(generator: torch.Generator) -> None:
    """What is kept at the last look says nothing on the number of arrivals but what a multinomial draw of them says.

    Two equal units, two draws at most seen: of m arrivals both units are met with probability 1 - 2^(1 - m).
    """
    rows, draws = 200_000, 30
    weights = weigh(torch.ones(rows, 2))
    keep, missing = arrivals.arrive(weights, draws, RowNumbers.of(5, Place(0, 0, rows), rows))
    both = keep[:, :2].sum(1).numpy() == 2
    for m in range(1, draws + 1):
        met = both[draws - missing == m]
        p = 1 - 2.0 ** (1 - m)
        assert len(met) == 0 or abs(met.mean() - p) <= 5 * math.sqrt(p * (1 - p) / len(met)) + 1e-12


@pytest.mark.parametrize("draws", [4096, 4097, 10**6])
def test_two_terms_of_the_logarithm_do_for_many_draws(draws: int) -> None:
    """q from p = 1e-8 to nearly 1, against float64 to four units of the last place."""
    w = torch.cat([torch.logspace(-8, 0, 4000), torch.zeros(96)])[None] * 3e4
    w[0, -1] = 0.9 * w.sum()
    seen = -plain.minus_kept_probability(weigh(w), draws, "multinomial")[:, : w.shape[1]].double()
    exact = keep_probability(w.double(), draws)
    live = exact > 0

    assert ((seen - exact).abs()[live] / exact[live]).max() < 4 * 2.0**-23 + 2.0**-24 * math.log(draws)


def test_rows_of_all_sizes_may_share_a_batch(generator: torch.Generator) -> None:
    """1e-42 beside 1e37 and zeros: each row's frequencies are its own."""
    size = torch.tensor([1e-42, 1e37, 0.0, 1.0]).repeat(10_000)
    h = torch.tensor([2.0, 1.0, 0.0])[None] * size[:, None]
    out = prune(h, 1, generator, kernel="torch")
    for first in (0, 1, 3):
        seen = (out[first::4] != 0).double().mean(0)
        assert abs(seen[0].item() - 2 / 3) < 5 * math.sqrt(2 / 9 / 10_000) + 1e-3
        assert seen.sum() == 1
    assert out[2::4].eq(0).all()
