"""Images that need no more work: who is left alone, how seldom by luck, and that the others do not notice."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import reference
import torch
from torch import Tensor, nn

from sap_art import AttackerView, ThreatModel, wrap
from sap_art.attacks import em_apgd, eot_apgd, long_apgd, maximin_apgd, square
from sap_art.attacks.cost import count_passes
from sap_art.attacks.objective import margin
from sap_art.attacks.stopping import parts, right_once

ATTACKS: dict[str, tuple[Callable[..., Tensor], dict[str, Any]]] = {
    "eot-apgd": (eot_apgd, {"steps": 40}),
    "eot-apgd with restarts": (eot_apgd, {"steps": 40, "restarts": 2}),
    "eot-apgd towards a class": (eot_apgd, {"steps": 40, "loss": "margin", "targets": 1}),
    "em-apgd": (em_apgd, {"steps": 40}),
    "maximin-apgd": (maximin_apgd, {"steps": 40}),
    "long-apgd": (long_apgd, {"steps": 100}),
    "square": (square, {"iterations": 600}),
}
each_attack = pytest.mark.parametrize("name", ATTACKS)
DRAWS = 16
EPS = 0.05


def mixed_case() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A linear net, 24 images of both labels, and which of them no perturbation within .05 can turn: (24,) bool.

    Scores lie at .3 or 3 times what eps ||w||_1 can move, those that can be turned and the others in no order.
    """
    generator = torch.Generator().manual_seed(8)
    w = torch.randn(48, generator=generator)
    firm = torch.rand(24, generator=generator) < 0.5
    y = (torch.rand(24, generator=generator) < 0.5).long()
    most = EPS * w.abs().sum()
    score = torch.where(firm, 3.0, 0.3) * most * (2 * y - 1)
    x = 0.5 + (score / w.square().sum())[:, None] * w
    return reference.Linear(w, -(0.5 * w.sum()).item()), x.view(-1, 3, 4, 4), y, firm


def test_one_right_draw_in_n_is_seen_with_its_probability() -> None:
    """1 - (1 - p)^n of 4,000 images stand, to 5 standard errors."""
    x, y = reference.coin_data(4000)
    for p, draws in ((0.02, 59), (0.1, 7), (0.5, 1)):
        view = AttackerView(wrap(reference.Coin(p)), gradient="autograd")
        stands = 1 - (1 - p) ** draws
        error = (stands * (1 - stands) / len(x)) ** 0.5

        found = right_once(view, x, y, draws=draws, seed=3).float().mean().item()
        assert found == pytest.approx(stands, abs=5 * error)


def test_every_group_of_draws_is_fresh() -> None:
    """Groups of 1 and 2 draws see three, not the first one again: 1 - .5^3 of 600 seeds stand, to 5 errors."""
    x, y = reference.coin_data(1)
    view = AttackerView(wrap(reference.Coin(0.5)), gradient="autograd")
    found = [right_once(view, x, y, draws=3, seed=seed).item() for seed in range(600)]

    error = (0.875 * 0.125 / len(found)) ** 0.5
    assert sum(found) / len(found) == pytest.approx(0.875, abs=5 * error)


def test_a_model_that_is_often_right_costs_few_draws() -> None:
    """Groups of 1, 2, 4, ... draws: a fair coin takes 1 + 2/2 + 4/8 + 8/128 + ... = 2.56 on average."""
    x, y = reference.coin_data(4000)
    model = wrap(reference.Coin(0.5))
    with count_passes(model) as passes:
        right_once(AttackerView(model, gradient="autograd"), x, y, draws=299, seed=3)

    groups = (1, 2, 4, 8, 16, 32)
    expected = sum(group * 0.5 ** (group - 1) for group in groups)
    spread = sum((2 * group - 1) ** 2 * 0.5 ** (group - 1) for group in groups)  # at least the variance
    assert passes.forwards / len(x) == pytest.approx(expected, abs=5 * (spread / len(x)) ** 0.5)


@each_attack
def test_only_images_whose_point_is_wrong_are_left(name: str) -> None:
    """Both kinds side by side: the turned ones are turned, the others climb on to the optimum, in fewer passes."""
    net, x, y, firm = mixed_case()
    attack, budget = ATTACKS[name]
    threat = ThreatModel("Linf", EPS)
    view = AttackerView(wrap(net), gradient="autograd", draws=2)
    run = partial(attack, view, x, y, threat, seed=1, **budget)
    with count_passes(view.model) as whole:
        run()
    with count_passes(view.model) as spared:
        x_adv = run(stop_draws=DRAWS)

    threat.require(x, x_adv)
    with torch.no_grad():
        logits = net(x_adv)
        gain = (margin(logits[None], y) - margin(net(x)[None], y)) / (EPS * net.get_parameter("w").abs().sum())
    assert (logits.argmax(1) == y).equal(firm)
    assert gain[firm].min() > 0.97
    assert gain[~firm].min() > 0.3
    assert spared.forwards < 0.85 * whole.forwards


