"""Gradient attacks: losses by hand, radii and optima in closed form, randomness that defeats averaging."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import reference
import torch
from torch import Tensor, nn

from sap_art import SAP, AttackerView, DefendedModel, ThreatModel, evaluate, wrap
from sap_art.attacks import (
    em_apgd,
    eot_apgd,
    evaluate_known_seed,
    fgsm,
    known_seed,
    long_apgd,
    maximin_apgd,
    paper_fgsm,
    paper_iterative,
    pgd,
)
from sap_art.attacks.cost import count_passes
from sap_art.attacks.known_seed import known_noise
from sap_art.attacks.objective import LOSSES, TARGETED, likeliest_wrong_classes, loss_and_gradient

Attack = Callable[..., Tensor]
LOGITS = torch.tensor([[[2.0, 0.0, 1.0, -1.0]], [[0.0, 3.0, 1.0, 0.5]]])  # two draws of one image of class 0

THREATS = pytest.mark.parametrize("norm", ["Linf", "L2"])


def mean_prediction(logits: Tensor) -> Tensor:
    return logits.softmax(-1).mean(0)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("ce", -LOGITS.log_softmax(-1)[:, 0, 0].mean().item()),
        ("margin", (-1.0 + 3.0) / 2),
        ("dlr", (-1 / (2 - 0) + 3 / (3 - 0.5)) / 2),
        ("ce-of-mean", -mean_prediction(LOGITS)[0, 0].log().item()),
        ("margin-of-mean", (mean_prediction(LOGITS)[0, 1] / mean_prediction(LOGITS)[0, 0]).log().item()),
    ],
)
def test_losses_by_hand(loss: str, expected: float) -> None:
    """Means of each draw's own loss, or the loss of the mean prediction."""
    assert LOSSES[loss](LOGITS, torch.tensor([0])).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [("margin", (-1.0 + 1.0) / 2), ("dlr", (-1 / (2 - (0 - 1) / 2) + 1 / (3 - (0.5 + 0) / 2)) / 2)],
)
def test_targeted_losses_by_hand(loss: str, expected: float) -> None:
    """Towards class 2, which is the likeliest wrong one in the first draw only."""
    assert TARGETED[loss](LOGITS, torch.tensor([0]), torch.tensor([2])).item() == pytest.approx(expected)


def test_dlr_is_free_of_shift_and_scale_and_needs_its_classes() -> None:
    y, target = torch.tensor([0]), torch.tensor([2])
    for loss, classes in ((LOSSES["dlr"], (y,)), (TARGETED["dlr"], (y, target))):
        torch.testing.assert_close(loss(50 * LOGITS - 7, *classes), loss(LOGITS, *classes))
    with pytest.raises(ValueError, match="at least 3 classes, the model has 2"):
        LOSSES["dlr"](LOGITS[..., :2], y)
    with pytest.raises(ValueError, match="at least 4 classes, the model has 3"):
        TARGETED["dlr"](LOGITS[..., :3], y, target)
    assert torch.isfinite(LOSSES["dlr"](torch.zeros(1, 1, 4), y)).all()


class Affine(nn.Module):
    """Logits W x + b, far from any tie in training or rounding."""

    def __init__(self, w: Tensor, b: Tensor) -> None:
        super().__init__()
        self.w, self.b = w, b

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.w.T + self.b


def affine_case() -> tuple[Affine, Tensor, Tensor]:
    """Five classes, class 0 right, images far from the edges of the pixel range.

    Class 1 is the likeliest wrong one by its logit, class 2 the nearest: its weights are ten times longer.
    """
    generator = torch.Generator().manual_seed(4)
    w = torch.randn(5, 48, generator=generator) * torch.tensor([0.1, 0.3, 3.0, 1.0, 0.5])[:, None]
    x = 0.5 + 0.002 * (torch.rand(6, 3, 4, 4, generator=generator) - 0.5)
    net = Affine(w, torch.tensor([0.0, -1.0, -2.0, -3.0, -3.0]) - 0.5 * w.sum(1))
    return net, x, torch.zeros(6, dtype=torch.long)


