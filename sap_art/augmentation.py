"""Random crops and mirror images of a batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PADDING = 4


def pad(images: Tensor) -> Tensor:
    """Zeros around images: (N, 3, H, W) in [0, 1] -> uint8 (N, 3, H + 8, W + 8)."""
    return F.pad((images * 255).round().to(torch.uint8), (PADDING,) * 4)


def augment(padded: Tensor, index: Tensor, generator: torch.Generator) -> Tensor:
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
