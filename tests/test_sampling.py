"""The draw of SAP's keep-set: exact laws against enumeration, edges, errors."""

from __future__ import annotations

import math

import pytest
import reference
import torch

from sap_art import sampling
from sap_art.sampling import MAX_EXACT_DRAWS, METHODS, keep_probability, keep_scale, keep_set

ROWS = 200_000


@pytest.mark.parametrize(
    ("weights", "draws"),
    [
        ([1.0, 1.0, 1.0], 3),
        ([5.0, 1.0, 0.5, 0.0], 4),
        ([0.7, 0.2, 0.1], 1),
        ([3.0, 2.0, 1.0], 8),
        ([10.0, 0.1, 0.1, 0.1], 6),
    ],
)
def test_multinomial_has_the_exact_joint_law(weights: list[float], draws: int, generator: torch.Generator) -> None:
    """Every keep-set comes up as often as enumeration of all draws says, within five standard errors."""
    law = reference.keep_set_law(weights, draws)
    keep = keep_set(torch.tensor(weights).expand(ROWS, -1).contiguous(), draws, generator)
    sets, counts = keep.unique(dim=0, return_counts=True)
    seen = {tuple(s): c for s, c in zip(sets.tolist(), counts.tolist(), strict=True)}

    assert set(seen) <= set(law)
    for kept, p in law.items():
        assert abs(seen.get(kept, 0) - ROWS * p) <= 5 * math.sqrt(ROWS * p * (1 - p)) + 1e-9, kept


def test_the_joint_law_tells_multinomial_from_bernoulli(generator: torch.Generator) -> None:
    """The test above can fail: independent units keep nothing now and then, which draws with replacement never do."""
    weights = torch.ones(ROWS, 3)

    assert not keep_set(weights, 3, generator, method="bernoulli").any(1).all()
    assert keep_set(weights, 3, generator).any(1).all()


def test_the_number_kept_has_the_exact_mean_and_variance(generator: torch.Generator) -> None:
    """At N = r = 4,096 with half the units dead, over 2,000 rows."""
    units, rows = 4096, 2000
    weights = torch.randn(units, generator=generator).relu()
    mean, variance = reference.number_kept(weights.double() / weights.double().sum(), units)
    size = keep_set(weights.expand(rows, -1).contiguous(), units, generator).sum(1).double()

    assert abs(size.mean().item() - mean) < 5 * math.sqrt(variance / rows)
    assert abs(size.var().item() / variance - 1) < 5 * math.sqrt(2 / (rows - 1))


def test_the_reference_agrees_with_the_closed_form(generator: torch.Generator) -> None:
    """The slow sampler has the marginals 1 - (1 - p)^r, so that reference and formula check each other."""
    weights, rows = torch.tensor([4.0, 2.0, 1.0, 0.0]), 4000
    seen = reference.keep_set(weights.expand(rows, -1), 3, generator).double().mean(0)
    q = 1 - (1 - weights.double() / 7) ** 3

    assert ((seen - q).abs() <= 5 * (q * (1 - q) / rows).sqrt()).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_units_are_kept_as_often_as_promised(method: str, dtype: torch.dtype, generator: torch.Generator) -> None:
    """Marginal frequencies are those of ``keep_probability`` for each method and type."""
    weights, rows, draws = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.0, 0.25], dtype=dtype), 40_000, 7
    seen = keep_set(weights.expand(rows, -1).contiguous(), draws, generator, method=method).double().mean(0)
    q = keep_probability(weights.double()[None], draws, method=method)[0]

    assert ((seen - q).abs() <= 5 * (q * (1 - q) / rows).sqrt()).all()


@pytest.mark.parametrize("method", METHODS)
def test_keep_scale_is_the_same_draw_over_its_probability(method: str, generator: torch.Generator) -> None:
    """keep / q with the keep-set that the same generator state gives."""
    weights = torch.randn(300, 900, generator=generator).relu()
    state = generator.get_state()
    scale = keep_scale(weights, 900, generator, method=method)
    keep = keep_set(weights, 900, generator.set_state(state), method=method)
    q = keep_probability(weights, 900, method=method)

    torch.testing.assert_close(scale, torch.where(keep, 1 / q, 0.0), rtol=1e-5, atol=0)


def test_small_probabilities_are_not_lost_at_a_million_units(generator: torch.Generator) -> None:
    """r p of the smallest unit at N = 10^6 agrees with float64 to 1e-4."""
    weights = torch.rand(1, 10**6, generator=generator) + 1e-3
    exact = keep_probability(weights.double(), 10**6)

    assert ((keep_probability(weights, 10**6).double() - exact) / exact).abs().max() < 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_a_row_of_zeros_keeps_nothing(method: str, generator: torch.Generator) -> None:
    """Beside a live row, which is not affected."""
    weights = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])

    keep = keep_set(weights, 50, generator, method=method)

    assert not keep[[0, 2]].any()
    assert keep[1].tolist() == [True, False, False]


