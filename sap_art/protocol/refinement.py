"""Where the model still stands: the attacks that did most damage once more, with restarts and towards targets."""

from __future__ import annotations

import torch
from torch import Tensor

from sap_art.evaluation import evaluate
from sap_art.portfolio import PlannedAttack, can_be_refined, refined
from sap_art.protocol.campaign import Job, Outcome, choose, run_attack
from sap_art.tiers import STAND_ALONE


def refine(job: Job, outcomes: list[Outcome]) -> list[Outcome]:
    """The outcomes of the tier's refinement; nothing where it has none, or where no climb has finished."""
    plan = job.tier.refinement
    if plan is None:
        return []
    best = strongest(job, [o for o in outcomes if can_be_refined(o.planned)])[: plan.best]
    standing = _standing(job, outcomes, above=plan.above)
    return [run_attack(job, more, standing) for more in refined(best, plan, classes=job.entry.classes)]


def strongest(job: Job, outcomes: list[Outcome]) -> list[PlannedAttack]:
    """Attacks by the accuracy that they leave on the stand-alone images, the lowest first, on draws of this choice."""
    left: dict[str, float] = {}
    for outcome in (o for o in outcomes if o.error is None):
        points = outcome.points[:STAND_ALONE]
        seed = job.seed_for("strongest", outcome.planned.id)
        found = evaluate(job.model, points, job.y[: len(points)], draws=job.tier.selection_draws, seed=seed)
        left[outcome.planned.id] = found.accuracy
    finished = [o.planned for o in outcomes if o.planned.id in left]
    return sorted(finished, key=lambda planned: left[planned.id])


def _standing(job: Job, outcomes: list[Outcome], *, above: float) -> Tensor:
    """(B,) images whose worst point so far is right in more than this share of fresh draws."""
    job.announce("looking for images that still stand")
    points = choose(job, [o for o in outcomes if o.error is None], stage="first selection").points
    draws, seed = job.tier.selection_draws, job.seed_for("standing")
    correct = evaluate(job.model, points, job.y, draws=draws, seed=seed).correct
    return (correct.double() / draws > above).to(torch.bool)
