"""Several contestants timed in turn, round after round, so that each round gives a ratio of its own.

The path for GPUs measures with CUDA events; it is exercised on machines that have one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

import torch

Work = Callable[[], object]
Times = dict[str, list[float]]

SHORTEST = 2e-3
"""Seconds that one measurement lasts at least: shorter work is repeated within it."""


def race(contestants: Mapping[str, Work], *, rounds: int, device: torch.device) -> Times:
    """Milliseconds a call, one number a round: each round times all contestants, each time another one first."""
    clock = _seconds_on_gpu if device.type == "cuda" else _seconds_on_cpu
    repeats = {name: _repeats(work, clock) for name, work in contestants.items()}
    names = list(contestants)
    times: Times = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            times[name].append(1e3 * clock(contestants[name], repeats[name]))
    return times


@contextmanager
def using_threads(threads: int) -> Generator[None]:
    """Within, torch and the compiled kernel work with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _repeats(work: Work, clock: Callable[[Work, int], float]) -> int:
    clock(work, 1)  # compiles, allocates and chooses algorithms, outside of the measurement
    return max(1, math.ceil(SHORTEST / max(clock(work, 1), 1e-6)))


def _seconds_on_cpu(work: Work, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - start) / repeats


def _seconds_on_gpu(work: Work, repeats: int) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeats):
        work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e-3 / repeats
