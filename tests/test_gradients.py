"""The four gradient estimators: equal values, and on one layer the means and variances of their closed forms."""

from __future__ import annotations

import math

import pytest
import reference
import torch
from torch import Tensor, nn

from sap_art import SAP, AttackerView, DefendedModel, ThreatModel, evaluate
from sap_art.attacks import eot_apgd
from sap_art.attacks.objective import raw_loss_and_gradient
from sap_art.gradients import RANDOM_ESTIMATORS, apply


@pytest.mark.parametrize("estimator", RANDOM_ESTIMATORS)
def test_all_estimators_have_the_value_of_the_draw(estimator: str) -> None:
    """The gradient estimator changes the backward pass only, to the bit."""
    h = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)).relu().requires_grad_()
    draw = torch.Generator().manual_seed(7)
    value = SAP(60)(h.detach(), torch.Generator().manual_seed(7))

    torch.testing.assert_close(apply(h, SAP(60), draw, estimator=estimator), value, rtol=2e-6, atol=0)


@pytest.mark.parametrize("x", [0.05, 0.1, 0.3, 1.0, 2.0, 4.0])
def test_the_one_layer_table(x: float) -> None:
    """Over many draws of one unit with r p = x: bpda 1, frozen mean 1 and sd sqrt(1/q - 1), autograd 1 - x/(e^x - 1).

    The layer has N = 2,000 units, so that (1 - p)^r is e^-x to 1e-3 and a unit's p hardly moves with the others.
    """
    n, units = 4000, 2000
    draws = 100 * x * units / units
    h = torch.full((1, units), 1.0)
    percent = 100 * x
    q, expected = 1 - math.exp(-x), 1 - x / (math.exp(x) - 1)
    samples = {name: _diagonal(name, h, percent, n) for name in RANDOM_ESTIMATORS}

    assert draws == percent
    assert (samples["bpda"] == 1).all()
    _require_mean(samples["frozen"], 1.0)
    sd = math.sqrt(1 / q - 1)
    kurtosis = (1 - 3 * q * (1 - q)) / (q * (1 - q))
    assert abs(samples["frozen"].var().item() / sd**2 - 1) < 5 * math.sqrt((kurtosis - 1) / n) + 2e-3
    _require_mean(samples["autograd"], expected)


def _diagonal(estimator: str, h: Tensor, percent: float, n: int) -> Tensor:
    """d out_0 / d h_0 over n draws; only unit 0 is differentiated, the rest is constant."""
    generator = torch.Generator().manual_seed(11)
    out: list[Tensor] = []
    for _ in range(n // 500):
        first = torch.ones(500, 1, requires_grad=True)
        full = torch.cat([first, h[:, 1:].expand(500, -1)], 1)
        value = apply(full, SAP(percent), generator, estimator=estimator)[:, 0]
        out.append(torch.autograd.grad(value.sum(), first)[0][:, 0])
    return torch.cat(out).double()


def _require_mean(samples: Tensor, expected: float) -> None:
    error = samples.std().item() / math.sqrt(len(samples))
    assert abs(samples.mean().item() - expected) < 5 * error + 2e-3


def test_bpda_is_the_gradient_of_the_expected_layer(generator: torch.Generator) -> None:
    """The Jacobian of h -> E[SAP(h)] = h is the identity: so is bpda's, off the diagonal too."""
    h = torch.rand(1, 6, generator=generator)
    jacobian = torch.autograd.functional.jacobian(lambda v: apply(v, SAP(100), generator, estimator="bpda")[0], h)

    assert torch.equal(jacobian[:, 0], torch.eye(6))


def test_autograd_is_the_derivative_of_the_value_with_the_mask_held(generator: torch.Generator) -> None:
    """Central differences in float64 of mask * h / q(h)."""
    h = torch.rand(1, 8, generator=generator, dtype=torch.double) + 0.1
    state = generator.get_state()
    mask = SAP(100).sample_mask(h, generator)

    def value(v: Tensor) -> Tensor:
        return apply(v, SAP(100), generator.set_state(state), estimator="autograd")

    def explicit(v: Tensor) -> Tensor:
        return mask * v / SAP(100).keep_probability(v)

    torch.testing.assert_close(value(h), explicit(h))
    assert torch.autograd.gradcheck(explicit, h.clone().requires_grad_())
    jacobians = [torch.autograd.functional.jacobian(f, h) for f in (value, explicit)]
    torch.testing.assert_close(*jacobians)


def test_unknown_estimators_raise() -> None:
    """Dense is not an expression on one layer."""
    with pytest.raises(ValueError, match="unknown gradient estimator 'dense'; known: bpda, frozen, autograd"):
        apply(torch.ones(1, 2), SAP(100), torch.Generator(), estimator="dense")


@pytest.mark.parametrize("estimator", ["bpda", "frozen", "autograd", "dense"])
def test_no_input_gradient_of_a_real_net_is_nan_or_zero(
    estimator: str, net: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    """On real images through all 19 layers."""
    x, y = images[0][:8], images[1][:8]
    view = AttackerView(DefendedModel(net, SAP(100), seed=1), gradient=estimator)
    gradient = raw_loss_and_gradient(view, x, y, loss="ce").gradient

    assert torch.isfinite(gradient).all()
    assert gradient.flatten(1).any(1).all()


def test_the_naive_gradient_that_must_never_come_back(net: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    """torch.where(keep, x / q, 0) gives NaN in every pixel; a sign attack then stands still and looks like robustness.

    Ours refuses to go on, and on the mended layer the same attack wins.
    """
    x, y = images[0][:16], images[1][:16]
    threat = ThreatModel()
    naive = DefendedModel(net, reference.NaiveSAP(200), seed=1)
    view = AttackerView(naive, gradient="autograd")
    gradient = raw_loss_and_gradient(view, x, y, loss="ce").gradient
    stood_still = threat.project(x, x + threat.eps * torch.nan_to_num(gradient.sign()))
    clean, attacked = (evaluate(naive, images, y, draws=8, seed=2).accuracy for images in (x, stood_still))

    assert torch.isnan(gradient).all()
    assert attacked == clean > 0.5
    with pytest.raises(FloatingPointError, match="NaN or inf on 16 of 16 images"):
        eot_apgd(view, x, y, threat, seed=3, steps=2)
    mended = DefendedModel(net, SAP(200), seed=1)
    x_adv = eot_apgd(AttackerView(mended, gradient="autograd"), x, y, threat, seed=3, steps=10)
    assert evaluate(mended, x_adv, y, draws=8, seed=4).accuracy < 0.1