def minimal_radius(net: Affine, x: Tensor, y: Tensor, norm: str) -> Tensor:
    """Distance of each image to the nearest other class: min_j (z_y - z_j) / ||w_j - w_y||_q, q dual to the norm."""
    z = net(x)
    gap = z.gather(1, y[:, None]) - z
    length = (net.w - net.w[y][:, None]).norm(dim=2, p=1 if norm == "Linf" else 2)
    return torch.where(gap > 0, gap / length, torch.inf).amin(1)


def two_of_five() -> tuple[Affine, Tensor, Tensor]:
    """As ``affine_case``, with three classes that are out of reach: the nearest wrong class is the likeliest."""
    net, x, _ = affine_case()
    net.w[2:], net.b = 0.0, torch.cat([net.b[:2], torch.full((3,), -30.0)])
    return net, x, torch.zeros(6, dtype=torch.long)


UNTARGETED: dict[str, Attack] = {
    "eot_apgd ce": partial(eot_apgd, loss="ce"),
    "eot_apgd margin": partial(eot_apgd, loss="margin"),
    "eot_apgd dlr": partial(eot_apgd, loss="dlr"),
    "eot_apgd ce-of-mean": partial(eot_apgd, loss="ce-of-mean"),
    "eot_apgd margin-of-mean": partial(eot_apgd, loss="margin-of-mean"),
    "long_apgd": partial(long_apgd, steps=50),
    "em_apgd": em_apgd,
    "maximin_apgd": maximin_apgd,
    "paper_fgsm": paper_fgsm,
    "paper_iterative": paper_iterative,
}
TARGETED_ATTACKS: dict[str, Attack] = {
    "dlr": partial(eot_apgd, loss="dlr", targets=4, steps=20),
    "margin": partial(eot_apgd, loss="margin", targets=4, steps=20),
}


def left_at(factor: float, attack: Attack, case: tuple[Affine, Tensor, Tensor], norm: str) -> list[bool]:
    """Which images an attack leaves right, each attacked at ``factor`` times its own minimal radius."""
    net, x, y = case
    view = AttackerView(net, gradient="autograd", draws=2)
    left: list[bool] = []
    for i, radius in enumerate(minimal_radius(net, x, y, norm).tolist()):
        image, label, threat = x[i : i + 1], y[i : i + 1], ThreatModel(norm, factor * radius)
        x_adv = attack(view, image, label, threat, seed=i)
        threat.require(image, x_adv)
        left.append(bool(net(x_adv).argmax(1) == label))
    return left


@THREATS
@pytest.mark.parametrize("name", UNTARGETED)
def test_just_above_the_minimal_radius_every_image_falls_and_just_below_none(name: str, norm: str) -> None:
    """Of a linear classifier: one part in a hundred decides."""
    if name.startswith("paper") and norm == "L2":
        with pytest.raises(ValueError, match="Linf only, got L2"):
            left_at(1.01, UNTARGETED[name], two_of_five(), norm)
        return
    assert all(left_at(0.99, UNTARGETED[name], two_of_five(), norm))
    assert not any(left_at(1.01, UNTARGETED[name], two_of_five(), norm))


@THREATS
@pytest.mark.parametrize("name", TARGETED_ATTACKS)
def test_targets_find_the_nearest_class_also_where_it_is_not_the_likeliest(name: str, norm: str) -> None:
    """The same in five classes, where climbing towards the likeliest wrong class alone takes no image."""
    assert all(left_at(0.99, TARGETED_ATTACKS[name], affine_case(), norm))
    assert not any(left_at(1.01, TARGETED_ATTACKS[name], affine_case(), norm))
    assert all(left_at(1.01, partial(TARGETED_ATTACKS[name], targets=1), affine_case(), norm))


