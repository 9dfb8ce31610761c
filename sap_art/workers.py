"""Units computed by several processes of this machine."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import count
from types import TracebackType
from typing import Any, Self

import torch

from sap_art import worker
from sap_art.blueprint import Blueprint
from sap_art.protocol.job import Call, Job, UnitError
from sap_art.store import Unit
from sap_art.waiting import Waiting
from sap_art.worker import IDLE, Board, Death, Facts, Task

LOOK = 0.5
"""Seconds between two looks at what the processes have done."""


class WorkerError(ChildProcessError):
    """A process is gone in the middle of its work; what was finished is kept."""


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes(device: torch.device) -> int:
    """So many may share the units of a run: one a core of the CPU, one a GPU of this machine if none is named."""
    if device.type == "cpu":
        return cores()
    return max(1, torch.cuda.device_count()) if device == worker.ANY_GPU else 1


class Workers:
    """An ``Executor`` with processes of its own, each with as many threads as this one; use it in a ``with``.

    Where the device is ``cuda`` without a number, each has a GPU of its own.
    Units wait in the order of ``Waiting``, of several jobs too.
    On leaving, and if this process dies, the others end at once: finished units are in the store.
    Scripts that use it need ``if __name__ == "__main__":``, as for any process that is spawned.
    """

    def __init__(self, blueprint: Blueprint, workers: int) -> None:
        context = multiprocessing.get_context("spawn")  # torch's threads and CUDA do not survive a fork
        places = context.SimpleQueue()
        for place in range(workers):
            places.put(place)
        self._board = Board(context.RawArray("q", workers), context.RawArray("q", [IDLE] * workers))
        self._theirs, self._mine = context.Pipe(duplex=False)
        begin = partial(worker.start, board=self._board, places=places, driver=self._theirs)
        arguments = blueprint, torch.get_num_threads()
        self._pool = ProcessPoolExecutor(workers, context, initializer=begin, initargs=arguments)
        self._room = 2 * workers  # for each one in work and one at hand
        self._waiting = Waiting()
        self._asked, self._shown = set[str](), set[str]()
        self._numbers, self._begun = count(), dict[int, tuple[Job, Call]]()
        self._futures: dict[str, Future[Death | None]] = {}
        self._told = [0] * workers
        with _interrupts_ignored():  # so that no process dies of Ctrl-C, with a traceback, while it starts
            for _ in range(workers):
                self._pool.submit(worker.is_up)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self._mine.close()
        self._pool.shutdown(cancel_futures=True)
        self._mine.close()
        self._theirs.close()

    def submit(self, job: Job, calls: Sequence[Call]) -> None:
        new = [call for call in calls if call.key not in self._asked and not job.store.has(call.key)]
        self._asked.update(call.key for call in new)
        self._waiting.add(job, new)
        self._begin()

    def result(self, job: Job, call: Call) -> Unit:
        while (unit := job.store.find(call.key)) is None:
            future = self._futures.get(call.key)
            if future is not None and future.done() and not job.store.has(call.key):
                with self._alive():
                    death = future.result()
                if death is not None:
                    raise UnitError(call.key, death.kind, death.message)
                self._asked.discard(call.key)  # it was damaged after it was finished
                del self._futures[call.key]
            self.submit(job, [call])
            self._look(job)
        return unit

    def has_room(self) -> bool:
        """Whether a unit would be begun at once."""
        return not self._waiting and len(self._running()) < self._room

    def _look(self, job: Job) -> None:
        """Wait for a moment, or until something is finished, and tell what was done meanwhile."""
        with job.aside():
            wait(self._running(), timeout=LOOK, return_when=FIRST_COMPLETED)
        self._begin()
        for place, passes in enumerate(self._board.passes):
            number = self._board.tasks[place]
            working, _ = self._begun[number] if number != IDLE else (job, None)
            working.advance(passes - self._told[place])
            self._told[place] = passes
        self._announce()

    def _announce(self) -> None:
        """What is in work by now, each stage once: an attack on many blocks is one line."""
        in_work = {call.key.rpartition("/")[0]: (job, call.name) for job, call in self._in_work()}
        new = {job.entry.name: job for stage, (job, _) in in_work.items() if stage not in self._shown}
        self._shown.update(in_work)
        for job in new.values():
            job.announce(", ".join(dict.fromkeys(name for other, name in in_work.values() if other is job)))

    def _begin(self) -> None:
        """Forget what is finished; give to the processes what there is room for: what waits for them costs memory."""
        self._begun = {number: begun for number, begun in self._begun.items() if not self._is_finished(begun[1])}
        room = self._room - len(self._running())
        while self._waiting and room > 0:
            job, call = self._waiting.pop()
            number = next(self._numbers)
            task = Task(number, call, job.entry.name, Facts.of(job.entry), job.model.per_example)
            self._begun[number] = job, call
            with self._alive():
                self._futures[call.key] = self._pool.submit(worker.work, pack(task))
            room -= 1

    def _running(self) -> list[Future[Death | None]]:
        return [future for future in self._futures.values() if not future.done()]

    def _is_finished(self, call: Call) -> bool:
        """Whether its process has told so; not one that died of it, which is still to be named."""
        future = self._futures.get(call.key)
        return future is not None and future.done() and future.exception() is None

    def _in_work(self) -> list[tuple[Job, Call]]:
        return [self._begun[number] for number in self._board.tasks if number != IDLE]

    @contextmanager
    def _alive(self) -> Generator[None]:
        """Within, raise WorkerError if a process has died."""
        try:
            yield
        except BrokenProcessPool as error:
            keys = ", ".join(call.key for _, call in self._in_work()) or "its first unit was begun"
            raise WorkerError(
                f"a worker process died, killed from outside or for want of memory, while in work: {keys}; "
                "finished units are kept, the same command goes on, with fewer --workers it needs less memory"
            ) from error


def pack(task: object) -> bytes:
    """The task for ``pickle.loads``, its tensors as arrays: views without what they are views of."""
    file = io.BytesIO()
    _Pickler(file).dump(task)
    return file.getvalue()


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: object) -> Any:
        return (torch.from_numpy, (obj.detach().cpu().numpy(),)) if isinstance(obj, torch.Tensor) else NotImplemented


@contextmanager
def _interrupts_ignored() -> Generator[None]:
    """Within, and in processes that are begun within, Ctrl-C does nothing; only the main thread can ask for that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
