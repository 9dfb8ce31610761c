"""Models that remember or adapt: what an attack finds on the model as it came is not what the used one is scored on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from torch import Tensor, nn

from sap_art import ThreatModel, data, protocol, wrap
from sap_art.diagnostics.anew import answers_as_if_new
from sap_art.entries import Entry, make_entry
from sap_art.protocol.campaign import Job
from sap_art.record import DefenceInfo, Flag, ModelInfo
from sap_art.stochastic import StochasticModel
from sap_art.store import Store
from sap_art.tiers import TIERS

CONTROLS = Path(__file__).parents[2] / "benchmarks" / "controls" / "models.py"
IMAGES, EPS = 8, 0.1
SMALL = replace(TIERS["smoke"], noise_points=8, draws=2, steps=10, selection_draws=4)
CODE = "state-between-calls"


class Net(nn.Module):
    """A linear net of two classes, all whose images fall at EPS."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = reference.Linear(torch.randn(48, generator=torch.Generator().manual_seed(3)), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x - 0.5)
        return logits


class Remembers(Net):
    """What comes near an earlier input is answered as that was; its gradient stays the net's."""

    def __init__(self, near: float) -> None:
        super().__init__()
        self.near = near
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        answers = [self._answer(image, said) for image, said in zip(x.detach(), logits.detach(), strict=True)]
        return logits - logits.detach() + torch.stack(answers)

    def _answer(self, image: Tensor, said: Tensor) -> Tensor:
        for earlier, answer in self.seen:
            if (earlier - image).abs().max() < self.near:
                return answer
        self.seen.append((image, said))
        return said


class Adapts(Net):
    """Subtracts a running mean of its inputs: it settles within the first calls."""

    def __init__(self) -> None:
        super().__init__()
        self.mean: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        now = x.detach().mean(0)
        self.mean = now if self.mean is None else 0.9 * self.mean + 0.1 * now
        return super().forward(x + 0.5 - self.mean)


class Turns(Net):
    """Another net from its 50th call on."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) * (1.0 if self.calls < 50 else -1.0)


class Noisy(Net):
    """Random numbers that no seed controls, around an offset that grows by ``drift`` a call."""

    def __init__(self, drift: float) -> None:
        super().__init__()
        self.drift, self.calls, self.rng = drift, 0, np.random.default_rng(5)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        shift = torch.tensor(self.rng.normal(self.drift * self.calls, 1.0, len(x)), dtype=x.dtype)
        return super().forward(x) + shift[:, None] * torch.tensor([1.0, -1.0])


def case() -> tuple[Tensor, Tensor]:
    """Images on both sides of the net's boundary, at half of what EPS can move, and their labels."""
    y = torch.arange(IMAGES) % 2
    w = Net().linear.w
    x = 0.5 + ((2 * y - 1) * 0.5 * EPS * w.abs().sum() / w.square().sum())[:, None] * w
    return x.view(IMAGES, 3, 4, 4), y


def raised(module: nn.Module, folder: Path) -> dict[str, Flag]:
    """What the smallest evaluation has against the model."""
    x, y = case()

    def anew() -> StochasticModel:
        again = copy.deepcopy(module)
        return wrap(again, dense=again, seed=1)

    info = ModelInfo("net", "Net", weights_sha256="0" * 64)
    entry = Entry("net", anew(), 2, info, DefenceInfo("none", "module", True, "single", draws=1), anew)
    job = Job(entry, x, y, ThreatModel("Linf", EPS), SMALL, seed=1, store=Store(folder))
    return {flag.code: flag for flag in protocol.run(job).flags if flag.state == "raised"}


@pytest.mark.parametrize("module", [Remembers(near=0.15), Adapts(), Turns()])
def test_a_model_that_no_longer_answers_as_it_did_is_unreliable(module: nn.Module, tmp_path: Path) -> None:
    assert "before the first one" in raised(module, tmp_path)[CODE].evidence


def test_a_memory_of_the_same_answers_is_no_state(tmp_path: Path) -> None:
    assert raised(Remembers(near=1e-6), tmp_path / "remembers") == raised(Net(), tmp_path / "plain")


@pytest.mark.parametrize(("drift", "alike"), [(0.0, True), (0.05, False)])
def test_what_no_seed_repeats_is_compared_in_law(drift: float, alike: bool) -> None:
    """After 200 calls the drifting one is 10 standard deviations away."""
    x, _ = case()
    used = wrap(Noisy(drift))
    for _ in range(200):
        used.single(x)

    assert (answers_as_if_new(used, wrap(Noisy(drift)), x, seed=1) is None) == alike


def test_the_law_is_judged_at_its_level() -> None:
    """100 pairs of models that draw alike, judged at 5 %: at most 5 + 5 sd of them are told apart."""
    x, _ = case()
    pairs = [(wrap(Noisy(0.0)), wrap(Noisy(0.0))) for _ in range(100)]
    for number, pair in enumerate(pairs):
        for side, model in enumerate(pair):
            assert isinstance(model.module, Noisy)
            model.module.rng = np.random.default_rng((number, side))
    told = sum(answers_as_if_new(used, new, x, seed=1, p_value=0.05) is not None for used, new in pairs)

    assert told <= 5 + 5 * (100 * 0.05 * 0.95) ** 0.5


def test_a_model_that_answers_with_nan_is_not_compared() -> None:
    x, _ = case()

    class Nan(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * torch.nan

    assert answers_as_if_new(wrap(Nan()), wrap(Nan()), x, seed=1) is None


def entry_of(name: str) -> Callable[[], StochasticModel]:
    """How the entry of a control makes it anew."""
    x, y = data.load("cifar10", n=4)
    return make_entry(name, f"{CONTROLS}:{name}", None, x=x, y=y, seed=0, device=torch.device("cpu")).anew


def test_an_entry_makes_its_model_anew() -> None:
    """Not the one that was tried, nor one object twice: the window of the stateful control starts where it began."""
    anew = entry_of("stateful_mask")
    x, _ = data.load("cifar10", n=4)
    first = anew().single(x)
    other = anew()
    moved = [other.single(x) for _ in range(20)]

    assert torch.equal(first, moved[0])
    assert not torch.equal(first, moved[-1])


def test_an_entry_under_a_policy_is_anew_under_one_seed() -> None:
    x, y = data.load("cifar10", n=4)
    entry = make_entry("sap", "preact-resnet20", "sap:100", x=x, y=y, seed=0, device=torch.device("cpu"))
    with torch.no_grad(), entry.model.seeded(1):
        expected = entry.model.single(x)
    new = entry.anew()
    with torch.no_grad(), new.seeded(1):
        assert torch.equal(new.single(x), expected)
    assert new is not entry.model
