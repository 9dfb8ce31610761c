"""One entry to evaluate, and its work in units: each a function of the job and a few arguments, kept under a key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from sap_art.diagnostics import probes
from sap_art.entries import Entry
from sap_art.randomness import derive_seed, make_generator
from sap_art.stochastic import StochasticModel
from sap_art.store import Store, Unit
from sap_art.threat import ThreatModel
from sap_art.tiers import Tier

BLOCK = 64
"""Images of one unit of work: what an interruption can cost at most."""


@dataclass(frozen=True)
class Call:
    """A unit before it is computed: ``function(job, *arguments)``, kept under ``key``.

    Function and arguments may have to travel: a function of a module, and what can be pickled.

    Args:
        name: of the stage that it is part of, for people.
        passes: forward and backward ones, about: the longest units are begun first.
    """

    key: str
    name: str
    function: Callable[..., Unit]
    arguments: tuple[Any, ...]
    passes: int


class UnitError(ValueError):
    """A unit whose function raised an error of the given type and message."""

    def __init__(self, key: str, kind: str, message: str) -> None:
        super().__init__(f"{key}: {kind}: {message}")
        self.kind, self.message = kind, message

    @property
    def reason(self) -> str:
        """What a record says of it."""
        return f"{self.kind}: {self.message}"


class Executor(Protocol):
    """Where units are computed. Place and order change nothing: a unit's random numbers come from its key alone."""

    def submit(self, job: Job, calls: Sequence[Call]) -> None:
        """Begin these units, or have them begun when there is room; finished ones are left alone."""
        ...

    def result(self, job: Job, call: Call) -> Unit:
        """The finished unit, waited for or computed; raises UnitError if its function did."""
        ...


class InProcess:
    """Computes each unit as soon as it is submitted, one after the other, in this process."""

    def __init__(self) -> None:
        self._failed: dict[str, tuple[str, str]] = {}

    def submit(self, job: Job, calls: Sequence[Call]) -> None:
        for call in calls:
            with suppress(UnitError):
                self.result(job, call)

    def result(self, job: Job, call: Call) -> Unit:
        if call.key in self._failed:
            raise UnitError(call.key, *self._failed[call.key])
        if not job.store.has(call.key):
            job.announce(call.name)
        try:
            return finish(job, call)
        except UnitError as error:
            self._failed[call.key] = error.kind, error.message
            raise


def finish(job: Job, call: Call) -> Unit:
    """The unit, read if it was finished before, else computed here and kept; raises UnitError if its function does."""

    def compute() -> Unit:
        try:
            return call.function(job, *call.arguments)
        except Exception as error:  # whatever it dies of is reported, never taken for robustness
            raise UnitError(call.key, type(error).__name__, str(error)) from error

    return job.store.unit(call.key, compute)


@dataclass(frozen=True)
class Job:
    """One entry to evaluate: x (B, ...) in [0, 1], y (B,), what is allowed, how much is spent, where work is kept.

    ``announce`` hears what is being done, ``advance`` the passes that were made elsewhere than on ``model``.
    """

    entry: Entry
    x: Tensor
    y: Tensor
    threat: ThreatModel
    tier: Tier
    seed: int
    store: Store
    executor: Executor = field(default_factory=InProcess)
    announce: Callable[[str], None] = lambda stage: None
    advance: Callable[[int], None] = lambda passes: None

    @property
    def model(self) -> StochasticModel:
        """The model under attack."""
        return self.entry.model

    @cached_property
    def restless(self) -> Tensor:
        """Images (B, ...) to probe the noise at: x, or points around them if draws differ only there."""
        if self.model.deterministic:
            return self.x
        seed = self.seed_for("restless")
        near = self.threat.random_start(self.x, make_generator(self.x.device, seed, "start"))
        return next((at for at in (self.x, near) if probes.is_restless(self.model, at, seed=seed)), self.x)

    def seed_for(self, *labels: object) -> int:
        """The seed of one named part of this entry's evaluation."""
        return derive_seed(self.seed, self.entry.name, *labels)

    def key(self, *labels: object) -> str:
        """The key of one unit of this entry; what the unit depends on beyond this run's settings belongs into it."""
        return "/".join([self.entry.name, *(str(label).replace(" ", "-") for label in labels)])

    def submit(self, calls: Sequence[Call]) -> None:
        """Have these units computed, now or while something else is waited for."""
        self.executor.submit(self, calls)

    def unit(self, call: Call) -> Unit:
        """The finished unit; raises UnitError if its function raised."""
        return self.executor.result(self, call)


def blocks(images: int) -> tuple[Tensor, ...]:
    """Image numbers 0, 1, ... in blocks of one unit each."""
    return torch.arange(images).split(BLOCK)