class Alternating(nn.Module):
    """Logits that are one of two vectors with equal probability, whatever the input.

    By mean probability the classes are ranked 0, 1, 2, 3; by mean logit 0, 2, 3, 1.
    """

    def forward(self, x: Tensor) -> Tensor:
        which = (torch.rand(len(x)) < 0.5).long()
        either = torch.tensor([[0.0, 5.0, 2.0, 1.0], [9.0, -9.0, 2.0, 1.0]])
        return either[which] + 0.0 * x.flatten(1).sum(1, keepdim=True)


def test_targets_are_ranked_by_the_mean_prediction() -> None:
    """Over the draws, the true class left out; no more of them than there are wrong classes."""
    x, y = torch.full((3, 3, 2, 2), 0.5), torch.tensor([0, 1, 2])
    view = AttackerView(wrap(Alternating(), seed=1), gradient="autograd", draws=200)
    order = [0, 1, 2, 3]

    assert likeliest_wrong_classes(view, x, y, count=3).tolist() == [[c for c in order if c != i] for i in range(3)]
    for targets, message in ((4, "of 4 classes 1 to 3 can be targets, got 4"), (-1, "targets must be at least 0")):
        with pytest.raises(ValueError, match=message):
            eot_apgd(view, x, y, ThreatModel(), seed=1, steps=1, targets=targets, loss="dlr")
    with pytest.raises(ValueError, match="unknown loss 'ce'; known: margin, dlr"):
        eot_apgd(view, x, y, ThreatModel(), seed=1, steps=1, targets=1, loss="ce")


class Noisy(nn.Module):
    """Flat but for one step: margin 1 where the first pixel is above .5, elsewhere 0 with noise of deviation 2."""

    def forward(self, x: Tensor) -> Tensor:
        margin = torch.where(x[:, 0, 0, 0] > 0.5, 1.0, 2 * torch.randn(len(x)))
        return torch.stack([torch.zeros_like(margin), margin], 1) + 0.0 * x.flatten(1).sum(1, keepdim=True)


def test_restarts_are_compared_on_fresh_draws_not_by_their_luckiest_loss() -> None:
    """A climb on the noisy side sees losses well above 1, but its mean is 0: the calm side must win wherever met."""
    x, y = torch.full((40, 3, 2, 2), 0.5), torch.zeros(40, dtype=torch.long)
    view = AttackerView(wrap(Noisy(), seed=1), gradient="autograd", draws=20, max_batch=800)
    options: dict[str, Any] = {"seed": 3, "steps": 20, "loss": "margin"}
    single = eot_apgd(view, x, y, ThreatModel(), **options)[:, 0, 0, 0] > 0.5
    best_of_eight = eot_apgd(view, x, y, ThreatModel(), restarts=8, **options)[:, 0, 0, 0] > 0.5

    assert 10 < single.sum() < 30
    assert best_of_eight.sum() >= 38  # 40 / 2^8 starts are all on the noisy side


def gaussian_case(norm: str) -> tuple[reference.NoisyLinear, Tensor, Tensor, ThreatModel]:
    """Logits (0, (w + sigma z).x + b) with z standard normal; labels are those of the mean weights."""
    generator = torch.Generator().manual_seed(8)
    w = torch.randn(27, generator=generator)
    x = torch.rand(12, 3, 3, 3, generator=generator) * 0.8 + 0.1
    noisy = reference.NoisyLinear(w, -(0.5 * w.sum()).item(), sigma=0.6)
    y = reference.Linear(w, noisy.b)(x).argmax(1)
    return noisy, x, y, ThreatModel(norm, 0.06 if norm == "Linf" else 0.3)


def right_probability(noisy: reference.NoisyLinear, points: Tensor, y: Tensor) -> Tensor:
    """Phi of the mean of the true margin over its standard deviation, (w.x + b) / (sigma ||x||)."""
    score = reference.Linear(noisy.w.detach(), noisy.b)(points)[:, 1] / (noisy.sigma * points.flatten(1).norm(dim=1))
    return 0.5 * (1 + torch.erf(torch.where(y == 1, score, -score) / math.sqrt(2)))


