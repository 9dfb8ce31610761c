"""Checkpoints: trained, measured and written with a card. Those that ship with the package were made here."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from sap_art import data
from sap_art.devices import describe, require_device
from sap_art.randomness import make_generator
from sap_art.recipes import EPS, Attack, canonical_name, checkpoint_name, perturb, recipe_named
from sap_art.training import Images, Progress, train
from sap_art.zoo import file_sha256

PGD10 = Attack(EPS, step=2 / 255, steps=10)


def train_and_save(
    architecture: str,
    recipe_name: str,
    *,
    output: Path,
    source: str | None,
    epochs: int | None,
    seed: int,
    device: str,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Path:
    """``sap-art train``: train on CIFAR-10, measure on all test images, write ``output/<checkpoint_name>.safetensors``.

    Another number of epochs than the recipe's is one cycle of the learning rate; the card has the ``schedule``, and
    under ``instead_of`` the recipe's own.

    The card of an adversarially trained net also has, under ``pgd``, its accuracy under ``PGD10``: an upper bound, no
    claim of robustness, there to show the collapse that single-step training can end in (catastrophic overfitting,
    arXiv:2001.03994, section 5).

    Raises:
        ValueError: unknown architecture or recipe, no epochs, data that is not there.
    """
    named = recipe_named(recipe_name)
    recipe = named if epochs is None else named.over(epochs)
    require_device(device)
    checkpoint = output / f"{checkpoint_name(architecture, recipe_name)}.safetensors"
    if checkpoint.exists() and not (output / "state.pt").exists():
        raise ValueError(f"{checkpoint} is there already and no run of it can be resumed; use another --output")
    images = data.load("cifar10", split="train", source=source)
    test = data.load("cifar10", split="test", source=source)
    net = train(architecture, recipe, images, seed=seed, output=output, device=device, report=report)
    card = {
        "architecture": architecture,
        "recipe": {"name": canonical_name(recipe_name), **recipe.settings()},
        "schedule": recipe.schedule,
        "dataset": "cifar10",
        "train_images": len(images[1]),
        "seed": seed,
        "accuracy": accuracy(net, test, device=device),
        "test_images": len(test[1]),
        "torch": torch.__version__,
        "machine": describe(torch.device(device)),
    }
    if recipe != named:
        card["instead_of"] = {"epochs": named.epochs, "schedule": named.schedule}
    if recipe.attack is not None or recipe.mixture is not None:
        attacked = pgd_images(net, test, PGD10, seed=seed, device=device), test[1]
        card["pgd"] = {**asdict(PGD10), "accuracy": accuracy(net, attacked, device=device), "images": len(test[1])}
    return save_checkpoint(net, card, checkpoint)


def save_checkpoint(net: nn.Module, card: dict[str, Any], path: Path) -> Path:
    """Write ``path`` (safetensors, float32) and its card ``path.with_suffix('.json')``, both by rename."""
    weights = {name: value.contiguous().cpu() for name, value in net.state_dict().items()}
    part = path.with_suffix(".part")
    part.write_bytes(save(weights))
    card = {**card, "sha256": file_sha256(part)}
    os.replace(part, path)
    part.write_text(json.dumps(card, indent=2, sort_keys=True, allow_nan=False) + "\n")
    os.replace(part, path.with_suffix(".json"))
    return path


@torch.inference_mode()
def accuracy(net: nn.Module, images: Images, *, device: torch.device | str = "cpu", batch_size: int = 500) -> float:
    """Fraction of ``images`` that ``net`` gets right in float32, in [0, 1]."""
    pairs = zip(images[0].split(batch_size), images[1].split(batch_size), strict=True)
    right = sum(int((net(x.to(device)).argmax(1).cpu() == y).sum()) for x, y in pairs)
    return right / len(images[1])


def pgd_images(
    net: nn.Module,
    images: Images,
    attack: Attack,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    batch_size: int = 500,
) -> Tensor:
    """Each image as ``attack`` leaves it, in float32: (N, 3, H, W) in [0, 1], (N,) -> (N, 3, H, W), on the CPU.

    One random start an image. The net is attacked in the mode it is in: call ``net.eval()`` before a measurement.
    """
    generator = make_generator(device, seed, "pgd")

    def one(x: Tensor, y: Tensor) -> Tensor:
        return perturb(x, attack, loss=lambda point: F.cross_entropy(net(point), y), generator=generator)

    pairs = zip(images[0].split(batch_size), images[1].split(batch_size), strict=True)
    return torch.cat([one(x.to(device), y.to(device)).cpu() for x, y in pairs])
