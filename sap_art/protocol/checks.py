"""The flags of one entry, from what its attacks left and from probes of its model."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import torch
from torch import Tensor

from sap_art import portfolio
from sap_art.attacks import eot_apgd
from sap_art.attacks.cost import count_passes
from sap_art.diagnostics import comparisons, convergence, probes
from sap_art.diagnostics.anew import answers_as_if_new
from sap_art.diagnostics.finite_difference import finite_differences
from sap_art.diagnostics.gradient_signal import GradientSignal, gradient_signal, low_gradient_signal
from sap_art.evaluation import Evaluation
from sap_art.flags import CRASHED, flag, raised_if
from sap_art.protocol.campaign import alone, scored_alone
from sap_art.protocol.job import Call, Job, UnitError
from sap_art.protocol.outcome import Outcome
from sap_art.randomness import make_generator
from sap_art.record import Flag, GradientInfo
from sap_art.stochastic import one_draw
from sap_art.store import Unit
from sap_art.threat import ThreatModel
from sap_art.tiers import STAND_ALONE

EARLIER_CALLS = 100
"""Of a model whose answers are held against those of a new one; a state that moves later moves the law of 2,000."""


def of_the_attacks(job: Job, outcomes: list[Outcome], columns: dict[str, Evaluation]) -> list[Flag]:
    """Flags that compare attacks with each other."""
    seed = job.seed_for("comparisons")
    planned = [outcome.planned for outcome in outcomes if not outcome.planned.partial]
    white = [p for p in planned if p.climbs_the_defence]
    names = [p.id for p in white]
    # On a net without a defence transfer and white box attack the same function: nothing to compare.
    transfer = [] if job.model.deterministic else [p.id for p in planned if p.estimator == "dense"]
    iterative = next((p.id for p in planned if p.estimator == "dense" and p.steps > 1), "an iterative attack")
    same = [p.id for p in white if p.attack is eot_apgd and p.loss == white[0].loss]
    blind = [p.id for p in planned if p.id in ("noise", "square", "hopskipjump")]
    return [
        comparisons.transfer_beats_white_box(columns, transfer=transfer, white_box=names, seed=seed),
        comparisons.black_box_beats_white_box(columns, black_box=blind, white_box=names, seed=seed),
        comparisons.single_step_beats_iterative(columns, single="fgsm-dense", iterative=iterative, seed=seed),
        comparisons.estimator_spread(columns, names=same, seed=seed),
    ]


def known_seeds(job: Job, worst: Evaluation, told: Tensor | None) -> list[Flag]:
    """Flags of the attacker who is told the random numbers."""
    codes = ("known-seed-attack-fails", "seed-gap")
    if not job.tier.known_seeds:
        return []
    if job.model.deterministic:
        return [flag(code, "clear", "there is no random number to be told") for code in codes]
    if told is None:
        why = "no attack under a known seed succeeded in running: the model does not repeat its draws, or it crashed"
        return [flag(code, "not-checked", why) for code in codes]
    same_images, seed = worst.first(told.shape[1]), job.seed_for("known seeds")
    return [
        comparisons.known_seed_attack_fails(same_images, told, seed=seed),
        comparisons.seed_gap(same_images, told, seed=seed),
    ]


def of_the_model(job: Job) -> list[Flag]:
    """Flags that the model raises by itself."""
    seed = job.seed_for("probes")
    return [
        probes.coupled_generator(job.model, job.restless[:8], job.y[:8], seed=seed),
        probes.test_time_optimisation(job.model, job.x, seed=seed),
        probes.softmax_output(job.model, job.x[:STAND_ALONE], seed=seed),
    ]


def successive_calls(job: Job) -> list[Call]:
    """The unit that calls the model 2,000 times; none in a tier that does not look."""
    if not job.tier.calls_compared:
        return []
    name, passes = "following the model over 2,000 calls", 2 * probes.HALF
    return [job.call("state between calls", name=name, function=call_successively, arguments=(), passes=passes)]


def call_successively(job: Job) -> Unit:
    """What the model answers from its first call on, call after call."""
    model = job.entry.anew()
    with count_passes(model, job.advance):
        return {"logits": probes.successive_calls(model, job.restless, seed=job.seed_for("state"))}


def state_between_calls(job: Job, finished: list[Outcome]) -> list[Flag]:
    """Whether answers depend on what the model was asked before: what attacks ask, and how often it was asked.

    Nothing if they do not in a tier that does not count calls.
    """
    code, differs = "state-between-calls", _as_if_new(job, finished)
    if differs is not None:
        return [raised_if(True, code, differs)]
    try:
        return [probes.law_moves(job.unit(call)["logits"], int(job.y[0])) for call in successive_calls(job)]
    except UnitError as error:
        return [flag(code, "not-checked", f"{CRASHED}{error.reason}")]


def _as_if_new(job: Job, finished: list[Outcome]) -> str | None:
    """How a model of its own that is shown the clean images, then each attack's points, answers those unlike a new one.

    A model may remember what it was asked and answer what comes near it as it did then, or adapt to what it sees.
    """
    used, seed, shown = job.entry.anew(), job.seed_for("anew"), [o for o in finished if not o.planned.partial]
    with torch.no_grad():
        for image in (job.x[:STAND_ALONE], *[job.x[:1]] * EARLIER_CALLS):
            one_draw(used, image)
    for outcome in shown:
        points = outcome.alone(job.x)
        found = answers_as_if_new(used, job.entry.anew(), points, seed=seed, p_value=probes.P_VALUE / len(shown))
        if found is not None:
            return f"at the points of {outcome.planned.id}, after other calls and before the first one: {found}"
    return None


def really_deterministic(job: Job, columns: dict[str, Evaluation]) -> list[Flag]:
    """A flag raised if a model that was taken for deterministic answers points of an attack now this way, now that.

    Then neither its noise was probed nor the attacker told of it: what was measured is no evaluation of this model.
    """
    if not job.model.deterministic:
        return []
    moves = {name: probes.largest_change(found) for name, found in columns.items()}
    name = max(moves, key=lambda column: moves[column])
    if moves[name] <= probes.NOTICEABLE:
        return []
    why = (
        f"taken for deterministic, for its answers near the images never change; but draws at the points of {name} "
        f"differ by up to {moves[name]:.2g} in probability: evaluate sap_art.wrap(module), which is taken for random"
    )
    return [raised_if(True, "state-between-calls", why, value=moves[name], threshold=probes.NOTICEABLE)]


def signal_calls(job: Job, finished: list[Outcome]) -> list[Call]:
    """The units that measure gradients at the clean image, and at the tier's other points."""
    x = job.x[:STAND_ALONE]
    points = [x, job.threat.random_start(x, make_generator(x.device, job.seed_for("signal"), "start"))]
    points += [o.alone(job.x) for o in finished if o.planned.climbs_the_defence][:1]
    passes = 2 * len(x) * job.tier.signal_draws * len(job.model.estimators)
    return [
        job.call(
            "signal",
            number,
            name="gradient signal",
            function=measure_signal,
            arguments=(point, number),
            passes=passes,
        )
        for number, point in enumerate(points[: job.tier.signal_points])
    ]


