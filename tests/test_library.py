"""AutoAttack and ART's PGD: what they report, what their points are worth, and that nothing else is touched."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import reference
import torch
from test_attacks_query import global_states
from torch import Tensor, nn

from sap_art import AttackerView, ThreatModel, evaluate, wrap
from sap_art.attacks import art_pgd, autoattack_rand, autoattack_standard
from sap_art.attacks.cost import count_passes
from sap_art.attacks.isolation import Guarded
from sap_art.attacks.library import LibraryResult, _autoattack, _limit, reported_art_pgd, reported_autoattack

REPORTED: dict[str, tuple[Callable[..., LibraryResult], dict[str, Any]]] = {
    "rand": (reported_autoattack, {"version": "rand", "draws": 2, "steps": 10}),
    "standard": (reported_autoattack, {"version": "standard", "draws": 1, "steps": 10, "queries": 20}),
    "art": (reported_art_pgd, {"steps": 10}),
}


def linear_case(norm: str) -> tuple[nn.Module, Tensor, Tensor, ThreatModel, Tensor]:
    """Five linear classes, and which images (B,) the best perturbation leaves right: about half of them."""
    generator = torch.Generator().manual_seed(5)
    net = nn.Sequential(nn.Flatten(), nn.Linear(75, 5))
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    x = 0.3 + 0.4 * torch.rand(60, 3, 5, 5, generator=generator)
    with torch.no_grad():
        logits = net(x)
    y = logits.argmax(1)
    weights = net[1].weight.detach()
    difference = weights[y][:, None] - weights
    lengths = difference.abs().sum(-1) if norm == "Linf" else difference.norm(dim=-1)
    ratio = (logits.gather(1, y[:, None]) - logits) / lengths
    radius = ratio.scatter(1, y[:, None], torch.inf).amin(1)
    eps = radius.sort().values[29:31].mean().item()
    return net, x, y, ThreatModel(norm, eps), radius > eps


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("name", ["standard", "rand", "art"])
def test_on_a_linear_classifier_the_known_accuracy_is_reported(name: str, norm: str) -> None:
    """It is .5; the targeted attacks find all of it, those that follow one loss stay within two of 60 images."""
    net, x, y, threat, right = linear_case(norm)
    attack, options = REPORTED[name]
    result = attack(AttackerView(net, gradient="autograd"), x, y, threat, seed=1, **{**options, "steps": 60})
    with torch.no_grad():
        left = net(result.x_adv).argmax(1) == y

    threat.require(x, result.x_adv)
    assert right.double().mean() == 0.5
    assert result.reported_accuracy == left.double().mean()
    assert bool(result.right[right].all())
    assert result.reported_accuracy - 0.5 <= (0 if name == "standard" else 2.1 / 60)


def test_what_autoattack_says_of_a_coin_and_what_its_points_are_worth() -> None:
    """It says .7^3 (``rand``) or .7^5 (``standard``) and its points score .7.

    It asks once before the first and once after each attack, and one error is enough.
    """
    x, y = reference.coin_data(600)
    model = wrap(reference.Coin(0.7, classes=4))
    view = AttackerView(model, gradient="autograd")
    for name, asked in (("rand", 3), ("standard", 5)):
        attack, options = REPORTED[name]
        result = attack(view, x, y, ThreatModel(), seed=1, **{**options, "steps": 3})
        said = 0.7**asked
        worth = evaluate(model, result.x_adv, y, draws=100, seed=2).accuracy

        assert abs(result.reported_accuracy - said) < 5 * math.sqrt(said * (1 - said) / len(x))
        assert abs(worth - 0.7) < 5 * math.sqrt(0.21 / (100 * len(x)))


def test_art_reports_one_draw() -> None:
    """Of a coin, .7 with the error of one draw an image."""
    x, y = reference.coin_data(600)
    view = AttackerView(wrap(reference.Coin(0.7)), gradient="autograd", draws=5)
    result = reported_art_pgd(view, x, y, ThreatModel(), seed=1, steps=2)

    assert abs(result.reported_accuracy - 0.7) < 5 * math.sqrt(0.21 / len(x))
    assert 0 < result.reported_accuracy < 1


@pytest.mark.parametrize("name", REPORTED)
def test_nothing_else_is_touched(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Global generators, the model's noise, gradients and mode, the trace function, loggers, screen and disk."""
    attack, options = REPORTED[name]
    net, x, y, threat, _ = linear_case("Linf")
    net = nn.Sequential(net, nn.Dropout(0.2)).train()  # random in training mode, as such defences are
    parameter = next(net.parameters())
    parameter.grad = torch.full_like(parameter, 3.0)
    model, twin = (wrap(net, seed=1) for _ in range(2))
    view = AttackerView(model, gradient="autograd")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.root, "handlers", [])  # as where nobody has set up logging

    def trace(*_: Any) -> None:
        return None

    states, handlers, traced = global_states(), logging.getLogger("auto-attack").handlers[:], sys.gettrace()
    sys.settrace(trace)
    try:
        results = [attack(view, x[:9], y[:9], threat, seed=seed, **options) for seed in (1, 1, 2)]
        kept = sys.gettrace()
    finally:
        sys.settrace(traced)

    assert kept is trace
    assert global_states() == states
    assert logging.getLogger("auto-attack").handlers == handlers
    assert torch.equal(results[0].x_adv, results[1].x_adv)
    assert torch.equal(results[0].right, results[1].right)
    assert not torch.equal(results[0].x_adv, results[2].x_adv)
    assert not results[0].x_adv.requires_grad
    assert torch.equal(parameter.grad, torch.full_like(parameter, 3.0))
    assert net.training
    assert all(module.training for module in net.modules())
    assert torch.equal(model(x), twin(x))
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_a_model_in_training_mode_stays_random_for_art() -> None:
    """ART switches a model to evaluation mode, which would end a dropout defence; it cannot reach this one."""

    class Modes(nn.Module):
        seen: set[bool]

        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net, self.seen = net, set()

        def forward(self, points: Tensor) -> Tensor:
            self.seen.add(self.training)
            out: Tensor = self.net(points)
            return out

    net, x, y, threat, _ = linear_case("Linf")
    modes = Modes(net).train()
    reported_art_pgd(AttackerView(modes, gradient="autograd"), x, y, threat, seed=1, steps=2)

    assert modes.seen == {True}


