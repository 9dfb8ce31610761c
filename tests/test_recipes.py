"""Recipes by name, and the attack of adversarial training against what it must do in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sap_art.recipes import RECIPES, Attack, Decay, Mixture, Recipe, fgsm, perturb, recipe_named

EPS = 8 / 255


def images(n: int, generator: torch.Generator) -> Tensor:
    """Some pixels lie closer than eps to 0 or 1, or there."""
    return (1.2 * torch.rand(n, 3, 8, 8, generator=generator) - 0.1).clamp(0, 1)


def linear(w: Tensor) -> Callable[[Tensor], Tensor]:
    """Mean over the batch of w.x: its gradient has the sign of w everywhere."""
    return lambda x: (x * w).flatten(1).sum(1).mean()


def flat(x: Tensor) -> Tensor:
    """A loss without a slope, which leaves the start where it is."""
    return 0 * x.sum()


def test_the_named_recipes_are_those_of_the_papers() -> None:
    """A step of 1.25 eps (Wong et al. 2020), 7 steps of 2/255 (Madry et al. 2018); all at 8/255."""
    assert RECIPES["standard"].attack is None
    assert RECIPES["fast"].attack == Attack(eps=8 / 255, step=10 / 255, steps=1)
    assert RECIPES["madry"].attack == Attack(eps=8 / 255, step=2 / 255, steps=7)


def test_settings_are_plain_numbers_and_name_an_attack_only_where_there_is_one() -> None:
    """States and cards of runs without an attack stay what they were."""
    plain = {"epochs": 60, "batch_size": 128, "peak_rate": 0.2, "momentum": 0.9, "weight_decay": 5e-4}

    assert RECIPES["standard"].settings() == plain
    assert Recipe(epochs=60, attack=Attack(0.1, step=0.2, steps=3)).settings() == {
        **plain,
        "attack": {"eps": 0.1, "step": 0.2, "steps": 3},
    }


def test_the_paper_s_recipes_are_as_printed() -> None:
    """Batches of 512, momentum .9, weight decay 1e-4, a rate of .5 that falls in steps (Dhillon et al. 2018)."""
    common = {"batch_size": 512, "peak_rate": 0.5, "momentum": 0.9, "weight_decay": 1e-4}

    assert RECIPES["paper"].settings() == {**common, "epochs": 150, "decay": {"factor": 0.1, "after": [100, 130]}}
    assert recipe_named("dropout:0.2").settings() == {
        **common,
        "epochs": 250,
        "decay": {"factor": 0.1, "after": [100, 150, 190, 220]},
        "dropout": 0.2,
    }
    assert RECIPES["adv"].settings() == {
        **common,
        "epochs": 100,
        "decay": {"factor": 0.5, "after": [10, 20, 30, 40, 50, 60, 70, 80, 90]},
        "mixture": {"eps": 2 / 255, "share": 0.2},
    }


def test_the_rate_falls_when_an_epoch_is_done() -> None:
    """.5, .05 and .005; a half less every ten epochs."""
    decay = RECIPES["paper"].decay
    assert decay is not None
    rates = {epochs: 0.5 * decay.scale(epochs) for epochs in (0, 99.99, 100, 129.99, 130, 149.99)}

    assert list(rates.values()) == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005, 0.005])
    assert Decay(0.5, (10, 20)).scale(25) == 0.25


def test_another_number_of_epochs_is_one_cycle() -> None:
    """Everything else stays; the recipe's own number changes nothing."""
    short = RECIPES["adv"].over(12)

    assert (short.epochs, short.decay, short.schedule) == (12, None, "one-cycle")
    assert short.mixture == RECIPES["adv"].mixture
    assert (short.batch_size, short.weight_decay) == (512, 1e-4)
    assert RECIPES["adv"].over(100) is RECIPES["adv"]
    assert RECIPES["adv"].schedule == "step-decay"
    assert RECIPES["fast"].over(3).attack == RECIPES["fast"].attack


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dropout", "recipe 'dropout' must be dropout:RATE, for example dropout:0.1"),
        ("dropout:much", "recipe 'dropout:much' must be dropout:RATE"),
        ("dropout:0.1:2", "must be dropout:RATE"),
        ("dropout:1", "between 0 and 1, both left out, got 1.0"),
        ("dropout:0", "between 0 and 1, both left out, got 0.0"),
    ],
)
def test_dropout_without_a_rate(name: str, message: str) -> None:
    """What is wrong is said."""
    with pytest.raises(ValueError, match=message):
        recipe_named(name)


def test_mixtures_that_are_none() -> None:
    """Numbers out of range, and a recipe that would attack twice."""
    for eps, share, message in [(0.0, 0.2, "eps must be"), (0.1, 0.0, "share must be"), (0.1, 1.5, "share must be")]:
        with pytest.raises(ValueError, match=message):
            Mixture(eps, share=share)
    with pytest.raises(ValueError, match="an attack on all images or a mixture, not both"):
        Recipe(epochs=1, attack=Attack(0.1, step=0.1, steps=1), mixture=Mixture(0.1, share=0.2))


