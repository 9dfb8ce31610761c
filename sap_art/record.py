"""Record: everything one evaluation found, as data; one JSON file an entry.

Fractions are in [0, 1], numbers are numbers, what was not measured is absent. Times, machine and versions are kept
out (they go into ``<entry>.run.json``), so the same computation writes the same bytes.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from sap_art.migrations import SCHEMA, upgrade

PROTOCOL = "RDP-1"

State = Literal["raised", "clear", "not-checked"]
Level = Literal["R", "W"]
Verdict = Literal["failed", "unreliable", "warning", "incomplete", "no-known-failure"]

_STRICT = {"extra": "forbid", "strict": True, "allow_inf_nan": False}


@dataclass(frozen=True)
class Value:
    """A measured fraction and its two-sided 95 % interval."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ModelInfo:
    """The net: name, class, SHA-256 over its weights, and its deterministic counterpart if it has one."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    name: str
    architecture: str
    weights_sha256: str
    dense: str | None = None


@dataclass(frozen=True)
class DefenceInfo:
    """What is random: policy spec (``none`` without one), where it acts, the predictor that is scored and its K."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    spec: str
    where: str
    per_example: bool
    predictor: str
    draws: int


@dataclass(frozen=True)
class DataInfo:
    """The images: set, how many, SHA-256 over their contents and labels."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    set: str
    n: int
    ids_sha256: str


@dataclass(frozen=True)
class AttackResult:
    """One attack. ``accuracy`` is stand-alone; passes are per image, one draw counts one; ``error`` if it crashed.

    ``reported`` is what a library's attack would print for the same points: no estimate of anything on a random model.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    id: str
    estimator: str
    loss: str
    k: int
    steps: int
    restarts: int
    accuracy: Value | None = None
    forwards: float | None = None
    backwards: float | None = None
    images_won: int | None = None
    reported: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Flag:
    """One check of the evaluation itself: what was compared with what, and what came out."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    code: str
    state: State
    level: Level
    evidence: str
    value: float | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class GradientInfo:
    """Share of images whose gradient is exactly zero, or not finite; medians over images of its signal, if measured.

    See ``gradient_signal.GradientSignal`` for the definitions, and ``finite_difference.FiniteDifference`` for the
    comparison with differences of the loss.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    zero: float
    non_finite: float
    snr: float | None = None
    split_half_cosine: float | None = None
    sign_agreement: float | None = None
    dense_cosine: float | None = None
    difference_cosine: float | None = None
    difference_scale: float | None = None


@dataclass(frozen=True)
class Bin:
    """One reliability bin (low, high]; means are absent when it is empty."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    low: float
    high: float
    count: int
    confidence: float | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class NullFloor:
    """ECE of a model that is calibrated and just as confident: mean, 95 % quantile, and p of the ECE that was found."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    mean: float
    quantile: float
    p_value: float


@dataclass(frozen=True)
class DrawsPoint:
    """Calibration of the mean of K = ``draws`` softmaxes, averaged over ``groups`` disjoint groups of draws."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    draws: int
    groups: int
    ece: Value
    brier: Value
    nll: Value
    gap: Value


@dataclass(frozen=True)
class Temperature:
    """One temperature fitted on the even images, clean ones; ECE of the odd images before and after."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    temperature: float
    ece_before: float
    ece_after: float


@dataclass(frozen=True)
class Calibration:
    """Calibration of the mean of ``draws`` softmaxes.

    ``squared_l2`` is debiased and may be negative; intervals are bootstraps over images; ``curve`` is over K.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    draws: int
    ece: float
    brier: float
    nll: float
    gap: float
    bins: list[Bin]
    squared_l2: float | None = None
    intervals: dict[str, Value] | None = None
    null: NullFloor | None = None
    temperature: Temperature | None = None
    curve: list[DrawsPoint] | None = None


@dataclass(frozen=True)
class CurvePoint:
    """Accuracy under one short attack within ``eps``, on the stand-alone images."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    eps: float
    accuracy: Value


@dataclass(frozen=True)
class BudgetPoint:
    """Accuracy under the best attack with one part of its budget at ``value``, on the stand-alone images."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    value: float
    accuracy: Value


@dataclass(frozen=True)
class Precision:
    """Half-width of the interval of T1, report draws m and images n."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    half_width: float
    m: int
    n: int


@dataclass(frozen=True)
class Record:
    """One evaluated entry; see the module's docstring for the units."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    entry: str
    tier: str
    model: ModelInfo
    defence: DefenceInfo
    data: DataInfo
    norm: str
    eps: float
    seeds: dict[str, int]
    metrics: dict[str, Value]
    attacks: list[AttackResult]
    gradient: dict[str, GradientInfo]
    calibration: dict[str, Calibration]
    flags: list[Flag]
    verdict: Verdict
    precision: Precision | None = None
    adversarial_sha256: str | None = None
    counts_sha256: str | None = None
    eps_curve: list[CurvePoint] | None = None
    convergence: dict[str, list[BudgetPoint]] | None = None
    schema: int = SCHEMA
    protocol: str = PROTOCOL
    notes: list[str] = field(default_factory=list[str])

    def write(self, folder: Path) -> Path:
        """Write ``folder/<entry>.json`` by rename; the same record gives the same bytes."""
        return write_json(_without_none(asdict(self)), folder / f"{self.entry}.json")

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read and validate one record; one of an older schema is upgraded, the file stays as it is.

        Raises:
            ValueError: the file is no record that this version can read; the message names file and fields.
        """
        from pydantic import TypeAdapter

        try:
            found = upgrade(json.loads(path.read_bytes()))
            return TypeAdapter(cls).validate_json(json.dumps(found))
        except ValueError as error:
            raise ValueError(f"{path} is not a valid record: {error}") from error


def write_json(value: dict[str, Any], path: Path) -> Path:
    """Write JSON by rename, keys sorted, NaN refused."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(part, path)
    return path


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value
