"""Record: everything one evaluation found, as data; one JSON file an entry.

Fractions are in [0, 1], numbers are numbers, what was not measured is absent. Times, machine and versions are kept
out (they go into ``<entry>.run.json``), so the same computation writes the same bytes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from sap_art.files import write_file
from sap_art.migrations import SCHEMA, upgrade
from sap_art.record_parts import (
    STRICT,
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
    Level,
    ModelInfo,
    NullFloor,
    Precision,
    State,
    Temperature,
    Value,
    Verdict,
)
from sap_art.untrusted import file_name, read_json, validated

PROTOCOL = "RDP-1"

__all__ = [
    "PROTOCOL",
    "AttackResult",
    "Bin",
    "BudgetPoint",
    "Calibration",
    "CurvePoint",
    "DataInfo",
    "DefenceInfo",
    "DrawsPoint",
    "Flag",
    "GradientInfo",
    "Level",
    "ModelInfo",
    "NullFloor",
    "Precision",
    "Record",
    "State",
    "Temperature",
    "Value",
    "Verdict",
    "write_json",
    "write_text",
]


@dataclass(frozen=True)
class Record:
    """One evaluated entry; see the module's docstring for the units."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
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
        """Write ``folder/<entry>.json`` by rename; the same record gives the same bytes.

        Raises:
            ValueError: an entry that is no name of a file.
        """
        return write_json(_without_none(asdict(self)), folder / file_name(self.entry, ".json"))

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read and validate one record; one of an older schema is upgraded, the file stays as it is.

        Raises:
            ValueError: the file is no record that this version can read; the message names file and fields.
        """
        found = read_json(path, what="a valid record")
        try:
            return validated(cls, upgrade(found))
        except ValueError as error:
            raise ValueError(f"{path} is not a valid record: {error}") from error


def write_json(value: dict[str, Any], path: Path) -> Path:
    """Write JSON by rename, keys sorted, NaN refused."""
    return write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n", path)


def write_text(text: str, path: Path) -> Path:
    """Write a file by rename, its folder made if need be."""
    return write_file(text.encode(), path)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value
