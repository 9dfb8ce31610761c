"""Attacks that only ask: Square and HopSkipJump, against known optima and against luck."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference
import torch
from torch import Tensor, nn

from sap_art import SAP, AttackerView, DefendedModel, ThreatModel, evaluate, wrap
from sap_art.attacks import eot_apgd, hopskipjump, noise, square
from sap_art.attacks.cost import count_passes
from sap_art.attacks.objective import margin
from sap_art.attacks.square import _bump, _share, _shift_mass

ATTACKS: dict[str, tuple[Callable[..., Tensor], dict[str, Any]]] = {
    "square": (square, {"iterations": 8}),
    "hopskipjump": (hopskipjump, {"queries": 60}),
}


def linear_case(norm: str, *, side: int, images: int = 12) -> tuple[reference.Linear, Tensor, Tensor, ThreatModel]:
    """A linear classifier on images far from the edges of the pixel range."""
    generator = torch.Generator().manual_seed(4)
    w = torch.randn(3 * side**2, generator=generator)
    x = 0.5 + 0.1 * (torch.rand(images, 3, side, side, generator=generator) - 0.5)
    net = reference.Linear(w, -(0.5 * w.sum()).item())
    return net, x, net(x).argmax(1), ThreatModel(norm, 0.05 if norm == "Linf" else 0.3)


def gain(net: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
    """What the margin has gained, as a share of the best: eps ||w||_1 (Linf) or eps ||w||_2 (L2). (B,)."""
    w = net.get_parameter("w").detach()
    best = threat.eps * (w.abs().sum() if threat.norm == "Linf" else w.norm())
    with torch.no_grad():
        return (margin(net(x_adv)[None], y) - margin(net(x)[None], y)) / best


def global_states() -> list[Any]:
    """Of the three global generators, comparable with ==."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return [torch.get_rng_state().tolist(), kind, np.asarray(keys).tolist(), rest, random.getstate()]


# Square.


def test_square_reaches_the_corner_of_the_cube() -> None:
    """Linf on a linear classifier: the margin gains eps ||w||_1, to 1 %."""
    net, x, y, threat = linear_case("Linf", side=4)
    x_adv = square(AttackerView(net, gradient="autograd"), x, y, threat, seed=1, iterations=1000)

    threat.require(x, x_adv)
    assert gain(net, x, x_adv, y, threat).min() > 0.99


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_square_is_as_good_as_pyautoattack_s_and_better_than_noise(norm: str) -> None:
    """At equal iterations on weights without structure. For L2 its moves are coarse: half the optimum is its limit."""
    from pyautoattack.square import SquareAttack

    net, x, y, threat = linear_case(norm, side=8, images=8)

    class Unbeaten(nn.Module):
        """The same margins less a constant: theirs stops at the first error."""

        def forward(self, points: Tensor) -> Tensor:
            return net(points) + 1e3 * nn.functional.one_hot(y, 2)

    view = AttackerView(net, gradient="autograd")
    ours = square(view, x, y, threat, seed=1, iterations=500)
    blind = noise(view, x, y, threat, seed=1, points=500)
    other = SquareAttack(Unbeaten(), norm=norm, n_queries=500, eps=threat.eps, device="cpu")
    other.init_hyperparam(x)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        theirs = other.attack_single_run(x, y)[1]
    ours, theirs, blind = (gain(net, x, points, y, threat).mean().item() for points in (ours, theirs, blind))

    assert ours > theirs
    assert ours > (0.8 if norm == "Linf" else 0.43)
    assert blind < 0.6 * ours


def test_square_s_windows_shrink_as_in_the_paper_at_any_length() -> None:
    """p is halved after 10, 50, 200, 500, ... of 10,000 iterations, and after 2, 4, 10 of 200 (scaled 10 to 500)."""
    assert [_share(i, 10_000) for i in (0, 10, 11, 51, 201, 501, 8001)] == [
        0.8, 0.8, 0.4, 0.2, 0.1, 0.05, 0.8 / 512,
    ]  # fmt: skip
    assert [_share(i, 200) for i in (0, 1, 2, 5, 11, 161)] == [0.8, 0.4, 0.2, 0.1, 0.05, 0.8 / 512]


