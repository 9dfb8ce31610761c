"""How long stages of units take on so many machines: list scheduling, as the executors of a run have it."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Step(NamedTuple):
    """Units of so many seconds each, which may be begun once all of the steps of the numbers ``after`` are done.

    Units of a lower ``turn`` are begun first, whatever step they are of.
    """

    units: Sequence[float]
    after: Sequence[int] = ()
    turn: int = 0


class Schedule(NamedTuple):
    """When the last unit ends, and how long the machines work in all; seconds."""

    end: float
    work: float


def list_schedule(steps: Sequence[Step], *, machines: int) -> Schedule:
    """Greedy: no machine waits while a unit may be begun; of the step that came last, and there the longest, first.

    It ends within work / machines + (1 - 1 / machines) times the longest chain of units (Graham, SIAM J. Appl. Math.
    17, 1969, for any order of the list). A step without units is done once those before it are.

    Raises:
        ValueError: no machine, a unit of negative time, or a step that waits for itself or a later one.
    """
    _require(steps, machines)
    ready = _Ready(steps)
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready.units or running:
        while ready.units and len(running) < machines:
            _, number, seconds = heapq.heappop(ready.units)
            heapq.heappush(running, (now - seconds, -number))
        now = running[0][0]
        while running and running[0][0] == now:  # all that ends now, before anything is begun
            ready.done(heapq.heappop(running)[1])
    return Schedule(now, math.fsum(seconds for step in steps for seconds in step.units))


class _Ready:
    """Units that may be begun: a heap of (turn, -number of the step, -seconds)."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.units: list[tuple[int, int, float]] = []
        self._steps = steps
        self._left = [len(step.units) for step in steps]
        self._waits = [len(set(step.after)) for step in steps]
        self._followers: dict[int, list[int]] = {}
        for number, step in enumerate(steps):
            for before in set(step.after):
                self._followers.setdefault(before, []).append(number)
        for number in [number for number, step in enumerate(steps) if not step.after]:
            self._release(number)

    def done(self, number: int) -> None:
        """One unit of that step."""
        self._left[number] -= 1
        if not self._left[number]:
            self._finish(number)

    def _release(self, number: int) -> None:
        step = self._steps[number]
        for seconds in step.units:
            heapq.heappush(self.units, (step.turn, -number, -seconds))
        if not step.units:
            self._finish(number)

    def _finish(self, number: int) -> None:
        for follower in self._followers.get(number, ()):
            self._waits[follower] -= 1
            if not self._waits[follower]:
                self._release(follower)


def at_once(entries: Iterable[Sequence[Step]]) -> list[Step]:
    """The steps of several entries in one list: later entries fill what earlier ones leave idle."""
    steps: list[Step] = []
    for turn, entry in enumerate(entries):
        start = len(steps)
        steps += [Step(step.units, [start + before for before in step.after], turn) for step in entry]
    return steps


def longest_chain(steps: Sequence[Step]) -> float:
    """Seconds that no number of machines gets below: the longest unit of each step on the way that takes longest."""
    ends: list[float] = []
    for step in steps:
        ends.append(max((ends[number] for number in step.after), default=0.0) + max(step.units, default=0.0))
    return max(ends, default=0.0)


def _require(steps: Sequence[Step], machines: int) -> None:
    if machines < 1:
        raise ValueError(f"there must be at least 1 machine, got {machines}")
    if any(seconds < 0 for step in steps for seconds in step.units):
        raise ValueError("a unit takes 0 seconds or more, got a negative time")
    for number, step in enumerate(steps):
        if any(not 0 <= before < number for before in step.after):
            raise ValueError(f"step {number} must wait for earlier ones, got {tuple(step.after)}")
