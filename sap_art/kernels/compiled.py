"""The draw on a CPU, compiled by numba: one pass over a row for its sum, one for nearly everything else.

The same two looks at the arrivals as in ``arrivals``, fused: random bits, logarithm, decision and rescaling of a unit
never leave the registers. Random numbers are Philox with the counter (unit, image, purpose, draw), so the result does
not depend on the number of threads or the batch, and a row's numbers not on other rows.
"""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from sap_art.kernels.derivative import differentiate_rows
from sap_art.kernels.lanes import f32
from sap_art.kernels.law import Exponents, exponents
from sap_art.kernels.rows import MARGIN, draw_rows
from sap_art.kernels.threads import in_threads
from sap_art.kernels.weights import not_finite, widen
from sap_art.randomness import numbering

_NOTHING = torch.empty(0, 0, dtype=torch.float32, device="cpu")
_NO_MASK = torch.empty(0, 0, dtype=torch.bool, device="cpu")


def keep_set(h: Tensor, draws: int, generator: torch.Generator, *, method: str) -> Tensor:
    """Which units are kept: (B, N) -> (B, N) bool."""
    keep = torch.empty(h.shape, dtype=torch.bool, device="cpu")
    _draw(h, draws, generator, method=method, into=(_NOTHING, keep))
    return keep


def prune(h: Tensor, draws: int, generator: torch.Generator, *, method: str, keep: Tensor | None = None) -> Tensor:
    """h keep / q: (B, N) float32 or half -> (B, N) float32; the keep-set into ``keep`` (B, N) bool, if given."""
    out = torch.empty(h.shape, dtype=torch.float32, device="cpu")
    _draw(h, draws, generator, method=method, into=(out, _NO_MASK if keep is None else keep))
    return out


def prune_gradient(h: Tensor, keep: Tensor, gradient: Tensor, draws: int, *, method: str, held: bool) -> Tensor:
    """As in ``plain``, in two passes over a row."""
    source, out = widen(h.detach()).contiguous(), torch.empty(h.shape, dtype=torch.float32, device="cpu")
    law = _law(draws, method)
    arrays = source.numpy(), keep.numpy(), widen(gradient.detach()).contiguous().numpy(), out.numpy()
    work = partial(differentiate_rows, *arrays, law, f32(draws), held)
    in_threads(work, rows=len(h), elements=h.numel())
    return out.to(h.dtype)


@cache
def _law(draws: int, method: str) -> Exponents:
    """In float32."""
    return Exponents._make(map(f32, exponents(draws, method, margin=MARGIN)))


def _draw(h: Tensor, draws: int, generator: torch.Generator, *, method: str, into: tuple[Tensor, Tensor]) -> None:
    source = widen(h.detach()).contiguous()
    number, place = numbering(generator, len(h))
    key = (np.uint32(number & 0xFFFFFFFF), np.uint32(number >> 32))
    law = _law(draws, method)
    exact = draws if method == "multinomial" else 0
    work = partial(draw_rows, source.numpy(), into[0].numpy(), into[1].numpy(), law, exact, key, place)
    if not all(in_threads(work, rows=len(h), elements=h.numel())):
        raise not_finite()
