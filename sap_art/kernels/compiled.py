"""The draw on a CPU, compiled by numba: one pass over a row for its sum, one for everything else.

The same first arrivals as in ``plain``, fused: random bits, logarithm, decision and rescaling of a unit never leave
the registers. Random numbers are Philox with the counter (unit, image, purpose, draw), so the result does not depend on
the number of threads or the batch, and a row's numbers not on other rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from sap_art.kernels.derivative import differentiate_rows
from sap_art.kernels.lanes import f32
from sap_art.kernels.law import Exponents, exponents
from sap_art.kernels.rows import Task, draw_rows
from sap_art.kernels.weights import not_finite, widen
from sap_art.randomness import numbering

MARGIN = 1.5
"""r' = r - MARGIN * sqrt(r): one row in fifteen overshoots and is drawn afresh."""

_SMALL = 1 << 17  # elements for which a second thread does not pay

_NOTHING = torch.empty(0, 0, dtype=torch.float32, device="cpu")
_NO_MASK = torch.empty(0, 0, dtype=torch.bool, device="cpu")


def keep_set(h: Tensor, draws: int, generator: torch.Generator, *, method: str) -> Tensor:
    """Which units are kept: (B, N) -> (B, N) bool."""
    keep = torch.empty(h.shape, dtype=torch.bool, device="cpu")
    _draw(h, draws, generator, method=method, into=(_NOTHING, keep))
    return keep


def keep_scale(h: Tensor, draws: int, generator: torch.Generator, *, method: str, multiply: bool = False) -> Tensor:
    """keep / q, or h times it: (B, N) float32 or half -> (B, N) float32."""
    out = torch.empty(h.shape, dtype=torch.float32, device="cpu")
    _draw(h, draws, generator, method=method, into=(out, _NO_MASK), multiply=multiply)
    return out


def scale_gradient(h: Tensor, scale: Tensor, gradient: Tensor, draws: int, *, method: str) -> Tensor:
    """As in ``plain``, in two passes over a row."""
    source, out = widen(h.detach()).contiguous(), torch.empty(h.shape, dtype=torch.float32, device="cpu")
    tensors = (source, scale.contiguous(), gradient.detach().contiguous(), out)
    arrays = tuple(tensor.numpy() for tensor in tensors)
    work = partial(differentiate_rows, *arrays, f32(draws), method != "poisson")
    _in_threads(work, rows=len(h), elements=h.numel())
    return out.to(h.dtype)


def _draw(
    h: Tensor,
    draws: int,
    generator: torch.Generator,
    *,
    method: str,
    into: tuple[Tensor, Tensor],
    multiply: bool = False,
) -> None:
    source = widen(h.detach()).contiguous()
    number, place = numbering(generator, len(h))
    key = (np.uint32(number & 0xFFFFFFFF), np.uint32(number >> 32))
    law = Exponents._make(map(f32, exponents(draws, method, margin=MARGIN)))
    task = Task(draws if method == "multinomial" else 0, multiply)
    work = partial(draw_rows, source.numpy(), into[0].numpy(), into[1].numpy(), law, task, key, place)
    if not all(_in_threads(work, rows=len(h), elements=h.numel())):
        raise not_finite()


def _in_threads(work: Callable[[int, int], bool], *, rows: int, elements: int) -> list[bool]:
    """``work(first, last)`` over all rows, cut into one piece a thread of torch's."""
    threads = min(torch.get_num_threads(), rows) if elements > _SMALL else 1
    cuts = [rows * i // threads for i in range(threads + 1)]
    mine, *others = pairwise(cuts)
    running = [_pool(threads).submit(work, *piece) for piece in others]
    return [work(*mine), *(other.result() for other in running)]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads - 1, thread_name_prefix="sap_art-kernel")


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
