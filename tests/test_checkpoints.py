"""``sap-art train`` from end to end on a few images, and the adversarially trained net that ships."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sap_art import checkpoints, cli, data, zoo
from sap_art.checkpoints import PGD10, accuracy, pgd_images
from sap_art.devices import processor
from sap_art.recipes import RECIPES, Attack, Recipe, checkpoint_name, recipe_named

FAST = "preact-resnet20-fast"
TRAINED = sorted((Path(__file__).parents[1] / "benchmarks" / "checkpoints").iterdir())
needs_fast = pytest.mark.skipif(not (zoo.ASSETS / f"{FAST}.json").is_file(), reason=f"no {FAST} in sap_art/assets")


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first 256 bundled images to train on and the next 40 to test on."""
    x, y = data.load("cifar10", source=zoo.ASSETS / data.BUNDLE)
    parts = {"train": (x[:256], y[:256]), "test": (x[256:296], y[256:296])}
    monkeypatch.setattr(data, "load", lambda name, *, split, source: parts[split])


def run(monkeypatch: pytest.MonkeyPatch, recipe: str, output: Path) -> dict[str, Any]:
    """One epoch by the command line; the card."""
    command = ["train", "--arch", "preact-resnet20", "--recipe", recipe, "--epochs", "1", "--output", str(output)]
    monkeypatch.setattr("sys.argv", ["sap-art", *command])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 0
    return json.loads(next(output.glob("*.json")).read_text())


@pytest.mark.usefixtures("few_images")
def test_fast_by_the_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A checkpoint that is loaded by its own name, with a card that says the attack it was trained on."""
    card = run(monkeypatch, "fast", tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == {"state.pt", f"{FAST}.safetensors", f"{FAST}.json"}
    assert zoo.load(FAST, folder=tmp_path)(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert card["recipe"] == {"name": "fast", **replace(RECIPES["fast"], epochs=1).settings()}


@pytest.mark.usefixtures("few_images")
def test_standard_by_the_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Name and card as the net that ships has them."""
    card = run(monkeypatch, "standard", tmp_path)
    shipped = json.loads((zoo.ASSETS / "preact-resnet20.json").read_text())

    assert (tmp_path / "preact-resnet20.safetensors").is_file()
    assert card.keys() - shipped.keys() == {"schedule", "instead_of"}
    assert shipped.keys() <= card.keys()
    assert card["recipe"] == {**shipped["recipe"], "epochs": 1}


@pytest.mark.usefixtures("few_images")
@pytest.mark.parametrize("recipe", ["paper", "adv", "dropout:0.1", "fast", "madry"])
@pytest.mark.parametrize("epochs", [None, 3])
def test_cards_say_by_what_schedule(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recipe: str, epochs: int | None
) -> None:
    """The recipe's own, or one cycle in its place; accuracy under attack where images were attacked."""
    asked: list[Recipe] = []

    def trained(architecture: str, recipe: Recipe, images: object, **settings: object) -> nn.Module:
        asked.append(recipe)
        tmp_path.mkdir(exist_ok=True)
        return zoo.load(architecture)

    monkeypatch.setattr(checkpoints, "train", trained)
    path = checkpoints.train_and_save(
        "preact-resnet20", recipe, output=tmp_path, source=None, epochs=epochs, seed=0, device="cpu"
    )
    card = zoo.load_card(path.stem, folder=tmp_path)
    named = recipe_named(recipe)

    assert path.name == f"preact-resnet20-{recipe.replace(':', '-')}.safetensors"
    assert card.recipe == {"name": recipe, **asked[0].settings()}
    assert asked[0] == (named if epochs is None else named.over(epochs))
    assert card.more["schedule"] == ("one-cycle" if epochs or recipe in ("fast", "madry") else "step-decay")
    assert card.more.get("instead_of") == ({"epochs": named.epochs, "schedule": named.schedule} if epochs else None)
    assert ("pgd" in card.more) == (recipe in ("adv", "fast", "madry"))
    assert card.more["machine"].startswith(processor())


@pytest.mark.usefixtures("few_images")
def test_a_collapse_shows_in_the_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A net as good as the shipped one, and as helpless: PGD-10 leaves nothing of it."""
    monkeypatch.setattr(checkpoints, "train", lambda *_, **__: zoo.load("preact-resnet20"))
    card = run(monkeypatch, "fast", tmp_path)

    assert card["accuracy"] > 0.7
    assert card["pgd"] == {"eps": 8 / 255, "step": 2 / 255, "steps": 10, "accuracy": 0.0, "images": 40}


class Line(nn.Module):
    """Logits (0, w.x - 0.5): class 1 above 0.5 along w."""

    w = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        score = (x * self.w).flatten(1).sum(1) - 0.5
        return torch.stack([torch.zeros_like(score), score], 1)


def test_accuracy_under_attack_of_a_linear_net() -> None:
    """Right are just the images farther than eps from the line, on their side; a batch size changes nothing there."""
    distance = torch.linspace(-0.1, 0.1, 60)
    x = torch.zeros(60, 3, 1, 1)
    x[:, 0, 0, 0] = 0.5 + distance
    y = (distance > 0).long()
    y[::7] = 1 - y[::7]
    right = (distance.abs() > 0.04) & (y == (distance > 0))

    for batch_size in (7, 60):
        attacked = pgd_images(Line(), (x, y), Attack(0.04, step=0.01, steps=10), seed=3, batch_size=batch_size)
        assert accuracy(Line(), (attacked, y)) == right.double().mean().item()


@needs_fast
def test_the_adversarially_trained_net_that_ships() -> None:
    """Trained by the recipe ``fast`` on all images, and not collapsed: PGD-10 leaves 38 % or more of 10,000."""
    card = zoo.load_card(FAST)

    assert card.recipe == {"name": "fast", **RECIPES["fast"].settings()}
    assert (card.train_images, card.test_images, card.more["pgd"]["images"]) == (50_000, 10_000, 10_000)
    assert card.accuracy >= 0.68
    assert card.more["pgd"]["accuracy"] >= 0.38


@needs_fast
def test_it_withstands_what_its_card_says() -> None:
    """On the first 100 test images, within five standard errors."""
    images = data.load("cifar10", n=100)
    net, said = zoo.load(FAST), zoo.load_card(FAST).more["pgd"]["accuracy"]
    found = accuracy(net, (pgd_images(net, images, PGD10, seed=0), images[1]))

    assert abs(found - said) < 5 * (said * (1 - said) / 100) ** 0.5


@pytest.mark.parametrize("folder", TRAINED, ids=lambda folder: folder.name)
def test_checkpoints_of_the_repository_are_what_their_cards_say(folder: Path) -> None:
    """Found under their names, trained and measured on all images; of the bundled ones as many are right as of all."""
    card, net = zoo.load_card(folder.name, folder=folder), zoo.load(folder.name, folder=folder)
    x, y = data.load("cifar10", source=zoo.ASSETS / data.BUNDLE)

    assert folder.name == checkpoint_name(card.architecture, card.recipe["name"])
    assert (card.train_images, card.test_images) == (50_000, 10_000)
    assert card.more["instead_of"]["epochs"] > card.recipe["epochs"]
    spread = math.sqrt(card.accuracy * (1 - card.accuracy) / len(y))
    assert abs(accuracy(net, (x, y)) - card.accuracy) < 5 * spread
