"""The game with its uncertainty: what strategies chosen on one half of the images are worth on the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sap_art.game.payoffs import HALVES, Payoffs
from sap_art.game.solution import Solution, solve
from sap_art.metrics import BOOTSTRAP, Z95, Estimate, mean_interval, resampled
from sap_art.randomness import derive_seed

Floats = NDArray[np.float64]
AT_ONCE = 4_000_000
"""Resampled draws that are in memory together, about: 32 MB."""


@dataclass(frozen=True)
class GameReport:
    """What the game is worth: fractions of images, estimates with two-sided 95 % intervals over images and draws.

    Attributes:
        solution: minimax strategies of all images.
        value: of the game.
        exploitability: of each policy played alone, (P,): value - its worst accuracy.
        gain: value - the worst accuracy of the best single policy. As measured it is never negative, whoever is lucky:
            only an interval above 0 says that randomising over policies buys something.
        gain_over_sap: the same for the best single SAP policy; None if there is none.
        held_out_defender, held_out_attacker: exploitability of strategies of one half of the images on the other
            half, both ways, averaged. The strategies have not seen those images. The replies and the value there have,
            which makes it, if anything, too large; no low end but 0 is claimed.
    """

    solution: Solution
    value: Estimate
    exploitability: list[Estimate]
    gain: Estimate
    gain_over_sap: Estimate | None
    held_out_defender: Estimate
    held_out_attacker: Estimate


def analyse(payoffs: Payoffs, *, seed: int) -> GameReport:
    """Solve the game, and bound what noise can have made of it (2,000 resamples).

    Values are those of all images. Minimax strategies and worst attacks are noise's favourites as well, so intervals
    rest on halves: low ends on what the defender's strategy of one half secures on the other, high ends on what the
    attacker's concedes there. By weak duality these lie below and above the value; where a minimum or maximum on the
    other half is needed, it is one whose bias is outwards. Both ways are averaged, and 1.96 standard errors put to
    them: over resamples of the images of each half, strategies held. Draws that all images share are resampled
    beside them, as an effect added to that of the images. The value's interval is never narrower than that of a mean
    (``metrics.mean_interval``), and each interval holds its value.
    """
    halves = [matrices_of(payoffs, number, seed=seed) for number in range(len(HALVES))]
    groups = [group for group in (list(range(len(payoffs.policies))), payoffs.sap_policies) if group]
    ways = [_bounds(halves[0][0], halves[1], groups), _bounds(halves[1][0], halves[0], groups)]
    low, high = ((one + other) / 2 for one, other in zip(*ways, strict=True))
    solution = solve(payoffs.matrix)
    alone = solution.value - payoffs.matrix.min(1)
    measured = [solution.value, *alone, *(alone[group].min() for group in groups)]
    value, *others = [_estimate(m, *ends) for m, *ends in zip(measured, low.T, high.T, strict=True)]
    there = float(np.mean([solve(half[0]).value for half in halves]))
    gap = high[:, 0] - low[:, 0]
    return GameReport(
        solution=solution,
        value=_at_least_plain(value, payoffs, solution),
        exploitability=others[: len(alone)],
        gain=others[len(alone)],
        gain_over_sap=others[-1] if payoffs.sap_policies else None,
        held_out_defender=_estimate(max(0.0, there - low[0, 0]), 0 * gap, gap),
        held_out_attacker=_estimate(max(0.0, high[0, 0] - there), 0 * gap, gap),
    )


def best_single(matrix: Floats, among: Sequence[int]) -> int:
    """The first of these rows of (P, A) with the highest worst payoff."""
    return among[int(matrix[list(among)].min(1).argmax())]


def matrices_of(payoffs: Payoffs, half: int, *, seed: int) -> Floats:
    """Payoffs of one half of the images: (1 + 2,000, P, A), the data first, then resamples."""
    rng = np.random.default_rng(derive_seed(seed, "game", half))
    shares = payoffs.shares[..., HALVES[half]]
    n = shares.shape[-1]
    weights = np.vstack([np.full(n, 1 / n), resampled(rng, n)])
    matrices = (weights @ shares.reshape(-1, n).T).reshape(-1, *shares.shape[:2])
    for policy, counts in payoffs.draw_correct.items():
        matrices[1:, payoffs.policies.index(policy)] += _draw_effects(rng, counts[:, half] / n)
    return matrices


def _draw_effects(rng: np.random.Generator, rates: Floats) -> Floats:
    """What resampling the draws of each attack adds to their mean: (A, m) -> (2,000, A); the same however it is cut."""
    attacks, m = rates.shape
    rows = max(1, AT_ONCE // rates.size)
    sizes = [min(rows, BOOTSTRAP - first) for first in range(0, BOOTSTRAP, rows)]
    times = (rng.multinomial(m, np.full(m, 1 / m), (size, attacks)) for size in sizes)
    return np.concatenate([np.einsum("ram,am->ra", part, rates) for part in times]) / m - rates.mean(1)


def _bounds(chosen: Floats, judged: Floats, groups: Sequence[list[int]]) -> tuple[Floats, Floats]:
    """Choices on the game (P, A), judged in games (K, P, A): bounds from below and above, (K, 1 + P + groups) each.

    Of the value; of what each policy alone falls short of it; of what the best policy of each group falls short of it.
    """
    solution, worst = solve(chosen), chosen.argmin(1)
    secured = (solution.defender @ judged).min(1, keepdims=True)
    conceded = (judged @ solution.attacker).max(1, keepdims=True)
    least = secured - judged[:, np.arange(len(worst)), worst]  # no policy's worst attack is better than this one
    most = conceded - judged.min(2)
    low = [secured, least, *(least[:, group].min(1, keepdims=True) for group in groups)]
    high = [conceded, most, *(most[:, [best_single(chosen, group)]] for group in groups)]
    return np.hstack(low), np.hstack(high)


def _estimate(measured: float, low: Floats, high: Floats) -> Estimate:
    """From bounds (1 + 2,000,), the data first; all of these quantities lie in [0, 1], as measured too."""
    ends = low[0] - Z95 * low[1:].std(), high[0] + Z95 * high[1:].std()
    return Estimate(float(measured), max(0.0, min(measured, float(ends[0]))), min(1.0, max(measured, float(ends[1]))))


def _at_least_plain(found: Estimate, payoffs: Payoffs, solution: Solution) -> Estimate:
    plain = mean_interval(np.einsum("p,a,pab->b", solution.defender, solution.attacker, payoffs.shares))
    return Estimate(found.value, min(found.low, plain.low), max(found.high, plain.high))
