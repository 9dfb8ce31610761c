"""Random numbers for ``plain`` and for noise: on a CPU numpy's, which belong to a row; elsewhere the generator's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from sap_art.randomness import Place, numbering, spawn_generator

# Purposes; the attempt is added, first arrivals have its number alone.
_TOP_UP, _LATER_ARRIVALS, _ELEMENTS = 1 << 20, 1 << 21, 1 << 22


class Numbers(Protocol):
    """What a draw needs; ``rows`` are their numbers in the whole call, ``attempt`` counts the draws afresh."""

    def log_uniform(self, like: Tensor, rows: Sequence[int], *, attempt: int) -> Tensor:
        """log U, one for each element of ``like`` (B, N): finite, without steps where U is near 1."""
        ...

    def poisson(self, mean: Tensor, rows: Sequence[int], *, attempt: int) -> Tensor:
        """One Poisson number for each mean (B,), int64."""
        ...

    def uniform(self, counts: Tensor, rows: Sequence[int]) -> Tensor:
        """``counts`` (B,) float64 in [0, 1), one row after the other, ascending within a row: (sum of counts,)."""
        ...


def numbers_for(h: Tensor, generator: torch.Generator) -> Numbers:
    """The random numbers of a draw for the rows of h (B, N)."""
    return RowNumbers(*numbering(generator, len(h))) if h.device.type == "cpu" else DeviceNumbers(generator)


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
    numbers, rows = RowNumbers(*numbering(generator, len(h))), out.numpy()
    for i, row in enumerate(rows):
        source = numbers.elements(i)
        fill = source.random if law == "uniform" else source.standard_normal
        fill(out=row, dtype=row.dtype.type)
    return out.view(h.shape)


class RowNumbers:
    """numpy's SFC64, seeded by key, image, draw and purpose: a row's numbers depend on no other row or batch."""

    def __init__(self, key: int, place: Place) -> None:
        self._bits = np.random.SFC64(0)
        self._state = self._bits.state
        self._generator = np.random.Generator(self._bits)
        self._key, self._place = key, place

    def log_uniform(self, like: Tensor, rows: Sequence[int], *, attempt: int) -> Tensor:
        kind = torch.int64 if like.dtype == torch.float64 else torch.int32
        bits = torch.empty(like.shape, dtype=kind, device="cpu")
        words = bits.numpy()
        outputs = -(-like.shape[1] * words.itemsize // 8)
        for i, row in enumerate(rows):
            self._start(row, attempt)
            words[i] = self._bits.random_raw(outputs).view(words.dtype)[: like.shape[1]]
        bits.bitwise_and_(torch.iinfo(kind).max)
        # A little less than the step of the numbers, so that no 1 - U is rounded to 1.
        step = 2.0 ** (1 - 8 * words.itemsize) * (1 - torch.finfo(like.dtype).eps / 2)
        return bits.to(like.dtype).mul_(-step).sub_(step / 2).log1p_()

    def poisson(self, mean: Tensor, rows: Sequence[int], *, attempt: int) -> Tensor:
        numbers: list[int] = []
        for value, row in zip(mean.tolist(), rows, strict=True):
            self._start(row, _LATER_ARRIVALS + attempt)
            numbers.append(self._generator.poisson(value))
        return torch.tensor(numbers, device="cpu")

    def uniform(self, counts: Tensor, rows: Sequence[int]) -> Tensor:
        parts: list[np.ndarray] = []
        for count, row in zip(counts.tolist(), rows, strict=True):
            self._start(row, _TOP_UP)
            parts.append(np.sort(self._generator.random(count)))
        return torch.from_numpy(np.concatenate(parts))

    def elements(self, row: int) -> np.random.Generator:
        """A source of numbers for the elements of a row, until another row is asked for."""
        self._start(row, _ELEMENTS)
        return self._generator

    def _start(self, row: int, purpose: int) -> None:
        """Go to where a row's numbers for a purpose begin; the first outputs after a seed are thrown away."""
        draw, image = divmod(row, self._place.images)
        place = (purpose << 32) + self._place.draw + draw
        self._state["state"]["state"][:] = self._key, self._place.image + image, place, 1
        self._bits.state = self._state
        self._bits.random_raw(12, output=False)


class DeviceNumbers:
    """Two generators: one gives one uniform a unit, the other what depends on the weights in its number."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator, self._other = generator, spawn_generator(generator)

    def log_uniform(self, like: Tensor, rows: Sequence[int], *, attempt: int) -> Tensor:
        generator = self._other if attempt else self._generator
        v = torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device)
        finer = torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device)
        eps = torch.finfo(like.dtype).eps  # uniforms come on a grid of eps / 2: refine it, for U near 1 needs digits
        return v.add_(finer, alpha=eps / 2).mul_(-(1 - eps)).log1p_()

    def poisson(self, mean: Tensor, rows: Sequence[int], *, attempt: int) -> Tensor:
        return torch.poisson(mean.double(), self._other).long()

    def uniform(self, counts: Tensor, rows: Sequence[int]) -> Tensor:
        total = int(counts.sum())
        return torch.rand(total, generator=self._other, dtype=torch.float64, device=counts.device)
