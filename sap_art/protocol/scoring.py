"""Fresh draws on points, and the choice of the worst points, block by block; every block has a seed of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sap_art.attacks import evaluate_known_seed, known_seed
from sap_art.evaluation import Evaluation, evaluate
from sap_art.mapping import mapped
from sap_art.protocol.job import BLOCK, Call, InProcess, Job, UnitError, blocks
from sap_art.protocol.outcome import Outcome, points_in
from sap_art.selection import Choice, choose_worst
from sap_art.store import Stored, Unit


def report(job: Job, points: Tensor, label: str) -> list[Call]:
    """Report draws on points for the first len(points) images; no attack, choice or other label has seen them."""
    return draws_on(job, points, "report", label, draws=job.tier.report_draws)


def draws_on(job: Job, points: Tensor, *labels: str, draws: int) -> list[Call]:
    """Draws of the stage ``labels`` on points (b, ...) for the first b images."""
    return [
        job.call(
            *labels,
            f"{number:04d}",
            name=f"scoring {labels[-1]}",
            function=draw_block,
            arguments=(block, number, draws, labels),
            passes=len(block) * draws,
        )
        for number, block in enumerate(points.split(BLOCK))
    ]


def draw_block(job: Job, points: Tensor, number: int, draws: int, labels: tuple[str, ...]) -> Unit:
    """``log_probabilities`` (m, b, C) of m draws on points (b, ...) for the images of block ``number``."""
    y = job.y[number * BLOCK :][: len(points)]
    seed = job.seed_for(*labels, number)
    found = evaluate(job.model, points.to(job.x.device), y, draws=draws, seed=seed)
    return {"log_probabilities": found.draw_log_probabilities}


def joined(job: Job, units: Sequence[Unit]) -> Evaluation:
    """What ``draw_block`` found for the first images, block after block."""
    found = torch.cat([unit["log_probabilities"] for unit in units], 1)
    return Evaluation(found, job.y[: found.shape[1]].cpu(), job.model.per_example)


def evaluation(job: Job, calls: Sequence[Call]) -> Evaluation:
    """The draws of ``draws_on``; raises UnitError if the model raised or returned NaN."""
    job.submit(calls)
    return joined(job, [job.unit(call) for call in calls])


def score(job: Job, points: Tensor, label: str) -> Evaluation:
    """The draws of ``report``, made here and now: nothing that was kept is read, nothing is kept."""
    return joined(job, [call.function(job, *call.arguments) for call in report(job, points, label)])


def score_columns(job: Job, outcomes: list[Outcome]) -> dict[str, Evaluation]:
    """Each attack by itself; one whose points the model answers with an error is an error too."""
    whole = [o for o in outcomes if o.error is None and not o.planned.partial]
    calls = {o.planned.id: report(job, o.alone(job.x), o.planned.id) for o in whole}
    job.submit([call for column in calls.values() for call in column])
    columns: dict[str, Evaluation] = {}
    for outcome in whole:
        try:
            columns[outcome.planned.id] = evaluation(job, calls[outcome.planned.id])
        except UnitError as error:
            outcome.error = f"scoring failed: {error.message}"
    return columns


def choose(job: Job, outcomes: list[Outcome], *, stage: str = "selection", draws: int | None = None) -> Choice:
    """The worst point of each image among the clean one and all attacks' ones; ``draws`` or the tier's a candidate."""
    draws = draws or job.tier.selection_draws
    calls = [
        job.call(
            stage,
            f"{number:04d}",
            name="choosing worst points",
            function=choose_block,
            arguments=([o.units.get(number) for o in outcomes], number, draws, stage),
            passes=(1 + len(outcomes)) * len(block) * draws,
        )
        for number, block in enumerate(blocks(len(job.x)))
    ]
    job.submit(calls)
    points = mapped(job.unit(call)["points"] for call in calls)
    return Choice(points, torch.cat([job.unit(call)["candidate"] for call in calls]))


def keep_together(job: Job, choice: Choice) -> None:
    """The worst points of all images in one file, for whoever hands them in."""
    whole = {"points": choice.points, "candidate": choice.candidate}
    here = replace(job, executor=InProcess())  # nothing is computed, so nothing need travel
    here.unit(job.call("selection", name="worst points", function=together, arguments=(whole,), passes=0))


def together(job: Job, whole: Unit) -> Unit:
    """What is kept."""
    return whole


def choose_block(job: Job, left: Sequence[Stored | None], number: int, draws: int, stage: str) -> Unit:
    """The worst of the clean point and what attacks have ``left``, for the images of block ``number``.

    Images that the same attacks have run on are chosen for together: ``draws`` count for candidates that exist.
    """
    x, y = (of_all[number * BLOCK :][:BLOCK] for of_all in (job.x, job.y))
    found = [points_in(unit, x, number) for unit in left]
    candidates = torch.stack([x, *(one.points for one in found)])
    valid = torch.stack([torch.ones(len(x), dtype=torch.bool), *(one.done for one in found)])
    points, winner = candidates[0].clone(), torch.zeros(len(y), dtype=torch.long)
    patterns, pattern_of = valid.unique(dim=1, return_inverse=True)
    for group, pattern in enumerate(patterns.T):
        exist, images = pattern.nonzero()[:, 0], (pattern_of == group).nonzero()[:, 0]
        few, seed = candidates[exist][:, images], job.seed_for(stage, number, group)
        there = torch.ones(few.shape[:2], dtype=torch.bool)
        chosen = choose_worst(job.model, few, there, y[images], draws=draws, seed=seed)
        points[images], winner[images] = chosen.points, exist[chosen.candidate.cpu()]
    return {"points": points, "candidate": winner}


def told_right(job: Job, outcomes: list[Outcome]) -> Tensor | None:
    """(S, b) bool: right under each known seed whatever it was attacked by, on the b stand-alone images; None without.

    A seed under which one of its attacks crashed has the others alone.
    """
    rows: dict[int, Tensor] = {}
    for outcome in (o for o in outcomes if o.planned.attack is known_seed):
        noise_seed = dict(outcome.planned.options)["noise_seed"]
        points = outcome.alone(job.x)
        view, y = outcome.planned.view(job.model), job.y[: len(points)]
        right = evaluate_known_seed(view, points, y, noise_seed=noise_seed).right[0]
        rows[noise_seed] = rows.get(noise_seed, torch.ones_like(right)) & right
    return torch.stack(list(rows.values())) if rows else None
