"""The draw on a GPU, in one Triton kernel: one program a row sums, draws, tops up and rescales.

The same Philox numbers as in ``compiled`` (key from the generator; counter of unit, image, purpose and draw), so on
independent units the two kernels decide alike but for the last bit of a logarithm; the exact draw looks at the arrivals
once only. Nothing waits for the device: a row with NaN or inf comes out as NaN. With TRITON_INTERPRET=1 it also runs on
a CPU, for tests.
"""

# pyright: reportUntypedFunctionDecorator=false, reportMissingTypeStubs=false, reportUnknownParameterType=false
# pyright: reportMissingParameterType=false, reportGeneralTypeIssues=false, reportIndexIssue=false
# pyright: reportOptionalSubscript=false, reportPrivateImportUsage=false, reportArgumentType=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sap_art.kernels.fused_numbers import ROUNDS, inverse_probability, minus_log, poisson, uniform
from sap_art.kernels.law import exponents
from sap_art.kernels.weights import not_finite
from sap_art.randomness import numbering

MARGIN = 3.0
"""r' = r - MARGIN * sqrt(r): one row in 700 is drawn afresh, and further draws are made side by side anyway."""

_LANES = tl.constexpr(256)  # a tile is four times as many units: one Philox counter serves four
_BLOCK = tl.constexpr(16)  # units that share a partial sum, for the top-up
_FIRST_ARRIVALS, _TOP_UP, _LATER_ARRIVALS = tl.constexpr(0), tl.constexpr(1 << 30), tl.constexpr(1 << 31)


def keep_set(h: Tensor, draws: int, generator: torch.Generator, *, method: str) -> Tensor:
    """Which units are kept: (B, N) -> (B, N) bool; waits for the device and raises for NaN and inf."""
    keep = torch.empty(h.shape, dtype=torch.bool, device=h.device)
    out = prune(h, draws, generator, method=method, keep=keep)
    if out.numel() and out[:, 0].isnan().any():
        raise not_finite()
    return keep


def prune(h: Tensor, draws: int, generator: torch.Generator, *, method: str, keep: Tensor | None = None) -> Tensor:
    """h keep / q: (B, N) float32 or half -> (B, N) float32; the keep-set into ``keep`` (B, N) bool, if given."""
    h = h.detach().contiguous()
    rows, units = h.shape
    out = torch.empty(rows, units, dtype=torch.float32, device=h.device)
    if h.numel() == 0:
        return out
    blocks = triton.cdiv(units, _BLOCK.value)
    sums = torch.empty(rows, blocks, dtype=torch.float64, device=h.device)
    key, place = numbering(generator, rows)
    exact = draws if method == "multinomial" else 0
    law = exponents(draws, method, margin=MARGIN)
    mask = out if keep is None else keep.view(torch.uint8)  # never written to if there is none
    with torch.cuda.device_of(h):  # Triton launches where torch is, not where the tensors are
        _draw_row[(rows,)](
            h, out, mask, sums, key, *place, units, blocks, exact, *law, blocks.bit_length(), masked=keep is not None
        )
    return out


def prune_gradient(h: Tensor, keep: Tensor, gradient: Tensor, draws: int, *, method: str, held: bool) -> Tensor:
    """As in ``plain``, in one kernel."""
    h, gradient = h.detach().contiguous(), gradient.detach().contiguous()
    out = torch.empty_like(h)
    if h.numel():
        _, _, c, d = exponents(draws, method, margin=0)
        with torch.cuda.device_of(h):
            _differentiate_row[(len(h),)](h, keep.view(torch.uint8), gradient, out, h.shape[1], draws, c, d, held=held)
    return out


