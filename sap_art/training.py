"""Training recipes: every checkpoint that ships with the package was made by ``train`` through ``sap-art train``."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from sap_art import data
from sap_art.devices import require_device
from sap_art.networks import build, initialise
from sap_art.randomness import make_generator
from sap_art.zoo import file_sha256

PADDING = 4
Images = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Recipe:
    """SGD with Nesterov momentum and a one-cycle rate on randomly cropped and flipped images."""

    epochs: int
    batch_size: int = 128
    peak_rate: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4


RECIPES = {"standard": Recipe(epochs=60)}


@dataclass(frozen=True)
class Progress:
    """What is reported after each step: steps done and in all, the running training loss and accuracy."""

    step: int
    steps: int
    epoch: int
    loss: float
    accuracy: float


@dataclass
class _Run:
    """All that one training run carries from step to step."""

    net: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.OneCycleLR
    settings: dict[str, Any]
    epoch: int = 0


def train(
    architecture: str,
    recipe: Recipe,
    images: Images,
    *,
    seed: int,
    output: Path,
    device: torch.device | str = "cpu",
    report: Callable[[Progress], None] = lambda progress: None,
) -> nn.Module:
    """Train one net; ``images`` are ((N, 3, 32, 32) in [0, 1], (N,) labels).

    Bfloat16 autocast, channels_last. State is kept in ``output/state.pt`` after each epoch; a second call with the
    same settings goes on from there, with other settings raises ValueError.
    """
    if recipe.epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {recipe.epochs}")
    run = _start(architecture, recipe, steps=len(images[1]) // recipe.batch_size, seed=seed, device=device)
    run.settings["images"] = data.ids_sha256(*images)
    output.mkdir(parents=True, exist_ok=True)
    _resume(run, output / "state.pt")
    padded = F.pad((images[0] * 255).round().to(torch.uint8), (PADDING,) * 4).to(device)
    labels = images[1].to(device)
    while run.epoch < recipe.epochs:
        _train_epoch(run, (padded, labels), report)
        run.epoch += 1
        _save_state(run, output / "state.pt")
    return run.net.eval()


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
    """``sap-art train``: train on CIFAR-10, measure on all test images, write ``output/<architecture>.safetensors``.

    Raises:
        ValueError: unknown architecture or recipe, no epochs, data that is not there.
    """
    if recipe_name not in RECIPES:
        raise ValueError(f"unknown recipe {recipe_name!r}; known: {', '.join(RECIPES)}")
    recipe = RECIPES[recipe_name] if epochs is None else replace(RECIPES[recipe_name], epochs=epochs)
    require_device(device)
    checkpoint = output / f"{architecture}.safetensors"
    if checkpoint.exists() and not (output / "state.pt").exists():
        raise ValueError(f"{checkpoint} is there already and no run of it can be resumed; use another --output")
    images = data.load("cifar10", split="train", source=source)
    test = data.load("cifar10", split="test", source=source)
    net = train(architecture, recipe, images, seed=seed, output=output, device=device, report=report)
    card = {
        "architecture": architecture,
        "recipe": {"name": recipe_name, **asdict(recipe)},
        "dataset": "cifar10",
        "train_images": len(images[1]),
        "seed": seed,
        "accuracy": accuracy(net, test, device=device),
        "test_images": len(test[1]),
        "torch": torch.__version__,
        "machine": platform.machine() if device == "cpu" else torch.cuda.get_device_name(device),
    }
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


def _start(architecture: str, recipe: Recipe, *, steps: int, seed: int, device: torch.device | str) -> _Run:
    if steps == 0:
        raise ValueError(f"training needs at least one batch of {recipe.batch_size} images")
    net = build(architecture, device="cpu")
    initialise(net, make_generator("cpu", seed, "init"))
    net = net.to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.SGD(
        net.parameters(),
        lr=recipe.peak_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.peak_rate, total_steps=steps * recipe.epochs, cycle_momentum=False
    )
    settings = {"architecture": architecture, "seed": seed, "steps": steps, **asdict(recipe)}
    return _Run(net, optimizer, schedule, settings)


def _train_epoch(run: _Run, data: Images, report: Callable[[Progress], None]) -> None:
    padded, labels = data
    device, steps, size = labels.device, run.settings["steps"], run.settings["batch_size"]
    generator = make_generator("cpu", run.settings["seed"], "epoch", run.epoch)
    order = torch.randperm(len(labels), generator=generator)[: steps * size]
    run.net.train()
    for i, index in enumerate(order.split(size)):
        x = _augment(padded, index, generator).to(device)
        loss, hits = _step(run, x, labels[index.to(device)])
        report(Progress(run.epoch * steps + i + 1, steps * run.settings["epochs"], run.epoch + 1, loss, hits / size))


def _step(run: _Run, x: Tensor, y: Tensor) -> tuple[float, int]:
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        logits = run.net(x.to(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), y)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    run.optimizer.step()
    run.schedule.step()
    return loss.item(), int((logits.argmax(1) == y).sum())


def _augment(padded: Tensor, index: Tensor, generator: torch.Generator) -> Tensor:
    """Random crops and mirror images: uint8 (N, 3, H + 8, W + 8), (B,) -> (B, 3, H, W) in [0, 1]."""
    device, size = padded.device, padded.shape[-1] - 2 * PADDING
    shift = torch.randint(0, 2 * PADDING + 1, (2, len(index), 1), generator=generator)
    flip = torch.rand((len(index), 1), generator=generator) < 0.5
    across = torch.arange(size)
    rows = (shift[0] + across).to(device)
    columns = (shift[1] + torch.where(flip, across.flip(0), across)).to(device)
    picked = padded[index.to(device)[:, None, None, None], torch.arange(3, device=device)[:, None, None],
                    rows[:, None, :, None], columns[:, None, None, :]]  # fmt: skip
    return picked.float() / 255


def _save_state(run: _Run, path: Path) -> None:
    state = {
        "settings": run.settings,
        "epoch": run.epoch,
        "net": run.net.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "schedule": run.schedule.state_dict(),
    }
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def _resume(run: _Run, path: Path) -> None:
    if not path.exists():
        return
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # whatever a damaged archive makes torch raise
        raise ValueError(f"{path} is damaged ({error}); delete it to start again") from error
    if state["settings"] != run.settings:
        raise ValueError(
            f"{path} belongs to a run with settings {state['settings']}, asked for {run.settings}; "
            "use another --output or delete it"
        )
    run.net.load_state_dict(state["net"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.schedule.load_state_dict(state["schedule"])
    run.epoch = state["epoch"]