@cache
def optimum(norm: str) -> Tensor:
    """The worst points by descent on the closed form."""
    noisy, x, y, threat = gaussian_case(norm)
    best = x
    for step in range(2000):
        point = best.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(-right_probability(noisy, point, y).clamp(min=1e-300).log().sum(), point)
        best = threat.project(x, point + threat.eps * 0.2 * 0.997**step * threat.ascent_direction(gradient)).detach()
    return best


def test_long_apgd_uses_all_its_draws_where_noise_drowns_the_gradient() -> None:
    """|w| = sigma / 10: a pixel's sign is right in 54 % of the draws. A memory of 20 steps ends far above."""
    generator = torch.Generator().manual_seed(11)
    signs = torch.randn(1, 32, 32, generator=generator).sign()
    y = torch.arange(32) % 2
    towards = (2 * y - 1)[:, None, None, None] * signs
    x = 0.5 + 0.2 * towards + 0.05 * torch.rand(32, 1, 32, 32, generator=generator)
    w, threat = 0.1 * signs.flatten(), ThreatModel("Linf", 0.15)
    noisy = reference.NoisyLinear(w, -(0.525 * w.sum()).item(), sigma=1.0)
    view = AttackerView(wrap(noisy), gradient="autograd", draws=1)
    x_adv = long_apgd(view, x, y, threat, seed=1, steps=2000, loss="margin")
    clean, found, corner = (
        right_probability(noisy, points, y).mean().item() for points in (x, x_adv, x - threat.eps * towards)
    )

    assert clean - corner > 0.2
    assert found - corner < 0.01


GAUSSIAN_ATTACKS: dict[str, tuple[Attack, int]] = {
    "eot_apgd ce": (partial(eot_apgd, steps=60), 20),
    "eot_apgd margin": (partial(eot_apgd, steps=60, loss="margin"), 20),
    "eot_apgd ce-of-mean": (partial(eot_apgd, steps=60, loss="ce-of-mean"), 20),
    "eot_apgd margin-of-mean": (partial(eot_apgd, steps=60, loss="margin-of-mean"), 20),
    "eot_apgd restarts": (partial(eot_apgd, steps=60, restarts=3), 20),
    "eot_apgd targets": (partial(eot_apgd, steps=60, targets=1, loss="margin"), 20),
    "long_apgd": (partial(long_apgd, steps=1200), 1),
    "em_apgd": (partial(em_apgd, steps=60, temperature=1.0), 20),
}


@THREATS
@pytest.mark.parametrize("name", GAUSSIAN_ATTACKS)
def test_with_gaussian_weights_attacks_are_within_half_a_point_of_the_optimum(name: str, norm: str) -> None:
    """Of P(right), found numerically on its closed form; and scoring agrees with that form."""
    noisy, x, y, threat = gaussian_case(norm)
    attack, draws = GAUSSIAN_ATTACKS[name]
    x_adv = attack(AttackerView(wrap(noisy), gradient="autograd", draws=draws), x, y, threat, seed=1)
    found, best = (right_probability(noisy, points, y).mean().item() for points in (x_adv, optimum(norm)))

    assert right_probability(noisy, x, y).mean().item() - best > 0.1
    assert found - best < 0.005
    scored = evaluate(noisy, x_adv, y, draws=1000, seed=2).accuracy
    assert abs(scored - found) < 5 * 0.5 / math.sqrt(1000 * len(x))