@pytest.mark.parametrize("name", REPORTED)
@pytest.mark.parametrize("where", ["logits", "gradient"])
def test_nan_is_an_error_and_never_robustness(name: str, where: str) -> None:
    """AutoAttack and ART turn a NaN gradient into a step of zero and report what is left as robust."""
    attack, options = REPORTED[name]
    net, x, y, threat, _ = linear_case("Linf")

    class Broken(nn.Module):
        def forward(self, points: Tensor) -> Tensor:
            logits: Tensor = net(points)
            if where == "logits":
                return logits * torch.nan
            hole = points.flatten(1)[:, :1] - points.detach().flatten(1)[:, :1]
            return logits + torch.where(hole == 0, torch.zeros_like(hole), hole.sqrt() / hole)

    with pytest.raises(FloatingPointError, match=f"the {where}.* NaN or inf"):
        attack(AttackerView(Broken(), gradient="autograd"), x, y, threat, seed=1, **options)


@pytest.mark.parametrize("version", ["rand", "standard"])
def test_without_limits_the_settings_are_autoattack_s_own(version: str) -> None:
    """Those of a plain ``AutoAttack(version=...)``."""
    from pyautoattack import AutoAttack

    net, x, *_ = linear_case("Linf")
    model = Guarded(AttackerView(net, gradient="autograd"), x.dtype)
    draws = 20 if version == "rand" else 1
    ours = _autoattack(model, x, ThreatModel(), seed=1, version=version, draws=draws)
    _limit(ours, steps=100, queries=5000, targets=9)
    plain = AutoAttack(model, eps=8 / 255, seed=ours.seed, version=version, device=x.device)

    assert ours.attacks_to_run == plain.attacks_to_run
    for part in ("apgd", "apgd_targeted", "fab", "square"):
        assert vars(getattr(ours, part)) == vars(getattr(plain, part)), part


