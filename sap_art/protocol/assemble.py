"""From findings to the record of an entry: intervals, calibration, verdict, digests."""

from __future__ import annotations

from sap_art import metrics
from sap_art.evaluation import Evaluation
from sap_art.flags import complete, verdict
from sap_art.metrics import Estimate
from sap_art.protocol import Findings
from sap_art.protocol.job import Job
from sap_art.protocol.outcome import Outcome
from sap_art.record import AttackResult, BudgetPoint, CurvePoint, DataInfo, Precision, Record, Value
from sap_art.store import tensor_sha256

SUBMISSIONS = (1, 10, 100)
ALONE = {
    "noise": ("noise",),
    "T4-transfer": ("pgd-dense", "apgd-ce-dense", "apgd-margin-dense", "apgd-t-dense"),
    "T4-square": ("square",),
    "T4-hopskipjump": ("hopskipjump",),
    "autoattack": ("autoattack-rand", "autoattack-standard"),
    "art-pgd": ("art-pgd",),
    "paper": ("paper-fgsm", "paper-iterative"),
}
"""Metrics of the stand-alone images, and the attacks of which the most damaging one counts."""


def to_record(job: Job, found: Findings, data: DataInfo) -> Record:
    """The record of one entry; reported draws only, what was not measured is absent."""
    flags = complete(found.flags, tier=job.tier.name)
    worst = found.worst.estimate
    return Record(
        entry=job.entry.name,
        tier=job.tier.name,
        model=job.entry.model_info,
        defence=job.entry.defence,
        data=data,
        norm=job.threat.norm,
        eps=job.threat.eps,
        seeds={"base": job.seed},
        metrics=_metrics(found),
        attacks=[_attack(outcome, found) for outcome in found.outcomes],
        gradient=found.gradient,
        calibration=found.calibration,
        flags=flags,
        verdict=verdict(flags, attack_failed=found.failed),
        precision=Precision((worst.high - worst.low) / 2, m=found.worst.draws, n=len(job.x)),
        adversarial_sha256=tensor_sha256(found.worst_points),
        counts_sha256=tensor_sha256(found.worst.correct),
        eps_curve=[CurvePoint(eps, _value(at_eps.estimate)) for eps, at_eps in found.curve.items()] or None,
        convergence={name: _budgets(values) for name, values in found.convergence.items()} or None,
    )


def _metrics(found: Findings) -> dict[str, Value]:
    """``clean`` and ``T1``, persistence ``T2@M`` of both; on the stand-alone images known seeds, transfer, queries."""
    result = {"clean": _value(found.clean.estimate), "T1": _value(found.worst.estimate)}
    for m in (m for m in SUBMISSIONS if m <= found.worst.draws):
        result[f"clean-T2@{m}"] = _value(found.clean.persistent(m))
        result[f"T2@{m}"] = _value(found.worst.persistent(m))
    if found.told is not None:
        result["T3"] = _value(metrics.accuracy(found.told.sum(0), len(found.told)))
    for metric, attacks in ALONE.items():
        columns = [found.columns[name].estimate for name in attacks if name in found.columns]
        if columns:
            result[metric] = _value(min(columns))
    return result


def _budgets(values: dict[float, Evaluation]) -> list[BudgetPoint]:
    return [BudgetPoint(float(value), _value(found.estimate)) for value, found in sorted(values.items())]


def _attack(outcome: Outcome, found: Findings) -> AttackResult:
    planned = outcome.planned
    attacked = max(1, outcome.images)
    ok, column = outcome.error is None, found.columns.get(planned.id)
    return AttackResult(
        id=planned.id,
        estimator=planned.estimator,
        loss=planned.loss,
        k=planned.draws,
        steps=planned.steps,
        restarts=planned.restarts,
        accuracy=_value(column.estimate) if ok and column is not None else None,
        forwards=outcome.forwards / attacked if ok else None,
        backwards=outcome.backwards / attacked if ok else None,
        images_won=found.winners.count(planned.id) if ok else None,
        reported=outcome.reported if ok else None,
        error=outcome.error,
    )


def _value(estimate: Estimate) -> Value:
    return Value(estimate.value, estimate.low, estimate.high)
