"""Tiers of RDP-1: how much is spent on one entry."""

from __future__ import annotations

from dataclasses import dataclass, replace

STAND_ALONE = 64
"""Images on which every attack runs without dropping any, for the columns and flags that compare attacks."""


@dataclass(frozen=True)
class Refinement:
    """More of the two attacks that did most damage on the stand-alone images, where the model is still right.

    Args:
        best: how many attacks.
        restarts: climbs of each.
        targets: climbs of each towards this many of the likeliest wrong classes; 0 for none.
        above: on the images whose chosen worst point is right in more than this share of the selection draws.
    """

    best: int
    restarts: int
    targets: int
    above: float


@dataclass(frozen=True)
class Tier:
    """Budgets of one tier; what a tier does not name it does not do.

    Args:
        noise_points: random points an image.
        draws: k, the draws of one gradient.
        steps: gradient evaluations of PGD and of APGD.
        losses: of EOT-APGD with the best estimator; ``other_losses`` with each of the others.
        drop_bound: an image beyond the stand-alone ones is dropped once the 95 % upper bound of its probability of
            being right is below this; ``drop_draws`` draws, none of them right, are just enough.
        stops: whether an attack through the defence, or by queries, leaves an image once as many fresh draws at the
            point it has found are all wrong.
        selection_draws: draws a candidate for the choice of the worst point.
        report_draws: m, fresh draws an image for every reported number.
        signal_draws: gradients an image and estimator, one draw each; signal_points: at the clean image, and from 3 on
            at the random start and at the point that was found too.
        transfer_losses: of APGD on the dense counterpart, without any PGD runs there; transfer_targets: classes that
            APGD-T climbs towards there.
        white_box_alone: whether all but the first attack through the defence run on the stand-alone images only.
        others_alone: the same of the other estimators.
        long_steps: of the attack with many steps of one draw.
        selective: whether there are attacks that do not treat all draws alike.
        square_iterations, square_draws: of the Square attack, the latter a comparison; ``square_alone`` as above.
            Both sides of a comparison share their draws: 2 do more damage than the protocol's 4 apiece.
        boundary_queries: majority decisions an image of HopSkipJump, on the stand-alone images.
        known_seeds: seeds that an attacker is told; told_all: targeted and by queries too.
        references: whether AutoAttack, ART's PGD and the paper's attack run beside, on the stand-alone images.
        refinement: what follows where the model still stands.
        curve: radii at which one attack is repeated, in units of eps.
        calls_compared: whether the law of a draw is followed over 2,000 calls.
        converged: whether the best attack is repeated with other budgets, and the choice with twice the draws.
        planted: images in which an adversarial example is planted.
        directions: in which gradients are compared with finite differences.
    """

    name: str
    noise_points: int
    draws: int
    steps: int
    losses: tuple[str, ...]
    other_losses: tuple[str, ...]
    drop_bound: float
    drop_draws: int
    selection_draws: int
    report_draws: int
    signal_draws: int
    signal_points: int
    stops: bool = False
    transfer_losses: tuple[str, ...] = ()
    transfer_targets: int = 0
    white_box_alone: bool = False
    others_alone: bool = False
    long_steps: int = 0
    selective: bool = False
    square_iterations: int = 0
    square_draws: int = 0
    square_alone: bool = False
    boundary_queries: int = 0
    known_seeds: int = 0
    told_all: bool = False
    references: bool = False
    refinement: Refinement | None = None
    curve: tuple[float, ...] = ()
    calls_compared: bool = False
    converged: bool = False
    planted: int = 0
    directions: int = 0

    @property
    def stop_draws(self) -> int:
        """Draws, all of them wrong, after which an attack leaves an image; 0 for never."""
        return self.drop_draws if self.stops else 0


_SMOKE = Tier(
    name="smoke",
    noise_points=100,
    draws=4,
    steps=20,
    losses=("ce",),
    other_losses=("ce",),
    drop_bound=0.20,
    drop_draws=14,
    selection_draws=8,
    report_draws=16,
    signal_draws=4,
    signal_points=1,
    long_steps=100,
)
_QUICK = Tier(
    name="quick",
    noise_points=100,
    draws=5,
    steps=40,
    losses=("ce", "margin", "ce-of-mean"),
    other_losses=("ce",),
    others_alone=True,
    drop_bound=0.05,
    drop_draws=59,
    selection_draws=16,
    report_draws=50,
    signal_draws=8,
    signal_points=3,
    stops=True,
    transfer_losses=("ce", "margin"),
    long_steps=200,
    square_iterations=200,
    square_draws=2,
    square_alone=True,
    known_seeds=2,
    curve=(1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2),
    calls_compared=True,
)
_FULL = replace(
    _QUICK,
    name="full",
    draws=20,
    steps=100,
    losses=("ce", "margin", "ce-of-mean", "dlr"),
    other_losses=("ce", "margin"),
    others_alone=False,
    drop_bound=0.01,
    drop_draws=299,
    selection_draws=32,
    report_draws=128,
    signal_draws=16,
    transfer_targets=9,
    long_steps=2000,
    selective=True,
    square_iterations=1000,
    square_draws=20,
    square_alone=False,
    boundary_queries=1000,
    known_seeds=5,
    told_all=True,
    references=True,
    refinement=Refinement(best=2, restarts=5, targets=3, above=0.5),
    converged=True,
    planted=STAND_ALONE,
    directions=16,
)
_AUDIT = replace(
    _FULL,
    name="audit",
    draws=40,
    steps=200,
    others_alone=True,
    white_box_alone=True,
    selection_draws=64,
    report_draws=256,
    square_alone=True,
    refinement=Refinement(best=2, restarts=10, targets=3, above=0.01),
)

TIERS = {tier.name: tier for tier in (_SMOKE, _QUICK, _FULL, _AUDIT)}
