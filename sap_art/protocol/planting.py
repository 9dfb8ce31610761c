"""Whether the best attack finds adversarial examples that are known to be there."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sap_art.diagnostics.binarised import last_linear
from sap_art.diagnostics.planted import PlantedResult, plant_and_attack, planted_example_missed
from sap_art.flags import CRASHED, flag
from sap_art.portfolio import PlannedAttack, again
from sap_art.protocol.job import Job, UnitError
from sap_art.protocol.outcome import Outcome
from sap_art.protocol.refinement import strongest
from sap_art.record import Flag
from sap_art.stochastic import StochasticModel
from sap_art.store import Unit
from sap_art.threat import ThreatModel

CODE = "planted-example-missed"
BLOCK = 8
"""Images of one unit of work."""
ANY_CLASSES = ("ce", "margin", "ce-of-mean", "margin-of-mean")
"""Losses that two classes are enough for."""


def planted_examples(job: Job, finished: list[Outcome]) -> list[Flag]:
    """The flag, from planting in the tier's first images and attacking with restarts; nothing where it plants none."""
    if not job.tier.planted:
        return []
    climbs = [o for o in finished if o.planned.climbs_the_defence and o.planned.loss in ANY_CLASSES]
    best = strongest(job, [o for o in climbs if not o.planned.partial])
    if not best:
        return [flag(CODE, "not-checked", "no attack through the defence has finished")]
    try:
        last_linear(job.model, job.x[:1])
    except ValueError as error:
        return [flag(CODE, "not-checked", str(error))]
    try:
        return [planted_example_missed(_plant(job, best[0]))]
    except UnitError as error:
        return [flag(CODE, "not-checked", f"{CRASHED}{error.reason}")]


def _plant(job: Job, best: PlannedAttack) -> PlantedResult:
    attack = again(best, "planted", restarts=job.tier.refinement.restarts if job.tier.refinement else 1)
    images = min(job.tier.planted, len(job.x))
    calls = [
        job.call(
            attack.id,
            f"{number:04d}",
            name="planting",
            function=plant_block,
            arguments=(attack, number),
            passes=BLOCK * attack.passes,
        )
        for number in range(math.ceil(images / BLOCK))
    ]
    job.submit(calls)
    units = [job.unit(call) for call in calls]
    planted, found, random = (torch.cat([unit[name] for unit in units]) for name in ("planted", "found", "random"))
    share = random[planted].mean().item() if planted.any() else 0.0
    return PlantedResult(planted, found, share)


def plant_block(job: Job, planned: PlannedAttack, number: int) -> Unit:
    """What became of the images of one block."""

    def attack(model: StochasticModel, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor:
        return planned.run(model, x, y, threat, seed=seed).x_adv

    x = job.x[: job.tier.planted].split(BLOCK)[number]
    draws, seed = job.tier.selection_draws, job.seed_for("planted", number)
    result = plant_and_attack(job.model, x, job.threat, attack, draws=draws, seed=seed)
    random = torch.full((len(x),), result.random, dtype=torch.double)
    return {"planted": result.planted, "found": result.found, "random": random}
