"""What an entry leaves on disk, before it is run."""

from __future__ import annotations

from sap_art.portfolio.plan import plan
from sap_art.portfolio.refine import can_be_refined, refined
from sap_art.portfolio.short import FACTORS, FIRST_STEPS, RESTARTS
from sap_art.portfolio.stages import Work

FLOAT32 = 4


def expected_bytes(work: Work, *, pixels: int) -> int:
    """Bytes of an entry's units, of images with so many values, if none is dropped; about.

    Points of attacks and of choices, and the log-probabilities of the draws that score them; all else is small.
    """
    tier, images, alone = work.tier, work.images, work.alone
    attacks = plan(work.model, tier, work.threat, classes=work.classes)
    climbs = [attack for attack in attacks if can_be_refined(attack)]
    more = refined(climbs[: tier.refinement.best], tier.refinement, classes=work.classes) if tier.refinement else []
    short = 1 + len(tier.curve) + tier.converged * (2 * len(FACTORS) + len(RESTARTS) + len(FIRST_STEPS))
    chosen = 2 + (tier.refinement is not None) + tier.converged
    points = sum(alone if attack.alone else images for attack in attacks)
    points += images * (len(more) + chosen) + alone * (short + tier.converged)
    reported = len(attacks) * alone + 2 * images + alone * (short + 2 * tier.converged)
    selected = (len(climbs) * alone + images) * (tier.refinement is not None)
    draws = tier.report_draws * reported + tier.selection_draws * selected
    return FLOAT32 * (pixels * points + work.classes * draws)
