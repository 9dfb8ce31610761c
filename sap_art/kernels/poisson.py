"""Poisson numbers, one a row, from uniforms that are counted: for ``plain``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

Floats = NDArray[np.float64]
Source = Callable[[NDArray[np.intp], NDArray[np.int64]], Floats]
"""Uniforms in (0, 1), by row and number, which are broadcast."""

_LARGE = 10.0
_TRIALS = 4
"""Proposals that are looked at together; one in ten is refused, or fewer."""


def poisson(mean: Floats, uniform: Source) -> NDArray[np.int64]:
    """One Poisson number for each mean >= 0: (B,) -> (B,), each from uniforms of its own row."""
    out = np.zeros(len(mean), np.int64)
    small = mean < _LARGE
    if small.any():
        rows = np.flatnonzero(small)
        out[rows] = _by_inversion(mean[rows], uniform(rows, np.zeros(1, np.int64)))
    rows, first = np.flatnonzero(~small), 0
    while len(rows):
        numbers = np.arange(first, first + 2 * _TRIALS)
        proposal, accepted = _transformed_rejection(mean[rows, None], uniform(rows[:, None], numbers))
        done, chosen = accepted.any(1), accepted.argmax(1)
        out[rows[done]] = proposal[done, chosen[done]]
        rows, first = rows[~done], first + 2 * _TRIALS
    return out


def _by_inversion(mean: Floats, u: Floats) -> NDArray[np.int64]:
    """The smallest count whose probability or a lower one's is above u."""
    count, term = np.zeros(len(mean), np.int64), np.exp(-mean)
    below = term.copy()
    while (beyond := (u > below) & (term > 0)).any():
        count += beyond
        term *= mean / np.maximum(count, 1)
        below += np.where(beyond, term, 0)
    return count


def _transformed_rejection(mean: Floats, uniform: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Proposals (R, K) from (R, 2 K) uniforms, and which are accepted (Hörmann 1993, PTRS)."""
    u, v = np.split(uniform, 2, axis=1)
    u = u - 0.5
    b = 0.931 + 2.53 * np.sqrt(mean)
    a = -0.059 + 0.02483 * b
    distance = 0.5 - np.abs(u)
    count = np.floor((2 * a / distance + b) * u + mean + 0.43)
    at_once = (distance >= 0.07) & (v <= 0.9277 - 3.6224 / (b - 2))
    possible = (count >= 0) & ((distance >= 0.013) | (v <= distance))
    height = np.log(v * (1.1239 + 1.1328 / (b - 3.4)) / (a / distance**2 + b))
    positive = np.maximum(count, 0)
    return count, at_once | (possible & (height <= positive * np.log(mean) - mean - gammaln(positive + 1)))