def test_l2_moves_stay_on_the_sphere() -> None:
    """A bump has norm 1 and opposite halves; a move touches no channel outside its two windows and keeps norm 1."""
    generator = torch.Generator().manual_seed(1)
    bump = _bump(6, torch.zeros(1))
    assert bump.norm().item() == pytest.approx(1)
    assert torch.allclose(bump[:3].flip(0).sum(1), -bump[3:].sum(1).flip(0), atol=0.3)
    assert bump[:3].sum() > 0 > bump[3:].sum()
    delta = torch.randn(5, 3, 9, 9, generator=generator)
    delta = delta / delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    moved = _shift_mass(delta, 3, generator)

    assert torch.allclose(moved.flatten(1).norm(dim=1), torch.ones(5))
    touched = ((moved - delta).abs().amax(1) > 1e-6).flatten(1).sum(1)
    assert (touched <= 18).all()
    assert (touched >= 9).all()
    assert torch.allclose(_shift_mass(torch.zeros(5, 3, 9, 9), 3, generator).flatten(1).norm(dim=1), torch.ones(5))


def test_square_needs_no_gradient() -> None:
    """A model that rounds has gradient zero: APGD stays at its random start, Square wins every image."""
    net, x, y, threat = linear_case("Linf", side=4)

    class Rounded(nn.Module):
        def forward(self, points: Tensor) -> Tensor:
            return net((points * 255).round() / 255)

    view = AttackerView(Rounded(), gradient="autograd")
    points = [attack(view, x, y, threat, seed=1) for attack in (square, eot_apgd)]
    left = [int((net(p).argmax(1) == y).sum()) for p in (x, *points)]

    assert left[0] == len(x)
    assert left[1] == 0
    assert left[2] > 0


class Lucky(nn.Module):
    """Logits of a net, where one draw in twenty errs on class 1, by an amount without bound."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        luck = (torch.rand(len(x)) < 0.05) * 1000 * torch.empty(len(x)).exponential_()
        return self.net(x) + torch.stack([luck, torch.zeros_like(luck)], 1)


def test_square_forgets_a_lucky_loss() -> None:
    """Both losses are drawn afresh, so one lucky draw ends no search; kept for ever it would end this one at once."""
    net, x, y, threat = linear_case("Linf", side=4, images=40)
    x, y = x[y == 1], y[y == 1]
    view = AttackerView(wrap(Lucky(net)), gradient="autograd")
    x_adv = square(view, x, y, threat, seed=1, iterations=600)

    assert gain(net, x, x_adv, y, threat).mean() > 0.8


class Blurred(nn.Module):
    """A net whose margin has noise of 100 standard deviations of what a window gains, drawn for each image."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        noise = 5 * torch.randn(len(x))
        return self.net(x) + torch.stack([noise, torch.zeros_like(noise)], 1)


def test_square_compares_both_points_on_the_same_draws() -> None:
    """Noise that does not depend on the point falls out of the difference: the corner is reached all the same."""
    net, x, y, threat = linear_case("Linf", side=4)
    x_adv = square(AttackerView(wrap(Blurred(net)), gradient="autograd"), x, y, threat, seed=1, iterations=1000)

    assert gain(net, x, x_adv, y, threat).min() > 0.99


def test_square_s_last_choice_is_on_fresh_draws() -> None:
    """Of the points held after each quarter: a model that turns round at the end gets the one of the first quarter."""
    net, x, y, threat = linear_case("Linf", side=4)
    iterations = 200

    class Turning(nn.Module):
        calls = 0

        def forward(self, points: Tensor) -> Tensor:
            self.calls += 1
            return net(points) if self.calls <= 2 * iterations else -net(points)

    reached = [
        gain(
            net, x, square(AttackerView(m, gradient="autograd"), x, y, threat, seed=1, iterations=iterations), y, threat
        )
        for m in (net, Turning())
    ]

    assert (reached[1] < reached[0]).all()


def test_square_s_budget_is_what_it_says() -> None:
    """k (2 iterations + 4) forwards an image, also on images that are wrong from the first draw on; no backwards."""
    net, x, y, threat = linear_case("L2", side=4)
    model = wrap(net)
    with count_passes(model) as passes:
        square(AttackerView(model, gradient="autograd", draws=3), x, 1 - y, threat, seed=1, iterations=7)

    assert (passes.forwards, passes.backwards) == (len(x) * 3 * (2 * 7 + 4), 0)


