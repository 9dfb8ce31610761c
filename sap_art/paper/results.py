"""What is kept of a figure: plain data, fractions in [0, 1], each with its 95 % interval."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from sap_art.record import write_json
from sap_art.record_parts import STRICT, Calibration, DataInfo, Value
from sap_art.untrusted import file_name, read_json, shortened, validated

SCHEMA = 1


@dataclass(frozen=True)
class Score:
    """Accuracies over the m report draws, one point an image.

    ``single``: of one fresh draw. ``mean``: of the mean softmax over all m, the authors' predictor. ``every``: the
    share of images right in each of the m draws, which is what is left where one lucky draw counts as a success.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    single: Value
    mean: Value
    every: Value


@dataclass(frozen=True)
class PointResult:
    """At ``lam`` / 255: under the paper's attack, and at the worst points of RDP-1 on the same images."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    lam: int
    attacked: Score
    worst: Score
    calibration: Calibration | None = None


@dataclass(frozen=True)
class CurveResult:
    """A defender (net and policy) under an attacker; ``gradient_draws`` of each gradient, ``images`` the first ones.

    Where nothing is ``random``, one report draw is all there are, and the gradient of the dense net is its own.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    defender: str
    net: str
    policy: str
    attack: Literal["noise", "fgsm", "iterative"]
    gradient: Literal["dense", "defended"]
    gradient_draws: int
    random: bool
    images: int
    report_draws: int
    points: list[PointResult]


@dataclass(frozen=True)
class Difference:
    """Accuracy of ``first`` minus that of ``second``, mean predictors, on the same images at ``lam`` / 255."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    first: str
    second: str
    lam: int
    value: Value


@dataclass(frozen=True)
class MissingCurve:
    """A line that was not computed, for its net has no checkpoint, and the command that trains it."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    defender: str
    net: str
    command: str


@dataclass(frozen=True)
class NetInfo:
    """A net in its role (``dense``, ``adv``): clean accuracy by its card on ``test_images`` images, and its training.

    ``instead_of``: what the recipe has in the place of these epochs and this schedule of the learning rate.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    role: str
    name: str
    weights_sha256: str
    accuracy: float
    test_images: int
    recipe: str
    epochs: int
    schedule: str | None
    instead_of: dict[str, Any] | None


@dataclass(frozen=True)
class Settings:
    """What the numbers depend on besides the nets."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    budget: dict[str, Any]
    data: DataInfo
    seed: int
    device: str
    version: str


@dataclass(frozen=True)
class FigureResult:
    """One figure of the paper, computed."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    figure: str
    title: str
    settings: Settings
    nets: list[NetInfo]
    curves: list[CurveResult]
    differences: list[Difference] = field(default_factory=list[Difference])
    missing: list[MissingCurve] = field(default_factory=list[MissingCurve])
    schema: int = SCHEMA

    def write(self, folder: Path) -> Path:
        """Write ``folder/<figure>.json`` by rename; raises ValueError for a figure that is no name of a file."""
        return write_json(asdict(self), folder / file_name(self.figure, ".json"))

    @classmethod
    def read(cls, path: Path) -> FigureResult:
        """Read one figure; raises ValueError, naming file and fields, for anything else."""
        found = read_json(path, what="a figure of ours")
        try:
            number = found.get("schema") if isinstance(found, dict) else None
            if number != SCHEMA:
                raise ValueError(f"schema must be {SCHEMA}, got {shortened(repr(number))}")
            return validated(cls, found)
        except ValueError as error:
            raise ValueError(f"{path} is not a figure of ours: {error}") from error
