"""Tiers of RDP-1: how much is spent on one entry."""

from __future__ import annotations

from dataclasses import dataclass

STAND_ALONE = 64
"""Images on which every attack runs without dropping any, for the columns and flags that compare attacks."""


@dataclass(frozen=True)
class Tier:
    """Budgets of one tier.

    Args:
        noise_points: random points an image.
        transfer_losses: of APGD on the dense counterpart; without any PGD runs there.
        losses: of EOT-APGD with the best estimator; the others have the first one.
        draws: k, the draws of one gradient.
        steps: gradient evaluations of PGD and of APGD.
        square_iterations: of the Square attack; 0 for none. square_draws: its draws a comparison.
        known_seeds: seeds that an attacker is told; 0 for none.
        signal_draws: gradients an image and estimator, one draw each; signal_points: at the clean image, and from 3 on
            at the random start and at the point that was found too.
        curve: radii at which one attack is repeated, in units of eps.
        calls_compared: whether the law of a draw is followed over 2,000 calls.
        drop_bound: an image beyond the stand-alone ones is dropped once the 95 % upper bound of its probability of
            being right is below this; ``drop_draws`` draws, none of them right, are just enough.
        selection_draws: draws a candidate for the choice of the worst point.
        report_draws: m, fresh draws an image for every reported number.
    """

    name: str
    noise_points: int
    transfer_losses: tuple[str, ...]
    losses: tuple[str, ...]
    draws: int
    steps: int
    square_iterations: int
    square_draws: int
    known_seeds: int
    signal_draws: int
    signal_points: int
    curve: tuple[float, ...]
    calls_compared: bool
    drop_bound: float
    drop_draws: int
    selection_draws: int
    report_draws: int


TIERS = {
    "smoke": Tier(
        name="smoke",
        noise_points=100,
        transfer_losses=(),
        losses=("ce",),
        draws=4,
        steps=20,
        square_iterations=0,
        square_draws=0,
        known_seeds=0,
        signal_draws=4,
        signal_points=1,
        curve=(),
        calls_compared=False,
        drop_bound=0.20,
        drop_draws=14,
        selection_draws=8,
        report_draws=16,
    ),
    "quick": Tier(
        name="quick",
        noise_points=100,
        transfer_losses=("ce", "margin"),
        losses=("ce", "margin", "ce-of-mean"),
        draws=5,
        steps=40,
        square_iterations=200,
        square_draws=4,
        known_seeds=2,
        signal_draws=8,
        signal_points=3,
        curve=(1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2),
        calls_compared=True,
        drop_bound=0.05,
        drop_draws=59,
        selection_draws=16,
        report_draws=50,
    ),
}
