"""Attacks against known optima, on noise that is known, and inside the threat model."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import reference
import torch
from torch import Tensor, nn

from sap_art import SAP, AttackerView, DefendedModel, ThreatModel, evaluate, wrap
from sap_art.attacks import (
    em_apgd,
    eot_apgd,
    fgsm,
    known_seed,
    long_apgd,
    maximin_apgd,
    noise,
    paper_fgsm,
    paper_iterative,
    pgd,
)
from sap_art.attacks.apgd import checkpoints
from sap_art.attacks.cost import count_passes
from sap_art.attacks.objective import margin

Attack = Callable[..., Tensor]
ATTACKS: dict[str, Attack] = {
    "em_apgd": em_apgd,
    "eot_apgd": eot_apgd,
    "fgsm": fgsm,
    "known_seed": partial(known_seed, noise_seed=3, attack=eot_apgd),
    "long_apgd": long_apgd,
    "maximin_apgd": maximin_apgd,
    "noise": noise,
    "paper_fgsm": paper_fgsm,
    "paper_iterative": paper_iterative,
    "pgd": pgd,
    "restarts": partial(eot_apgd, restarts=2),
}
ONE_STEP = ("fgsm", "paper_fgsm")
LINF_ONLY = ("paper_fgsm", "paper_iterative")


def view_of(model: nn.Module, name: str, *, gradient: str = "autograd", draws: int = 2) -> AttackerView:
    """The view that the named attack can work with: known noise is one draw."""
    return AttackerView(model, gradient=gradient, draws=1 if name == "known_seed" else draws)


def budget(name: str, number: int) -> dict[str, int]:
    """The option that makes the named attack so long."""
    if name in (*ONE_STEP, "paper_iterative"):
        return {}
    return {"points" if name == "noise" else "steps": number}


def linear_case(norm: str) -> tuple[nn.Module, Tensor, Tensor, ThreatModel]:
    """A linear classifier on images far from the edges of the pixel range."""
    generator = torch.Generator().manual_seed(4)
    w = torch.randn(48, generator=generator)
    x = 0.5 + 0.1 * (torch.rand(30, 3, 4, 4, generator=generator) - 0.5)
    b = -(0.5 * w.sum()).item()
    net = reference.Linear(w, b)
    return net, x, net(x).argmax(1), ThreatModel(norm, 0.05 if norm == "Linf" else 0.3)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("name", ["eot_apgd", "pgd", "fgsm"])
@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_on_a_linear_classifier_the_known_optimum_is_reached(name: str, norm: str, loss: str) -> None:
    """The margin after the best step is that before plus eps ||w||_1 (Linf) or eps ||w||_2 (L2), to 1 %.

    PGD with steps of 2.5 eps / n in all leaves e^-2.5 of the start's direction on a sphere: to 4 %.
    """
    net, x, y, threat = linear_case(norm)
    x_adv = ATTACKS[name](AttackerView(net, gradient="autograd"), x, y, threat, seed=1, loss=loss)
    w = net.get_parameter("w")
    best = threat.eps * (w.abs().sum() if norm == "Linf" else w.norm()).item()
    gained = margin(net(x_adv)[None], y) - margin(net(x)[None], y)

    threat.require(x, x_adv)
    assert gained.min().item() > (0.96 if (name, norm) == ("pgd", "L2") else 0.99) * best
    assert gained.max().item() < 1.0001 * best


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_pure(name: str, norm: str, net: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    """The seed decides the result, the model's noise goes on as if nothing had been, the images stay allowed."""
    if norm == "L2" and name in LINF_ONLY:
        pytest.skip("defined for Linf")
    x, y = images[0][:3], images[1][:3]
    threat = ThreatModel(norm, 8 / 255 if norm == "Linf" else 0.5)
    model, twin = (DefendedModel(net, SAP(100), seed=1) for _ in range(2))
    view = view_of(model, name, gradient="bpda")
    before, state = x.clone(), torch.get_rng_state()
    results = [ATTACKS[name](view, x, y, threat, seed=seed, **budget(name, 3)) for seed in (1, 1, 2)]

    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert not results[0].requires_grad
    threat.require(x, results[0])
    assert torch.equal(model(x), twin(x))


def test_no_attack_is_fooled_by_a_coin() -> None:
    """Nothing moves a model that is right with p = .7: the report says .7 whatever attack ran."""
    x, y = reference.coin_data(40)
    model = wrap(reference.Coin(0.7))
    draws = 200
    for name, attack in ATTACKS.items():
        x_adv = attack(view_of(model, name, draws=4), x, y, ThreatModel(), seed=1, **budget(name, 20))
        accuracy = evaluate(model, x_adv, y, draws=draws, seed=2).accuracy

        assert abs(accuracy - 0.7) < 5 * math.sqrt(0.21 / (draws * len(x))), name


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("name", ["eot_apgd", "long_apgd"])
def test_apgd_settles_on_an_optimum_inside_the_ball(name: str, norm: str) -> None:
    """Its step size shrinks: the loss has its peak at a point inside, and is found to a twentieth of eps."""
    x = torch.full((4, 3, 2, 2), 0.5)
    threat = ThreatModel(norm, 0.1 if norm == "Linf" else 0.3)
    inside = threat.random_start(x, torch.Generator().manual_seed(3))
    peak = x + 0.6 * (inside - x)

    class Peak(nn.Module):
        def forward(self, point: Tensor) -> Tensor:
            score = -100 * (point - peak).flatten(1).square().sum(1)
            return torch.stack([torch.zeros_like(score), score], 1)

    y = torch.zeros(4, dtype=torch.long)
    x_adv = ATTACKS[name](AttackerView(Peak(), gradient="autograd"), x, y, threat, seed=1, steps=200)

    assert threat.distance(peak, x_adv).max() < threat.eps / 20