def test_shorter_runs_have_windows_of_their_own() -> None:
    """10 steps: APGD looks after 2, not after 22."""
    net, x, *_ = linear_case("Linf")
    view = AttackerView(net, gradient="autograd")
    ours = _autoattack(Guarded(view, x.dtype), x, ThreatModel(), seed=1, version="rand", draws=2)
    _limit(ours, steps=10, queries=30, targets=4)

    assert (ours.apgd.n_iter, ours.apgd.n_iter_2, ours.apgd_targeted.n_iter_2, ours.fab.n_iter) == (10, 2, 2, 10)
    assert (ours.square.n_queries, ours.fab.n_target_classes, ours.apgd.eot_iter) == (30, 4, 2)


def test_eot_is_autoattack_s_own_loop() -> None:
    """An image that withstands: 11 gradients of 3 draws, 1 draw before the attack, and a few questions."""
    net, x, y, _, _ = linear_case("Linf")
    model = wrap(net)
    with count_passes(model) as passes:
        result = reported_autoattack(
            AttackerView(model, gradient="autograd"), x[:1], y[:1], ThreatModel("Linf", 1e-6),
            seed=1, version="rand", draws=3, steps=10, attacks=["apgd-ce"],
        )  # fmt: skip

    assert result.reported_accuracy == 1
    assert torch.equal(result.x_adv, x[:1])  # what withstands comes back as it was
    assert passes.backwards == 33
    assert 33 < passes.forwards < 45


def test_plain_functions_return_the_same_points() -> None:
    """As any other attack does, in the type that came in."""
    net, x, y, threat, _ = linear_case("Linf")
    net, x, y = net.double(), x[:5].double(), y[:5].int()
    view = AttackerView(net, gradient="autograd")
    plain = (
        autoattack_rand(view, x, y, threat, seed=1, draws=2, steps=10),
        autoattack_standard(view, x, y, threat, seed=1, steps=10, queries=20),
        art_pgd(view, x, y, threat, seed=1, steps=10),
    )
    for points, (attack, options) in zip(plain, REPORTED.values(), strict=True):
        assert points.dtype == torch.double
        assert torch.equal(points, attack(view, x, y, threat, seed=1, **options).x_adv)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": "plus"}, "unknown version 'plus'; known: rand, standard"),
        ({"attacks": ["square"]}, r"attacks of 'rand' are apgd-ce, apgd-dlr; got \['square'\]"),
        ({"attacks": []}, "attacks of 'rand' are"),
        ({"steps": 0}, "must be at least 1, got 0, 2 and 5000"),
        ({}, "apgd-dlr needs 3 classes, got 2: leave it out"),
        ({"version": "standard", "attacks": ["square"]}, r"sides of at least 5, got \(2, 3, 4, 4\): leave it out"),
    ],
)
def test_bad_options_raise(options: dict[str, Any], message: str) -> None:
    """Before AutoAttack dies of them in its own way."""
    x, y = reference.coin_data(2)
    view = AttackerView(wrap(reference.Coin(0.7)), gradient="autograd")
    with pytest.raises(ValueError, match=message):
        reported_autoattack(
            view, x, y, ThreatModel("L2", 0.5), seed=1, **{"version": "rand", "draws": 2, **options}
        )  # fmt: skip
    with pytest.raises(ValueError, match="steps must be at least 1"):
        art_pgd(view, x, y, ThreatModel(), seed=1, steps=0)
