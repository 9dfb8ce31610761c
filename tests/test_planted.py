"""Planted examples: sound attacks find them on nets with and without noise, weak and masked ones do not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sap_art import SAP, AttackerView, DefendedModel, ThreatModel, wrap
from sap_art.attacks import eot_apgd, pgd
from sap_art.diagnostics.binarised import Binarised, draw_features, last_linear
from sap_art.diagnostics.planted import PlantedResult, plant, plant_and_attack, planted_example_missed
from sap_art.stochastic import StochasticModel, draw_logits

X = 0.2 + 0.6 * torch.rand(12, 3, 6, 6, generator=torch.Generator().manual_seed(0))
THREAT = ThreatModel("Linf", 0.05)


def small() -> nn.Sequential:
    """Two linear layers before the last one."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(108, 400), nn.ReLU(), nn.Linear(400, 32), nn.ReLU(), nn.Linear(32, 5))
    generator = torch.Generator().manual_seed(3)
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator) / p.shape[-1] ** 0.5
    return net


def apgd(model: StochasticModel, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    """From twenty starts: one of these images has a basin that five starts do not leave."""
    view = AttackerView(model, gradient=model.estimators[0], draws=4)
    return eot_apgd(view, x, y, threat, seed=seed, steps=10, restarts=20)


def transfer(model: StochasticModel, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    return pgd(AttackerView(model, gradient="dense"), x, y, threat, seed=seed, steps=10)


def random_point(model: StochasticModel, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
    return threat.random_start(x, torch.Generator().manual_seed(seed % 1000))


class Masked(nn.Module):
    """A net whose gradient is zero."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.detach()) + 0 * x.sum()


class InputNoise(nn.Module):
    """A net that adds noise to its input."""

    def __init__(self, net: nn.Module, sigma: float) -> None:
        super().__init__()
        self.net, self.sigma = net, sigma

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + self.sigma * torch.randn_like(x))


MODELS = {
    "dense": lambda: wrap(small()),
    "SAP": lambda: DefendedModel(small(), SAP(300), seed=1),
    "input noise": lambda: wrap(InputNoise(small(), 0.02)),
}


@pytest.mark.parametrize("threat", [THREAT, ThreatModel("L2", 0.6)], ids=["Linf", "L2"])
@pytest.mark.parametrize("name", MODELS)
def test_a_sound_attack_finds_what_is_planted_and_chance_does_not(name: str, threat: ThreatModel) -> None:
    """The flag is clear for the one and raised for the other."""
    model = MODELS[name]()
    sound, chance = (plant_and_attack(model, X, threat, a, draws=16, seed=1) for a in (apgd, random_point))

    assert int(sound.planted.sum()) >= 8
    assert torch.equal(sound.planted, chance.planted)
    assert torch.equal(sound.found, sound.planted)
    assert sound.random <= 0.05
    assert planted_example_missed(sound).state == "clear"
    assert planted_example_missed(chance).state == "raised"


def test_a_masked_gradient_misses_it_and_transfer_goes_round() -> None:
    """The same net behind a wrapper with a zero gradient."""
    net = small()
    masked = wrap(Masked(net), dense=net)

    assert planted_example_missed(plant_and_attack(masked, X, THREAT, apgd, draws=1, seed=1)).state == "raised"
    assert planted_example_missed(plant_and_attack(masked, X, THREAT, transfer, draws=1, seed=1)).state == "clear"


def test_noise_that_drowns_the_step_is_not_called_clear() -> None:
    """Nothing can be planted then."""
    drowned = wrap(InputNoise(small(), 2.0))
    found = planted_example_missed(plant_and_attack(drowned, X, THREAT, apgd, draws=16, seed=1))

    assert found.state == "not-checked"


def test_the_shipped_net(net: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    """Two images at 8/255."""
    result = plant_and_attack(wrap(net), images[0][:2], ThreatModel(), apgd, draws=1, seed=2)

    assert result.planted.all()
    assert result.found.all()


def test_the_readout_replaces_the_last_layer_and_nothing_else() -> None:
    """Logits (0, w.f + b) of the model's own draws, within calls only; the dense net and the estimators follow."""
    model = DefendedModel(small(), SAP(100), seed=1)
    head = last_linear(model, X[:1])
    weight = torch.linspace(-1, 1, 32, dtype=torch.double)
    binarised = Binarised(model, head, weight=weight, bias=0.5)
    with model.seeded(7):
        features = draw_features(model, head, X, draws=3)
    with model.seeded(7):
        plain = model.single(X)
    with binarised.seeded(7):
        logits = torch.stack([torch.zeros(3, 12), (features @ weight + 0.5).float()], -1)

        found = draw_logits(binarised, X, 3)
    with model.seeded(7):
        again = model.single(X)

    assert head is model.net[5]  # pyright: ignore[reportIndexIssue]
    torch.testing.assert_close(found, logits, rtol=1e-4, atol=1e-5)
    assert torch.equal(plain, again)
    assert binarised.estimators == model.estimators
    dense = binarised.dense
    assert dense is not None
    assert dense(X).shape == (12, 2)
    assert Binarised(wrap(small(), dense=small()), head, weight=weight, bias=0.0).estimators == ("autograd",)


def test_the_margins_are_as_documented() -> None:
    """Mean logit -5 around the image and 5 / 3 at the point of a deterministic net, which lies at distance eps."""
    model = wrap(small())
    binarised, point = plant(model, last_linear(model, X[:1]), X[:1], THREAT, draws=1, seed=1)

    assert binarised(point)[0, 1].item() == pytest.approx(5 / 3, rel=1e-3)
    assert binarised(X[:1])[0, 1].item() == pytest.approx(-5, abs=1)
    assert THREAT.distance(X[:1], point).item() == pytest.approx(0.05, rel=1e-4)


def result(found: int, planted: int, random: float = 0.0) -> PlantedResult:
    """Of 64 images."""
    index = torch.arange(64)
    return PlantedResult(index < planted, index < found, random)


@pytest.mark.parametrize(
    ("found", "planted", "random", "state"),
    [
        (13, 16, 0.0, "raised"),  # Wilson's interval ends at .934
        (14, 16, 0.0, "clear"),  # at .965
        (64, 64, 0.0, "clear"),
        (57, 64, 0.0, "raised"),  # at .948
        (58, 64, 0.0, "clear"),
        (2, 8, 0.0, "raised"),
        (2, 7, 0.0, "not-checked"),
        (2, 8, 0.05, "raised"),
        (2, 8, 0.051, "not-checked"),
    ],
)
def test_the_flag_at_its_edges(found: int, planted: int, random: float, state: str) -> None:
    """Wilson's upper bound against .95; enough images; a test that is not too easy."""
    assert planted_example_missed(result(found, planted, random)).state == state


def test_what_cannot_be_planted_raises() -> None:
    """No linear layer at the end, no draws, an attack that leaves the ball."""
    convolution = wrap(nn.Sequential(nn.Conv2d(3, 5, 6), nn.Flatten()))
    with pytest.raises(ValueError, match=r"ends in torch\.nn\.Linear"):
        plant_and_attack(convolution, X, THREAT, apgd, draws=1, seed=1)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        plant_and_attack(wrap(small()), X, THREAT, apgd, draws=0, seed=1)
    with pytest.raises(ValueError, match=r"allowed 0\.05"):
        plant_and_attack(wrap(small()), X, THREAT, lambda m, x, y, t, *, seed: x + 0.06, draws=1, seed=1)
