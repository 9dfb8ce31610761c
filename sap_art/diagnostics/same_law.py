"""Do two series of numbers have one law? Exact tests whose level holds for discrete numbers and rounding too."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

PERMUTATIONS = 9999


def ks_distance(a: NDArray[np.float64], b: NDArray[np.float64], *, tolerance: float) -> float:
    """Kolmogorov-Smirnov distance in [0, 1] of two samples, blind to shifts of up to ``tolerance``.

    The largest F_a(t) - F_b(t + tolerance), or the same with a and b exchanged; never above the usual distance.
    """
    return max(_excess(np.sort(a), np.sort(b), tolerance), _excess(np.sort(b), np.sort(a), tolerance))


def _excess(a: NDArray[np.float64], b: NDArray[np.float64], tolerance: float) -> float:
    below_a = np.searchsorted(a, a, side="right") / len(a)
    below_b = np.searchsorted(b, a + tolerance, side="right") / len(b)
    return max(0.0, float((below_a - below_b).max()))


def ks_p_value(distance: float, n: int) -> float:
    """P(distance of two samples of n is at least this large) if they have one continuous law; an upper bound if not.

    Exact: 2 sum_k (-1)^(k-1) C(2n, n - kh) / C(2n, n) with h = n * distance (Gnedenko & Korolyuk 1951).

    >>> round(ks_p_value(1.0, 3), 3)  # two of the C(6, 3) orders
    0.1
    """
    h = round(n * distance)
    if h == 0:
        return 1.0
    k = np.arange(1, n // h + 1)
    terms = np.exp(2 * gammaln(n + 1) - gammaln(n - k * h + 1) - gammaln(n + k * h + 1))
    return min(1.0, float(2 * (terms * (-1.0) ** (k - 1)).sum()))


def same_law(a: NDArray[np.float64], b: NDArray[np.float64], *, tolerance: float) -> float:
    """p-value of the hypothesis that two samples (n,), (n,) of independent numbers have one law."""
    if a.shape != b.shape or a.ndim != 1 or len(a) == 0:
        raise ValueError(f"needs two samples of one size (n,), n > 0, got {a.shape} and {b.shape}")
    return ks_p_value(ks_distance(a, b, tolerance=tolerance), len(a))


def independent_groups(values: NDArray[np.float64], *, seed: int) -> float:
    """p-value of the hypothesis that numbers of one group (G, n) are no more alike than those of different groups.

    Permutation test on the variance of the groups' means: exact for exchangeable numbers, never below 1e-4.
    """
    groups, size = values.shape
    rng = np.random.default_rng(seed)
    spread = values.mean(1).var()
    shuffled = rng.permuted(np.broadcast_to(values.ravel(), (PERMUTATIONS, values.size)), axis=1)
    others = shuffled.reshape(PERMUTATIONS, groups, size).mean(2).var(1)
    # Sums in another order differ in the last bits: what is equal but for them counts as equal.
    return float((1 + (others >= spread * (1 - 1e-9)).sum()) / (1 + PERMUTATIONS))
