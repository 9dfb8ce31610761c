"""Suites: which entries are evaluated, on what images, at which tier; TOML files, some shipped beside this one."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

from sap_art.policies import parse_policy
from sap_art.references import public_name
from sap_art.threat import ThreatModel
from sap_art.tiers import TIERS

_STRICT = {"extra": "forbid", "strict": True}


@dataclass(frozen=True)
class SuiteEntry:
    """One net, with a policy or without: ``model`` as for ``models.Loader``, ``policy`` as for ``parse_policy``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    model: str
    policy: str | None = None

    @property
    def name(self) -> str:
        """File name of the record: letters, digits, dot, dash and underscore."""
        model = public_name(self.model)
        text = model if self.policy is None else f"{model}:{self.policy.replace(',', '_')}"
        return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")


@dataclass(frozen=True)
class Suite:
    """Entries and the settings that they share; ``eps`` is written as a number or a fraction, ``8/255``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    name: str
    tier: str
    entries: list[SuiteEntry]
    dataset: str = "cifar10"
    images: int = 64
    norm: str = "Linf"
    eps: str = "8/255"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.tier not in TIERS:
            raise ValueError(f"unknown tier {self.tier!r}; known: {', '.join(TIERS)}")
        if self.images < 1:
            raise ValueError(f"images must be at least 1, got {self.images}")
        names = [entry.name for entry in self.entries]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a suite needs entries with distinct names, got {names}")
        for entry in self.entries:
            if entry.policy is not None:
                parse_policy(entry.policy)
        self.threat()

    def threat(self) -> ThreatModel:
        """The threat model; raises ValueError if norm or eps are off."""
        return ThreatModel(self.norm, parse_eps(self.eps))


def parse_eps(text: str) -> float:
    """``8/255`` or ``0.5`` -> float; raises ValueError for anything else.

    >>> parse_eps("51/255")
    0.2
    """
    try:
        return float(Fraction(text.replace(" ", "")))
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"eps must be a number or a fraction such as 8/255, got {text!r}") from error


def shipped() -> list[str]:
    """Names of the suites that come with the package."""
    return sorted(f.name.removesuffix(".toml") for f in files(__name__).iterdir() if f.name.endswith(".toml"))


def load(reference: str) -> Suite:
    """A shipped suite by name, or a TOML file by its path.

    Raises:
        ValueError: unknown name, not TOML, unknown or missing keys, values out of range; the message names them.
    """
    if reference.endswith(".toml"):
        path = Path(reference)
        if not path.is_file():
            raise ValueError(f"no suite file {reference}; shipped suites: {', '.join(shipped())}")
        return _parse(path.read_text(encoding="utf-8"), reference)
    if reference not in shipped():
        raise ValueError(f"unknown suite {reference!r}; shipped: {', '.join(shipped())}, or give a FILE.toml")
    return _parse((files(__name__) / f"{reference}.toml").read_text(encoding="utf-8"), reference)


def _parse(text: str, where: str) -> Suite:
    from pydantic import TypeAdapter, ValidationError

    try:
        # As JSON, where strict types do not mean that the entries must be dataclasses already.
        return TypeAdapter(Suite).validate_json(json.dumps(tomllib.loads(text), default=str))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"suite {where} is not TOML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'suite'}: {e['msg']}" for e in error.errors())
        raise ValueError(f"suite {where}: {problems}") from error
