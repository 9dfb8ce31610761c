"""Suites: which entries are evaluated, on what images, at which tier; TOML files, some shipped beside this one."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from fractions import Fraction
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, ClassVar

from sap_art.policies import parse_policy
from sap_art.references import is_code, public_name
from sap_art.threat import ThreatModel
from sap_art.tiers import TIERS
from sap_art.untrusted import file_name, is_inside, read_json, read_toml, shortened, validated
from sap_art.zoo import SUFFIXES

TRUST = "--trust-code"
_STRICT = {"extra": "forbid", "strict": True}
_LONGEST = 1000
_SEED_BITS = 63
_NUMBER = re.compile(r"[+-]?[0-9]{0,20}(\.[0-9]{0,20})?(e[+-]?[0-9]{1,2})?(/[0-9]{1,20})?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class SuiteEntry:
    """One net, with a policy or without: ``model`` as for ``models.Loader``, ``policy`` as for ``parse_policy``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    model: str
    policy: str | None = None

    @property
    def name(self) -> str:
        """File name of the record: letters, digits, dot, dash and underscore; a checkpoint's without its suffix."""
        model = public_name(self.model)
        model = Path(model).stem if Path(model).suffix in SUFFIXES else model
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
        _require_plain("name", self.name)
        if self.tier not in TIERS:
            raise ValueError(f"unknown tier '{shortened(self.tier)}'; known: {', '.join(TIERS)}")
        if self.images < 1:
            raise ValueError(f"images must be at least 1, got {self.images}")
        if self.seed.bit_length() > _SEED_BITS:
            raise ValueError(f"seed must have at most {_SEED_BITS} bits, got {self.seed.bit_length()}")
        names = [entry.name for entry in self.entries]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a suite needs entries with distinct names, got {shortened(names, 400)}")
        for number, entry in enumerate(self.entries):
            _require_plain(f"entries.{number}.model", entry.model)
            file_name(entry.name, ".json")
            if entry.policy is not None:
                _require_plain(f"entries.{number}.policy", entry.policy)
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
    plain = text.replace(" ", "")
    try:
        if not _NUMBER.fullmatch(plain):  # an exponent of nine digits would be worked out
            raise ValueError("not a number of up to 20 digits")
        return float(Fraction(plain))
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"eps must be a number or a fraction such as 8/255, got '{shortened(text)}'") from error


def shipped() -> list[str]:
    """Names of the suites that come with the package."""
    return sorted(f.name.removesuffix(".toml") for f in files(__name__).iterdir() if f.name.endswith(".toml"))


def load(reference: str, *, trust_code: bool = False) -> Suite:
    """A shipped suite by name, or a TOML file by its path.

    Args:
        trust_code: whether a file may name code, which is run, and checkpoints that lie neither below its own folder
            nor below the working directory. Whoever wrote the file then does what you can do.

    Raises:
        ValueError: unknown name, not TOML, unknown or missing keys, values out of range; the message names them. A
            model that needs trust.
    """
    if reference.endswith(".toml"):
        path = Path(reference)
        if not path.is_file():
            raise ValueError(f"no suite file {reference}; shipped suites: {', '.join(shipped())}")
        suite = _validated(read_toml(path, what="a suite in TOML"), reference)
        return suite if trust_code else _harmless(suite, path)
    if reference not in shipped():
        raise ValueError(f"unknown suite {reference!r}; shipped: {', '.join(shipped())}, or give a FILE.toml")
    with as_file(files(__name__) / f"{reference}.toml") as path:
        return _validated(read_toml(path, what="a suite in TOML"), reference)


def read_manifest(path: Path, *, trust_code: bool = False) -> Suite:
    """The suite that a run has left in its output folder as ``suite.json``; for the rest see ``load``."""
    found = read_json(path, what="the suite of a run")
    if not isinstance(found, dict):
        raise ValueError(f"{path} is not the suite of a run: must be an object, got {type(found).__name__}")
    suite = _validated({f.name: found[f.name] for f in fields(Suite) if f.name in found}, str(path))
    return suite if trust_code else _harmless(suite, path)


def _harmless(suite: Suite, path: Path) -> Suite:
    """The suite, if all it can do is to have checkpoints read that lie where it lies, or where the command is run."""
    for number, entry in enumerate(suite.entries):
        place = Path(entry.model)
        if place.suffix in SUFFIXES:
            if not all(is_inside(p, path.parent, Path()) for p in (place, place.with_suffix(".json"))):
                raise _distrusted(path, number, entry, "lies neither below its folder nor below this one")
        elif is_code(entry.model):
            raise _distrusted(path, number, entry, "is code that would be run")
    return suite


def _distrusted(path: Path, number: int, entry: SuiteEntry, why: str) -> ValueError:
    return ValueError(
        f"suite {path}: entries.{number}.model: {shortened(entry.model, 200)} {why}; read it, and if you trust whoever "
        f"wrote it, give {TRUST}"
    )


def _require_plain(what: str, text: str) -> None:
    if not text.isprintable() or len(text) > _LONGEST:
        raise ValueError(f"{what} must be at most {_LONGEST:,} printable characters, got '{shortened(text)}'")


def _validated(found: dict[str, Any], where: str) -> Suite:
    try:
        return validated(Suite, found)
    except ValueError as error:
        raise ValueError(f"suite {where}: {error}") from error