@each_attack
def test_images_that_stand_are_attacked_as_ever(name: str) -> None:
    """A deterministic net that nothing turns: looking takes passes but changes no point."""
    net, x, y, firm = mixed_case()
    attack, budget = ATTACKS[name]
    view = AttackerView(net, gradient="autograd", draws=2)
    run = partial(attack, view, x[firm], y[firm], ThreatModel("Linf", EPS), seed=1, **budget)

    assert run(stop_draws=DRAWS).equal(run())


def three_classes() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A linear net of three classes, 24 images, and which of them nothing within .0125 can turn: as ``mixed_case``.

    The likeliest wrong class is one or the other of two, in no order.
    """
    generator = torch.Generator().manual_seed(9)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    w = torch.randn(3, 48, generator=generator)
    firm = torch.rand(24, generator=generator) < 0.5
    y = torch.randint(3, (24,), generator=generator)
    near = (y + 1 + (torch.rand(24, generator=generator) < 0.5).long()) % 3
    most = EPS / 4 * max((w[i] - w[j]).abs().sum().item() for i, j in ((0, 1), (0, 2), (1, 2)))
    scores = torch.full((24, 3), -4.0).scatter(1, near[:, None], torch.where(firm, -3.0, -0.1)[:, None])
    scores = most * scores.scatter(1, y[:, None], 0.0)
    net.load_state_dict({"1.weight": w, "1.bias": -0.5 * w.sum(1)})
    return net, (0.5 + scores @ torch.linalg.pinv(w).T).view(-1, 3, 4, 4), y, firm


def test_images_that_stay_climb_towards_their_own_class() -> None:
    """Whoever takes the classes of the first images for those of the remaining ones climbs the wrong hill."""
    net, x, y, firm = three_classes()
    view, threat = AttackerView(net, gradient="autograd", draws=2), ThreatModel("Linf", EPS / 4)
    run = partial(eot_apgd, view, x, y, threat, seed=1, loss="margin", targets=1, first_step=0.05)
    spared, whole = run(stop_draws=DRAWS), run()

    assert 0 < (net(spared).argmax(1) != y).sum() < len(y)
    torch.testing.assert_close(spared[firm], whole[firm], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "square"])
def test_images_that_stay_do_not_notice_who_leaves(name: str) -> None:
    """The same points to the digit of a float32; only Square's random windows depend on how many images there are."""
    net, x, y, firm = mixed_case()
    attack, budget = ATTACKS[name]
    view = AttackerView(net, gradient="autograd", draws=2)
    budget = {**budget, "steps": 6}  # few enough to end inside the ball
    run = partial(attack, view, x, y, ThreatModel("Linf", EPS), seed=1, **budget)

    torch.testing.assert_close(run(stop_draws=DRAWS)[firm], run()[firm], atol=1e-6, rtol=0)


class WrongAtFirst(nn.Module):
    """Wrong in a forward pass while its switch is on, right otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.right = False

    def forward(self, x: Tensor) -> Tensor:
        score = 0.0 * x.flatten(1).sum(1) + (1.0 if self.right else -1.0)
        return torch.stack([torch.zeros_like(score), score], 1)


@each_attack
def test_all_images_gone_end_the_attack(name: str) -> None:
    """Every draw is wrong at the first look: the attack returns within its first quarter."""
    attack, budget = ATTACKS[name]
    x, y = torch.full((6, 3, 4, 4), 0.5), torch.ones(6, dtype=torch.long)
    view = AttackerView(WrongAtFirst(), gradient="autograd", draws=2)
    with count_passes(view.model) as passes:
        attack(view, x, y, ThreatModel("Linf", EPS), seed=1, stop_draws=DRAWS, **budget)
    steps = budget.get("steps", 2 * budget.get("iterations", 0)) * budget.get("restarts", 1)

    assert passes.forwards / len(x) < view.draws * steps / 3 + 2 * DRAWS + 16


@each_attack
def test_fewer_than_no_draws_are_refused(name: str) -> None:
    attack, budget = ATTACKS[name]
    net, x, y, _ = mixed_case()
    with pytest.raises(ValueError, match="stop_draws must be at least 0, got -1"):
        attack(AttackerView(net, gradient="autograd", draws=2), x, y, ThreatModel(), seed=1, stop_draws=-1, **budget)


def test_parts_end_after_equally_many_steps() -> None:
    assert parts(200, 4) == [50, 100, 150, 200]
    assert parts(3, 4) == [1, 2, 3, 3]
