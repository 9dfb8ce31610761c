"""AttackerView: what an attacker differentiates."""

from __future__ import annotations

import pytest
import reference
import torch
from torch import Tensor, nn

from sap_art import SAP, AttackerView, DefendedModel
from sap_art.attacks.objective import loss_and_gradient

X = torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def model() -> DefendedModel:
    """A small defended net."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(108, 400), nn.ReLU(), nn.Linear(400, 4))
    generator = torch.Generator().manual_seed(3)
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator) * 0.2
    return DefendedModel(net, SAP(80), seed=1)


def test_it_is_a_plain_module_that_returns_log_probabilities() -> None:
    """(B, C), rows that sum to one."""
    out = AttackerView(model(), draws=4)(X)

    assert out.shape == (3, 4)
    assert out.exp().sum(1).allclose(torch.ones(3))


@pytest.mark.parametrize("reduce", ["log_mean_prob", "mean_log_prob"])
def test_reductions_over_the_draws(reduce: str) -> None:
    """Log of the mean softmax, or mean of the log-softmax, of the draws that the seed gives."""
    view = AttackerView(model(), draws=6, reduce=reduce)  # pyright: ignore[reportArgumentType]
    with view.seeded(5):
        out = view(X)
    with view.seeded(5):
        logits = view.logits(X)
    mean = logits.softmax(-1).mean(0).log() if reduce == "log_mean_prob" else logits.log_softmax(-1).mean(0)

    torch.testing.assert_close(out, mean)


def test_logits_are_independent_draws() -> None:
    """(draws, B, C), all different, whatever the size of a pass."""
    for max_batch in (None, 3, 7):
        logits = AttackerView(model(), draws=5, max_batch=max_batch).logits(X)

        assert logits.shape == (5, 3, 4)
        assert len(logits[:, 0].unique(dim=0)) == 5


def test_eot_has_one_kth_of_the_variance() -> None:
    """The mean of k draws varies k times less than one draw (ratio of chi-squares, five standard errors)."""
    k, n = 8, 600
    x = X[:1].repeat(n, 1, 1, 1)
    with torch.no_grad():
        one = AttackerView(model(), draws=1, reduce="mean_log_prob")(x)[:, 0].double().var()
        many = AttackerView(model(), draws=k, reduce="mean_log_prob")(x)[:, 0].double().var()

    assert abs((one / many / k).log().item()) < 5 * (4 / n) ** 0.5


def test_dense_runs_the_dense_net() -> None:
    """Once, no noise; every draw is the same."""
    m = model()
    view = AttackerView(m, gradient="dense", draws=9)

    assert torch.equal(view.logits(X), m.dense(X).expand(9, -1, -1))
    torch.testing.assert_close(view(X), m.dense(X).log_softmax(1))


def test_draws_do_not_depend_on_the_estimator() -> None:
    """The three random estimators see the same values under one seed."""
    outs: list[Tensor] = []
    for gradient in ("bpda", "frozen", "autograd"):
        view = AttackerView(model(), gradient=gradient, draws=2)
        with view.seeded(1):
            outs.append(view(X.clone().requires_grad_()))

    torch.testing.assert_close(outs[0], outs[1])
    torch.testing.assert_close(outs[0], outs[2])


def test_a_plain_net_can_be_viewed_through_autograd() -> None:
    """Any module is run as a foreign one."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(108, 4))

    torch.testing.assert_close(AttackerView(net, gradient="autograd")(X), net(X).log_softmax(1))


def test_bad_settings_raise() -> None:
    """On construction, with what is allowed."""
    with pytest.raises(ValueError, match="'numeric' is not offered by DefendedModel; offered: bpda, frozen, autograd"):
        AttackerView(model(), gradient="numeric")
    with pytest.raises(ValueError, match="at least 1"):
        AttackerView(model(), draws=0)
    with pytest.raises(ValueError, match="unknown reduction 'max'"):
        AttackerView(model(), reduce="max")  # pyright: ignore[reportArgumentType]


def test_a_gradient_halves_its_batch_once_and_stays_there() -> None:
    """Three images of five draws where eight rows fit: one image a pass from then on, with all its draws."""
    small = reference.SmallMemory(model().net, rows=8)
    view = AttackerView(DefendedModel(small, SAP(80), seed=1), draws=5)
    y = torch.tensor([0, 1, 2])
    first = loss_and_gradient(view, X, y, loss="ce")
    tried = list(small.sizes)
    loss_and_gradient(view, X, y, loss="ce")

    assert tried == [15, 5, 5, 5]
    assert small.sizes[4:] == [5, 5, 5]
    assert first.gradient.flatten(1).any(1).all()


@pytest.mark.parametrize("kernel", ["torch", "numba"])
@pytest.mark.parametrize("estimator", ["bpda", "frozen", "autograd"])
def test_draws_in_one_batch_give_the_gradient_of_a_loop(estimator: str, kernel: str) -> None:
    """EOT in one call of 5 draws, in passes of 2 images, and draw by draw: the same numbers up to rounding."""
    y = torch.tensor([0, 1, 2])
    dtype = torch.float64 if kernel == "torch" else torch.float32  # which is all that the compiled one takes
    net, x = model().net, X.to(dtype)
    values = []
    for max_batch in (None, 10, 1):
        sap = DefendedModel(net.to(dtype), SAP(80, kernel=kernel), seed=1)
        view = AttackerView(sap, gradient=estimator, draws=5, max_batch=max_batch)
        with view.seeded(9):
            values.append((loss_and_gradient(view, x, y, loss="ce").gradient, view.logits(x)))

    bound = {"rtol": 1e-9, "atol": 1e-11} if kernel == "torch" else {"rtol": 1e-4, "atol": 1e-6}
    if (estimator, kernel) == ("frozen", "numba"):  # terms of 1 / q of both signs, in float32
        bound["atol"] = 1e-5 * values[0][0].abs().max().item()
    for gradient, logits in values[1:]:
        torch.testing.assert_close(gradient, values[0][0], **bound)
        torch.testing.assert_close(logits, values[0][1], rtol=1e-4, atol=1e-5)
    assert values[0][0].flatten(1).any(1).all()
