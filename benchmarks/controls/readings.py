"""What a record says of a flag whose threshold is a choice: its interval, and the number held against the threshold."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sap_art.diagnostics.comparisons import DISCOVERED_IMAGES, SEED_GAP, SPREAD
from sap_art.diagnostics.gradient_signal import LOW_COSINE
from sap_art.record import Flag, Record, State
from sap_art.tiers import STAND_ALONE

_NUMBER = r"[+-]?\d+\.\d+"
_INTERVAL = rf"{_NUMBER} \[({_NUMBER}), ({_NUMBER})\]"


@dataclass(frozen=True)
class Numbers:
    """The interval that an evidence gives, and the number that is held against the threshold.

    ``by_interval``: the flag would be what it is at any threshold, by its interval alone.
    """

    low: float | None
    high: float
    number: float
    by_interval: bool


@dataclass(frozen=True)
class Rule:
    """How a flag uses its threshold. ``recorded``: a record's threshold; ``up``: 1 if more raises the flag, else -1."""

    threshold: float
    unit: str
    recorded: float
    up: Literal[1, -1]
    numbers: Callable[[Flag, int], Numbers | None]


@dataclass(frozen=True)
class Reading:
    """One record on one flag: its value, and ``Numbers`` if it has any; else ``evidence`` says why it is as it is."""

    entry: str
    tier: str
    images: int
    state: State
    evidence: str
    value: float | None
    numbers: Numbers | None


def reading(record: Record, code: str, *, entry: str) -> Reading:
    """What the record of ``entry`` says of the flag ``code``.

    Raises:
        ValueError: the flag is absent, of another threshold, or its evidence does not give the numbers it must.
    """
    rule, again = RULES[code], f"evaluate {entry} again with this version"
    flag = next((flag for flag in record.flags if flag.code == code), None)
    if flag is None:
        raise ValueError(f"the record of {entry} has no flag {code}; {again}")
    if flag.threshold not in (None, rule.recorded):
        raise ValueError(f"{code} of {entry} has the threshold {flag.threshold}, here it is {rule.recorded}; {again}")
    numbers = rule.numbers(flag, record.data.n)
    if numbers is None and (flag.state == "raised" or flag.value):
        raise ValueError(f"the evidence of {code} of {entry} gives no interval: {flag.evidence!r}; {again}")
    return Reading(entry, record.tier, record.data.n, flag.state, flag.evidence, flag.value, numbers)


def _transfer(flag: Flag, images: int) -> Numbers | None:
    """How many of the images on which every attack ran; an interval above 0 raises the flag as well."""
    found = re.search(rf"{_INTERVAL}; .* on ({_NUMBER})% of the images", flag.evidence)
    if found is None:
        return None
    low, high, percent = map(float, found.groups())
    count = round(percent / 100 * min(images, STAND_ALONE))
    by_interval = low > 0 or (flag.state == "raised" and count < DISCOVERED_IMAGES)
    return Numbers(low, high, count, by_interval)


def _signal(flag: Flag, images: int) -> Numbers | None:
    """The upper end of the interval of the best estimator."""
    highs = [float(high) for high in re.findall(rf"{_NUMBER} \(at most ({_NUMBER})\)", flag.evidence)]
    return Numbers(None, max(highs), max(highs), by_interval=False) if highs else None


def _difference(flag: Flag, images: int) -> Numbers | None:
    """The difference itself; an interval that is not above 0 keeps the flag clear."""
    found = re.search(_INTERVAL, flag.evidence)
    if found is None or flag.value is None:
        return None
    low, high = map(float, found.groups())
    return Numbers(low, high, flag.value, by_interval=low <= 0 and flag.state == "clear")


RULES = {
    # 2 % of 64 images are less than 3 images, so it is these that decide.
    "transfer-beats-white-box": Rule(
        DISCOVERED_IMAGES, f"images of {STAND_ALONE} on which transfer is better, at least", 0.0, 1, _transfer
    ),
    "low-gradient-signal": Rule(
        LOW_COSINE, "median split-half cosine, upper end of its interval, below", LOW_COSINE, -1, _signal
    ),
    "estimator-spread": Rule(SPREAD, "accuracy between two estimators, more than", SPREAD, 1, _difference),
    "seed-gap": Rule(SEED_GAP, "accuracy lost when the seed is known, more than", SEED_GAP, 1, _difference),
}
"""The flags marked (t) in RDP-1."""
