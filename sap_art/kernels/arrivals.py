"""The exact draw for ``plain``: first arrivals, looked at twice, and a few categorical draws.

The arrivals of step 1 in ``sap_art.sampling`` are draws made at the times of a Poisson process, which say nothing about
what is drawn. Whoever stops looking when the number of arrivals so far tells them to has that many independent draws,
and r with the missing ones added. This kernel looks at time r - c sqrt(r), and again c sqrt(left) before the r-th
arrival is expected, where ``left`` draws were missing at the first look. Then c^1.5 r^(1/4) are missing in place of
c sqrt(r), so that the categorical draws are cheap, and one row in 2,000 has overshot and is drawn afresh.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sap_art.kernels.poisson import poisson
from sap_art.kernels.splitmix import BLOCK_OF_DRAW, LATER_ARRIVALS, UNIT_OF_DRAW, RowNumbers
from sap_art.kernels.weights import BLOCK, Weights, sum_rows, to_host

MARGIN = 3.5
"""c: standard deviations of the number of arrivals that each look stays below r."""

_LOOKS = 2
_COUNTED = 2**24
"""A float32 counts so far."""


def keep_exactly(weights: Weights, draws: int, numbers: RowNumbers) -> Tensor:
    """The keep-set of r = ``draws`` draws a row: (B, M), 1 where kept, else 0."""
    keep, missing = arrive(weights, draws, numbers)
    overshot = np.flatnonzero(missing < 0)
    if len(overshot):
        keep[torch.from_numpy(overshot)] = keep_exactly(weights.rows(overshot), draws, numbers.rows(overshot).afresh())
    top_up(keep, weights, np.maximum(missing, 0), numbers)
    return keep


def arrive(weights: Weights, draws: int, numbers: RowNumbers) -> tuple[Tensor, NDArray[np.int64]]:
    """What has arrived at the last look (B, M), and the draws still missing (B,), negative if there are too many."""
    slack = numbers.minus_uniform(weights.w).log1p_()  # by how much rate x time exceeds the first arrival's exponential
    keep = torch.empty_like(slack)
    left, later = np.full(len(slack), draws), np.zeros(len(slack), np.int64)
    seen = np.zeros(len(slack))
    for look in range(_LOOKS):
        step = np.maximum(left - MARGIN * np.sqrt(np.maximum(left, 0)), 0)
        slack.addcmul_(weights.w, weights.column(step / weights.total))
        torch.clamp(slack, min=0, out=keep)
        mean = np.maximum(to_host(sum_rows(keep)), seen)
        later += poisson(mean - seen, partial(numbers.uniform, LATER_ARRIVALS + look))
        left, seen = draws - _count(keep.gt_(0)) - later, mean
    return keep, left


def _count(ones: Tensor) -> NDArray[np.int64]:
    """How many ones each row of zeros and ones (B, M) has, int64."""
    parts = [to_host(sum_rows(part)) for part in ones.split(_COUNTED, dim=1)]
    return np.sum(parts, axis=0).astype(np.int64)


def top_up(keep: Tensor, weights: Weights, missing: NDArray[np.int64], numbers: RowNumbers) -> None:
    """Mark further categorical draws in ``keep`` (B, M), so many a row as ``missing`` (B,) says.

    A block by inverting the CDF of all rows' blocks, in which row b begins at 2 b; then a unit of the block.
    """
    cdf = (weights.sums / weights.column(weights.total)).cumsum(1, dtype=torch.float64)
    end, first = to_host(cdf[:, -1]), 2.0 * np.arange(len(missing))
    cdf = cdf.add_(torch.from_numpy(first[:, None]).to(cdf)).view(-1)
    missing = np.where(end > 0, missing, 0)  # a row of zeros has nothing to draw
    row = np.repeat(np.arange(len(missing)), missing)
    number = np.arange(len(row)) - np.repeat(np.cumsum(missing) - missing, missing)
    point = np.repeat(first, missing) + np.repeat(end, missing) * numbers.uniform(BLOCK_OF_DRAW, row, number)
    last = np.nextafter(first + end, 0)
    block = _first_above(cdf, np.sort(np.minimum(point, np.repeat(last, missing))))
    within = weights.w.view(-1, BLOCK).index_select(0, block).cumsum(1)
    share = torch.from_numpy(numbers.uniform(UNIT_OF_DRAW, row, number)[:, None]).to(within)
    share.clamp_(max=1 - torch.finfo(within.dtype).eps / 2)  # times this, a number is always less
    unit = torch.searchsorted(within, within[:, -1:] * share, right=True)[:, 0]
    keep.view(-1).index_fill_(0, block * BLOCK + unit, 1)


def _first_above(cdf: Tensor, point: NDArray[np.float64]) -> Tensor:
    """Where an ascending ``cdf`` first passes each of some ascending points, int64; over steps of no height."""
    if cdf.device.type == "cpu":  # numpy makes use of the points' order
        return torch.from_numpy(cdf.numpy().searchsorted(point, side="right"))
    return torch.searchsorted(cdf, torch.from_numpy(point).to(cdf.device), right=True)