def test_fgsm_on_a_linear_loss(generator: torch.Generator) -> None:
    """x + eps sign(w), clipped to [0, 1], from the image itself; the caller's images are left as they were."""
    x, w = images(4, generator), torch.randn(3, 8, 8, generator=generator)
    copy = x.clone()
    found = fgsm(x, 2 / 255, loss=linear(w))

    torch.testing.assert_close(found, (x + 2 / 255 * w.sign()).clamp(0, 1), rtol=0, atol=1e-7)
    assert torch.equal(x, copy)
    assert not x.requires_grad
    assert not found.requires_grad
    with pytest.raises(FloatingPointError, match="NaN or inf"):
        fgsm(x, 2 / 255, loss=lambda p: (p * math.nan).sum())


def test_a_recipe_that_is_not_there() -> None:
    """The known ones are named."""
    with pytest.raises(ValueError, match="unknown recipe 'sam'; known: standard, paper, adv, fast, madry, dropout:"):
        recipe_named("sam")


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((0.0, 0.1, 1), "eps must be a finite number above 0"),
        ((0.1, 0.0, 1), "step must be a finite number above 0, got 0.0"),
        ((0.1, math.inf, 1), "step must be a finite number above 0, got inf"),
        ((0.1, 0.1, 0), "steps must be at least 1, got 0"),
    ],
)
def test_attacks_that_are_none(numbers: tuple[float, float, int], message: str) -> None:
    """What is wrong is said."""
    eps, step, steps = numbers
    with pytest.raises(ValueError, match=message):
        Attack(eps, step=step, steps=steps)


def test_the_start_is_uniform_in_the_cube(generator: torch.Generator) -> None:
    """u = (start - x) / eps has mean 0, E[u^2] = 1/3 and E[u^4] = 1/5, within five standard errors, and |u| <= 1."""
    x = torch.full((200, 3, 8, 8), 0.5, dtype=torch.float64)
    u = (perturb(x, Attack(EPS, step=EPS, steps=1), loss=flat, generator=generator) - x) / EPS
    n = u.numel()

    assert u.abs().max() <= 1 + 1e-9
    assert abs(u.mean().item()) < 5 * math.sqrt(1 / 3 / n)
    assert abs(u.square().mean().item() - 1 / 3) < 5 * math.sqrt((1 / 5 - 1 / 9) / n)
    assert abs(u.pow(4).mean().item() - 1 / 5) < 5 * math.sqrt((1 / 9 - 1 / 25) / n)
    assert (u[0] - u[1]).abs().max() > 0.1


@pytest.mark.parametrize(("step", "steps"), [(1.25 * EPS, 1), (EPS / 4, 7), (2 * EPS, 1), (EPS / 4, 8)])
def test_on_a_linear_loss_the_way_is_known(step: float, steps: int, generator: torch.Generator) -> None:
    """From the start in the direction of sign(w), pixel by pixel up to the wall, which 2 eps always reach."""
    x, w = images(4, generator), torch.randn(3, 8, 8, generator=generator)
    attack, seed = Attack(EPS, step=step, steps=steps), generator.get_state()
    start = perturb(x, Attack(EPS, step=EPS, steps=1), loss=flat, generator=generator)
    generator.set_state(seed)
    found = perturb(x, attack, loss=linear(w), generator=generator)
    low, high = (x - EPS).clamp(min=0), (x + EPS).clamp(max=1)
    end = torch.maximum(torch.minimum(start + steps * step * w.sign(), high), low)

    torch.testing.assert_close(found, end, rtol=0, atol=1e-6)
    if steps * step >= 2 * EPS:
        torch.testing.assert_close(found, torch.where(w > 0, high, low), rtol=0, atol=1e-6)


def test_each_step_takes_the_gradient_of_its_own_point() -> None:
    """On -(x - 0.5)^2, an ascent from 0.52 in steps of 0.03 swings over the top: 0.49, 0.52, 0.49."""
    x = torch.full((1, 1), 0.52)
    seen: list[float] = []

    def hill(point: Tensor) -> Tensor:
        seen.append(point.item())
        return -(point - 0.5).square().sum()

    perturb(x, Attack(0.1, step=0.03, steps=40), loss=hill, generator=torch.Generator().manual_seed(0))
    late = sorted(seen[-2:])

    assert late[0] < 0.5 < late[1]
    assert late[1] - late[0] == pytest.approx(0.03, abs=1e-6)


def test_images_stay_allowed_and_parameters_get_no_gradient(generator: torch.Generator) -> None:
    """Within eps and [0, 1], exactly; the net's own gradients and the caller's images are left as they were."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    before = [torch.rand(p.shape, generator=generator) for p in net.parameters()]
    for parameter, gradient in zip(net.parameters(), before, strict=True):
        parameter.grad = gradient.clone()
    x, y = images(16, generator), torch.arange(16) % 10
    copy = x.clone()
    found = perturb(
        x, Attack(EPS, step=EPS, steps=3), loss=lambda p: nn.functional.cross_entropy(net(p), y), generator=generator
    )

    assert (found - x).abs().max() <= EPS + 1e-6
    assert found.min() >= 0
    assert found.max() <= 1
    assert not found.requires_grad
    assert not x.requires_grad
    assert torch.equal(x, copy)
    for parameter, gradient in zip(net.parameters(), before, strict=True):
        assert parameter.requires_grad
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, gradient)


def test_a_gradient_that_is_not_finite_raises(generator: torch.Generator) -> None:
    """The sign of NaN would be NaN, and so would be the images."""
    with pytest.raises(FloatingPointError, match="NaN or inf"):
        perturb(images(2, generator), Attack(EPS, step=EPS, steps=1), loss=lambda p: (p * math.nan).sum(),
                generator=generator)  # fmt: skip
