"""Where the model still stands: the attacks that did most damage once more, with restarts and towards targets."""

from __future__ import annotations

import torch
from torch import Tensor

from sap_art.portfolio import PlannedAttack, can_be_refined, refined
from sap_art.protocol.campaign import attack_calls, outcome_of
from sap_art.protocol.job import Job, blocks
from sap_art.protocol.outcome import Outcome
from sap_art.protocol.scoring import choose, draws_on, evaluation


def refine(job: Job, outcomes: list[Outcome]) -> list[Outcome]:
    """The outcomes of the tier's refinement; nothing where it has none, or where no climb has finished."""
    plan = job.tier.refinement
    if plan is None:
        return []
    best = strongest(job, [o for o in outcomes if can_be_refined(o.planned)])[: plan.best]
    standing = _standing(job, outcomes, above=plan.above)
    attacks = refined(best, plan, classes=job.entry.classes)
    calls = [attack_calls(job, more, standing, range(len(blocks(len(job.x))))) for more in attacks]
    job.submit([call for one in calls for call in one])
    return [outcome_of(job, *pair) for pair in zip(attacks, calls, strict=True)]


def strongest(job: Job, outcomes: list[Outcome]) -> list[PlannedAttack]:
    """Attacks by the accuracy that they leave on the stand-alone images, the lowest first, on draws of this choice."""
    finished = {o.planned.id: o for o in outcomes if o.error is None}
    calls = {
        name: draws_on(job, o.alone(job.x), "strongest", name, draws=job.tier.selection_draws)
        for name, o in finished.items()
    }
    job.submit([call for one in calls.values() for call in one])
    left = {name: evaluation(job, one).accuracy for name, one in calls.items()}
    return [finished[name].planned for name in sorted(left, key=lambda name: left[name])]


def _standing(job: Job, outcomes: list[Outcome], *, above: float) -> Tensor:
    """(B,) images whose worst point so far is right in more than this share of fresh draws."""
    points = choose(job, [o for o in outcomes if o.error is None], stage="first selection").points
    draws = job.tier.selection_draws
    correct = evaluation(job, draws_on(job, points, "standing", draws=draws)).correct
    return (correct.double() / draws > above).to(torch.bool)
