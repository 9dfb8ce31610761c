"""Weights before a draw: wide enough to sum, each row over its sum, finite."""

from __future__ import annotations

import torch
from torch import Tensor


def widen(h: Tensor) -> Tensor:
    """Half precision to float32, for sums and probabilities; wider types unchanged."""
    return h.float() if h.dtype in (torch.float16, torch.bfloat16) else h


def normalise(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Each row over its sum, and the sums, 1 for a row of zeros: (B, N) >= 0 -> (B, N), (B, 1)."""
    total = weights.sum(1, keepdim=True)
    total = torch.where(total == 0, 1, total)
    return weights / total, total


def not_finite() -> ValueError:
    """The error for a NaN or an infinity among the weights."""
    return ValueError("activations or weights contain NaN or inf: did the net overflow? Try a wider type")
