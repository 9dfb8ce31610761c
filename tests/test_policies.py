"""SAP as a layer: Algorithm 1 of the paper, its mean, and every edge of its input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sap_art import SAP
from sap_art.policies import parse_policy

SAMPLERS = ["multinomial", "bernoulli", "poisson"]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("percent", [30, 100, 250])
def test_the_mean_is_the_input(sampler: str, percent: float, generator: torch.Generator) -> None:
    """E[SAP(h)] = h, unit by unit, with standard error |h| sqrt((1/q - 1) / n)."""
    n, policy = 20_000, SAP(percent, sampler)
    h = torch.tensor([3.0, -2.0, 1.0, 0.5, 0.0, -0.25]).view(1, 2, 3)
    q = policy.keep_probability(h).double()[0]
    mean = policy(h.expand(n, -1, -1), generator).double().mean(0)
    error = h[0].abs() * torch.where(q > 0, 1 / q - 1, 0).clamp(min=0).sqrt() / n**0.5

    assert ((mean - h[0]).abs() <= 5 * error + 1e-5).all()


def test_kept_units_are_divided_by_one_minus_one_minus_p_to_the_r() -> None:
    """The value of a kept unit is h / (1 - (1 - p)^r) with r = percent * N / 100, whatever its sign."""
    h = torch.tensor([[4.0, -2.0, 1.0, 1.0]])
    expected = h.double() / (1 - (1 - h.abs().double() / 8) ** 6)
    out = SAP(150)(h, torch.Generator().manual_seed(1))

    kept = out != 0
    assert kept.any()
    torch.testing.assert_close(out[kept].double(), expected[kept], rtol=1e-6, atol=0)


@pytest.mark.parametrize(("percent", "units", "draws"), [(100, 7, 7), (0.001, 7, 1), (50, 3, 2), (1000, 7, 70)])
def test_the_number_of_draws(percent: float, units: int, draws: int) -> None:
    """r = max(1, round(percent * N / 100))."""
    assert SAP(percent).draws(units) == draws


def test_one_draw_keeps_one_unit(generator: torch.Generator) -> None:
    """The smallest percent still keeps something."""
    assert SAP(1e-9).sample_mask(torch.rand(50, 4, 5, 5) + 0.1, generator).flatten(1).sum(1).tolist() == [1] * 50


def test_a_percent_above_100_keeps_more(generator: torch.Generator) -> None:
    """And at 10,000 % everything that matters."""
    h = torch.rand(8, 1000, generator=generator) + 0.5

    assert SAP(10_000).sample_mask(h, generator).all()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_all_zero_map_passes_through(sampler: str, generator: torch.Generator) -> None:
    """Beside an image that is alive, with finite values and gradients in every estimator's path."""
    h = torch.stack([torch.zeros(3, 4), torch.ones(3, 4)]).requires_grad_()
    out = SAP(100, sampler)(h, generator)
    (gradient,) = torch.autograd.grad(out.sum(), h)

    assert torch.equal(out[0], h[0])
    assert out[1].any()
    assert torch.isfinite(gradient).all()


def test_one_live_unit_passes_through_exactly(generator: torch.Generator) -> None:
    """It is drawn for certain, so it is divided by 1."""
    h = torch.zeros(6, 2, 5).index_put((torch.arange(6), torch.tensor(1), torch.tensor(3)), torch.tensor(2.5))

    assert torch.equal(SAP(100)(h, generator), h)


def test_units_with_q_zero_give_no_nan(generator: torch.Generator) -> None:
    """Most units are dead behind a ReLU: value 0, gradient finite also through autograd."""
    h = torch.randn(4, 64, generator=generator).relu().requires_grad_()
    out = SAP(20)(h, generator)
    (gradient,) = torch.autograd.grad(out.square().sum(), h)

    assert torch.isfinite(out).all()
    assert torch.isfinite(gradient).all()
    assert (out[h == 0] == 0).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_or_inf_activations_raise(bad: float, generator: torch.Generator) -> None:
    """A net that has overflowed must not be scored."""
    h = torch.ones(2, 3, 4)
    h[1, 2, 3] = bad

    with pytest.raises(ValueError, match="activations or weights contain NaN or inf"):
        SAP(100)(h, generator)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_keep_their_type_and_their_mean(dtype: torch.dtype, generator: torch.Generator) -> None:
    """Sums are made in float32 or wider, so a half-precision map of 65,536 units does not overflow."""
    h = torch.full((2, 65536), 2.0, dtype=dtype)
    out = SAP(100)(h, generator)
    kept = SAP(100).keep_probability(h).double().mean()

    assert out.dtype == dtype
    assert abs((out != 0).double().mean() - kept) < 5 * (kept * (1 - kept) / h.numel()).sqrt()
    assert abs(out.double().mean().item() - 2.0) < 5 * 2.0 * ((1 / kept - 1) / h.numel()).sqrt().item() + 2e-3


