"""The best attack with other budgets, and the choice with more draws: had more of the same done more?"""

from __future__ import annotations

import torch

from sap_art.diagnostics.convergence import MORE, not_converged
from sap_art.evaluation import Evaluation
from sap_art.flags import CRASHED, flag
from sap_art.portfolio import PlannedAttack, budgets
from sap_art.protocol.campaign import Job, Outcome, choose, points_alone
from sap_art.protocol.refinement import strongest
from sap_art.record import Flag
from sap_art.selection import choose_worst
from sap_art.tiers import STAND_ALONE

Convergence = dict[str, dict[float, Evaluation]]
"""What was varied (steps, draws, restarts, first_step) -> its value -> the attack with it."""


def vary(job: Job, finished: list[Outcome], worst: Evaluation) -> tuple[Convergence, list[Flag]]:
    """The strongest attack through the defence with other budgets, on the stand-alone images, and what that says.

    ``worst`` holds the reported draws on the chosen worst points. Nothing in a tier that does not look.
    """
    if not job.tier.converged:
        return {}, []
    best = strongest(job, [o for o in finished if o.planned.climbs_the_defence and not o.planned.partial])
    if not best:
        why = "no attack through the defence has finished"
        return {}, [flag(code, "not-checked", why) for code in MORE]
    try:
        curves, more_restarts = _repeat(job, best[0], finished)
    except Exception as error:  # noqa: BLE001  as in campaign
        why = f"{CRASHED}{type(error).__name__}: {error}"
        return {}, [flag(code, "not-checked", why) for code in MORE]
    alone, seed = worst.first(STAND_ALONE), job.seed_for("convergence")
    more_draws = _choose_by_more_draws(job, finished)
    steps, draws = (sorted(curves[name].items()) for name in ("steps", "draws"))
    return curves, [
        not_converged("steps-not-converged", steps[-2][1], steps[-1][1], seed=seed),
        not_converged("draws-not-converged", draws[-2][1], draws[-1][1], seed=seed),
        not_converged("restarts-not-converged", alone, more_restarts, seed=seed),
        not_converged("selection-not-converged", alone, more_draws, seed=seed),
    ]


def _repeat(job: Job, best: PlannedAttack, finished: list[Outcome]) -> tuple[Convergence, Evaluation]:
    """All budgets, and the worst case with the points of the most restarts among the candidates."""
    points = {
        name: {value: points_alone(job, planned, job.threat) for value, planned in values.items()}
        for name, values in budgets(best).items()
    }
    curves = {
        name: {value: job.score(found, f"{best.id} with {name} {value:g}") for value, found in values.items()}
        for name, values in points.items()
    }
    most = points["restarts"][max(points["restarts"])]
    chosen = choose(job, finished).points[: len(most)]
    return curves, _worst_of(job, torch.stack([chosen, most]))


def _worst_of(job: Job, candidates: torch.Tensor) -> Evaluation:
    """The worst of two points an image, chosen and scored on draws of their own."""
    everywhere = torch.ones(candidates.shape[:2], dtype=torch.bool)
    y, draws, seed = job.y[: candidates.shape[1]], job.tier.selection_draws, job.seed_for("more restarts")
    choice = choose_worst(job.model, candidates, everywhere, y, draws=draws, seed=seed)
    return job.score(choice.points, "worst case of more restarts")


def _choose_by_more_draws(job: Job, finished: list[Outcome]) -> Evaluation:
    points = choose(job, finished, stage="selection by more draws", draws=2 * job.tier.selection_draws).points
    return job.score(points[:STAND_ALONE], "worst case of more selection draws")