def test_apgd_s_windows_are_those_of_the_paper() -> None:
    """p = 0, .22, .41, .57, .70, .80, .87, .93, .99 of 100 steps (Croce & Hein 2020, section 3)."""
    assert list(checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert list(checkpoints(1)) == []


def test_passes_are_counted_at_the_net() -> None:
    """3 images, 4 draws, 5 gradients: 60 forwards and 60 backwards; noise has no backwards."""
    net, x, y, threat = linear_case("Linf")
    model = wrap(net)
    with count_passes(model) as passes:
        eot_apgd(AttackerView(model, gradient="autograd", draws=4), x[:3], y[:3], threat, seed=1, steps=5)
    assert (passes.forwards, passes.backwards) == (60, 60)
    with count_passes(model) as passes:
        noise(AttackerView(model, gradient="autograd"), x[:3], y[:3], threat, seed=1, points=7)
    assert (passes.forwards, passes.backwards) == (21, 0)
    assert not net._forward_hooks


@pytest.mark.parametrize("name", ATTACKS)
def test_bad_input_raises_before_any_work(name: str) -> None:
    """Images, labels, budgets."""
    net, x, y, threat = linear_case("Linf")
    view = view_of(net, name)

    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        ATTACKS[name](view, x + 1, y, threat, seed=1)
    with pytest.raises(ValueError, match="labels must be integers"):
        ATTACKS[name](view, x, y.float(), threat, seed=1)
    if budget(name, 0):
        with pytest.raises(ValueError, match="must be at least 1"):
            ATTACKS[name](view, x, y, threat, seed=1, **budget(name, 0))


@pytest.mark.parametrize("name", ["eot_apgd", "fgsm", "known_seed", "long_apgd", "pgd", "restarts"])
def test_an_unknown_loss_is_an_error(name: str) -> None:
    net, x, y, threat = linear_case("Linf")
    with pytest.raises(ValueError, match="unknown loss 'mse'; known: ce, margin, dlr, ce-of-mean, margin-of-mean"):
        ATTACKS[name](view_of(net, name), x, y, threat, seed=1, loss="mse")


class BrokenGradient(nn.Module):
    """Finite logits whose gradient is NaN: a square root of zero, times zero."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :4] + (0.0 * x).sum().sqrt()


class BrokenLogits(nn.Module):
    """Logits that are NaN with a gradient that is zero."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.full((len(x), 4), torch.nan) + 0.0 * x.flatten(1).sum(1, keepdim=True)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_that_cannot_proceed_raises(name: str) -> None:
    """On the first NaN; none stands still and reports the start as its result."""
    x, y = torch.full((3, 3, 2, 2), 0.5), torch.tensor([0, 1, 2])
    if name != "noise":
        with pytest.raises(FloatingPointError, match="gradient is NaN or inf on 3 of 3 images"):
            ATTACKS[name](view_of(BrokenGradient(), name), x, y, ThreatModel(), seed=1, **budget(name, 2))
    if name != "known_seed":  # it runs the model first, and evaluate has its own words
        with pytest.raises(FloatingPointError, match="NaN or inf"):
            ATTACKS[name](view_of(BrokenLogits(), name), x, y, ThreatModel(), seed=1, **budget(name, 2))


def test_a_loss_that_is_nan_raises_although_its_gradient_is_zero() -> None:
    """The difference of two logits: NaN here, with a constant gradient."""
    x, y = torch.full((3, 3, 2, 2), 0.5), torch.tensor([0, 1, 2])
    with pytest.raises(FloatingPointError, match="on 3 of 3 images"):
        eot_apgd(view_of(BrokenLogits(), "eot_apgd"), x, y, ThreatModel(), seed=1, steps=2, loss="margin", targets=1)


def test_noise_points_halve_their_batch_until_it_fits() -> None:
    """Where three images fit, and with the same random numbers: the point found is that of an ample memory."""
    net, x, y, threat = linear_case("Linf")
    small = reference.SmallMemory(net, rows=3)
    found = noise(AttackerView(small, gradient="autograd"), x, y, threat, seed=1, points=4)

    assert small.sizes[:5] == [30, 15, 7, 3, 3]
    assert torch.equal(found, noise(AttackerView(net, gradient="autograd"), x, y, threat, seed=1, points=4))
