"""Training by a recipe: steps and epochs, and the state that an interrupted run goes on from."""

from __future__ import annotations

import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sap_art import data
from sap_art.augmentation import augment, pad
from sap_art.defended import DefendedModel
from sap_art.networks import build, initialise
from sap_art.policies import DRO
from sap_art.randomness import derive_seed, make_generator
from sap_art.recipes import Recipe, fgsm, perturb
from sap_art.untrusted import require_no_bomb

Images = tuple[Tensor, Tensor]


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

    recipe: Recipe
    net: nn.Module
    model: nn.Module  # the net, or under dropout what learns in its place
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
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

    The recipe's attack runs in training mode and bfloat16 too: batch norms use the statistics of the batch under
    attack, and their running statistics also see the images of its steps. A mixture's images come from a copy of the
    net in evaluation mode. A gradient that is NaN or inf there raises FloatingPointError.
    """
    if recipe.epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {recipe.epochs}")
    run = _start(architecture, recipe, steps=len(images[1]) // recipe.batch_size, seed=seed, device=device)
    run.settings["images"] = data.ids_sha256(*images)
    output.mkdir(parents=True, exist_ok=True)
    _resume(run, output / "state.pt")
    padded, labels = pad(images[0]).to(device), images[1].to(device)
    while run.epoch < recipe.epochs:
        _train_epoch(run, (padded, labels), report)
        run.epoch += 1
        _save_state(run, output / "state.pt")
    return run.net.eval()


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
        nesterov=recipe.decay is None,
    )
    settings = {"architecture": architecture, "seed": seed, "steps": steps, **recipe.settings()}
    return _Run(recipe, net, _learner(net, recipe), optimizer, _schedule(optimizer, recipe, steps), settings)


def _learner(net: nn.Module, recipe: Recipe) -> nn.Module:
    """The net, or under dropout the net with it; its seed is set epoch by epoch."""
    if recipe.dropout is None:
        return net
    return DefendedModel(net, DRO(recipe.dropout), seed=0, gradient="autograd")


def _schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """The rate step by step, with ``steps`` steps an epoch."""
    decay = recipe.decay
    if decay is not None:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: decay.scale(step / steps))
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.peak_rate, total_steps=steps * recipe.epochs, cycle_momentum=False
    )


def _train_epoch(run: _Run, data: Images, report: Callable[[Progress], None]) -> None:
    padded, labels = data
    device, seed, steps, size = labels.device, run.settings["seed"], run.settings["steps"], run.recipe.batch_size
    generator = make_generator("cpu", seed, "epoch", run.epoch)
    noise = make_generator(device, seed, "attack", run.epoch)
    order = torch.randperm(len(labels), generator=generator)[: steps * size]
    past = _past(run)
    if isinstance(run.model, DefendedModel):
        run.model.reseed(derive_seed(seed, "dropout", run.epoch))
    run.model.train()
    for i, index in enumerate(order.split(size)):
        x = augment(padded, index, generator).to(device)
        y = labels[index.to(device)]
        x = _attacked(run, x, y, generator=noise) if past is None else _mixed(run.recipe, past, x, y)
        loss, hits = _step(run, x, y)
        report(Progress(run.epoch * steps + i + 1, steps * run.recipe.epochs, run.epoch + 1, loss, hits / size))


def _attacked(run: _Run, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
    if run.recipe.attack is None:
        return x
    return perturb(x, run.recipe.attack, loss=lambda point: _forward(run.model, point, y)[0], generator=generator)


def _past(run: _Run) -> nn.Module | None:
    """The net as the epoch before left it, where the recipe mixes in images attacked by that."""
    return None if run.recipe.mixture is None or run.epoch == 0 else deepcopy(run.net).eval()


def _mixed(recipe: Recipe, past: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The first images of the batch, which is in random order, attacked by ``past``; the others as they are."""
    assert recipe.mixture is not None
    some = round(recipe.mixture.share * len(x))
    attacked = fgsm(x[:some], recipe.mixture.eps, loss=lambda point: _forward(past, point, y[:some])[0])
    return torch.cat([attacked, x[some:]])


def _forward(net: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy and logits."""
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        logits = net(x.to(memory_format=torch.channels_last))
        return F.cross_entropy(logits.float(), y), logits


def _step(run: _Run, x: Tensor, y: Tensor) -> tuple[float, int]:
    loss, logits = _forward(run.model, x, y)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    run.optimizer.step()
    run.schedule.step()
    return loss.item(), int((logits.argmax(1) == y).sum())


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
    require_no_bomb(path, what="the state of a training run")
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        settings, epoch = state["settings"], state["epoch"]
    except Exception as error:  # whatever a damaged archive makes torch raise
        raise ValueError(f"{path} is damaged ({error}); delete it to start again") from error
    if settings != run.settings:
        raise ValueError(
            f"{path} belongs to a run with settings {settings}, asked for {run.settings}; "
            "use another --output or delete it"
        )
    try:
        run.net.load_state_dict(state["net"])
        run.optimizer.load_state_dict(state["optimizer"])
        run.schedule.load_state_dict(state["schedule"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to start again") from error
    run.epoch = epoch