def measure_signal(job: Job, point: Tensor, number: int) -> Unit:
    """The fields of ``GradientSignal`` of each random estimator at one point an image, as ``estimator/field``."""
    point, seed = point.to(job.x.device), job.seed_for("signal", number)
    found = gradient_signal(job.model, point, job.y[: len(point)], draws=job.tier.signal_draws, seed=seed)
    named = {f"{name}/{f.name}": getattr(signal, f.name) for name, signal in found.items() for f in fields(signal)}
    return {name: value for name, value in named.items() if value is not None}


def signals(job: Job, calls: list[Call]) -> dict[str, list[GradientSignal]]:
    """Signal of each random estimator's gradient at each point."""
    found: dict[str, list[GradientSignal]] = {}
    for unit in map(job.unit, calls):
        for name in (name for name in job.model.estimators if name != "dense"):
            found.setdefault(name, []).append(GradientSignal(**_fields(unit, name)))
    return found


def _fields(unit: Unit, name: str) -> Unit:
    prefix = f"{name}/"
    return {key.removeprefix(prefix): value for key, value in unit.items() if key.startswith(prefix)}


def gradient_info(job: Job, found: dict[str, list[GradientSignal]]) -> dict[str, GradientInfo]:
    """What the record says of each estimator: its signal at the clean image, and differences of the loss beside it."""
    info = {name: points[0].info() for name, points in found.items()}
    if not job.tier.directions or not probes.repeats_its_draws(job.model, job.restless, seed=job.seed_for("repeats")):
        return info
    passes = 2 * job.tier.draws * (2 * job.tier.directions + len(found)) * len(job.x[:STAND_ALONE])
    name = "finite differences"
    measured = job.unit(job.call(name, name=name, function=differentiate, arguments=(), passes=passes))
    return {
        name: replace(
            info[name],
            difference_cosine=cosine,
            difference_scale=None if math.isnan(scale) else scale,
        )
        for name, (cosine, scale) in ((name, values.tolist()) for name, values in measured.items())
    }


