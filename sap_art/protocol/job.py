"""One entry to evaluate, and its work in units: each a function of the job and a few arguments, kept under a key."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from sap_art.attacks.cost import count_passes
from sap_art.determinants import described, digest
from sap_art.devices import describe
from sap_art.diagnostics import probes
from sap_art.entries import Entry
from sap_art.randomness import derive_seed, make_generator
from sap_art.record import write_json
from sap_art.stochastic import StochasticModel, hear_halving
from sap_art.store import RUN, Failure, Store, Unit
from sap_art.threat import ThreatModel
from sap_art.tiers import Tier

BLOCK = 64
"""Images of one unit of work: what an interruption can cost at most."""
PROBED = 8
"""Images at which noise is probed, at most."""
PLANNED = "/planned.json"
"""In the place of an entry, the units that its last run has asked for so far."""


@dataclass(frozen=True)
class Call:
    """A unit before it is computed: ``function(job, *arguments)``, kept under ``key``.

    Function and arguments may have to travel: a function of a module, and what can be pickled.

    Args:
        name: of the stage that it is part of, for people.
        passes: forward and backward ones, about: the longest units are begun first.
        determinants: what the result depends on beside what ``Job.place`` stands for, for people.
    """

    key: str
    name: str
    function: Callable[..., Unit]
    arguments: tuple[Any, ...]
    passes: int
    determinants: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Took(NamedTuple):
    """What a unit took: seconds, forward and backward passes, on what; rows a pass if memory was too short for more."""

    seconds: float
    passes: int
    device: str
    rows: int | None = None


class UnitError(ValueError):
    """A unit whose function raised an error of the given type and message, now or in a run before."""

    def __init__(self, key: str, kind: str, message: str) -> None:
        super().__init__(f"{key}: {kind}: {message}")
        self.key, self.kind, self.message = key, kind, message

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

    def submit(self, job: Job, calls: Sequence[Call]) -> None:
        for call in calls:
            with suppress(UnitError):
                self.result(job, call)

    def result(self, job: Job, call: Call) -> Unit:
        return finish(job, call)


def finish(job: Job, call: Call) -> Unit:
    """The unit, read if it was finished before, else computed here and kept, with what it took in ``.run.json``.

    Raises:
        UnitError: its function raised; that is kept too, in ``.failed.json``.
    """

    def compute() -> Unit:
        job.announce(call.name)
        halved: list[int] = []
        start = time.perf_counter()
        try:
            with count_passes(job.model) as passes, hear_halving(halved.append):
                unit = call.function(job, *call.arguments)
        except Exception as error:  # whatever it dies of is reported, never taken for robustness
            job.store.fail(call.key, Failure(type(error).__name__, str(error)))
            raise UnitError(call.key, type(error).__name__, str(error)) from error
        seconds, made = time.perf_counter() - start, passes.forwards + passes.backwards
        took = Took(seconds, made, describe(job.x.device), min(halved, default=None))
        write_json({**took._asdict(), **call.determinants}, job.store.path(call.key, RUN))
        return unit

    return job.store.unit(call.key, compute)


@dataclass(frozen=True)
class Job:
    """One entry to evaluate: x (B, ...) in [0, 1], y (B,), what is allowed, how much is spent, where work is kept.

    Args:
        place: folder of its units, named by all that they have in common; the entry's name where it is left out.
        turn: of several jobs that go on at once, those of a lower one have their units begun first.
        aside: what to be within while it waits for a unit, so that another job may go on.
        announce: hears what is being done, ``advance`` the passes that were made elsewhere than on ``model``.
        planned: units that were asked for so far, by key, with the passes that they take at most.
    """

    entry: Entry
    x: Tensor
    y: Tensor
    threat: ThreatModel
    tier: Tier
    seed: int
    store: Store
    place: str = ""
    executor: Executor = field(default_factory=InProcess)
    turn: int = 0
    aside: Callable[[], AbstractContextManager[None]] = nullcontext
    announce: Callable[[str], None] = lambda stage: None
    advance: Callable[[int], None] = lambda passes: None
    planned: dict[str, int] = field(default_factory=dict[str, int])

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
        if probes.is_restless(self.model, self.x, seed=seed):
            return self.x
        near = self.threat.random_start(self.x, make_generator(self.x.device, seed, "start"))[:PROBED].clone()
        return near if probes.is_restless(self.model, near, seed=seed) else self.x

    def seed_for(self, *labels: object) -> int:
        """The seed of one named part of this entry's evaluation."""
        return derive_seed(self.seed, self.entry.name, *labels)

    def call(
        self, *labels: object, name: str, function: Callable[..., Unit], arguments: tuple[Any, ...], passes: int
    ) -> Call:
        """One unit of this entry. Its key has the labels and a hash of function and arguments, images and all."""
        determinants = described({"function": function, "arguments": arguments})
        *stage, last = (str(label).replace(" ", "-") for label in labels)
        key = "/".join([self.place or self.entry.name, *stage, f"{last}-{digest(determinants)}"])
        return Call(key, name, function, arguments, passes, determinants)

    def submit(self, calls: Sequence[Call]) -> None:
        """Have these units computed, now or while something else is waited for; not those that failed before."""
        self._plan(calls)
        self.executor.submit(self, [call for call in calls if self.store.failure(call.key) is None])

    def unit(self, call: Call) -> Unit:
        """The finished unit, waited for or computed; raises UnitError if its function raised, in this run or before."""
        self._plan([call])
        if failure := self.store.failure(call.key):
            raise UnitError(call.key, *failure)
        unit = self.store.find(call.key)  # a damaged one is gone then, so that it is computed again
        return self.executor.result(self, call) if unit is None else unit

    def _plan(self, calls: Sequence[Call]) -> None:
        """Have ``sap-art status`` know of them."""
        new = {call.key: call.passes for call in calls if call.key not in self.planned}
        if new:
            self.planned.update(new)
            write_json(self.planned, self.store.path(self.place or self.entry.name, PLANNED))


def blocks(images: int) -> tuple[Tensor, ...]:
    """Image numbers 0, 1, ... in blocks of one unit each."""
    return torch.arange(images).split(BLOCK)
