"""What must come out for a control, and whether it did: from records alone."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from scipy import stats

from sap_art.flags import LEVELS
from sap_art.record import Level, Record, Value, Verdict

Tier = Literal["smoke", "quick", "full", "audit"]
TIERS: tuple[Tier, ...] = ("smoke", "quick", "full", "audit")
STANDARD_ERRORS = 5
SUBMISSIONS = 10


@dataclass(frozen=True)
class Expectation:
    """The keys of ``expectations.toml``, which says what each means; ``tier`` is there ``from``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    tier: Tier
    truth: float | str
    why: str
    T1: float | None = None
    accuracy: float | None = None
    persistent_10: float | None = None
    broken_with: str | None = None
    same_as: str | None = None
    flag: str | None = None
    verdict: str = "unreliable"
    no_flag: list[Level] = field(default_factory=list[Level])
    needs: str | None = None

    def __post_init__(self) -> None:
        if self.flag is not None and self.flag not in LEVELS:
            raise ValueError(f"unknown flag {self.flag!r}; known: {', '.join(LEVELS)}")
        if " of " not in self.truth if isinstance(self.truth, str) else not 0 <= self.truth <= 1:
            raise ValueError(f"truth must be in [0, 1] or 'LIBRARY of CONTROL', got {self.truth!r}")

    def __str__(self) -> str:
        said = {
            f"T1 = {self.T1}": self.T1 is not None,
            f"{self.accuracy} of draws right": self.accuracy is not None,
            f"{self.persistent_10} ten times in a row": self.persistent_10 is not None,
            f"broken, as {self.broken_with}": self.broken_with is not None,
            f"T1 as {self.same_as}": self.same_as is not None,
            f"{self.verdict}: {self.flag}": self.flag is not None,
            f"no flag {' or '.join(self.no_flag)}": bool(self.no_flag),
        }
        return "; ".join(text for text, there in said.items() if there)


@dataclass(frozen=True)
class Result:
    """What became of one control. ``state``: met, not met, or why it cannot be told yet.

    ``raised``: levels by flag. ``T1``, its verdict and ``raised`` are empty where it was not run.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    control: str
    expected: str
    why: str
    truth: float | str
    found: str
    state: str
    missed: list[str]
    T1: Value | None = None
    verdict: Verdict | None = None
    raised: dict[str, Level] = field(default_factory=dict[str, Level])


@dataclass(frozen=True)
class Results:
    """``controls.json``: the settings of one run, and what became of each control."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    suite: str
    tier: str
    dataset: str
    images: int
    norm: str
    eps: float
    seed: int
    results: list[Result]


def read(path: Path) -> dict[str, Expectation]:
    """Expectations by control. Raises ValueError (pydantic's names the keys) for anything that is none."""
    from pydantic import TypeAdapter

    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    renamed = {name: {("tier" if k == "from" else k): v for k, v in table.items()} for name, table in tables.items()}
    return TypeAdapter(dict[str, Expectation]).validate_python(renamed)


def judge(control: str, expected: Expectation, records: Mapping[str, Record], *, tier: str) -> Result:
    """Compare the record of ``control`` with what was expected of it; ``tier`` is the one that ran."""
    absent = f"needs the net {expected.needs}"
    result = Result(control, str(expected), expected.why, expected.truth, "not run", absent, missed=[])
    if control not in records:
        return result
    record = records[control]
    missed = shortcomings(expected, record, records)
    state = "not met" if missed else "met"
    if TIERS.index(expected.tier) > TIERS.index(tier):  # what happens to be there already proves nothing
        state, missed = f"needs tier {expected.tier}", []
    return replace(
        result,
        found=summary(record),
        state=state,
        missed=missed,
        T1=record.metrics["T1"],
        verdict=record.verdict,
        raised=raised_flags(record),
    )


