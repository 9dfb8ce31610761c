"""One entry's attacks, block by block: kept, counted; a crash is an error in the record."""

from __future__ import annotations

import torch
from torch import Tensor

from sap_art import metrics
from sap_art.attacks import known_seed
from sap_art.attacks.cost import count_passes
from sap_art.diagnostics import probes
from sap_art.evaluation import Evaluation, evaluate
from sap_art.portfolio import PlannedAttack, plan
from sap_art.protocol.job import BLOCK, Call, Job, UnitError, blocks
from sap_art.protocol.outcome import Outcome
from sap_art.protocol.scoring import draw_block, joined
from sap_art.store import Stored, Unit
from sap_art.threat import ThreatModel
from sap_art.tiers import STAND_ALONE

ALONE = STAND_ALONE // BLOCK
"""Blocks of stand-alone images."""


def run_attacks(job: Job) -> list[Outcome]:
    """The tier's attacks; after each of the first ones, images beyond the stand-alone ones that it broke go.

    Who cannot be told the random numbers, for the model does not repeat them, is left out.
    """
    repeats = probes.repeats_its_draws(job.model, job.restless, seed=job.seed_for("repeats"))
    planned = plan(job.model, job.tier, job.threat, classes=job.entry.classes)
    attacks = [a for a in planned if repeats or a.attack is not known_seed]
    alive = torch.ones(len(job.x), dtype=torch.bool)
    calls = {a.id: attack_calls(job, a, alive, range(ALONE)) for a in attacks}  # no other attack spares these images
    job.submit([call for alone in calls.values() for call in alone])
    beyond = range(ALONE, len(blocks(len(job.x))))
    for attack in (a for a in attacks if a.first and not a.alone):
        more = attack_calls(job, attack, alive, beyond)
        job.submit(more)
        calls[attack.id] += more
        alive &= _survivors(job, calls[attack.id])
    others = {a.id: attack_calls(job, a, alive, beyond) for a in attacks if not (a.first or a.alone)}
    job.submit([call for more in others.values() for call in more])
    return [outcome_of(job, a, calls[a.id] + others.get(a.id, [])) for a in attacks]


def attack_calls(job: Job, planned: PlannedAttack, alive: Tensor, numbers: range) -> list[Call]:
    """One attack on the images of these blocks that are alive (B,)."""
    numbered = [(n, block[alive[block]]) for n, block in enumerate(blocks(len(job.x))) if n in numbers]
    return [
        job.call(
            planned.id,
            f"{number:04d}",
            name=planned.id,
            function=attack_block,
            arguments=(planned, number, index),
            passes=planned.passes * len(index),
        )
        for number, index in numbered
        if len(index)
    ]


def attack_block(job: Job, planned: PlannedAttack, number: int, index: Tensor) -> Unit:
    """The points of one attack for the images ``index`` (b,) of a block, and its passes.

    Of an attack that may spare the others images, also whether fresh draws there are ``correct`` (b,), in how many.
    """
    x, y = job.x[index], job.y[index]
    with count_passes(job.model) as passes:
        x_adv, right = planned.run(job.model, x, y, job.threat, seed=job.seed_for(planned.id, number))
    unit = {"index": index, "x_adv": x_adv}
    unit |= {"forwards": torch.tensor(passes.forwards), "backwards": torch.tensor(passes.backwards)}
    if right is not None:
        unit["right"] = right
    if planned.first and number >= ALONE:
        draws, seed = job.tier.drop_draws, job.seed_for("drop", planned.id, number)
        unit["correct"] = evaluate(job.model, x_adv, y, draws=draws, seed=seed).correct
    return unit


def outcome_of(job: Job, planned: PlannedAttack, calls: list[Call]) -> Outcome:
    """What one attack left on all of its blocks; without any, the images themselves."""
    outcome = Outcome(planned)
    try:
        units = [job.unit(call) for call in calls]
    except UnitError as error:
        outcome.error = error.reason
        return outcome
    for call, unit in zip(calls, units, strict=True):
        outcome.units[int(unit["index"][0]) // BLOCK] = Stored(call.key, job.store)
        outcome.images += len(unit["index"])
        outcome.forwards += int(unit["forwards"])
        outcome.backwards += int(unit["backwards"])
        if "right" in unit:
            outcome.reported_right = (outcome.reported_right or 0) + int(unit["right"].sum())
    return outcome


def _survivors(job: Job, calls: list[Call]) -> Tensor:
    """(B,) images still worth attacking: those that this attack has not broken, and all of them if it crashed."""
    alive = torch.ones(len(job.x), dtype=torch.bool)
    try:
        units = [job.unit(call) for call in calls]
    except UnitError:
        return alive
    for unit in (unit for unit in units if "correct" in unit):
        alive[unit["index"]] = metrics.upper_bound(unit["correct"], job.tier.drop_draws) >= job.tier.drop_bound
    return alive


def alone(job: Job, planned: PlannedAttack, threat: ThreatModel) -> Call:
    """An attack outside of the plan within a threat model of its own, on the stand-alone images, and report draws."""
    images = min(STAND_ALONE, len(job.x))
    passes = images * (planned.passes + job.tier.report_draws)
    return job.call(planned.id, name=planned.id, function=attack_alone, arguments=(planned, threat), passes=passes)


def attack_alone(job: Job, planned: PlannedAttack, threat: ThreatModel) -> Unit:
    """What such an attack finds, and draws there that it has not seen."""
    x, y = job.x[:STAND_ALONE], job.y[:STAND_ALONE]
    x_adv = planned.run(job.model, x, y, threat, seed=job.seed_for(planned.id)).x_adv
    return {"x_adv": x_adv, **draw_block(job, x_adv, 0, job.tier.report_draws, ("report", planned.id))}


def scored_alone(job: Job, call: Call) -> Evaluation:
    """The draws of ``alone``; raises UnitError if the attack crashed."""
    return joined(job, [job.unit(call)])
