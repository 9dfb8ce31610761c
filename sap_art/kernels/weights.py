"""Weights before a draw: wide enough to sum, with their sums, finite."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 32
"""Units that share a partial sum, for ``plain``."""

_TINY = 1e-20
"""Rows whose sum is below are divided by it, so that draws over sum is a float32."""


class Weights(NamedTuple):
    """Rows of weights (B, M) >= 0, contiguous, with zeros behind the units up to whole blocks.

    ``sums`` are those of blocks (B, M / BLOCK), ``total`` those of rows (B,), on the host, 1 for a row of zeros.
    """

    w: Tensor
    sums: Tensor
    total: NDArray[np.float64]

    def column(self, values: NDArray[np.float64]) -> Tensor:
        """One number a row (B,) for arithmetic with ``w``: (B, 1)."""
        return torch.from_numpy(values[:, None]).to(self.w)

    def rows(self, which: NDArray[np.intp]) -> Weights:
        """Some rows, copied."""
        index = torch.from_numpy(which).to(self.w.device)
        return Weights(self.w[index], self.sums[index], self.total[which])


def weigh(h: Tensor) -> Weights:
    """The weights |h| (B, N), float32 or wider; not a copy where h will do.

    Raises:
        ValueError: NaN or inf, also where only a sum is beyond the type.
    """
    wide = widen(h.detach())
    w = wide if wide.numel() and wide.amin() >= 0 else wide.abs()
    w = F.pad(w, (0, -w.shape[1] % BLOCK)) if w.shape[1] % BLOCK else w.contiguous()
    weights = _sum(w)
    if not np.isfinite(weights.total).all():  # a NaN or inf anywhere shows in its row's sum
        raise not_finite()
    if (weights.total < _TINY).any():
        return _sum(w / weights.column(weights.total))
    return weights


def _sum(w: Tensor) -> Weights:
    ones = torch.ones(BLOCK, dtype=w.dtype, device=w.device)
    sums = torch.mv(w.view(-1, BLOCK), ones).view(len(w), -1)  # several times faster than a sum over a short axis
    total = to_host(sum_rows(sums))
    return Weights(w, sums, np.where(total == 0, 1, total))


def sum_rows(x: Tensor) -> Tensor:
    """Each row's sum, whatever the number of threads: (B, M) -> (B,)."""
    return two_rows(x).sum(1)[: len(x)]


def two_rows(x: Tensor) -> Tensor:
    """A single row twice. torch's threads share out several rows, but of a single one the parts, which rounds anew."""
    return x.expand(2, -1) if len(x) == 1 else x


def to_host(x: Tensor) -> NDArray[np.float64]:
    """As an array of float64."""
    return x.cpu().numpy().astype(np.float64)


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