class Toy(nn.Module):
    """Logits (0, margin_z(t)) for a draw z of -1 or +1 and t = (first pixel - .5) / eps in [-1, 1]; labels are 0."""

    def __init__(self, margin: Callable[[Tensor, Tensor], Tensor], eps: float) -> None:
        super().__init__()
        self.margin, self.eps = margin, eps

    def forward(self, x: Tensor) -> Tensor:
        z = 2.0 * (torch.rand(len(x)) < 0.5) - 1
        margin = self.margin(self.position(x), z)
        return torch.stack([torch.zeros_like(margin), margin], 1)

    def position(self, x: Tensor) -> Tensor:
        return (x[:, 0, 0, 0] - 0.5) / self.eps


def toy_result(margin: Callable[[Tensor, Tensor], Tensor], attack: Attack) -> tuple[Tensor, float]:
    """Where the attack ends (t of 20 images), and the accuracy there."""
    x, y, threat = torch.full((20, 1, 1, 1), 0.5), torch.zeros(20, dtype=torch.long), ThreatModel("Linf", 0.1)
    model = wrap(Toy(margin, threat.eps), seed=1)
    view = AttackerView(model, gradient="autograd", draws=256, max_batch=20 * 256)
    x_adv = attack(view, x, y, threat, seed=2, steps=40)
    return Toy(margin, threat.eps).position(x_adv), evaluate(model, x_adv, y, draws=200, seed=3).accuracy


def far_apart(t: Tensor, z: Tensor) -> Tensor:
    """Each draw errs only near its own optimum, t = z."""
    return 0.5 * (0.2 - (t - z).square())


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_averaging_fails_where_the_draws_optima_are_far_apart_and_selection_does_not(loss: str) -> None:
    """Mean margin and mean cross-entropy peak at t = 0, where every draw is right; at t = +-1 half of them err.

    The first is .5 (.2 - 1 - t^2); the second has a negative second derivative at 0 (slope^2 sigma' + sigma m'') and
    is .51 there against .44 at +-1. No point makes more than half of the draws err.
    """
    t, accuracy = toy_result(far_apart, partial(eot_apgd, loss=loss))
    assert t.abs().max() < 0.5
    assert accuracy == 1

    t, accuracy = toy_result(far_apart, em_apgd)
    assert t.abs().min() > 0.6
    assert abs(accuracy - 0.5) < 5 * 0.5 / math.sqrt(20 * 200)


def lopsided(t: Tensor, z: Tensor) -> Tensor:
    """Draws z = 1 err by far from t = .1 on, draws z = -1 only below t = .25."""
    return torch.where(z > 0, 10 * t - 1, 0.5 - 2 * t)


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_averaging_gives_up_the_hard_draws_and_maximin_does_not(loss: str) -> None:
    """The mean margin, 4 t - .25, is largest at t = 1, the convex mean cross-entropy at 1 or -1: half are right there.

    At t = .125 all of them err, with equal margins of .25.
    """
    t, accuracy = toy_result(lopsided, partial(eot_apgd, loss=loss))
    assert t.abs().min() > 0.9
    assert abs(accuracy - 0.5) < 5 * 0.5 / math.sqrt(20 * 200)

    t, accuracy = toy_result(lopsided, maximin_apgd)
    torch.testing.assert_close(t, torch.full_like(t, 0.125), rtol=0, atol=0.05)
    assert accuracy == 0


def test_selection_among_draws_needs_several_and_a_temperature() -> None:
    net, x, y = two_of_five()
    view = AttackerView(net, gradient="autograd")
    for attack in (em_apgd, maximin_apgd):
        with pytest.raises(ValueError, match="needs a view of at least 2, got 1"):
            attack(view, x, y, ThreatModel(), seed=1)
    for temperature in (0.0, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"temperature must lie in \(0, 1\]"):
            em_apgd(
                AttackerView(net, gradient="autograd", draws=2), x, y, ThreatModel(), seed=1, temperature=temperature
            )


def known_margins(view: AttackerView, x: Tensor, y: Tensor, *, noise_seed: int) -> Tensor:
    """Of two classes, from the scored probabilities: wrong minus true logit (B,)."""
    log_probabilities = evaluate_known_seed(view, x, y, noise_seed=noise_seed).draw_log_probabilities[0]
    return (log_probabilities.gather(1, 1 - y[:, None]) - log_probabilities.gather(1, y[:, None]))[:, 0]


