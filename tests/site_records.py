"""Synthetic records with everything that a site shows, and what lies beside them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sap_art import metrics, per_image
from sap_art.data import load
from sap_art.evaluation import Evaluation
from sap_art.flags import complete, raised_if, verdict
from sap_art.record import (
    AttackResult,
    Bin,
    BudgetPoint,
    Calibration,
    CurvePoint,
    DataInfo,
    DefenceInfo,
    DrawsPoint,
    Flag,
    GradientInfo,
    ModelInfo,
    NullFloor,
    Precision,
    Record,
    Temperature,
    Value,
)

HOSTILE = "<script>alert('x')</script><!--&\"$\\frac$ {=1+1}"
RAISED = {
    "warning": ["estimator-spread", "seed-gap"],
    "unreliable": ["large-eps-survives", "low-gradient-signal"],
    "incomplete": [],
    "no-known-failure": [],
}


def around(value: float, half: float = 0.06) -> Value:
    """A value with an interval within [0, 1]."""
    return Value(value, max(0.0, value - half), min(1.0, value + half))


def seen(clean: float, worst: float, *, images: int, draws: int, seed: int) -> per_image.PerImage:
    """Draws of images most of which are always right or always wrong, with pictures from the bundle."""
    rng = np.random.default_rng(seed)
    x, y = load("cifar10", n=images)
    points = (x + torch.from_numpy(rng.choice([-1.0, 1.0], tuple(x.shape)).astype("float32")) * 8 / 255).clamp(0, 1)
    images_right = [np.clip(rng.beta(0.4 * p + 1e-3, 0.4 * (1 - p) + 1e-3, images), 0, 1) for p in (clean, worst)]
    evaluations = [evaluation(rng.random((draws, images)) < p, y) for p in images_right]
    return per_image.collect(x, points, clean=evaluations[0], worst=evaluations[1])


def evaluation(right: Any, y: torch.Tensor) -> Evaluation:
    """Draws (m, B) that are right, or name the next class."""
    named = torch.where(torch.as_tensor(right), y, (y + 1) % 10)
    return Evaluation(torch.nn.functional.one_hot(named, 10).float().mul(4).log_softmax(-1), y)


def synthetic(
    entry: str = "net-sap-100",
    *,
    spec: str = "sap:100",
    net: str = "net",
    clean: float = 0.85,
    worst: float = 0.3,
    outcome: str = "warning",
    tier: str = "full",
    images: int = 64,
    seed: int = 0,
) -> tuple[Record, per_image.PerImage]:
    """A record of the tier with all its parts, and its draws; ``outcome`` is the verdict that its flags give."""
    draws = 20
    found = seen(clean, worst, images=images, draws=draws, seed=seed)
    clean_value = Value(*metrics.accuracy(found.clean.sum(0), draws))
    worst_value = Value(*metrics.accuracy(found.worst.sum(0), draws))
    raised = [raised_if(True, code, f"seen in {entry}", value=0.2, threshold=0.1) for code in RAISED[outcome]]
    gap = raised_if(False, "transfer-beats-white-box", "accuracy under white-box minus under transfer", value=-0.05)
    checked = [*raised, gap]
    flags = complete(checked, tier=tier)
    if outcome == "no-known-failure":
        flags = [replace(flag, state="clear") for flag in flags]
    record = Record(
        entry=entry,
        tier=tier,
        model=ModelInfo(net, "PreActResNet", "0" * 64, "PreActResNet"),
        defence=DefenceInfo(spec, "activation", True, "single", 1),
        data=DataInfo("cifar10", images, "1" * 64),
        norm="Linf",
        eps=8 / 255,
        seeds={"base": 0},
        metrics={
            "clean": clean_value,
            "T1": worst_value,
            "T2@10": Value(*metrics.persistent(found.worst.sum(0), draws, 10)),
            "T3": around(worst_value.value / 2),
            "T4-transfer": around(min(1.0, worst_value.value + 0.1)),
            "noise": around(clean_value.value),
        },
        attacks=_attacks(worst_value.value),
        gradient={
            "bpda": GradientInfo(0.0, 0.0, 0.8, 0.77, 0.78, 0.7, 0.9, 1.02),
            "autograd": GradientInfo(0.0, 0.0, 1.9, 0.91, 0.86, 0.29, 0.4, 0.3),
            "frozen": GradientInfo(0.02, 0.0, 0.001, 0.01, 0.51, 0.05, 0.1, 0.9),
        },
        calibration={
            where: _calibration(value) for where, value in (("clean", clean_value), ("adversarial", worst_value))
        },
        flags=flags,
        verdict=verdict(flags, attack_failed=False),
        precision=Precision((worst_value.high - worst_value.low) / 2, draws, images),
        adversarial_sha256="2" * 64,
        counts_sha256=found.counts_sha256,
        eps_curve=[
            CurvePoint(e / 255, around(worst_value.value + (clean_value.value - worst_value.value) * (8 - e) / 8))
            for e in (0.5, 1, 2, 4, 8)
        ],
        convergence={
            name: [BudgetPoint(v, around(worst_value.value + 0.1 / (i + 1))) for i, v in enumerate(values)]
            for name, values in {
                "steps": (25.0, 50.0, 100.0, 200.0),
                "draws": (1.0, 5.0, 20.0, 40.0),
                "restarts": (1.0, 5.0, 10.0),
            }.items()
        },
    )
    assert record.verdict == outcome, (record.verdict, outcome)
    return record, found


def _attacks(worst: float) -> list[AttackResult]:
    made = [("noise", "bpda", 0.5), ("apgd-ce-dense", "dense", 0.1), ("eot-apgd-ce-bpda", "bpda", 0.02)]
    made += [("eot-apgd-margin-bpda", "bpda", 0.01), ("eot-apgd-ce-frozen", "frozen", 0.2), ("square", "bpda", 0.3)]
    return [
        *(
            AttackResult(name, estimator, "ce", 20, 100, 1, around(min(1.0, worst + more)), 2000.0, 2000.0, 8)
            for name, estimator, more in made
        ),
        AttackResult(
            "autoattack-rand", "autograd", "ce", 20, 100, 1, around(min(1.0, worst + 0.2)), 4e3, 4e3, 0, worst / 2
        ),
    ]


def _calibration(accuracy: Value) -> Calibration:
    bins = [Bin(b / 15, (b + 1) / 15, 0) for b in range(5)]
    bins += [
        Bin(b / 15, (b + 1) / 15, 6, (b + 0.5) / 15, min(1.0, accuracy.value * (b + 1) / 12)) for b in range(5, 15)
    ]
    curve = [
        DrawsPoint(k, 20 // k, around(0.2 + k / 200), around(0.5), around(0.9), around(0.1)) for k in (1, 2, 5, 10, 20)
    ]
    return Calibration(
        draws=20,
        ece=0.2,
        brier=0.5,
        nll=1.0,
        gap=-0.1,
        bins=bins,
        squared_l2=0.04,
        intervals={name: around(0.2) for name in ("ece", "brier", "nll", "gap", "squared_l2")},
        null=NullFloor(0.05, 0.09, 0.001),
        temperature=Temperature(0.8, 0.2, 0.1),
        curve=curve,
    )


def write(folder: Path, record: Record, images: per_image.PerImage | None = None, *, name: str | None = None) -> Path:
    """``folder/<entry>.json`` with its run and, if given, its draws; ``name`` instead of the entry's."""
    folder.mkdir(parents=True, exist_ok=True)
    path = (
        record.write(folder)
        if name is None
        else replace(record, entry="a-part").write(folder).rename(folder / f"{name}.json")
    )
    if name is not None:
        path.write_text(json.dumps({**json.loads(path.read_text()), "entry": record.entry}))
    run = {"seconds": 61.5, "finished": "2026-11-20T10:00:00+00:00", "device": "cpu", "torch": "2.9.0"}
    path.with_name(f"{path.stem}.run.json").write_text(json.dumps(run))
    if images is not None:
        images.write(path.with_name(path.stem + per_image.SUFFIX))
    return path


