"""From findings to the record of an entry: intervals, calibration, verdict, digests."""

from __future__ import annotations

from dataclasses import asdict

from sap_art.calibration import calibration_report
from sap_art.evaluation import Evaluation
from sap_art.flags import complete, verdict
from sap_art.metrics import Estimate
from sap_art.protocol import Findings, Job, Outcome
from sap_art.record import AttackResult, Bin, Calibration, DataInfo, Precision, Record, Value
from sap_art.store import tensor_sha256

SUBMISSIONS = (1, 10, 100)


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
        calibration={"clean": _calibration(found.clean), "adversarial": _calibration(found.worst)},
        flags=flags,
        verdict=verdict(flags, attack_failed=found.failed),
        precision=Precision((worst.high - worst.low) / 2, m=found.worst.draws, n=len(job.x)),
        adversarial_sha256=tensor_sha256(found.worst_points),
        counts_sha256=tensor_sha256(found.worst.correct),
    )


def _metrics(found: Findings) -> dict[str, Value]:
    """``clean`` and ``T1``, persistence ``T2@M`` of both, and the stand-alone ``noise`` and ``T4-transfer``."""
    result = {"clean": _value(found.clean.estimate), "T1": _value(found.worst.estimate)}
    for m in (m for m in SUBMISSIONS if m <= found.worst.draws):
        result[f"clean-T2@{m}"] = _value(found.clean.persistent(m))
        result[f"T2@{m}"] = _value(found.worst.persistent(m))
    for metric, attack in (("noise", "noise"), ("T4-transfer", "pgd-dense")):
        if attack in found.columns:
            result[metric] = _value(found.columns[attack].estimate)
    return result


def _attack(outcome: Outcome, found: Findings) -> AttackResult:
    planned = outcome.planned
    attacked = max(1, int(outcome.done.sum()))
    ok = outcome.error is None
    return AttackResult(
        id=planned.id,
        estimator=planned.estimator,
        loss=planned.loss,
        k=planned.draws,
        steps=planned.steps,
        restarts=1,
        accuracy=_value(found.columns[planned.id].estimate) if ok else None,
        forwards=outcome.forwards / attacked if ok else None,
        backwards=outcome.backwards / attacked if ok else None,
        images_won=found.winners.count(planned.id) if ok else None,
        error=outcome.error,
    )


def _calibration(evaluation: Evaluation) -> Calibration:
    report = calibration_report(
        evaluation.probabilities, evaluation.labels, log_probabilities=evaluation.log_probabilities
    )
    return Calibration(
        draws=evaluation.draws,
        ece=report.ece,
        brier=report.brier,
        nll=report.nll,
        gap=report.gap,
        bins=[Bin(**asdict(b)) for b in report.bins],
    )


def _value(estimate: Estimate) -> Value:
    return Value(estimate.value, estimate.low, estimate.high)
