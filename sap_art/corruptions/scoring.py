"""Accuracy by corruption and severity, and their mean, with intervals that know that all cells show the same images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sap_art import metrics
from sap_art.evaluation import evaluate
from sap_art.foreign import as_stochastic
from sap_art.metrics import Estimate
from sap_art.randomness import derive_seed

SEVERITIES = (1, 2, 3, 4, 5)
Cell = tuple[str, int]


@dataclass(frozen=True)
class CorruptedImages:
    """The same n images under each corruption and severity.

    Attributes:
        source: what they are; ``CIFAR-10-C`` for the published files alone.
        corruptions: their names.
        digest: SHA-256 that tells sets apart without reading them whole.
        labels: (n,) int64.
        read: corruption, severity (1 to 5) -> (n, 3, 32, 32) float32 in [0, 1], on the CPU.
    """

    source: str
    corruptions: tuple[str, ...]
    digest: str
    labels: Tensor
    read: Callable[[str, int], Tensor]

    @property
    def cells(self) -> list[Cell]:
        """All pairs of corruption and severity."""
        return [(corruption, severity) for corruption in self.corruptions for severity in SEVERITIES]


@dataclass(frozen=True)
class CorruptionAccuracy:
    """Accuracies in [0, 1] of single draws: ``cells`` by corruption, severities 1 to 5 in order, and their ``mean``."""

    cells: dict[str, list[Estimate]]
    mean: Estimate


def corruption_accuracy(
    model: nn.Module, images: CorruptedImages, *, draws: int, seed: int, batch_size: int | None = None
) -> CorruptionAccuracy:
    """Score fresh single draws of ``model`` in each cell; ``mean`` over cells is RobustBench's ``corruptions_acc``.

    Args:
        model: (B, 3, 32, 32) in [0, 1] -> (B, C) logits, as for ``evaluate``.
        images: of ``cifar10_c`` or ``closed_forms``.
        draws: m, an image and cell.
        seed: of the draws; each cell has draws of its own.
        batch_size: most rows a forward pass, as for ``evaluate``.

    Raises:
        ValueError: what ``evaluate`` refuses.
    """
    per_example = as_stochastic(model).per_example
    return summarise(
        {cell: right(model, images, cell, draws=draws, seed=seed, batch_size=batch_size) for cell in images.cells},
        per_example=per_example,
    )


def right(
    model: nn.Module, images: CorruptedImages, cell: Cell, *, draws: int, seed: int, batch_size: int | None = None
) -> Tensor:
    """Whether each draw of a cell predicts the label: (m, n) bool; each cell has draws of its own."""
    x, cell_seed = images.read(*cell), derive_seed(seed, *cell)
    return right_on(model, x, images.labels, draws=draws, seed=cell_seed, batch_size=batch_size)


def right_on(model: nn.Module, x: Tensor, y: Tensor, *, draws: int, seed: int, batch_size: int | None = None) -> Tensor:
    """The same of any images, on the device of the model."""
    device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), x.device)
    return evaluate(model, x.to(device), y.to(device), draws=draws, seed=seed, batch_size=batch_size).right


def share(right: Tensor, *, per_example: bool) -> Estimate:
    """Mean of (m, n) shares of right predictions with its 95 % interval over images, and over draws they share."""
    if not per_example:
        return metrics.shared_noise_accuracy(right, seed=len(right))
    if right.dtype == torch.bool:
        return metrics.accuracy(right.sum(0), len(right))
    return metrics.mean_interval(right.double().mean(0).numpy())


def summarise(right: Mapping[Cell, Tensor], *, per_example: bool) -> CorruptionAccuracy:
    """From (m, n) bool by cell. The mean's interval takes an image with all its corruptions as one observation."""
    cells: dict[str, list[Estimate]] = {}
    for (corruption, _), found in right.items():
        cells.setdefault(corruption, []).append(share(found, per_example=per_example))
    total = torch.zeros(next(iter(right.values())).shape, dtype=torch.float64)
    for found in right.values():
        total += found
    return CorruptionAccuracy(cells, share(total / len(right), per_example=per_example))