def shortcomings(expected: Expectation, record: Record, records: Mapping[str, Record]) -> list[str]:
    """What of the expectation is not met, in words with numbers; empty if all is."""
    found = _numbers(expected, record)
    worst = record.metrics["T1"]
    raised = raised_flags(record)
    if expected.T1 is not None and worst.value != expected.T1:
        found.append(f"T1 is {worst.value:.4f}")
    if expected.broken_with is not None:
        rest = worst_difference(worst, records[expected.broken_with].metrics["T1"])
        if rest.low > 0:
            found.append(f"T1 is {_text(rest)} above that of {expected.broken_with}")
    if expected.same_as is not None:
        other = records[expected.same_as].metrics["T1"]
        if not other.low <= worst.value <= other.high:
            found.append(f"T1 is {worst.value:.3f}, that of {expected.same_as} {_text(other)}")
    if expected.flag is not None:
        if expected.flag not in raised:
            found.append(f"{expected.flag} is {_state(record, expected.flag)}")
        if record.verdict != expected.verdict:
            found.append(f"the verdict is {record.verdict}")
    return found + [f"{code} ({level}) is raised" for code, level in raised.items() if level in expected.no_flag]


def _numbers(expected: Expectation, record: Record) -> list[str]:
    """Which accuracies are further than five standard errors from what each single draw, or ten of them, must give."""
    if expected.accuracy is None:
        return []
    p = expected.accuracy
    if record.precision is None:
        return ["the record does not say how many draws it rests on"]
    n, m = record.precision.n, record.precision.m
    error = math.sqrt(p * (1 - p) / (n * m))
    targets = {name: (record.metrics[name].value, p, error) for name in ("clean", "T1")}
    alone = min(n, 64)
    for attack in record.attacks:
        if attack.accuracy is None:
            return [f"{attack.id} failed: {attack.error}"]
        targets[attack.id] = (attack.accuracy.value, p, math.sqrt(p * (1 - p) / (alone * m)))
    if expected.persistent_10 is not None:
        ten = (expected.persistent_10, persistent_error(p, draws=m, submissions=SUBMISSIONS, images=n))
        targets |= {name: (record.metrics[name].value, *ten) for name in ("clean-T2@10", "T2@10")}
    return [
        f"{name} is {value:.4f}, {(value - target) / error:+.1f} standard errors from {target:.4f}"
        for name, (value, target, error) in targets.items()
        if abs(value - target) > STANDARD_ERRORS * error
    ]


def persistent_error(p: float, *, draws: int, submissions: int, images: int) -> float:
    """Exact standard error of mean C(s, M) / C(m, M) over images with s ~ Binomial(m, p), m = ``draws``.

    >>> round(persistent_error(0.7, draws=1, submissions=1, images=1), 6)  # of one toss: sqrt(.7 * .3)
    0.458258
    """
    s = np.arange(draws + 1)
    share = np.array([math.comb(int(k), submissions) / math.comb(draws, submissions) for k in s])
    law = stats.binom.pmf(s, draws, p)
    return math.sqrt(max(0.0, float(law @ share**2) - float(law @ share) ** 2) / images)


def worst_difference(first: Value, second: Value) -> Value:
    """first - second with a 95 % interval made of theirs (Zou & Donner 2008, for independent estimates).

    Both are of the same images, so it is rather too wide than too narrow.
    """
    difference = first.value - second.value
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    return Value(difference, difference - below, difference + above)


def summary(record: Record) -> str:
    """Accuracies and what was raised, for a table."""
    flags = ", ".join(raised_flags(record)) or "no flag"
    clean, worst = record.metrics["clean"], record.metrics["T1"]
    return f"clean {clean.value:.3f}, T1 {_text(worst)}; {record.verdict}: {flags}"


def raised_flags(record: Record) -> dict[str, Level]:
    """Levels of the raised flags, by code."""
    return {flag.code: flag.level for flag in record.flags if flag.state == "raised"}


def _state(record: Record, code: str) -> str:
    flag = next(flag for flag in record.flags if flag.code == code)
    return f"{flag.state} ({flag.evidence})"


def _text(value: Value) -> str:
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"