def differentiate(job: Job) -> Unit:
    """Cosine and scale of each random estimator's gradient beside finite differences of the loss."""
    x, y, seed = job.x[:STAND_ALONE], job.y[:STAND_ALONE], job.seed_for("finite differences")
    measured = finite_differences(job.model, x, y, draws=job.tier.draws, directions=job.tier.directions, seed=seed)
    return {name: torch.tensor(found, dtype=torch.double) for name, found in measured.items()}


def of_the_gradient(job: Job, found: dict[str, list[GradientSignal]], others: list[Flag]) -> list[Flag]:
    """Flags of gradients that vanish or are noise; ``others`` may make the latter worse.

    Of deterministic models too: values that never move may have a gradient that is drawn.
    """
    zero = probes.zero_or_non_finite({name: points[0].info() for name, points in found.items()})
    if job.tier.signal_points == 1:
        return [zero]
    return [zero, low_gradient_signal(found, others=others)]


def curve_calls(job: Job) -> dict[float, Call]:
    """One short attack at each radius of the tier."""
    planned = portfolio.along_the_curve(job.model, job.threat, job.tier)
    return {threat.eps: alone(job, attack, threat) for attack, threat in planned}


def along_the_curve(job: Job) -> tuple[dict[float, Evaluation], list[Flag]]:
    """What they leave, and whether a larger radius ever does less damage."""
    curve: dict[float, Evaluation] = {}
    for eps, call in curve_calls(job).items():
        try:
            curve[eps] = scored_alone(job, call)
        except UnitError as error:
            return curve, [flag("not-monotone", "not-checked", f"{CRASHED}{error.reason}")]
    return curve, [convergence.not_monotone(curve, seed=job.seed_for("curve"))] if curve else []


def large_eps_call(job: Job) -> Call:
    """An attack on the stand-alone images at a radius that nothing survives."""
    return alone(job, *_sanity(job))


def large_eps(job: Job) -> Flag:
    """Whether something survives it."""
    try:
        result = scored_alone(job, large_eps_call(job))
    except UnitError as error:
        return flag("large-eps-survives", "not-checked", f"{CRASHED}{error.reason}")
    return comparisons.large_eps_survives(result, eps=_sanity(job)[1].eps)


def _sanity(job: Job) -> tuple[portfolio.PlannedAttack, ThreatModel]:
    return portfolio.sanity(job.model, job.threat, size=job.x[0].numel())


def crashed(*flags: Flag) -> bool:
    """Whether one of them could not be checked because its attack crashed."""
    return any(found.evidence.startswith(CRASHED) for found in flags)
