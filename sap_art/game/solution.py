"""Zero-sum matrix games: minimax mixed strategies by linear programming, and what a given pair of strategies loses."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linprog

Floats = NDArray[np.float64]


class Solution(NamedTuple):
    """Minimax strategies of both sides, (P,) and (A,), each >= 0 with sum 1, and the value of the game."""

    defender: Floats
    attacker: Floats
    value: float


class Exploitability(NamedTuple):
    """What each side falls short of the value when the other plays its best reply; 0 for a minimax strategy."""

    defender: float
    attacker: float


def solve(payoff: ArrayLike) -> Solution:
    """Minimax strategies of the game in which the row player, the defender, maximises: (P, A) -> Solution.

    max over x of min over j of (x M)_j, as a linear program whose dual is the attacker's (von Neumann; Dantzig 1951).
    Where a pair of pure strategies is optimal, the first such row and the first such column are the answer. Otherwise
    it is the vertex at which HiGHS's dual simplex ends, the same for the same matrix.

    >>> solve([[3, 0], [1, 2]])
    Solution(defender=array([0.25, 0.75]), attacker=array([0.5, 0.5]), value=1.5)

    Raises:
        ValueError: not a matrix of finite numbers with at least one row and one column.
    """
    matrix = _require_matrix(payoff)
    worst, best = matrix.min(1), matrix.max(0)
    if worst.max() == best.min():
        defender, attacker = (np.eye(len(side))[i] for side, i in ((worst, worst.argmax()), (best, best.argmin())))
        return Solution(defender, attacker, float(worst.max()))
    defender, attacker = _mixed(matrix)
    return Solution(defender, attacker, float(defender @ matrix @ attacker))


def exploitability(payoff: ArrayLike, defender: ArrayLike, attacker: ArrayLike) -> Exploitability:
    """What strategies (P,) and (A,) lose against best replies: value - min_j (x M)_j and max_i (M y)_i - value.

    Both are >= 0; a rounding error below 0 counts as 0.

    Raises:
        ValueError: a bad matrix; strategies that do not fit it, are negative, or do not add up to 1.
    """
    matrix = _require_matrix(payoff)
    x, y = (_require_strategy(s, n) for s, n in zip((defender, attacker), matrix.shape, strict=True))
    value = solve(matrix).value
    return Exploitability(max(0.0, value - float((x @ matrix).min())), max(0.0, float((matrix @ y).max()) - value))


def _mixed(matrix: Floats) -> tuple[Floats, Floats]:
    """Minimax strategies (P,), (A,) of a game without a pure solution.

    Variables: x and its guarantee v; rows: v - (x M)_j <= 0, whose multipliers are the attacker's strategy.
    """
    policies, attacks = matrix.shape
    scaled = (matrix - matrix.min()) / (matrix.max() - matrix.min())  # the solver's tolerances are absolute
    found = linprog(
        np.append(np.zeros(policies), -1.0),
        A_ub=np.column_stack([-scaled.T, np.ones(attacks)]),
        b_ub=np.zeros(attacks),
        A_eq=[np.append(np.ones(policies), 0.0)],
        b_eq=[1.0],
        bounds=[*[(0, None)] * policies, (None, None)],
        method="highs-ds",
    )
    if found.status != 0:
        raise RuntimeError(f"HiGHS did not solve the game: {found.message}")
    return _normalised(found.x[:-1]), _normalised(-found.ineqlin.marginals)


def _normalised(strategy: Floats) -> Floats:
    """Without the solver's rounding errors: nothing below 0, a sum of 1."""
    positive = strategy.clip(min=0)
    return positive / positive.sum()


def _require_matrix(payoff: ArrayLike) -> Floats:
    matrix = np.asarray(payoff, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.size or not np.isfinite(matrix).all():
        raise ValueError(f"a payoff must be a matrix (P, A) of finite numbers, P, A >= 1, got shape {matrix.shape}")
    return matrix


def _require_strategy(strategy: ArrayLike, choices: int) -> Floats:
    found = np.asarray(strategy, dtype=np.float64)
    if found.shape != (choices,) or not (found >= 0).all() or abs(found.sum() - 1) > 1e-9:
        raise ValueError(f"a strategy must be {choices} numbers >= 0 with sum 1, got {found.tolist()}")
    return found
