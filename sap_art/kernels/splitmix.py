"""The random numbers of a row for ``plain``: SplitMix64, counted by purpose and number, whatever the batch.

Number n of a stream is mix(seed + (n + 1) gamma) modulo 2^64 (Steele, Lea and Flood 2014, "Fast splittable
pseudorandom number generators"), so many are made at once: by torch for the units of all rows, by numpy for the rest.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sap_art.randomness import Place

Words = NDArray[np.uint64]

BLOCK_OF_DRAW, UNIT_OF_DRAW, LATER_ARRIVALS = 1, 2, 3
"""Purposes; 0 is the units', further looks at later arrivals count on."""

_GAMMA = 0x9E3779B97F4A7C15
_SHIFTS = (30, 27, 31)
_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_LANES = 4
"""Units that share a word in float32: 15 bits each."""


class RowNumbers:
    """One stream a row, seeded by key, image and draw. What rows have in common is said at ``minus_uniform``."""

    def __init__(self, seeds: Words, shared: np.uint64) -> None:
        self._seeds, self._shared = seeds, shared

    @classmethod
    def of(cls, key: int, place: Place, rows: int) -> RowNumbers:
        """The streams of a pass of so many rows."""
        draw, image = np.divmod(np.arange(rows, dtype=np.uint64), np.uint64(place.images))
        own = np.array([key % 2**64], np.uint64)
        images = numbered(own, image + np.uint64(place.image))
        return cls(numbered(images, draw + np.uint64(place.draw)), numbered(own, np.array([2**63], np.uint64))[0])

    def rows(self, which: slice | NDArray[np.intp]) -> RowNumbers:
        """The streams of some rows."""
        return RowNumbers(self._seeds[which], self._shared)

    def afresh(self) -> RowNumbers:
        """Other streams for the same rows."""
        return RowNumbers(numbered(self._seeds, np.array([2**63], np.uint64)), self._shared)

    def uniform(self, purpose: int, row: NDArray[np.intp], number: NDArray[np.int64]) -> NDArray[np.float64]:
        """Those numbers for a purpose of those rows' streams, in (0, 1), of 52 bits; the two are broadcast."""
        bits = numbered(self._seeds[row], number.astype(np.uint64) + np.uint64(purpose << 40))
        return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52

    def minus_uniform(self, like: Tensor) -> Tensor:
        """-V with V uniform in (0, 1), one for each element of ``like`` (B, N) float32 or float64; 0 and 1 never.

        In float64 of 63 bits. In float32 of 38, so that small V keep their digits: 15 bits of the row's own above 23
        that all rows of the call share. Within a row units are independent; between rows what is shared decides about
        a unit only if both have the 15 bits at which its probability lies, so the covariance of two rows' decisions is
        below 2^-32.
        """
        return self._minus_wide(like) if like.dtype == torch.float64 else self._minus_lanes(like)

    def _minus_wide(self, like: Tensor) -> Tensor:
        bits = self._words(like.shape[1], like.device).bitwise_and_(2**63 - 1)
        return bits.to(like.dtype).add_(0.5).mul_(-_just_below(2.0**-63, like.dtype))

    def _minus_lanes(self, like: Tensor) -> Tensor:
        units = like.shape[1]
        bits = self._words(-(-units // _LANES), like.device).bitwise_and_(0x7FFF7FFF7FFF7FFF)
        out = torch.empty_like(like).copy_(bits.view(torch.int16)[:, :units])
        step = _just_below(2.0**-15, like.dtype)
        return torch.sub(_minus_fractions(self._shared, units, step).to(like.device), out, alpha=step, out=out)

    def _words(self, count: int, device: torch.device) -> Tensor:
        seeds = torch.from_numpy(self._seeds.view(np.int64)).to(device)
        return mix(seeds[:, None] + steps(count).to(device))


@lru_cache(2)
def _minus_fractions(seed: np.uint64, units: int, step: float) -> Tensor:
    """-V step with V uniform in (0, 1), of 23 bits: (units,) float32."""
    bits = numbered(np.array([seed]), np.arange(units, dtype=np.uint64)) >> np.uint64(41)
    return torch.from_numpy((bits.astype(np.float32) + np.float32(0.5)) * np.float32(-(2.0**-23) * step))


def _just_below(step: float, dtype: torch.dtype) -> float:
    """A little less than the step of the numbers, so that none is rounded to 1."""
    return step * (1 - torch.finfo(dtype).eps / 2)


def numbered(seeds: Words, index: Words) -> Words:
    """Those numbers, counted from 0, of the streams of those seeds; the two are broadcast."""
    z = seeds + (index + np.uint64(1)) * np.uint64(_GAMMA)
    for shift, factor in zip(_SHIFTS[:2], _FACTORS, strict=True):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return z ^ (z >> np.uint64(_SHIFTS[2]))


@lru_cache(8)
def steps(count: int) -> Tensor:
    """What is added to a seed before ``mix`` for the first numbers: (count,) int64."""
    return torch.arange(1, count + 1, device="cpu") * _signed(_GAMMA)


def mix(z: Tensor) -> Tensor:
    """SplitMix64's output function, in place, on int64: its shifts carry the sign, which is masked off."""
    spare = torch.empty_like(z)
    for shift, factor in zip(_SHIFTS, (*_FACTORS, None), strict=True):
        torch.bitwise_right_shift(z, shift, out=spare)
        z.bitwise_xor_(spare.bitwise_and_(2 ** (64 - shift) - 1))
        if factor is not None:
            z.mul_(_signed(factor))
    return z


def _signed(word: int) -> int:
    """The int64 of the same bits."""
    return word - 2**64 if word >= 2**63 else word
