"""Several works at once: one at a time works, errors end all, and the queue that their units wait in."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from sap_art import bench, turns
from sap_art.bench import Watch, run_suite
from sap_art.protocol.job import Call, InProcess, Job
from sap_art.store import Unit
from sap_art.suites import Suite, SuiteEntry
from sap_art.tiers import TIERS
from sap_art.turns import Stopped, Turns
from sap_art.waiting import Waiting

NET = """
import torch
from torch import nn

def linear():
    net = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10))
    generator = torch.Generator().manual_seed(3)
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator) / p.shape[-1] ** 0.5
    return net.eval()
"""


def steps(turns: Turns, name: str, seen: list[str], *, until: Callable[[], bool] = lambda: True) -> str:
    """Work, wait for something, work again; both pieces of work are in two halves."""
    for half in ("first", "second"):
        seen.append(f"{name} {half} begins")
        time.sleep(0.02)
        seen.append(f"{name} {half} ends")
        if half == "first":
            with turns.aside():
                while not until():
                    time.sleep(0.01)
    return name


def test_one_works_while_the_others_wait() -> None:
    """Each piece of work is whole; what waits lets the next one in; results come in order."""
    turns, seen = Turns(), list[str]()
    released = threading.Event()

    def last() -> str:
        released.set()
        return steps(turns, "c", seen)

    works = [
        lambda: steps(turns, "a", seen, until=released.is_set),
        lambda: steps(turns, "b", seen, until=released.is_set),
        last,
    ]
    found = turns.run(works, has_room=lambda: True)

    assert found == ["a", "b", "c"]
    assert seen[:5] == ["a first begins", "a first ends", "b first begins", "b first ends", "c first begins"]
    assert all(line.replace("begins", "ends") == after for line, after in zip(seen[::2], seen[1::2], strict=True))


def test_without_room_the_next_one_waits_for_the_end() -> None:
    turns, seen = Turns(), list[str]()
    works = [partial(steps, turns, name, seen) for name in "abc"]

    assert turns.run(works, has_room=lambda: False) == ["a", "b", "c"]
    assert [line[0] for line in seen] == list("aaaabbbbcccc")
    assert turns.run([], has_room=lambda: True) == []


def test_an_error_ends_them_all() -> None:
    """What waits is stopped, what was not begun never is, and the error is the one that was raised."""
    turns, seen = Turns(), list[str]()
    ended = list[str]()

    def waits() -> None:
        try:
            with turns.aside():
                time.sleep(0.3)
        except Stopped:
            ended.append("stopped")
            raise

    def fails() -> None:
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        turns.run([waits, fails, lambda: seen.append("begun")], has_room=lambda: True)
    assert ended == ["stopped"]
    assert seen == []


@pytest.fixture
def ctrl_c() -> Generator[None]:
    """Heeded, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_them_all() -> None:
    """It reaches the main thread, and those that wait."""
    turns, ended = Turns(), list[str]()
    main = threading.main_thread().ident
    assert main is not None

    def waits(name: str) -> None:
        try:
            for _ in range(1000):
                with turns.aside():
                    time.sleep(0.01)
        except Stopped:
            ended.append(name)
            raise

    def interrupts() -> None:
        signal.pthread_kill(main, signal.SIGINT)
        waits("b")

    with pytest.raises(KeyboardInterrupt):
        turns.run([partial(waits, "a"), interrupts], has_room=lambda: True)
    assert sorted(ended) == ["a", "b"]


def test_the_order_in_which_units_are_begun() -> None:
    """By turn; of a job what was added last, and there the longest; among equals the one that came first."""

    class OfTurn:
        def __init__(self, turn: int) -> None:
            self.turn = turn

    first, second = (cast(Job, OfTurn(turn)) for turn in (0, 1))
    waiting = Waiting()

    def calls(**passes: int) -> list[Call]:
        return [Call(name, name, cast(Any, None), (), n) for name, n in passes.items()]

    waiting.add(second, calls(g=9))
    waiting.add(first, calls(c=5, d=5, e=1))
    waiting.add(first, calls(b=1, a=2))
    waiting.add(second, calls(f=99))  # the newest and the longest, and yet not its turn
    assert {call.key for _, call in waiting} == set("abcdefg")
    assert "".join(waiting.pop()[1].key for _ in range(len(waiting))) == "abcdefg"
    assert not waiting


def test_entries_go_on_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The second is begun before the first is done, and records are those of one process that takes them in turn."""
    monkeypatch.delenv("SAP_ART_DATA", raising=False)
    monkeypatch.setitem(TIERS, "smoke", replace(TIERS["smoke"], noise_points=2, draws=2, steps=2, report_draws=10))
    (tmp_path / "nets.py").write_text(NET)
    entries = [SuiteEntry(f"{tmp_path}/nets.py:linear", policy) for policy in ("sap:100", "sap:50")]
    monkeypatch.setattr(turns, "LOOK", 0.005)  # a small suite's gaps are short
    first = tmp_path / "two" / "records" / "nets.py-linear-sap-100.json"
    begun_before: list[bool] = []

    def announce(stage: str) -> None:
        if stage.startswith("nets.py-linear-sap-50:"):
            begun_before.append(not first.exists())

    run_suite(Suite("s", "smoke", entries, images=9), output=tmp_path / "one")
    watch = Watch(announce=announce)
    run_suite(Suite("s", "smoke", entries, images=9), output=tmp_path / "two", workers=2, watch=watch)

    assert begun_before[0]
    one, two = (
        {p.name: p.read_bytes() for p in (tmp_path / n / "records").iterdir() if not p.name.endswith(".run.json")}
        for n in ("one", "two")
    )
    assert one == two
    assert len(one) == 4


VOLATILE = (".run.json", "suite.json", "plan.json", "planned.json")
"""Ends of names: what says when, in what order and by how many."""


class Shuffled(InProcess):
    """Computes what was submitted in no order, as late as it can."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Job, Call]] = []
        self.order: list[str] = []
        self.random = random.Random(7)

    def submit(self, job: Job, calls: Sequence[Call]) -> None:
        self.waiting += [(job, call) for call in calls]

    def result(self, job: Job, call: Call) -> Unit:
        while self.waiting and not job.store.has(call.key) and not job.store.failure(call.key):
            ours, other = self.waiting.pop(self.random.randrange(len(self.waiting)))
            self.order.append(other.key)
            super().submit(ours, [other])
        return super().result(job, call)


def test_the_order_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Entries the other way round, units in any order: the same bytes of records and units."""
    monkeypatch.delenv("SAP_ART_DATA", raising=False)
    monkeypatch.setitem(TIERS, "smoke", replace(TIERS["smoke"], noise_points=2, draws=2, steps=2, report_draws=10))
    (tmp_path / "nets.py").write_text(NET)
    entries = [SuiteEntry(f"{tmp_path}/nets.py:linear", policy) for policy in ("sap:100", "sap:50")]
    shuffled = Shuffled()

    run_suite(Suite("s", "smoke", entries, images=3), output=tmp_path / "one")
    monkeypatch.setattr(bench, "InProcess", lambda: shuffled)
    run_suite(Suite("s", "smoke", entries[::-1], images=3), output=tmp_path / "other")

    one, other = (
        {str(p.relative_to(tmp_path / n)): p.read_bytes() for p in (tmp_path / n).rglob("*") if p.is_file()}
        for n in ("one", "other")
    )
    results = [name for name in one if name.endswith((".safetensors", ".json")) and not name.endswith(VOLATILE)]
    assert {name: one[name] for name in results} == {name: other[name] for name in results}
    assert len(results) > 20
    assert len(shuffled.order) > 10
