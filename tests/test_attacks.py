"""Attacks against known optima, on noise that is known, and inside the threat model."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import reference
import torch
from torch import Tensor, nn

from sap_art import SAP, AttackerView, DefendedModel, ThreatModel, evaluate, wrap
from sap_art.attacks import eot_apgd, fgsm, noise, pgd
from sap_art.attacks.cost import count_passes
from sap_art.attacks.eot_apgd import _checkpoints
from sap_art.attacks.objective import cross_entropy, margin

ATTACKS: dict[str, Callable[..., Tensor]] = {"eot_apgd": eot_apgd, "pgd": pgd, "fgsm": fgsm, "noise": noise}


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
def test_with_gaussian_weights_the_attack_is_within_half_a_point_of_the_optimum(norm: str) -> None:
    """P(right) = Phi(+-(w.x + b) / (sigma ||x||)); the optimum is found numerically on that closed form."""
    generator = torch.Generator().manual_seed(8)
    w = torch.randn(27, generator=generator)
    x = torch.rand(12, 3, 3, 3, generator=generator) * 0.8 + 0.1
    noisy = reference.NoisyLinear(w, -(0.5 * w.sum()).item(), sigma=0.6)
    clean = reference.Linear(w, noisy.b)
    y = clean(x).argmax(1)
    threat = ThreatModel(norm, 0.06 if norm == "Linf" else 0.3)

    def right(points: Tensor) -> Tensor:
        score = clean(points)[:, 1] / (0.6 * points.flatten(1).norm(dim=1))
        return 0.5 * (1 + torch.erf(torch.where(y == 1, score, -score) / math.sqrt(2)))

    optimum = x
    for step in range(2000):
        point = optimum.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(-right(point).clamp(min=1e-300).log().sum(), point)
        optimum = threat.project(x, point + threat.eps * 0.2 * 0.997**step * threat.ascent_direction(gradient)).detach()
    view = AttackerView(wrap(noisy), gradient="autograd", draws=20)
    x_adv = eot_apgd(view, x, y, threat, seed=1, steps=60)

    assert right(x).mean() - right(optimum).mean() > 0.1
    assert (right(x_adv).mean() - right(optimum).mean()).item() < 0.005
    scored = evaluate(noisy, x_adv, y, draws=2000, seed=2).accuracy
    assert abs(scored - right(x_adv).mean().item()) < 5 * 0.5 / math.sqrt(2000 * len(x))


def test_losses_are_means_over_the_draws() -> None:
    """Of each draw's own loss, never the loss of one draw."""
    logits = torch.tensor([[[2.0, 0.0, 1.0]], [[0.0, 3.0, 1.0]]])
    y = torch.tensor([0])

    assert margin(logits, y).item() == pytest.approx((-1.0 + 3.0) / 2)
    expected = -(logits.log_softmax(-1)[:, 0, 0]).mean().item()
    assert cross_entropy(logits, y).item() == pytest.approx(expected)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_pure(name: str, norm: str, net: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    """The seed decides the result, the model's noise goes on as if nothing had been, the images stay allowed."""
    x, y = images[0][:3], images[1][:3]
    threat = ThreatModel(norm, 8 / 255 if norm == "Linf" else 0.5)
    model, twin = (DefendedModel(net, SAP(100), seed=1) for _ in range(2))
    view = AttackerView(model, draws=2)
    options: dict[str, Any] = {"noise": {"points": 4}, "fgsm": {}}.get(name, {"steps": 3})
    before = x.clone()
    results = [ATTACKS[name](view, x, y, threat, seed=seed, **options) for seed in (1, 1, 2)]

    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert torch.equal(x, before)
    assert not results[0].requires_grad
    threat.require(x, results[0])
    assert torch.equal(model(x), twin(x))


def test_no_attack_is_fooled_by_a_coin() -> None:
    """Nothing moves a model that is right with p = .7: the report says .7 whatever attack ran."""
    x, y = reference.coin_data(40)
    model = wrap(reference.Coin(0.7))
    view = AttackerView(model, gradient="autograd", draws=4)
    draws = 200
    for name, attack in ATTACKS.items():
        x_adv = attack(view, x, y, ThreatModel(), seed=1)
        accuracy = evaluate(model, x_adv, y, draws=draws, seed=2).accuracy

        assert abs(accuracy - 0.7) < 5 * math.sqrt(0.21 / (draws * len(x))), name


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_apgd_settles_on_an_optimum_inside_the_ball(norm: str) -> None:
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
    x_adv = eot_apgd(AttackerView(Peak(), gradient="autograd"), x, y, threat, seed=1, steps=200)

    assert threat.distance(peak, x_adv).max() < threat.eps / 20


def test_apgd_s_windows_are_those_of_the_paper() -> None:
    """p = 0, .22, .41, .57, .70, .80, .87, .93, .99 of 100 steps (Croce & Hein 2020, section 3)."""
    assert list(_checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert list(_checkpoints(1)) == []


def test_apgd_is_as_good_as_pyautoattack_s_on_a_deterministic_net(
    net: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    """At equal steps and a radius where neither wins everything, within two of 64 images."""
    from pyautoattack.autopgd_base import APGDAttack

    x, y = images
    threat = ThreatModel("Linf", 1.5 / 255)
    ours = eot_apgd(AttackerView(net, gradient="autograd"), x, y, threat, seed=1, steps=20)
    theirs = APGDAttack(net, n_iter=19, norm="Linf", eps=threat.eps, loss="ce", seed=1, device="cpu").perturb(x, y)
    with torch.no_grad():
        left = [int((net(points).argmax(1) == y).sum()) for points in (x, ours, theirs)]

    assert left[1] <= left[2] + 2 < left[0] - 10


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
    view = AttackerView(net, gradient="autograd")

    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        ATTACKS[name](view, x + 1, y, threat, seed=1)
    with pytest.raises(ValueError, match="labels must be integers"):
        ATTACKS[name](view, x, y.float(), threat, seed=1)
    if name != "fgsm":
        with pytest.raises(ValueError, match="must be at least 1"):
            ATTACKS[name](view, x, y, threat, seed=1, **{"points" if name == "noise" else "steps": 0})
    if name != "noise":
        with pytest.raises(ValueError, match="unknown loss 'dlr'; known: ce, margin"):
            ATTACKS[name](view, x, y, threat, seed=1, loss="dlr")


def test_noise_points_halve_their_batch_until_it_fits() -> None:
    """Where three images fit, and with the same random numbers: the point found is that of an ample memory."""
    net, x, y, threat = linear_case("Linf")
    small = reference.SmallMemory(net, rows=3)
    found = noise(AttackerView(small, gradient="autograd"), x, y, threat, seed=1, points=4)

    assert small.sizes[:5] == [30, 15, 7, 3, 3]
    assert torch.equal(found, noise(AttackerView(net, gradient="autograd"), x, y, threat, seed=1, points=4))
