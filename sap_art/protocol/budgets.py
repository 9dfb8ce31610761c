"""The best attack with other budgets, and the choice with more draws: had more of the same done more?"""

from __future__ import annotations

import torch
from torch import Tensor

from sap_art.diagnostics.convergence import MORE, not_converged
from sap_art.evaluation import Evaluation
from sap_art.flags import CRASHED, flag
from sap_art.portfolio import PlannedAttack, budgets
from sap_art.protocol.campaign import alone, scored_alone
from sap_art.protocol.job import Job, UnitError
from sap_art.protocol.outcome import Outcome
from sap_art.protocol.refinement import strongest
from sap_art.protocol.scoring import choose, evaluation, report
from sap_art.record import Flag
from sap_art.selection import choose_worst
from sap_art.store import Unit
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
    except UnitError as error:
        why = f"{CRASHED}{error.reason}"
        return {}, [flag(code, "not-checked", why) for code in MORE]
    base, seed = worst.first(STAND_ALONE), job.seed_for("convergence")
    more_draws = _choose_by_more_draws(job, finished)
    steps, draws = (sorted(curves[name].items()) for name in ("steps", "draws"))
    return curves, [
        not_converged("steps-not-converged", steps[-2][1], steps[-1][1], seed=seed),
        not_converged("draws-not-converged", draws[-2][1], draws[-1][1], seed=seed),
        not_converged("restarts-not-converged", base, more_restarts, seed=seed),
        not_converged("selection-not-converged", base, more_draws, seed=seed),
    ]


def _repeat(job: Job, best: PlannedAttack, finished: list[Outcome]) -> tuple[Convergence, Evaluation]:
    """All budgets, and the worst case with the points of the most restarts among the candidates."""
    calls = {
        name: {value: alone(job, planned, job.threat) for value, planned in values.items()}
        for name, values in budgets(best).items()
    }
    job.submit([call for values in calls.values() for call in values.values()])
    curves = {
        name: {value: scored_alone(job, call) for value, call in values.items()} for name, values in calls.items()
    }
    most = job.unit(calls["restarts"][max(calls["restarts"])])["x_adv"]
    chosen = choose(job, finished).points[: len(most)]
    return curves, _worst_of(job, torch.stack([chosen, most]))


def _worst_of(job: Job, candidates: Tensor) -> Evaluation:
    """The worst of two points an image, chosen and scored on draws of their own."""
    call = job.call(
        "selection of more restarts",
        name="choosing worst points",
        function=choose_everywhere,
        arguments=(candidates,),
        passes=candidates.shape[0] * candidates.shape[1] * job.tier.selection_draws,
    )
    points = job.unit(call)["points"]
    return evaluation(job, report(job, points, "worst case of more restarts"))


def choose_everywhere(job: Job, candidates: Tensor) -> Unit:
    """The worst of points (A, b, ...) of the first b images."""
    candidates, exist = candidates.to(job.x.device), torch.ones(candidates.shape[:2], dtype=torch.bool)
    y, draws, seed = job.y[: candidates.shape[1]], job.tier.selection_draws, job.seed_for("more restarts")
    return {"points": choose_worst(job.model, candidates, exist, y, draws=draws, seed=seed).points}


def _choose_by_more_draws(job: Job, finished: list[Outcome]) -> Evaluation:
    points = choose(job, finished, stage="selection by more draws", draws=2 * job.tier.selection_draws).points
    return evaluation(job, report(job, points[:STAND_ALONE], "worst case of more selection draws"))
