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
        draws: k, the draws of one gradient.
        steps: gradient evaluations of PGD and of EOT-APGD.
        drop_bound: an image beyond the stand-alone ones is dropped once the 95 % upper bound of its probability of
            being right is below this; ``drop_draws`` draws, none of them right, are just enough.
        selection_draws: draws a candidate for the choice of the worst point.
        report_draws: m, fresh draws an image for every reported number.
    """

    name: str
    noise_points: int
    draws: int
    steps: int
    drop_bound: float
    drop_draws: int
    selection_draws: int
    report_draws: int


TIERS = {
    "smoke": Tier(
        name="smoke",
        noise_points=100,
        draws=4,
        steps=20,
        drop_bound=0.20,
        drop_draws=14,
        selection_draws=8,
        report_draws=16,
    )
}