# HopSkipJump.


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_hopskipjump_finds_the_direction(norm: str) -> None:
    """On a linear classifier, to 20 % of the optimum, on the surface of the ball, whose boundary lies far beyond."""
    net, x, y, threat = linear_case(norm, side=4, images=4)
    far = ThreatModel(norm, threat.eps / 20)
    x_adv = hopskipjump(AttackerView(net, gradient="autograd"), x, y, far, seed=1, queries=1000)

    far.require(x, x_adv)
    assert torch.allclose(far.distance(x, x_adv), torch.tensor(far.eps, dtype=torch.double), rtol=1e-4)
    assert gain(net, x, x_adv, y, far).min() > 0.8


def test_hopskipjump_keeps_its_point_where_the_line_beyond_it_is_right_again() -> None:
    """A shell of error around the image, and the surface of the ball outside of it."""
    x, y = torch.full((1, 1, 4, 4), 0.5), torch.zeros(1, dtype=torch.long)

    class Shell(nn.Module):
        def forward(self, points: Tensor) -> Tensor:
            radius = (points - 0.5).flatten(1).norm(dim=1)
            wrong = ((radius > 0.3) & (radius < 0.65)) | (radius > 1)
            return nn.functional.one_hot(wrong.long(), 2).float()

    x_adv = hopskipjump(AttackerView(Shell(), gradient="autograd"), x, y, ThreatModel("L2", 0.8), seed=3, queries=400)

    assert Shell()(x_adv).argmax(1) == 1
    assert (x_adv - x).norm() < 0.65


def test_hopskipjump_decides_by_majority() -> None:
    """On Gaussian weights one draw is right or wrong by chance; the majority of 15 leads below .1."""
    generator = torch.Generator().manual_seed(8)
    w = torch.randn(48, generator=generator)
    x = 0.4 + 0.2 * torch.rand(6, 3, 4, 4, generator=generator)
    noisy = reference.NoisyLinear(w, -(0.5 * w.sum()).item(), sigma=0.1)
    y = reference.Linear(w, noisy.b)(x).argmax(1)
    threat = ThreatModel("L2", 0.5)
    view = AttackerView(wrap(noisy), gradient="autograd", draws=15)
    x_adv = hopskipjump(view, x, y, threat, seed=1, queries=500)
    clean, attacked = (evaluate(noisy, points, y, draws=400, seed=2).accuracy for points in (x, x_adv))

    assert clean > 0.6
    assert attacked < 0.1


def test_hopskipjump_keeps_to_its_budget_and_returns_what_it_cannot_attack() -> None:
    """k queries an image at most; one for an image that is wrong already; a model that never errs is left after it."""
    net, x, y, threat = linear_case("Linf", side=4, images=3)

    def passes(model: nn.Module, labels: Tensor) -> tuple[Tensor, int]:
        stochastic = wrap(model)
        view = AttackerView(stochastic, gradient="autograd", draws=3)
        with count_passes(stochastic) as spent:
            x_adv = hopskipjump(view, x, labels, threat, seed=1, queries=100)
        assert spent.backwards == 0
        return x_adv, spent.forwards

    class Constant(nn.Module):
        def forward(self, points: Tensor) -> Tensor:
            return torch.tensor([1.0, 0.0]).expand(len(points), -1)

    assert 3 * 3 * 50 < passes(net, y)[1] <= 3 * 3 * 100
    x_adv, spent = passes(net, 1 - y)
    assert spent == 3 * 3
    assert torch.equal(x_adv, x)
    x_adv, spent = passes(Constant(), torch.zeros_like(y))
    assert spent == 3 * 3 * 21
    assert torch.equal(x_adv, x)


def test_hopskipjump_starts_from_another_label_s_image_where_noise_does_not_help() -> None:
    """A model that sees one class in all noise: an image of the other one is a start."""
    x, y = reference.coin_data(2)

    class Noiseless(nn.Module):
        def forward(self, points: Tensor) -> Tensor:
            far = (points.flatten(1)[:, 1:] - 0.5).abs().mean(1) > 0.1
            one = ((points.flatten(1)[:, 0] > 0.5) | far).long()
            return nn.functional.one_hot(one, 2).float()

    view = AttackerView(Noiseless(), gradient="autograd")
    x_adv = hopskipjump(view, x, y, ThreatModel("Linf", 0.6), seed=1, queries=200)

    assert (Noiseless()(x_adv).argmax(1) != y).all()


