"""What a record must hold to be shown: the site trusts no text and no number in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from sap_art.flags import LEVELS
from sap_art.record import PROTOCOL, Record, Value
from sap_art.threat import NORMS
from sap_art.tiers import TIERS
from sap_art.untrusted import shortened

NAME_LENGTH = 200
TEXT_LENGTH = 10_000
TEXTS = re.compile(r"(evidence|error|notes\[\d+\])$")
"""Fields that hold sentences; all other strings are names."""
UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
"""Control characters, and those that turn the direction of what follows: text must be what it seems to be."""
NEEDED = ("clean", "T1")
ROUNDING = 1e-9


def problems(record: Record) -> Iterator[str]:
    """What is wrong with it, field by field, beyond what ``Record.read`` refuses."""
    for path, value in leaves(record):
        if isinstance(value, str):
            yield from _of_text(path, value)
    yield from _of_setting(record)
    yield from _of_fractions(record)
    yield from _of_flags(record)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All that is in a record with its path, such as ``attacks[3].accuracy.low``; keys of mappings are texts too."""
    if is_dataclass(value):
        for field in fields(value):
            yield from leaves(getattr(value, field.name), f"{path}.{field.name}".removeprefix("."))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield f"a key of {path}", key
            yield from leaves(item, f"{path}.{shortened(key)}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from leaves(item, f"{path}[{number}]")
    elif value is not None:
        yield path, value


def _of_text(path: str, text: str) -> Iterator[str]:
    longest = TEXT_LENGTH if TEXTS.search(path) else NAME_LENGTH
    if len(text) > longest:
        yield f"{path} has {len(text):,} characters, at most {longest:,} are allowed"
    if found := UNPRINTABLE.search(text):
        yield f"{path} holds the unprintable character U+{ord(found[0]):04X}"


def _of_setting(record: Record) -> Iterator[str]:
    if not record.entry.strip():
        yield "entry is empty"
    if record.protocol != PROTOCOL:
        yield f"protocol must be {PROTOCOL}, got '{shortened(record.protocol)}'"
    if record.tier not in TIERS:
        yield f"tier must be one of {', '.join(TIERS)}, got '{shortened(record.tier)}'"
    if record.norm not in NORMS:
        yield f"norm must be one of {', '.join(NORMS)}, got '{shortened(record.norm)}'"
    if not record.eps > 0:
        yield f"eps must be above 0, got {record.eps}"
    if record.data.n < 1:
        yield f"data.n must be at least 1, got {record.data.n}"


def _of_fractions(record: Record) -> Iterator[str]:
    for name in NEEDED:
        if name not in record.metrics:
            yield f"metrics.{name} is missing"
    found = {f"metrics.{shortened(name)}": value for name, value in record.metrics.items()}
    found |= {f"attacks[{i}].accuracy": a.accuracy for i, a in enumerate(record.attacks) if a.accuracy is not None}
    found |= {f"eps_curve[{i}].accuracy": p.accuracy for i, p in enumerate(record.eps_curve or [])}
    for name, points in (record.convergence or {}).items():
        found |= {f"convergence.{shortened(name)}[{i}].accuracy": p.accuracy for i, p in enumerate(points)}
    for path, value in found.items():
        if not _is_fraction(value):
            yield f"{path} must be fractions, low <= value <= high, got {value.low}, {value.value}, {value.high}"


def _is_fraction(v: Value) -> bool:
    return -ROUNDING <= v.low <= v.value + ROUNDING and v.value <= v.high + ROUNDING and v.high <= 1 + ROUNDING


def _of_flags(record: Record) -> Iterator[str]:
    codes = [flag.code for flag in record.flags]
    for number, flag in enumerate(record.flags):
        if flag.code not in LEVELS:
            yield f"flags[{number}].code is not known: '{shortened(flag.code)}'"
        elif flag.level == "W" and LEVELS[flag.code] == "R":
            yield f"flags[{number}].level of {flag.code} must be R, got W"
        elif flag.code in codes[:number]:
            yield f"flags[{number}].code {flag.code} is there twice"
    raised = [flag.code for flag in record.flags if flag.state == "raised" and flag.level == "R"]
    if raised and record.verdict not in ("unreliable", "failed"):
        yield f"verdict is {record.verdict}, but {raised[0]} is raised: it must be unreliable"
    crashed = [attack.id for attack in record.attacks if attack.error is not None]
    if crashed and record.verdict != "failed":
        yield f"verdict is {record.verdict}, but {shortened(crashed[0])} crashed: it must be failed"