@THREATS
@pytest.mark.parametrize("max_batch", [None, 5])
@pytest.mark.parametrize("name", ["eot_apgd", "pgd", "restarts and targets"])
def test_with_known_noise_each_image_falls_to_its_own_draw(name: str, max_batch: int | None, norm: str) -> None:
    """Drawn weights v_i are known: the best step gains eps ||v_i||_q in image i's scored margin, to 2 % (PGD in L2: 5).

    Had attack and score another draw, be it by the block in which the image is, most would gain much less.
    """
    noisy, x, y, threat = gaussian_case(norm)
    x = 0.5 + 0.2 * (x - 0.5)  # no pixel meets the range's edge
    view = AttackerView(wrap(noisy, seed=1), gradient="autograd", max_batch=max_batch)
    attacks: dict[str, Attack] = {
        "eot_apgd": eot_apgd,
        "pgd": pgd,
        "restarts and targets": partial(eot_apgd, loss="margin", restarts=2, targets=1),
    }
    x_adv = known_seed(view, x, y, threat, seed=1, noise_seed=7, attack=attacks[name], steps=20)
    with known_noise(view.model, 7):
        weights = loss_and_gradient(view, x, y, loss="margin").gradient.flatten(1)
    best = threat.eps * weights.norm(dim=1, p=1 if norm == "Linf" else 2)
    gained = known_margins(view, x_adv, y, noise_seed=7) - known_margins(view, x, y, noise_seed=7)

    threat.require(x, x_adv)
    assert (gained / best).min().item() > (0.95 if (name, norm) == ("pgd", "L2") else 0.98)
    assert (gained / best).max().item() < 1.001
    elsewhere = known_margins(view, x_adv, y, noise_seed=8) - known_margins(view, x, y, noise_seed=8)
    assert (elsewhere / best).min().item() < 0.9


def test_the_known_draw_of_sap_does_not_depend_on_the_passes() -> None:
    """With a kernel that numbers its random numbers the score is the same in blocks of any size."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 200), nn.ReLU(), nn.Linear(200, 4))
    generator = torch.Generator().manual_seed(3)
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator) * 0.2
    x = torch.rand(7, 3, 4, 4, generator=generator)
    y = net(x).argmax(1)
    model = DefendedModel(net, SAP(50, kernel="numba"), seed=1)
    scores: list[Tensor] = []
    for max_batch in (None, 2, 5):
        view = AttackerView(model, max_batch=max_batch)
        x_adv = known_seed(view, x, y, ThreatModel("Linf", 0.02), seed=1, noise_seed=5, attack=eot_apgd, steps=3)
        scores.append(evaluate_known_seed(view, x_adv, y, noise_seed=5).draw_log_probabilities)

    torch.testing.assert_close(scores[1], scores[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores[2], scores[0], rtol=1e-4, atol=1e-4)


class Uncontrolled(nn.Module):
    """Random numbers from numpy, which no seed of ours reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = np.random.default_rng(1)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] + torch.from_numpy(self.generator.normal(size=(len(x), 3))).float()


def test_a_seed_that_cannot_be_known_is_an_error() -> None:
    x, y = torch.full((4, 3, 2, 2), 0.5), torch.zeros(4, dtype=torch.long)
    for model, draws, message in (
        (Uncontrolled(), 1, "does not repeat its draws"),
        (nn.Flatten(), 2, "draws=1, got 2"),
    ):
        view = AttackerView(model, gradient="autograd", draws=draws)
        with pytest.raises(ValueError, match=message):
            known_seed(view, x, y, ThreatModel(), seed=1, noise_seed=1, attack=fgsm)