# Both.


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_pure(name: str, norm: str) -> None:
    """The seed decides the result; the model's noise and the global generators go on as if nothing had been."""
    attack, options = ATTACKS[name]
    _, x, y, threat = linear_case(norm, side=4, images=3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 30), nn.ReLU(), nn.Linear(30, 2))
    generator = torch.Generator().manual_seed(3)
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    y = evaluate(DefendedModel(net, SAP(100)), x, y, draws=50, seed=1).probabilities.argmax(1)
    model, twin = (DefendedModel(net, SAP(100), seed=1) for _ in range(2))
    view = AttackerView(model, draws=2)
    before, states = x.clone(), global_states()
    results = [attack(view, x, y, threat, seed=1, **options)]
    torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
    results += [attack(view, x, y, threat, seed=seed, **options) for seed in (1, 2)]

    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert torch.equal(x, before)
    threat.require(x, results[0])
    assert torch.equal(model(x), twin(x))
    after = global_states()
    torch.set_rng_state(torch.tensor(states[0], dtype=torch.uint8))
    random.setstate(states[4])
    np.random.set_state((states[1], np.array(states[2], np.uint32), *states[3]))  # noqa: NPY002
    torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
    assert after == global_states()


@pytest.mark.parametrize("name", ATTACKS)
def test_no_attack_is_fooled_by_a_coin(name: str) -> None:
    """Nothing moves a model that is right with p = .7."""
    attack, options = ATTACKS[name]
    x, y = reference.coin_data(40)
    model = wrap(reference.Coin(0.7))
    x_adv = attack(AttackerView(model, gradient="autograd", draws=3), x, y, ThreatModel(), seed=1, **options)
    accuracy = evaluate(model, x_adv, y, draws=200, seed=2).accuracy

    assert abs(accuracy - 0.7) < 5 * math.sqrt(0.21 / (200 * len(x)))


@pytest.mark.parametrize("name", ATTACKS)
def test_single_draws_of_a_coin_are_reproducible(name: str) -> None:
    """ART asks about a start twice and, told that it is right after all, would draw another from the system's noise."""
    attack, options = ATTACKS[name]
    x, y = reference.coin_data(12)
    view = AttackerView(wrap(reference.Coin(0.5)), gradient="autograd")
    results = [attack(view, x, y, ThreatModel(), seed=1, **options) for _ in range(2)]

    assert torch.equal(*results)


@pytest.mark.parametrize("name", ATTACKS)
def test_double_precision_stays(name: str) -> None:
    """Models in float64 get float64, whatever a library works in."""
    attack, options = ATTACKS[name]
    net, x, y, threat = linear_case("Linf", side=4, images=2)
    view = AttackerView(net.double(), gradient="autograd")
    x_adv = attack(view, x.double(), y, threat, seed=1, **options)

    assert x_adv.dtype == torch.double


@pytest.mark.parametrize("name", ATTACKS)
def test_nan_is_an_error_and_never_a_success(name: str) -> None:
    """The model answers NaN in one draw of many."""
    attack, options = ATTACKS[name]
    net, x, y, threat = linear_case("Linf", side=4)

    class Broken(nn.Module):
        def forward(self, points: Tensor) -> Tensor:
            return torch.where(torch.rand(len(points), 1) < 0.05, torch.nan, net(points))

    with pytest.raises(FloatingPointError, match="logits are NaN or inf"):
        attack(AttackerView(wrap(Broken()), gradient="autograd", draws=2), x, y, threat, seed=1, **options)


@pytest.mark.parametrize("name", ATTACKS)
def test_bad_input_raises_before_any_work(name: str) -> None:
    """Images, labels, budgets."""
    attack, options = ATTACKS[name]
    net, x, y, threat = linear_case("Linf", side=4)
    view = AttackerView(net, gradient="autograd")

    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        attack(view, x + 1, y, threat, seed=1)
    with pytest.raises(ValueError, match="labels must be integers"):
        attack(view, x, y.float(), threat, seed=1)
    with pytest.raises(ValueError, match="must be at least"):
        attack(view, x, y, threat, seed=1, **dict.fromkeys(options, 0))


def test_square_needs_images() -> None:
    """Windows have rows and columns."""
    net, x, y, threat = linear_case("Linf", side=4)
    with pytest.raises(ValueError, match=r"squares need images \(B, C, H, W\), got \(12, 48\)"):
        square(AttackerView(net, gradient="autograd"), x.flatten(1), y, threat, seed=1)
