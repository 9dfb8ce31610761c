"""What runs in a process of ``sap_art.workers``: units of a run, on models that are built from their names."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing.connection import Connection
from multiprocessing.queues import SimpleQueue
from typing import NamedTuple

import torch

from sap_art import process
from sap_art.attacks.cost import count_passes
from sap_art.blueprint import Blueprint, Images
from sap_art.devices import same_each_time
from sap_art.entries import Entry
from sap_art.models import Loader
from sap_art.protocol.job import Call, Job, UnitError, finish
from sap_art.record import DefenceInfo, ModelInfo

ANY_GPU = torch.device("cuda")
IDLE = -1
KEPT = 2
"""Entries in a process at once: the one whose turn it is, and one that fills the gaps."""


class Facts(NamedTuple):
    """What must be the same of an entry in every process."""

    classes: int
    model: ModelInfo
    defence: DefenceInfo

    @classmethod
    def of(cls, entry: Entry) -> Facts:
        """Those of an entry."""
        return cls(entry.classes, entry.model_info, entry.defence)


@dataclass(frozen=True)
class Task:
    """What travels to a process: a call, the entry that it is for, and what the driver knows of that.

    ``number`` is the driver's name for it; ``per_example`` may have been found to be otherwise than declared.
    """

    number: int
    call: Call
    entry: str
    facts: Facts
    per_example: bool


class Board(NamedTuple):
    """What processes show to the driver, in shared memory: passes made so far, and the task in work or ``IDLE``.

    Each writes to a place of its own, so there is no lock that one could die with.
    """

    passes: ctypes.Array[ctypes.c_longlong]
    tasks: ctypes.Array[ctypes.c_longlong]


class Death(NamedTuple):
    """What a unit died of: the type and the message of the error; an error itself may not be fit to travel."""

    kind: str
    message: str


class Worker:
    """Keeps the entries that it built last."""

    def __init__(self, blueprint: Blueprint, board: Board, place: int) -> None:
        self._blueprint, self._board, self._place = blueprint, board, place
        self._load, self._jobs = Loader(), OrderedDict[str, Job]()

    def finish(self, task: Task) -> Death | None:
        """Compute the task's unit and keep it in the store."""
        self._board.tasks[self._place] = task.number
        try:
            job = self._job(task)
            with count_passes(job.model, self._count), same_each_time():
                finish(job, task.call)
        except UnitError as error:
            return Death(error.kind, error.message)
        finally:
            self._board.tasks[self._place] = IDLE
        return None

    def _count(self, passes: int) -> None:
        self._board.passes[self._place] += passes

    @cached_property
    def _images(self) -> Images:
        return self._blueprint.images()

    def _job(self, task: Task) -> Job:
        if task.entry not in self._jobs:
            self._jobs[task.entry] = self._build(task)
        self._jobs.move_to_end(task.entry)
        while len(self._jobs) > KEPT:
            self._jobs.popitem(last=False)
        return self._jobs[task.entry]

    def _build(self, task: Task) -> Job:
        (chosen,) = (e for e in self._blueprint.suite.entries if e.name == task.entry)
        entry = self._blueprint.entry(chosen, self._images, self._load)
        if Facts.of(entry) != task.facts:
            raise ValueError(
                f"{chosen.model} is another model each time that it is made (weights {task.facts.model.weights_sha256} "
                f"first, {entry.model_info.weights_sha256} then): have it read its weights from a file, or give "
                "--workers 1"
            )
        entry.model.per_example = task.per_example
        return replace(self._blueprint.job(entry, self._images), advance=self._count)


_worker: Worker | None = None


def start(blueprint: Blueprint, threads: int, *, board: Board, places: SimpleQueue[int], driver: Connection) -> None:
    """Make this process a worker with so many threads, which ends at once when the driver closes its end or is gone."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the driver, and the driver ends its workers
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()
    process.prepare()
    torch.set_num_threads(threads)
    place = places.get()
    blueprint = placed(blueprint, place)
    if blueprint.where.type == "cuda":
        torch.cuda.set_device(blueprint.where)
    _worker = Worker(blueprint, board, place)


def placed(blueprint: Blueprint, place: int) -> Blueprint:
    """For the process at that place, counted from 0: with a GPU of its own where none is named."""
    if torch.device(blueprint.device) != ANY_GPU:
        return blueprint
    return replace(blueprint, device=f"cuda:{place}")


def work(task: bytes) -> Death | None:
    """Finish a pickled task in a process that has been started."""
    assert _worker is not None
    return _worker.finish(pickle.loads(task))


def is_up() -> None:
    """Nothing: a process that does it has been started."""


def _end_with(driver: Connection) -> None:
    try:
        driver.recv_bytes()  # which never come
    except (EOFError, OSError):
        os._exit(1)
