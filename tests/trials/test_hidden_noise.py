"""Models that are random only where an attack leads: taken for random, probed there, or called unreliable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import reference
import torch
from torch import Tensor, nn

from sap_art import ThreatModel, data, protocol, wrap
from sap_art.entries import Entry, make_entry
from sap_art.protocol.job import Job
from sap_art.record import DefenceInfo, Flag, ModelInfo
from sap_art.stochastic import StochasticModel
from sap_art.store import Store
from sap_art.tiers import TIERS

CONTROLS = Path(__file__).parents[2] / "benchmarks" / "controls" / "models.py"
IMAGES, EPS = 8, 0.1
SMALL = replace(TIERS["smoke"], noise_points=8, draws=2, steps=10, selection_draws=4)


def case() -> tuple[reference.Linear, Tensor, Tensor]:
    """A linear net of two classes and images of both labels with a margin of 1.05: .05 is left by the best attack."""
    generator = torch.Generator().manual_seed(3)
    w = torch.randn(48, generator=generator)
    y = torch.arange(IMAGES) % 2
    net = reference.Linear(w, -0.5 * w.sum().item())
    x = 0.5 + ((2 * y - 1) * 1.05 * reach(net) / w.square().sum())[:, None] * w
    return net, x.view(IMAGES, 3, 4, 4), y


def reach(net: reference.Linear) -> Tensor:
    """How far an attack can move the margin."""
    return EPS * net.w.abs().sum()


class Coins(nn.Module):
    """The linear net, but a coin is thrown for images whose margin, in units of ``reach``, is such that ``where``."""

    def __init__(self, where: Callable[[Tensor], Tensor], *, whole_batch: bool = False) -> None:
        super().__init__()
        self.net, _, _ = case()
        self.where, self.whole_batch = where, whole_batch

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        score = logits[:, 1]
        coins = torch.rand(1 if self.whole_batch else len(x)).expand(len(x)) < 0.5
        thrown = coins & self.where(score.abs() / reach(self.net))
        return torch.stack([logits[:, 0], torch.where(thrown, -score, score)], 1)


def flags(model: StochasticModel, folder: Path) -> dict[str, Flag]:
    """What a small evaluation raises or clears."""
    _, x, y = case()
    info = ModelInfo("coins", "Coins", weights_sha256="0" * 64)
    entry = Entry("coins", model, 2, info, DefenceInfo("foreign", "module", True, "single", 1), lambda: model)
    job = Job(entry, x, y, ThreatModel("Linf", EPS), SMALL, seed=1, store=Store(folder))
    return {flag.code: flag for flag in protocol.run(job).flags}


def test_noise_that_no_clean_image_shows_is_found_around_them() -> None:
    """The control that is random off the images alone is taken for a random model."""
    x, y = data.load("cifar10", n=8)
    entry = make_entry("secret", f"{CONTROLS}:secret_direction", None, x=x, y=y, seed=0, device=torch.device("cpu"))

    assert entry.defence.spec == "foreign"
    assert not entry.model.deterministic


def test_a_net_is_still_deterministic() -> None:
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    entry = make_entry("net", "preact-resnet20", None, x=x, y=torch.zeros(4).long(), seed=0, device=torch.device("cpu"))

    assert (entry.defence.spec, entry.model.deterministic) == ("none", True)


def test_a_model_that_was_taken_for_deterministic_and_is_not_makes_the_evaluation_unreliable(tmp_path: Path) -> None:
    """Random only near the boundary, where neither clean images nor noise lead."""
    module = Coins(lambda margin: margin < 0.2)
    found = flags(wrap(module, dense=module, seed=1), tmp_path)["state-between-calls"]

    assert (found.state, found.level) == ("raised", "R")
    assert "taken for deterministic" in found.evidence


def test_a_deterministic_model_is_taken_at_its_word(tmp_path: Path) -> None:
    net, _, _ = case()
    assert flags(wrap(net, dense=net, seed=1), tmp_path).get("state-between-calls") is None


@pytest.mark.parametrize(("whole_batch", "state"), [(True, "raised"), (False, "clear")])
def test_noise_that_no_clean_image_shows_is_probed_around_them(whole_batch: bool, state: str, tmp_path: Path) -> None:
    """Shared by the batch or not: at the clean images there is nothing to see."""
    model = wrap(Coins(lambda margin: (margin - 1.05).abs() > 1e-3, whole_batch=whole_batch), seed=1)
    _, x, _ = case()
    assert torch.equal(model.single(x), model.single(x))

    assert flags(model, tmp_path)["batch-shared-noise"].state == state
