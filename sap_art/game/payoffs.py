"""What the game is computed from: how often each policy is right on each image of each attack, and its file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sap_art.record import write_text
from sap_art.record_parts import STRICT
from sap_art.threat import ThreatModel
from sap_art.untrusted import read_bytes, shortened

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
NAME = "payoff.json"
SCHEMA = 1
MOST_DRAWS = 1_000_000
HALVES = (slice(0, None, 2), slice(1, None, 2))
"""The even and the odd images: what is chosen on one half is judged on the other."""


@dataclass(frozen=True, eq=False)
class Payoffs:
    """Right draws of P policies on B images at the points of A attacks.

    Args:
        policies, attacks: spec strings and ids, distinct and printable.
        draws: m, draws of each policy at each image of each attack, 1 to 1,000,000; no attack has seen them.
        correct: (P, A, B) whole numbers from 0 to m, B >= 2.
        draw_correct: for each policy whose images share the noise of a draw, (A, 2, m): how many of the even and of
            the odd images each draw got right. Either half has draws of its own.

    Raises:
        ValueError: anything else.
    """

    policies: tuple[str, ...]
    attacks: tuple[str, ...]
    draws: int
    correct: Counts
    draw_correct: Mapping[str, Counts] = field(default_factory=dict[str, Counts])

    def __post_init__(self) -> None:
        _require_names("policies", self.policies)
        _require_names("attacks", self.attacks)
        if not 1 <= self.draws <= MOST_DRAWS:
            raise ValueError(f"draws must be 1 to {MOST_DRAWS:,}, got {self.draws}")
        shape = (len(self.policies), len(self.attacks))
        if self.correct.ndim != 3 or self.correct.shape[:2] != shape or self.images < 2:
            wanted = f"{shape[0]} policies x {shape[1]} attacks x images, at least 2"
            raise ValueError(f"correct must be {wanted}, got shape {self.correct.shape}")
        _require_range("correct", self.correct, self.draws)
        for policy, counts in self.draw_correct.items():
            self._require_shared(policy, counts)

    @property
    def images(self) -> int:
        """B."""
        return self.correct.shape[-1]

    @property
    def shares(self) -> Floats:
        """(P, A, B) in [0, 1]: share of right draws at each image."""
        return self.correct / self.draws

    @property
    def matrix(self) -> Floats:
        """(P, A) in [0, 1]: accuracy of each policy at each attack's points."""
        return self.shares.mean(-1)

    @property
    def sap_policies(self) -> list[int]:
        """Which of the policies are SAP by itself, ``sap:...``."""
        return [i for i, spec in enumerate(self.policies) if spec.partition(":")[0] == "sap"]

    def _require_shared(self, policy: str, counts: Counts) -> None:
        if policy not in self.policies:
            raise ValueError(f"draw_correct names {policy!r}, which is not among the policies")
        if counts.shape != (len(self.attacks), 2, self.draws):
            wanted = f"{len(self.attacks)} attacks x 2 halves x {self.draws} draws"
            raise ValueError(f"draw_correct of {policy} must be {wanted}, got shape {counts.shape}")
        row = self.correct[self.policies.index(policy)]
        for number, half in enumerate(HALVES):
            _require_range(f"draw_correct of {policy}", counts[:, number], row[:, half].shape[-1])
            if (counts[:, number].sum(-1) != row[:, half].sum(-1)).any():
                raise ValueError(f"draw_correct of {policy} does not add up to its counts in correct")


@dataclass(frozen=True)
class _File:
    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    schema: int
    policies: list[str]
    attacks: list[str]
    images: int
    draws: int
    norm: str
    eps: float
    correct: list[list[list[int]]]
    draw_correct: dict[str, list[list[list[int]]]]


def write(payoffs: Payoffs, threat: ThreatModel, folder: Path) -> Path:
    """Write ``folder/payoff.json`` by rename; the same counts give the same bytes."""
    content = _File(
        schema=SCHEMA,
        policies=list(payoffs.policies),
        attacks=list(payoffs.attacks),
        images=payoffs.images,
        draws=payoffs.draws,
        norm=threat.norm,
        eps=threat.eps,
        correct=payoffs.correct.tolist(),
        draw_correct={policy: counts.tolist() for policy, counts in payoffs.draw_correct.items()},
    )
    return write_text(json.dumps(asdict(content), sort_keys=True, allow_nan=False) + "\n", folder / NAME)


def read(path: Path) -> tuple[Payoffs, ThreatModel]:
    """The payoffs of a ``payoff.json``, or of the folder that holds one, and within what the attacks had to stay.

    Raises:
        ValueError: the file is not what this version can read; the message names file and fields.
        OSError: there is no such file.
    """
    path = path / NAME if path.is_dir() else path
    content = read_bytes(path, what="a payoff file")
    try:
        return _parse(content)
    except ValueError as error:
        raise ValueError(f"{path} is not a payoff file: {error}") from error


def _parse(text: bytes) -> tuple[Payoffs, ThreatModel]:
    from pydantic import TypeAdapter, ValidationError

    try:
        number = TypeAdapter(dict[str, Any]).validate_json(text).get("schema")
        if type(number) is not int or number != SCHEMA:
            raise ValueError(
                f"schema must be {SCHEMA}, got {shortened(repr(number))}; a larger one needs a newer sap-art"
            )
        found = TypeAdapter(_File).validate_json(text)
    except ValidationError as error:
        raise ValueError(_problems(error.errors(include_url=False, include_context=False))) from error
    payoffs = Payoffs(
        policies=tuple(found.policies),
        attacks=tuple(found.attacks),
        draws=found.draws,
        correct=_array("correct", found.correct),
        draw_correct={p: _array(f"draw_correct of {p}", counts) for p, counts in found.draw_correct.items()},
    )
    if found.images != payoffs.images:
        raise ValueError(f"images is {found.images}, but correct holds {payoffs.images} an attack")
    return payoffs, ThreatModel(found.norm, found.eps)


def _problems(errors: Sequence[Mapping[str, Any]], *, shown: int = 3) -> str:
    said = [f"{'.'.join(map(shortened, e['loc'])) or 'the whole'}: {e['msg']}" for e in errors[:shown]]
    return "; ".join(said if len(errors) <= shown else [*said, f"and {len(errors) - shown} more"])


def _array(name: str, nested: list[list[list[int]]]) -> Counts:
    try:
        return np.array(nested, dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{name} must be lists of one length with whole numbers up to draws") from error


def _require_names(what: str, names: Sequence[str]) -> None:
    if not names or len(set(names)) < len(names) or not all(name and name.isprintable() for name in names):
        raise ValueError(f"{what} must be distinct printable names, at least one, got {list(names)}")


def _require_range(what: str, counts: Counts, most: int) -> None:
    if counts.dtype.kind not in "iu" or (counts.size and not 0 <= counts.min() <= counts.max() <= most):
        raise ValueError(f"{what} must be whole numbers from 0 to {most}")
