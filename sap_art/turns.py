"""Several works at once in this process: each in a thread, of which one works while the others wait for something."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

LOOK = 0.5
"""Seconds between two looks at whether there is room for one more."""


class Stopped(BaseException):
    """Another work has failed, or the user has had enough. No ``Exception``: nobody shall take it for an answer."""


class _Gate:
    """Before a work: opened from outside, and told when it is passed."""

    def __init__(self) -> None:
        self.may_begin, self.has_begun = threading.Event(), threading.Event()


class Turns:
    """Has one thread at a time work, so that works share models, files and progress without further thought."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._stopped = False

    @contextmanager
    def aside(self) -> Generator[None]:
        """Within, the other works go on and this one only waits; raises Stopped afterwards if they are to end."""
        self._turn.release()
        try:
            yield
        finally:
            self._turn.acquire()
        if self._stopped:
            raise Stopped

    def run(self, works: Sequence[Callable[[], T]], *, has_room: Callable[[], bool]) -> list[T]:
        """What the works return. They are begun in order: the next one when there ``has_room``, or nothing goes on.

        The first error ends them all, those that wait at once, the one that works when it comes to wait; it is raised
        when all have ended. So is KeyboardInterrupt.
        """
        gates = [_Gate() for _ in works]  # threads are there before any work: Ctrl-C while one is made stops it too
        with ThreadPoolExecutor(max(1, len(works))) as threads:
            try:
                futures = [threads.submit(self._in_turn, *pair) for pair in zip(works, gates, strict=True)]
                for number, gate in enumerate(gates):
                    gate.may_begin.set()
                    gate.has_begun.wait()
                    self._wait(futures[: number + 1], has_room)
                self._wait(futures, lambda: False)
            except BaseException:
                self._stopped = True
                raise
            finally:
                for gate in gates:
                    gate.may_begin.set()
        return [future.result() for future in futures]

    def _in_turn(self, work: Callable[[], T], gate: _Gate) -> T:
        gate.may_begin.wait()
        with self._turn:
            gate.has_begun.set()
            if self._stopped:
                raise Stopped
            return work()

    def _wait(self, begun: Sequence[Future[T]], has_room: Callable[[], bool]) -> None:
        """Until there is room, or all that was begun has ended; raises what one of them did."""
        while running := [future for future in begun if not future.done()]:
            with self._turn:
                if has_room():
                    break
            wait(running, timeout=LOOK, return_when=FIRST_COMPLETED)
            _raise_any(begun)
        _raise_any(begun)


def _raise_any(begun: Sequence[Future[T]]) -> None:
    for future in begun:
        if future.done():
            future.result()
