"""Units that wait for a place to be computed in, in the order in which they are begun."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sap_art.protocol.job import Call, Job


class Rank(NamedTuple):
    """The lower, the earlier; ``number`` is another one for each call."""

    turn: int
    batch: int
    passes: int
    number: int


class Waiting:
    """A queue of calls: those of the job whose turn comes first; of a job what was added last, and there the longest.

    What was added last is what is waited for; what was added before, and other jobs, fill the gaps.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[Rank, Job, Call]] = []
        self._batches = self._calls = 0

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[tuple[Job, Call]]:
        """In no order."""
        return ((job, call) for _, job, call in self._heap)

    def add(self, job: Job, calls: Iterable[Call]) -> None:
        """Have these wait."""
        self._batches += 1
        for call in calls:
            self._calls += 1
            heapq.heappush(self._heap, (Rank(job.turn, -self._batches, -call.passes, self._calls), job, call))

    def pop(self) -> tuple[Job, Call]:
        """The next one, which waits no more."""
        _, job, call = heapq.heappop(self._heap)
        return job, call