@pytest.mark.parametrize("draws", [1, 2, 5, 10**6])
def test_a_single_live_unit_is_always_kept_with_probability_one(draws: int, generator: torch.Generator) -> None:
    """q is exactly 1, and its gradient finite."""
    weights = torch.tensor([[0.0, 3.0, 0.0]], requires_grad=True)
    q = keep_probability(weights, draws)
    (gradient,) = torch.autograd.grad(q.sum(), weights)

    assert q.tolist() == [[0.0, 1.0, 0.0]]
    assert torch.isfinite(gradient).all()
    assert keep_set(weights.detach().expand(1000, -1).contiguous(), draws, generator).sum(0).tolist() == [0, 1000, 0]


def test_a_unit_of_weight_zero_is_never_kept(generator: torch.Generator) -> None:
    """Not even by the top-up, at the edges of the row."""
    weights = torch.tensor([0.0, 1.0, 0.0, 2.0, 0.0]).repeat(50_000, 1)

    assert not keep_set(weights, 3, generator)[:, [0, 2, 4]].any()


def test_no_row_keeps_more_units_than_it_has_draws(generator: torch.Generator) -> None:
    """A row that overshoots is drawn afresh: 50 draws among 20,000 units would else give up to 60."""
    size = keep_set(torch.ones(2000, 20_000), 50, generator).sum(1)

    assert size.max() == 50


def test_one_row_s_uniforms_do_not_move_with_another_row_s_weights(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With fixed noise an image keeps its uniforms, also in the next chunk of rows."""
    monkeypatch.setattr(sampling, "_CHUNK", 30_000)
    weights = torch.rand(300, 1000, generator=generator)
    changed = weights.clone()
    changed[0] = changed[0].flip(0)
    state = generator.get_state()
    before = keep_set(weights, 1000, generator)
    after = keep_set(changed, 1000, generator.set_state(state))

    # The 2 sqrt(r) draws of the top-up may differ, nothing else.
    assert (before[1:] != after[1:]).float().mean() < 0.1


def test_the_same_generator_gives_the_same_draw_and_the_global_one_is_not_used(generator: torch.Generator) -> None:
    """Randomness is an argument."""
    weights = torch.rand(5, 100, generator=generator)
    state, everybody = generator.get_state(), torch.get_rng_state()
    first = keep_set(weights, 100, generator)
    second = keep_set(weights, 100, generator.set_state(state))

    assert torch.equal(first, second)
    assert torch.equal(everybody, torch.get_rng_state())
    assert not torch.equal(first, keep_set(weights, 100, generator))


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_batch_gives_an_empty_keep_set(method: str, generator: torch.Generator) -> None:
    """(0, N) and (B, 0) pass through."""
    assert keep_set(torch.zeros(0, 7), 7, generator, method=method).shape == (0, 7)
    assert keep_set(torch.zeros(3, 0), 7, generator, method=method).shape == (3, 0)


@pytest.mark.parametrize(
    ("weights", "draws", "method", "message"),
    [
        (torch.ones(3), 1, "multinomial", r"must be floating \(B, N\)"),
        (torch.ones(2, 3, dtype=torch.long), 1, "multinomial", r"must be floating \(B, N\)"),
        (torch.ones(2, 3), 0, "multinomial", "draws must be at least 1"),
        (torch.tensor([[1.0, float("nan")]]), 1, "bernoulli", "contain NaN or inf"),
        (torch.tensor([[1.0, float("inf")]]), 1, "poisson", "contain NaN or inf"),
        (torch.tensor([[1.0, -1.0]]), 1, "multinomial", "must not be negative, got -1"),
        (torch.ones(2, 3), MAX_EXACT_DRAWS + 1, "multinomial", "use sampler='bernoulli'"),
        (torch.ones(2, 3), 1, "urn", "unknown sampler 'urn'; known: multinomial"),
    ],
)
def test_bad_input_gets_a_clear_error(
    weights: torch.Tensor, draws: int, method: str, message: str, generator: torch.Generator
) -> None:
    """Said before any work."""
    with pytest.raises(ValueError, match=message):
        keep_set(weights, draws, generator, method=method)


def test_the_exact_sampler_handles_the_largest_number_of_draws(generator: torch.Generator) -> None:
    """All live units are kept."""
    assert keep_set(torch.tensor([[1.0, 0.0, 2.0]]), MAX_EXACT_DRAWS, generator).tolist() == [[True, False, True]]
