"""The parts of a record as plain data: fractions in [0, 1], numbers are numbers, what was not measured is absent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

State = Literal["raised", "clear", "not-checked"]
Level = Literal["R", "W"]
Verdict = Literal["failed", "unreliable", "warning", "incomplete", "no-known-failure"]

STRICT = {"extra": "forbid", "strict": True, "allow_inf_nan": False}


@dataclass(frozen=True)
class Value:
    """A measured fraction and its two-sided 95 % interval."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ModelInfo:
    """The net: name, class, SHA-256 over its weights, and its deterministic counterpart if it has one."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    name: str
    architecture: str
    weights_sha256: str
    dense: str | None = None


@dataclass(frozen=True)
class DefenceInfo:
    """What is random: policy spec (``none`` without one), where it acts, the predictor that is scored and its K."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    spec: str
    where: str
    per_example: bool
    predictor: str
    draws: int


@dataclass(frozen=True)
class DataInfo:
    """The images: set, how many, SHA-256 over their contents and labels."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    set: str
    n: int
    ids_sha256: str


@dataclass(frozen=True)
class AttackResult:
    """One attack. ``accuracy`` is stand-alone; passes are per image, one draw counts one; ``error`` if it crashed.

    ``reported`` is what a library's attack would print for the same points: no estimate of anything on a random model.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
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

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
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

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
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

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    low: float
    high: float
    count: int
    confidence: float | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class NullFloor:
    """ECE of a model that is calibrated and just as confident: mean, 95 % quantile, and p of the ECE that was found."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    mean: float
    quantile: float
    p_value: float


@dataclass(frozen=True)
class DrawsPoint:
    """Calibration of the mean of K = ``draws`` softmaxes, averaged over ``groups`` disjoint groups of draws."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    draws: int
    groups: int
    ece: Value
    brier: Value
    nll: Value
    gap: Value


@dataclass(frozen=True)
class Temperature:
    """One temperature fitted on the even images, clean ones; ECE of the odd images before and after."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    temperature: float
    ece_before: float
    ece_after: float


@dataclass(frozen=True)
class Calibration:
    """Calibration of the mean of ``draws`` softmaxes.

    ``squared_l2`` is debiased and may be negative; intervals are bootstraps over images; ``curve`` is over K.
    ``ece_of_outputs`` is there where the flag ``softmax-output`` is raised: of the outputs as the probabilities that
    they are, while all else is of a softmax of them.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
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
    ece_of_outputs: float | None = None


@dataclass(frozen=True)
class CurvePoint:
    """Accuracy under one short attack within ``eps``, on the stand-alone images."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    eps: float
    accuracy: Value


@dataclass(frozen=True)
class BudgetPoint:
    """Accuracy under the best attack with one part of its budget at ``value``, on the stand-alone images."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    value: float
    accuracy: Value


@dataclass(frozen=True)
class Precision:
    """Half-width of the interval of T1, report draws m and images n."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    half_width: float
    m: int
    n: int
