"""Random numbers for noise: on a CPU numpy's, which belong to a row; elsewhere the generator's."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sap_art.randomness import Place, numbering

_PURPOSE = 1 << 22


def uniform_like(h: Tensor, generator: torch.Generator) -> Tensor:
    """A number in [0, 1) for each element of h: (B, ...) -> (B, ...), float32 or wider."""
    return _elements(h, generator, "uniform")


def normal_like(h: Tensor, generator: torch.Generator) -> Tensor:
    """A standard normal number for each element of h: (B, ...) -> (B, ...), float32 or wider."""
    return _elements(h, generator, "normal")


def _elements(h: Tensor, generator: torch.Generator, law: Literal["uniform", "normal"]) -> Tensor:
    kind = torch.promote_types(h.dtype, torch.float32)
    if h.device.type != "cpu":
        draw = torch.rand if law == "uniform" else torch.randn
        return draw(h.shape, generator=generator, dtype=kind, device=h.device)
    out = torch.empty(len(h), math.prod(h.shape[1:]), dtype=kind, device="cpu")
    numbers, rows = _RowGenerator(*numbering(generator, len(h))), out.numpy()
    for i, row in enumerate(rows):
        source = numbers.at(i)
        fill = source.random if law == "uniform" else source.standard_normal
        fill(out=row, dtype=row.dtype.type)
    return out.view(h.shape)


class _RowGenerator:
    """numpy's SFC64, seeded by key, image and draw: a row's numbers depend on no other row or batch."""

    def __init__(self, key: int, place: Place) -> None:
        self._bits = np.random.SFC64(0)
        self._state = self._bits.state
        self._generator = np.random.Generator(self._bits)
        self._key, self._place = key, place

    def at(self, row: int) -> np.random.Generator:
        """The row's source, until another row is asked for; the first outputs after a seed are thrown away."""
        draw, image = divmod(row, self._place.images)
        place = (_PURPOSE << 32) + self._place.draw + draw
        self._state["state"]["state"][:] = self._key, self._place.image + image, place, 1
        self._bits.state = self._state
        self._bits.random_raw(12, output=False)
        return self._generator
