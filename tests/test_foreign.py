"""Foreign random modules, run as stochastic models."""

from __future__ import annotations

import pytest
import reference
import torch
from torch import nn

from sap_art import AttackerView, evaluate, wrap

X = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def noisy() -> nn.Module:
    """A net with test-time dropout: random in training mode only, as such defences are."""
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 30), nn.ReLU(), nn.Dropout(0.5), nn.Linear(30, 3)).train()


def test_calls_are_reproducible_and_the_global_generator_is_left_alone() -> None:
    """The module draws from torch's global generator, in a forked scope of it."""
    model = wrap(noisy(), seed=1)
    before = torch.get_rng_state()
    outs = [model(X), model(X)]

    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(*outs)
    model.reseed(1)
    torch.manual_seed(77)
    assert torch.equal(outs[0], model(X))


def test_fixed_noise_and_seeded_scopes_work() -> None:
    """As on a defended model."""
    model = wrap(noisy(), seed=1)
    with model.fixed_noise():
        assert torch.equal(model(X), model(X))
    with model.seeded(3):
        first = model(X)
    with model.seeded(3):
        assert torch.equal(first, model(X))


def test_estimators_that_it_does_not_offer_are_refused() -> None:
    """``autograd`` always exists, ``dense`` with a counterpart."""
    assert wrap(noisy()).estimators == ("autograd",)
    assert wrap(noisy(), dense=nn.Flatten()).estimators == ("autograd", "dense")
    with pytest.raises(ValueError, match="'bpda' is not offered by ForeignModel; offered: autograd"):
        AttackerView(wrap(noisy()))
    with pytest.raises(ValueError, match="'frozen' is not offered"):
        wrap(noisy()).single(X, gradient="frozen")


def test_a_failing_module_leaves_the_global_generator_alone() -> None:
    """The scope ends however the call ends."""

    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.rand(3)
            raise RuntimeError("broken")

    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="broken"):
        wrap(Broken())(X)
    assert torch.equal(before, torch.get_rng_state())


def test_weights_are_registered_once_when_a_net_is_its_own_counterpart() -> None:
    """state_dict has no duplicates."""
    net = nn.Linear(3, 2)

    assert list(wrap(net, dense=net).state_dict()) == ["module.weight", "module.bias"]


def test_the_coin_keeps_its_accuracy() -> None:
    """A model that is right with p = .7 is scored .7, at five standard errors, and persists with .7^10."""
    x, y = reference.coin_data(200)
    draws = 100
    result = evaluate(reference.Coin(0.7), x, y, draws=draws, seed=2)

    assert abs(result.accuracy - 0.7) < 5 * (0.21 / (draws * len(x))) ** 0.5
    assert result.interval[0] < 0.7 < result.interval[1]
    shares = result.persistent(10)
    assert abs(shares.value - 0.7**10) < 5 * (shares.high - shares.value) / 1.96
    assert result.persistent(1).value == pytest.approx(result.accuracy)


def test_the_dense_counterpart_moves_with_the_model() -> None:
    """To another type or device, and into its state_dict."""
    model = wrap(noisy(), dense=nn.Linear(3, 2)).double()

    assert model.dense is not None
    assert {p.dtype for p in model.dense.parameters()} == {torch.float64}