@triton.jit
def _sum_row(h, sums, units, blocks):
    """Running sums of |h| over blocks, stored; the row's total, float64."""
    total = tl.full((), 0, tl.float64)
    for start in range(0, units, 4 * _LANES):
        j = start + tl.arange(0, 4 * _LANES)
        weights = tl.abs(tl.load(h + j, mask=j < units, other=0).to(tl.float32))
        parts = tl.sum(tl.reshape(weights, (4 * _LANES // _BLOCK, _BLOCK)), axis=1).to(tl.float64)
        block = start // _BLOCK + tl.arange(0, 4 * _LANES // _BLOCK)
        tl.store(sums + block, total + tl.cumsum(parts, 0), mask=block < blocks)
        total += tl.sum(parts, 0)
    return total


@triton.jit
def _arrive(h, out, mask, j, live, bits, total, a, b, c, d, masked: tl.constexpr):
    """First arrivals of some units: the number kept and the mean number of later arrivals."""
    weight = tl.load(h + j, mask=live, other=0).to(tl.float32)
    p = tl.abs(weight) / total
    k = (bits >> 1).to(tl.int32)
    below = (k.to(tl.float32) + 0.5) * 4.656612873077393e-10
    above = ((2147483647 - k).to(tl.float32) + 0.5) * 4.656612873077393e-10
    slack = a * p + b * minus_log(p, tl.maximum(1 - p, 1e-38)) - minus_log(below, above)
    keep = live & (slack > 0)
    tl.store(out + j, tl.where(keep, inverse_probability(p, c, d), 0.0) * weight, mask=live)
    if masked:
        tl.store(mask + j, keep.to(tl.uint8), mask=live)
    return tl.sum(keep.to(tl.int64), 0), tl.sum(tl.where(keep, slack, 0.0), 0).to(tl.float64)


@triton.jit
def _top_up(h, out, mask, sums, units, blocks, missing, total, c, d, steps, image, draw, key, masked: tl.constexpr):
    """Keep ``missing`` further categorical draws: a search among the blocks, then a walk through one."""
    end = tl.load(sums + blocks - 1)
    for first in range(0, missing, _LANES):
        n = first + tl.arange(0, _LANES)
        live = n < missing
        point = uniform(n, _TOP_UP, image, draw, key) * end
        low, high = n * 0, n * 0 + blocks - 1
        for _ in range(steps):
            middle = (low + high) // 2
            passed = tl.load(sums + middle) <= point
            high = tl.where(passed, high, middle)
            low = tl.where(passed, tl.minimum(middle + 1, high), low)
        start = tl.load(sums + low - 1, mask=low > 0, other=0.0)
        rest = (point - start).to(tl.float32)
        running, chosen, found = rest * 0, low * _BLOCK, low < 0
        weight = rest * 0
        for k in range(_BLOCK):
            j = low * _BLOCK + k
            here = tl.load(h + j, mask=j < units, other=0).to(tl.float32)
            running += tl.abs(here)
            take = (here != 0) & ~found  # the last unit that has weight, if rounding left the point beyond all
            chosen, weight = tl.where(take, j, chosen), tl.where(take, here, weight)
            found = found | (running > rest)
        scale = inverse_probability(tl.abs(weight) / total, c, d)
        tl.store(out + chosen, scale * weight, mask=live & (weight != 0))
        if masked:
            tl.store(mask + chosen, (weight != 0).to(tl.uint8), mask=live & (weight != 0))


@triton.jit(do_not_specialize=["key", "first_draw", "first_image", "images"])
def _draw_row(
    h,
    out,
    mask,
    sums,
    key,
    first_draw,
    first_image,
    images,
    units,
    blocks,
    draws,
    a,
    b,
    c,
    d,
    steps,
    masked: tl.constexpr,
):
    """One row; ``draws`` is 0 where units are independent, ``a`` to ``d`` are the law's exponents."""
    row = tl.program_id(0)
    first = row.to(tl.int64) * units
    h, out, mask, sums = h + first, out + first, mask + first, sums + row.to(tl.int64) * blocks
    image, draw = first_image + row % images, first_draw + row // images
    total = _sum_row(h, sums, units, blocks)
    total32 = total.to(tl.float32)
    attempt = tl.full((), 0, tl.int64)
    missing = tl.full((), -1, tl.int64)
    if (total == 0) | ~(total32 < float("inf")):
        missing += 1
        for start in range(0, units, _LANES):
            j = start + tl.arange(0, _LANES)
            nothing = tl.where(total == 0, 0.0, float("nan")).to(tl.float32)
            tl.store(out + j, nothing + tl.zeros((_LANES,), tl.float32), mask=j < units)
            if masked:
                tl.store(mask + j, tl.zeros((_LANES,), tl.uint8), mask=j < units)
    while missing < 0:
        kept = tl.full((), 0, tl.int64)
        later = tl.full((), 0, tl.float64)
        for start in range(0, units, 4 * _LANES):
            length = tl.minimum(units - start, 4 * _LANES)
            lanes = (length + 3) // 4
            i = tl.arange(0, _LANES)
            counter = (start // 4 + i).to(tl.uint32)
            purpose = (attempt + _FIRST_ARRIVALS).to(tl.uint32)
            b0, b1, b2, b3 = tl.philox(key, counter, image, purpose, draw, n_rounds=ROUNDS)
            for k in tl.static_range(4):
                bits = b0 if k == 0 else (b1 if k == 1 else (b2 if k == 2 else b3))
                place = k * lanes + i
                live = (i < lanes) & (place < length)
                count, excess = _arrive(h, out, mask, start + place, live, bits, total32, a, b, c, d, masked)
                kept += count
                later += excess
        missing += 1
        if draws > 0:
            missing = draws - kept - poisson(later, (attempt + _LATER_ARRIVALS).to(tl.uint32), image, draw, key)
        attempt += 1
    tl.debug_barrier()
    if missing > 0:
        _top_up(h, out, mask, sums, units, blocks, missing, total32, c, d, steps, image, draw, key, masked)


@triton.jit
def _by_probability(h, mask, gradient, j, live, total, draws, c, d):
    """For some units, float32: the weight, p, 1 / q where kept, and the gradient by p."""
    weight = tl.load(h + j, mask=live, other=0).to(tl.float32)
    outer = tl.load(gradient + j, mask=live, other=0).to(tl.float32)
    keep = tl.load(mask + j, mask=live, other=0) != 0
    p = tl.abs(weight) / total
    scale = tl.where(keep, inverse_probability(p, c, d), 0.0)
    slope = outer * weight * (scale - scale * scale) * draws
    if d > 0:
        slope = tl.where(p < 1, slope / tl.maximum(1 - p, 1e-38), 0.0)
    return weight, p, outer * scale, slope


@triton.jit
def _differentiate_row(h, mask, gradient, out, units, draws, c, d, held: tl.constexpr):
    """One row of the gradient by h of h keep / q; the formula is in ``plain``."""
    first = tl.program_id(0).to(tl.int64) * units
    h, mask, gradient, out = h + first, mask + first, gradient + first, out + first
    total = tl.full((), 0, tl.float64)
    for start in range(0, units, 4 * _LANES):
        j = start + tl.arange(0, 4 * _LANES)
        total += tl.sum(tl.abs(tl.load(h + j, mask=j < units, other=0).to(tl.float32)), 0).to(tl.float64)
    total32 = tl.where(total == 0, 1.0, total).to(tl.float32)
    inner = tl.full((), 0, tl.float64)
    if not held:
        for start in range(0, units, _LANES):
            j = start + tl.arange(0, _LANES)
            _, p, _, slope = _by_probability(h, mask, gradient, j, j < units, total32, draws, c, d)
            inner += tl.sum(slope * p, 0).to(tl.float64)
    for start in range(0, units, _LANES):
        j = start + tl.arange(0, _LANES)
        weight, _, value, slope = _by_probability(h, mask, gradient, j, j < units, total32, draws, c, d)
        if not held:
            sign = tl.where(weight > 0, 1.0, tl.where(weight < 0, -1.0, 0.0))
            value += (slope - inner.to(tl.float32)) / total32 * sign
        tl.store(out + j, value, mask=j < units)
