"""Random models whose robust accuracy is known, on images of 48 pixels: within 8/255 the first pixel tells the label.

Noise is drawn from torch's global generator, image by image and call by call.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES = 10
EPS = 8 / 255
LOGIT = 5.0
MARGIN = 0.02
"""How far the mean of the pixels may sink before ``Breakable`` is wrong, in units of EPS."""


class Coin(nn.Module):
    """Wrong with probability ``error`` whatever is done to an image: (B, 3, 4, 4) -> (B, 10) logits."""

    def __init__(self, error: float) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        label = label_of(x)
        predicted = torch.where(_errors(x, self.error), 1 - label, label)
        return LOGIT * nn.functional.one_hot(predicted, CLASSES) + 0 * x.flatten(1).sum(1, keepdim=True)


class Breakable(nn.Module):
    """Wrong with probability ``error`` on a clean image, and always once its pixels are a little darker.

    (B, 3, 4, 4) -> (B, 10) logits, linear in x. Of a clean image right and wrong draws are equally sure of themselves,
    so that the mean of K draws goes with the majority.
    """

    def __init__(self, error: float) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        label = label_of(x)
        darker = (0.5 - x.flatten(1)[:, 1:].mean(1)) / EPS
        margin = LOGIT * (MARGIN - darker - 2 * MARGIN * _errors(x, self.error))
        others = -torch.arange(CLASSES, dtype=x.dtype, device=x.device).expand(len(x), -1) - LOGIT
        logits = others.scatter(1, label[:, None], margin[:, None] / 2)
        return logits.scatter(1, 1 - label[:, None], -margin[:, None] / 2)


def label_of(x: Tensor) -> Tensor:
    """(B, ...) -> (B,), 0 or 1."""
    return (x.flatten(1)[:, 0] > 0.5).long()


def images(n: int) -> tuple[Tensor, Tensor]:
    """Grey (n, 3, 4, 4) but for the first pixel, and their labels (n,)."""
    y = torch.arange(n) % 2
    x = torch.full((n, 3, 4, 4), 0.5)
    x[:, 0, 0, 0] = y.float()
    return x, y


def _errors(x: Tensor, error: float) -> Tensor:
    return torch.rand(len(x), device=x.device) < error