def gallery(folder: Path, *, images: int = 64) -> None:
    """Records of two settings: ranks that are shared, an entry that cannot be trusted, one without draws."""
    made = [
        ("net", "none", "net", 0.95, 0.01, "no-known-failure"),
        ("net-sap-100", "sap:100", "net", 0.85, 0.02, "incomplete"),
        ("robust", "none", "robust", 0.8, 0.45, "no-known-failure"),
        ("robust-sap-100", "sap:100", "robust", 0.78, 0.47, "warning"),
        ("robust-rna-0.1", "rna:0.1", "robust", 0.7, 0.3, "incomplete"),
        ("models.py-coin", "foreign", "models.py:coin", 0.7, 0.7, "unreliable"),
    ]
    for number, (entry, spec, net, clean, worst, outcome) in enumerate(made):
        record, found = synthetic(
            entry, spec=spec, net=net, clean=clean, worst=worst, outcome=outcome, images=images, seed=number
        )
        write(folder, record, found)
    record, found = synthetic("quick-sap-100", net="net", worst=0.1, outcome="incomplete", tier="quick", images=32)
    write(folder, replace(record, convergence=None, flags=[Flag("seed-gap", "clear", "W", "seen")]), found)
    record, _ = synthetic("old-sap-100", net="old", worst=0.2, outcome="incomplete", tier="quick", images=32)
    write(folder, record)