@pytest.mark.parametrize(("pixels", "steps"), [(8, 8), (7, 7), (2.5, 3), (0.5, 1)])
def test_the_paper_s_attack_takes_steps_of_one_pixel_value(pixels: float, steps: int) -> None:
    """As many as eps has, rounded up; on a linear net every pixel moves by eps, in one step or in many."""
    net, x, y = two_of_five()
    model, threat = wrap(net), ThreatModel("Linf", pixels / 255)
    results: list[Tensor] = []
    for attack, expected in ((paper_fgsm, 1), (paper_iterative, steps)):
        with count_passes(model) as passes:
            results.append(attack(AttackerView(model, gradient="autograd", draws=3), x, y, threat, seed=1))
        assert (passes.forwards, passes.backwards) == (3 * expected * len(x), 3 * expected * len(x))
        torch.testing.assert_close((results[-1] - x).abs(), torch.full_like(x, threat.eps), rtol=1e-3, atol=1e-6)

    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize(
    ("attack", "forwards", "backwards"),
    [
        (partial(eot_apgd, steps=5), 5 * 3, 5 * 3),
        (partial(eot_apgd, steps=5, restarts=2), 2 * 5 * 3 + 2 * 4 * 3, 2 * 5 * 3),
        (partial(eot_apgd, steps=5, restarts=2, targets=2, loss="dlr"), 4 * 5 * 3 + 4 * 4 * 3 + 3, 4 * 5 * 3),
        (partial(eot_apgd, steps=5, targets=1, loss="dlr"), 5 * 3 + 3, 5 * 3),
        (partial(long_apgd, steps=7), 7 * 3, 7 * 3),
        (partial(em_apgd, steps=5), 5 * 3, 5 * 3),
        (partial(maximin_apgd, steps=5), 5 * 3, 5 * 3),
    ],
)
def test_passes_are_those_of_the_docstring(attack: Attack, forwards: int, backwards: int) -> None:
    """An image, with three draws."""
    net, x, y = affine_case()
    model = wrap(net)
    with count_passes(model) as passes:
        attack(AttackerView(model, gradient="autograd", draws=3), x, y, ThreatModel(), seed=1)

    assert (passes.forwards, passes.backwards) == (forwards * len(x), backwards * len(x))


def test_known_seed_spends_two_forwards_more_than_its_attack() -> None:
    net, x, y = affine_case()
    model = wrap(net)
    with count_passes(model) as passes:
        view = AttackerView(model, gradient="autograd")
        known_seed(view, x, y, ThreatModel(), seed=1, noise_seed=1, attack=eot_apgd, steps=5)

    assert (passes.forwards, passes.backwards) == (7 * len(x), 5 * len(x))


@pytest.mark.parametrize(("norm", "loss", "targets"), [("Linf", "ce", 0), ("L2", "dlr", 0), ("Linf", "dlr", 2)])
def test_apgd_is_as_good_as_pyautoattack_s_on_a_deterministic_net(
    norm: str, loss: str, targets: int, net: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    """At equal steps and a radius where neither wins everything, within one of 32 images."""
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

    x, y = images[0][:32], images[1][:32]
    threat = ThreatModel(norm, 1 / 255 if norm == "Linf" else 0.12)
    view = AttackerView(net, gradient="autograd")
    ours = eot_apgd(view, x, y, threat, seed=1, steps=20, loss=loss, targets=targets)
    setting: dict[str, Any] = {"n_iter": 19, "norm": norm, "eps": threat.eps, "seed": 1, "device": "cpu"}
    if targets:
        theirs = APGDAttack_targeted(net, n_target_classes=targets, **setting).perturb(x, y)
    else:
        theirs = APGDAttack(net, loss=loss, **setting).perturb(x, y)
    with torch.no_grad():
        left = [int((net(points).argmax(1) == y).sum()) for points in (x, ours, theirs)]

    assert left[1] <= left[2] + 1 < left[0] - 5
    assert left[1] > 1  # neither wins everything
