"""The nets of the figures by their role, where they are looked for, and the command that trains a missing one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from sap_art import zoo
from sap_art.paper.figures import Figure
from sap_art.recipes import checkpoint_name
from sap_art.store import weights_sha256

ARCHITECTURE = "preact-resnet20"
DENSE_RECIPE = "standard"
CHECKPOINTS = Path("benchmarks") / "checkpoints"
"""Below the working directory: where the checkpoints of this repository are, one folder a net."""


@dataclass(frozen=True)
class Net:
    """A net ready to be attacked: the checkpoint's name, its SHA-256 over weights, and what its card says.

    ``accuracy``, clean, in [0, 1] on ``test_images`` images; ``recipe``, ``epochs`` and ``schedule`` (of the learning
    rate) are those it was trained by, ``instead_of`` what the recipe has in their place; None where the card is silent.
    """

    name: str
    module: nn.Module
    sha256: str
    accuracy: float
    test_images: int
    recipe: str
    epochs: int
    schedule: str | None
    instead_of: dict[str, Any] | None


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
    """The net of that role: from ``checkpoints``, ``CHECKPOINTS`` if None and it is there, else from the zoo.

    A folder has ``NAME.safetensors`` with its card ``NAME.json`` in itself, or in a folder NAME below it, for
    ``sap-art train`` wants one for each net. NAME is ``preact-resnet20-`` and the recipe: ``preact-resnet20-adv``.

    Raises:
        ValueError: a checkpoint without a card, or one that is not the file of its card.
        FileNotFoundError: a folder that is not there.
    """
    if checkpoints is not None and not checkpoints.is_dir():
        raise FileNotFoundError(f"no such folder of checkpoints: {checkpoints}")
    name = checkpoint_name(ARCHITECTURE, recipe_of(role))
    given = checkpoints or CHECKPOINTS
    for folder in (given, given / name, zoo.ASSETS):
        if (folder / f"{name}.safetensors").is_file():
            return _read(name, folder)
    command = f"sap-art train --arch {ARCHITECTURE} --recipe {recipe_of(role)} --data cifar10-folder"
    return Absent(name, f"{command} --output {(given / name).as_posix()}")


def _read(name: str, folder: Path) -> Net:
    card = zoo.load_card(name, folder=folder)
    module = zoo.load(name, folder=folder)
    recipe, epochs = card.recipe.get("name"), card.recipe.get("epochs")
    schedule, instead = card.more.get("schedule"), card.more.get("instead_of")
    if not isinstance(recipe, str) or not isinstance(epochs, int):
        raise ValueError(
            f"{folder / name}.json does not say by which recipe and in how many epochs the net was trained"
        )
    return Net(name, module, weights_sha256(module), card.accuracy, card.test_images, recipe, epochs, schedule, instead)
