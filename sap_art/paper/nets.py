"""The nets of the figures by their role, and the command that trains one that is missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from sap_art import zoo
from sap_art.paper.figures import Figure
from sap_art.recipes import checkpoint_name
from sap_art.store import weights_sha256

ARCHITECTURE = "preact-resnet20"
DENSE_RECIPE = "standard"


@dataclass(frozen=True)
class Net:
    """A net ready to be attacked: the checkpoint's name, its SHA-256 over weights, clean accuracy by its card.

    ``accuracy`` in [0, 1] on ``test_images`` images; ``epochs`` and ``recipe`` are those it was trained by.
    """

    name: str
    module: nn.Module
    sha256: str
    accuracy: float
    test_images: int
    recipe: str
    epochs: int


@dataclass(frozen=True)
class Absent:
    """A net without a checkpoint, and how to train it."""

    name: str
    command: str


def roles_of(figures: list[Figure]) -> list[str]:
    """The roles that these figures need, each once."""
    return list(dict.fromkeys(curve.defender.role for figure in figures for curve in figure.curves))


def recipe_of(role: str) -> str:
    """The recipe that trains the net of that role: ``dropout-0.1`` is ``dropout:0.1``."""
    return DENSE_RECIPE if role == "dense" else role.replace("dropout-", "dropout:")


def find_net(role: str, *, checkpoints: Path | None = None) -> Net | Absent:
    """The net of that role from ``checkpoints``, a folder that ``sap-art train`` wrote, else from the zoo.

    Raises:
        ValueError: a checkpoint that is not the file of its card.
        FileNotFoundError: a folder that is not there.
    """
    if checkpoints is not None and not checkpoints.is_dir():
        raise FileNotFoundError(f"no such folder of checkpoints: {checkpoints}")
    name = checkpoint_name(ARCHITECTURE, recipe_of(role))
    for folder in (checkpoints, zoo.ASSETS):
        if folder is not None and (folder / f"{name}.safetensors").is_file():
            return _read(name, folder)
    train = f"sap-art train --arch {ARCHITECTURE} --recipe {recipe_of(role)} --data cifar10-folder --output checkpoints"
    return Absent(name, f"{train}, then sap-art paper with --checkpoints checkpoints")


def _read(name: str, folder: Path) -> Net:
    card = zoo.load_card(name, folder=folder)
    module = zoo.load(name, folder=folder)
    recipe, epochs = card.recipe.get("name"), card.recipe.get("epochs")
    if not isinstance(recipe, str) or not isinstance(epochs, int):
        raise ValueError(
            f"{folder / name}.json does not say by which recipe and in how many epochs the net was trained"
        )
    return Net(name, module, weights_sha256(module), card.accuracy, card.test_images, recipe, epochs)