def test_a_batch_of_one_and_an_empty_batch(generator: torch.Generator) -> None:
    """Shapes are kept."""
    assert SAP(100)(torch.rand(1, 3, 2, 2), generator).shape == (1, 3, 2, 2)
    assert SAP(100)(torch.rand(0, 3, 2, 2), generator).shape == (0, 3, 2, 2)


def test_memory_layout_does_not_matter(generator: torch.Generator) -> None:
    """Non-contiguous and channels_last maps get the draw of the contiguous one."""
    h = torch.randn(4, 6, 5, 5, generator=generator).relu()
    state = generator.get_state()
    plain = SAP(80)(h, generator)

    for other in (h.contiguous(memory_format=torch.channels_last), h.transpose(2, 3).contiguous().transpose(2, 3)):
        assert not other.is_contiguous()
        assert torch.equal(SAP(80)(other, generator.set_state(state)), plain)


def test_two_dimensional_activations(generator: torch.Generator) -> None:
    """(B, features) behind a linear layer."""
    h = torch.rand(5, 12, generator=generator)

    assert SAP(100).keep_probability(h).shape == SAP(100)(h, generator).shape == (5, 12)


def test_each_image_has_a_draw_of_its_own(generator: torch.Generator) -> None:
    """Equal images in one batch are pruned differently."""
    out = SAP(100)(torch.ones(2, 400), generator)

    assert not torch.equal(out[0], out[1])


@pytest.mark.parametrize("percent", [0, -1, float("nan"), float("inf")])
def test_a_percent_that_is_not_above_zero_raises(percent: float) -> None:
    """On construction, before any work."""
    with pytest.raises(ValueError, match="percent must be a finite number above 0"):
        SAP(percent)


def test_bad_samplers_and_shapes_raise(generator: torch.Generator) -> None:
    """Said what was given and what is allowed."""
    with pytest.raises(ValueError, match="unknown sampler 'urn'; known: multinomial, bernoulli, poisson"):
        SAP(100, "urn")
    with pytest.raises(ValueError, match="two axes or more"):
        SAP(100)(torch.ones(3), generator)
    with pytest.raises(ValueError, match="must be floating"):
        SAP(100).keep_probability(torch.ones(3, 2, dtype=torch.long))


def test_the_exact_sampler_refuses_a_number_of_draws_that_it_cannot_make(generator: torch.Generator) -> None:
    """And says what to use; the others do it."""
    h: Tensor = torch.rand(2, 1000, generator=generator)

    with pytest.raises(ValueError, match="use sampler='bernoulli'"):
        SAP(1e9)(h, generator)
    torch.testing.assert_close(SAP(1e9, "bernoulli")(h, generator), h, rtol=1e-6, atol=0)


@pytest.mark.parametrize("spec", ["sap:100", "sap:12.5", "sap:200:bernoulli"])
def test_specs_round_trip(spec: str) -> None:
    """What is written on the command line is what a record says."""
    assert parse_policy(spec).spec == spec


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("swap:1", "unknown policy 'swap:1'; known: .*, sap, swp"),
        ("sap", "must be sap:PERCENT"),
        ("sap:x", "'x' is not a number"),
        ("sap:0", "above 0"),
        ("sap:100:urn", "unknown sampler"),
        ("sap:1:poisson:auto:3", "must be sap:PERCENT"),
    ],
)
def test_bad_specs_raise(spec: str, message: str) -> None:
    """Each with its own reason."""
    with pytest.raises(ValueError, match=message):
        parse_policy(spec)
