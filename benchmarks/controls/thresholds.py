"""Where a threshold lies between the entries that must raise its flag and those that must not."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from expectations import Expectation
from readings import RULES, Reading, Rule, reading

from sap_art.record import Record

Role = Literal["must raise", "must not raise", "left out", "not listed"]
ROLES: tuple[Role, ...] = ("must raise", "must not raise", "left out", "not listed")
Verdict = Literal[
    "separates",
    "does not separate",
    "only its silence is shown",
    "only that it is raised is shown",
    "nothing is shown",
]


@dataclass(frozen=True)
class Roles:
    """One flag's table in ``thresholds.toml``, which says what each list means."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    must_raise: list[str]
    must_not_raise: list[str]
    left_out: list[str]
    why: str

    @property
    def names(self) -> list[str]:
        """All that are listed."""
        return self.must_raise + self.must_not_raise + self.left_out

    def of(self, entry: str) -> Role:
        """Which list ``entry`` is on."""
        if entry in self.must_raise:
            return "must raise"
        if entry in self.must_not_raise:
            return "must not raise"
        return "left out" if entry in self.left_out else "not listed"


@dataclass(frozen=True)
class Finding:
    """One threshold. ``honest`` and ``planted``: the nearest numbers of those that must not and must raise the flag.

    ``separating`` (low, high): the thresholds that would keep the two apart, None for an end that nothing but intervals
    closes; None if there are none. ``margins``: from the threshold to the end on the honest side and on the other,
    negative if it lies beyond. ``wrong``: what the threshold gets wrong; ``unmeasured``: who has no record, or one that
    does not check the flag.
    """

    flag: str
    threshold: float
    unit: str
    why: str
    verdict: Verdict
    honest: float | None
    planted: float | None
    separating: tuple[float | None, float | None] | None
    margins: tuple[float | None, float | None]
    wrong: list[str]
    unmeasured: dict[Role, list[str]]
    readings: dict[Role, list[Reading]]


def read(path: Path, *, expected: Mapping[str, Expectation], others: Collection[str]) -> dict[str, Roles]:
    """The lists of each flag; ``others``: entries that may be listed beside the controls, which are ``expected``.

    Raises:
        ValueError: a flag or an entry that is unknown, missing or named twice, an honest control that may raise a flag.
    """
    from pydantic import TypeAdapter

    found = TypeAdapter(dict[str, Roles]).validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
    if odd := sorted(found.keys() ^ RULES.keys()):
        raise ValueError(f"{path.name}: {', '.join(odd)}: the flags must be {', '.join(RULES)}")
    honest = {name for name, e in expected.items() if e.no_flag or e.broken_with is not None}
    for code, roles in found.items():
        problems = {
            "unknown": set(roles.names) - set(expected) - set(others),
            "named twice": {name for name in roles.names if roles.names.count(name) > 1},
            "missing": set(expected) - set(roles.names),
            "honest, so it belongs into must_not_raise": honest - set(roles.must_not_raise),
        }
        for problem, names in problems.items():
            if names:
                raise ValueError(f"{path.name}: {code}: {', '.join(sorted(names))}: {problem}")
    return found


def judge(code: str, roles: Roles, records: Mapping[str, Record]) -> Finding:
    """Hold the threshold of one flag against the records by entry. Raises ValueError as ``reading`` does."""
    readings: dict[Role, list[Reading]] = {role: [] for role in ROLES}
    for name, record in records.items():
        readings[roles.of(name)].append(reading(record, code, entry=name))
    planted, honest = ([r for r in readings[role] if r.state != "not-checked"] for role in ROLES[:2])
    silent, alarmed = [r for r in planted if r.state == "clear"], [r for r in honest if r.state == "raised"]
    told = {r.entry for r in planted + honest}
    rule = RULES[code]
    ends = _most(_open(honest), rule), _least(_open(planted), rule)
    return Finding(
        flag=code,
        threshold=rule.threshold,
        unit=rule.unit,
        why=roles.why.strip(),
        verdict=_verdict(bool(silent or alarmed), planted=planted, honest=honest),
        honest=_most(honest, rule),
        planted=_least(planted, rule),
        separating=_separating(ends, silent + alarmed, rule),
        margins=(
            None if ends[0] is None else rule.up * (rule.threshold - ends[0]),
            None if ends[1] is None else rule.up * (ends[1] - rule.threshold),
        ),
        wrong=[
            *(f"{r.entry} must raise it, and it is clear: {r.evidence}" for r in silent),
            *(f"{r.entry} must not raise it, and it is raised: {r.evidence}" for r in alarmed),
        ],
        unmeasured={
            "must raise": [name for name in roles.must_raise if name not in told],
            "must not raise": [name for name in roles.must_not_raise if name not in told],
        },
        readings=readings,
    )


def _open(readings: Sequence[Reading]) -> list[Reading]:
    """Those whose flag depends on the threshold."""
    return [r for r in readings if r.numbers is not None and not r.numbers.by_interval]


def _most(readings: Sequence[Reading], rule: Rule) -> float | None:
    """The number that is nearest to raising the flag, or furthest beyond it."""
    return max((r.numbers.number for r in readings if r.numbers), key=lambda n: rule.up * n, default=None)


def _least(readings: Sequence[Reading], rule: Rule) -> float | None:
    """The number that is furthest from raising the flag, or least beyond it."""
    return min((r.numbers.number for r in readings if r.numbers), key=lambda n: rule.up * n, default=None)


def _separating(
    ends: tuple[float | None, float | None], wrong: Sequence[Reading], rule: Rule
) -> tuple[float | None, float | None] | None:
    honest, planted = ends
    overlap = honest is not None and planted is not None and rule.up * honest >= rule.up * planted
    if wrong and (overlap or len(_open(wrong)) < len(wrong)):
        return None
    return (planted, honest) if rule.up < 0 else ends


def _verdict(wrong: bool, *, planted: Sequence[Reading], honest: Sequence[Reading]) -> Verdict:
    if wrong:
        return "does not separate"
    if any(r.numbers for r in honest):
        return "separates" if planted else "only its silence is shown"
    return "only that it is raised is shown" if planted else "nothing is shown"
