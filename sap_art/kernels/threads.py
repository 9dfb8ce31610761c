"""Rows shared among threads, for kernels that let go of Python's lock."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import TypeVar

import torch

Result = TypeVar("Result")

SMALL = 1 << 17
"""Elements for which a second thread does not pay."""


def in_threads(work: Callable[[int, int], Result], *, rows: int, elements: int) -> list[Result]:
    """``work(first, last)`` over all rows, cut into one piece a thread of torch's."""
    threads = min(torch.get_num_threads(), rows) if elements > SMALL else 1
    cuts = [rows * i // threads for i in range(threads + 1)]
    mine, *others = pairwise(cuts)
    running = [_pool(threads).submit(work, *piece) for piece in others]
    return [work(*mine), *(other.result() for other in running)]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads - 1, thread_name_prefix="sap_art-kernel")


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
