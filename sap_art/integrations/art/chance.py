"""Whether one prediction an image tells more than chance apart from many: an exact test of equal laws."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor


def one_draw_p_value(correct: Tensor, one: Tensor, *, draws: int) -> float:
    """Chance that one fresh draw an image leaves its accuracy at least this far from that of ``draws`` others.

    (B,) counts of m right draws and (B,) bool -> in [0, 1]. If the one draw has the law of the m, and images have noise
    of their own, it is each of the m + 1 with equal chance. So given how many of them are right, t_i, it is right with
    t_i / (m + 1), independently over images: a Poisson-binomial law, which is convolved exactly. The test is two-sided
    and conditional (as Fisher's, 1935), so p <= alpha has a chance of at most alpha whatever P(right) of the images is.

    Raises:
        ValueError: shapes that do not fit, no image, no draw, counts outside 0 to m.
    """
    if correct.shape != one.shape or correct.ndim != 1 or not len(one) or draws < 1:
        given = f"{tuple(correct.shape)}, {tuple(one.shape)} and {draws} draws"
        raise ValueError(f"needs counts (B,) and one draw (B,) of the same B > 0 images, and draws >= 1, got {given}")
    if correct.min() < 0 or correct.max() > draws:
        raise ValueError(f"counts must be integers from 0 to {draws}")
    totals = (correct + one.int()).numpy()
    far = abs((draws + 1) * np.arange(len(one) + 1) - totals.sum())  # times B m / (m + 1): a whole number
    return min(1.0, float(_law(totals, draws + 1)[far >= far[int(one.sum())]].sum()))


def _law(totals: NDArray[np.int64], among: int) -> NDArray[np.float64]:
    """P(0, 1, ..., B) of how many images are right that each are with total / among; equal ones make a binomial."""
    law = np.ones(1)
    for total, images in zip(*np.unique(totals, return_counts=True), strict=True):
        law = np.convolve(law, stats.binom.pmf(np.arange(images + 1), images, total / among))
    return law
