"""Every policy scored at every attack's points."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from sap_art.evaluation import evaluate
from sap_art.game.payoffs import HALVES, Counts, Payoffs
from sap_art.randomness import derive_seed
from sap_art.stochastic import StochasticModel


def cross_evaluate(
    models: Mapping[str, StochasticModel], points: Mapping[str, Tensor], y: Tensor, *, draws: int, seed: int
) -> Payoffs:
    """Right draws of each model on each attack's points.

    Each model draws anew for each attack and for each half of the images (even, odd), so that what is chosen on one
    half says nothing of the other by shared noise. A model that declares itself deterministic is run once.

    Args:
        models: by policy spec.
        points: by attack id: (B, ...) in [0, 1] each, of the same images in the same order.
        y: labels (B,).
        draws: m, fresh draws an image.
        seed: of these draws; never one that an attack or a selection has used.

    Raises:
        ValueError: no model, no attack, fewer than two images, and what ``evaluate`` refuses.
    """
    if not models or not points or len(y) < 2:
        raise ValueError(
            f"the game needs a model, an attack and two images, got {len(models)}, {len(points)} and {len(y)}"
        )
    seeded = derive_seed(seed, "game")
    rights = {
        policy: [_rights(model, x, y, draws=draws, seed=derive_seed(seeded, policy, a)) for a, x in points.items()]
        for policy, model in models.items()
    }
    return Payoffs(
        policies=tuple(models),
        attacks=tuple(points),
        draws=draws,
        correct=np.stack([np.stack([_by_image(halves, len(y)) for halves in row]) for row in rights.values()]),
        draw_correct={
            policy: np.stack([np.stack([half.sum(1).numpy() for half in halves]) for halves in rights[policy]])
            for policy, model in models.items()
            if not (model.per_example or model.deterministic)
        },
    )


def _rights(model: StochasticModel, x: Tensor, y: Tensor, *, draws: int, seed: int) -> list[Tensor]:
    """For either half of the images (m, its images) bool: whether a draw is right."""
    if len(x) != len(y):
        raise ValueError(f"the points of each attack must be those of the {len(y)} labelled images, got {len(x)}")
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    times = 1 if model.deterministic else draws
    return [
        evaluate(model, x[half], y[half], draws=times, seed=derive_seed(seed, number)).right.expand(draws, -1)
        for number, half in enumerate(HALVES)
    ]


def _by_image(halves: list[Tensor], images: int) -> Counts:
    correct = torch.empty(images, dtype=torch.int64)
    for half, right in zip(HALVES, halves, strict=True):
        correct[half] = right.sum(0)
    return correct.numpy()
