"""The draw of ``compiled`` row by row: sums, two looks at the arrivals as in ``arrivals``, the top-up."""

# pyright: reportUntypedFunctionDecorator=false, reportMissingTypeStubs=false, reportUnknownParameterType=false
# pyright: reportCallIssue=false

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from sap_art.kernels.lanes import (
    TINY,
    add_in_any_order,
    compile_rows,
    exponential,
    f32,
    i32,
    log_complement,
    one_minus_exp,
    prefetch,
    u32,
)
from sap_art.kernels.law import Exponents
from sap_art.kernels.streams import ARRIVALS_AFTER_LOOK, FIRST_ARRIVALS, LATER_ARRIVALS, TOP_UP, Row, fill, poisson
from sap_art.randomness import Place

TILE = 1024  # units that are worked on at a time: they stay in the first-level cache; a multiple of four
MARGIN = 3.0  # standard deviations of the number of arrivals that each look stays below r
BLOCK = 8  # units that share a partial sum, for the top-up
LINE = 16  # units of a cache line


@compile_rows()
def draw_rows(
    h: Any, out: Any, mask: Any, law: Exponents, draws: int, key: Any, place: Place, first: int, last: int
) -> bool:
    """Rows first to last: h * keep / q into ``out`` and keep into ``mask``, either unless it is empty.

    ``draws`` in all, 0 where units are independent. False if a row is not finite.
    """
    sums = np.empty((h.shape[1] + BLOCK - 1) // BLOCK, f32)
    scratch = np.empty(h.shape[1] if len(out) == 0 else 0, f32)
    slacks = np.empty(h.shape[1] if draws > 0 else TILE, f32)  # only an exact draw looks at them again
    for r in range(first, last):
        total, largest = block_sums(h[r], sums)
        if not math.isfinite(f32(total)):  # also where only the sum is beyond float32
            return False
        row = Row(u32(place.image + r % place.images), u32(place.draw + r // place.images))
        scale = scratch if len(out) == 0 else out[r]
        if total == 0:
            scale[:] = 0
        else:
            _draw_row(h[r], h[min(r + 1, last - 1)], scale, slacks, law, draws, sums, total, largest, row, key)
        if len(mask) > 0:
            _mark_positive(scale, mask[r])
        if len(out) > 0:
            _multiply_positive(h[r], scale)
    return True


@compile_rows()
def _draw_row(
    h: Any,
    following: Any,
    scale: Any,
    slacks: Any,
    law: Exponents,
    draws: int,
    sums: Any,
    total: float,
    largest: float,
    row: Row,
    key: Any,
) -> None:
    attempt = 0
    while True:
        if largest * 32 <= total and total > f32(1e-30):  # where 1 / total is a float32
            kept, later = _arrivals_of_small(h, following, scale, slacks, law, f32(total), attempt, row, key)
        else:
            kept, later = _arrivals_of_any(h, following, scale, slacks, law, f32(total), attempt, row, key)
        if draws == 0:
            return
        missing = draws - kept - poisson(later, LATER_ARRIVALS + attempt, row, key)
        step = missing - MARGIN * math.sqrt(max(missing, 0))
        if step > 0:
            more, excess = _look_again(h, scale, slacks, f32(step / total))
            missing -= more - kept + poisson(max(excess - later, 0.0), ARRIVALS_AFTER_LOOK + attempt, row, key)
        if missing >= 0:
            _top_up(h, scale, sums, total, missing, row, key)
            return
        attempt += 1


@compile_rows(fastmath={"contract"})
def _look_again(h: Any, scale: Any, slacks: Any, step: Any) -> Any:
    """Let the arrivals go on for ``step`` times the weights: the number kept by then, the mean number of later ones."""
    kept, later = 0, 0.0
    for start in range(0, len(h), TILE):
        part = slice(start, min(start + TILE, len(h)))
        weights, scales, slack = h[part], scale[part], slacks[part]
        count, excess = i32(0), f32(0)
        for i in range(len(weights)):
            longer = slack[i] + abs(weights[i]) * step
            scales[i] = abs(scales[i]) if longer > f32(0) else scales[i]
            count = i32(count + i32(longer > f32(0)))
            excess = add_in_any_order(excess, max(longer, f32(0)))
        kept += count
        later += excess
    return kept, later


@compile_rows(fastmath={"contract"})
def block_sums(h: Any, sums: Any) -> Any:
    """|h| summed over blocks of ``BLOCK`` units into ``sums``; the total, and a bound on the largest unit."""
    whole = len(h) // BLOCK
    for block in range(whole):
        part = f32(0)
        for k in range(BLOCK):
            part = add_in_any_order(part, abs(h[block * BLOCK + k]))
        sums[block] = part
    if whole < len(sums):
        part = f32(0)
        for j in range(whole * BLOCK, len(h)):
            part += abs(h[j])
        sums[whole] = part
    total, largest = 0.0, f32(0)
    for part in sums:
        total += part
        largest = max(largest, part)
    return total, largest


@njit(inline="always")
def _minus_log_complement(p: Any) -> Any:
    return -log_complement(p, f32(1) - p)


@njit(inline="always")
def _minus_log_complement_of_small(p: Any) -> Any:
    """-log(1 - p) for p <= 1/32, to float32's precision."""
    return p * (f32(1) + p * (f32(1 / 2) + p * (f32(1 / 3) + p * (f32(1 / 4) + p * f32(1 / 5)))))


@njit(inline="always")
def _divided(weight: Any, total: Any, inverse: Any) -> Any:
    return weight / total


@njit(inline="always")
def _times_inverse(weight: Any, total: Any, inverse: Any) -> Any:
    return weight * inverse


def _make_arrivals(share: Any, minus_log_complement: Any) -> Any:
    @njit(inline="always")
    def unit(weight: Any, bits: Any, total: Any, inverse: Any, law: Exponents) -> Any:
        """By how much the rate exceeds the first arrival's exponential, and 1 / q with a minus unless it is kept."""
        p = share(abs(weight), total, inverse)
        minus_log = minus_log_complement(p)
        slack = law.a * p + law.b * minus_log - exponential(bits)
        scale = f32(1) / max(one_minus_exp(law.c * p + law.d * minus_log), TINY)
        return slack, (scale if slack > f32(0) else -scale)

    @compile_rows(fastmath={"contract"})
    def arrivals(
        h: Any, following: Any, scale: Any, slacks: Any, law: Exponents, total: Any, attempt: int, row: Row, key: Any
    ) -> Any:
        """Steps 1 and 2 for one row: the number kept and the mean number of later arrivals."""
        bits, inverse = np.empty(TILE, u32), f32(1) / total
        kept, later = 0, 0.0
        for start in range(0, len(h), TILE):
            length = min(TILE, len(h) - start)
            for j in range(start, start + length, LINE):
                prefetch(following, j)  # memory rests while random numbers are made
            fill(bits, (length + 3) // 4, start // 4, FIRST_ARRIVALS + attempt, row, key)
            weights, scales = h[start : start + length], scale[start : start + length]
            slack = slacks[start % len(slacks) :][:length]
            count, excess = i32(0), f32(0)
            for i in range(length):
                slack[i], scales[i] = unit(weights[i], bits[i], total, inverse, law)
                count = i32(count + i32(slack[i] > f32(0)))
                excess = add_in_any_order(excess, max(slack[i], f32(0)))
            kept += count
            later += excess
        return kept, later

    return arrivals


_arrivals_of_any = _make_arrivals(_divided, _minus_log_complement)
_arrivals_of_small = _make_arrivals(_times_inverse, _minus_log_complement_of_small)


@compile_rows()
def _top_up(h: Any, scale: Any, sums: Any, total: float, missing: int, row: Row, key: Any) -> None:
    """Step 3: keep ``missing`` further categorical draws, made in ascending order and placed by the blocks' sums."""
    points = np.empty(missing + 1)  # partial sums of exponentials over their total are sorted uniforms
    _exponentials(points, row, key)
    for n in range(missing):
        points[n + 1] += points[n]
    below_total = np.nextafter(total, 0.0)
    block, start, end = 0, 0.0, float(sums[0])
    for n in range(missing):
        point = min(points[n] / points[missing] * total, below_total)
        while end <= point:
            block, start = block + 1, end
            end += sums[block]
        j = _find(h, block, f32(point - start))
        scale[j] = abs(scale[j])


@compile_rows(fastmath={"contract"})
def _exponentials(out: Any, row: Row, key: Any) -> None:
    bits = np.empty(len(out) + 3, u32)
    fill(bits, (len(out) + 3) // 4, 0, TOP_UP, row, key)
    for i in range(len(out)):
        out[i] = exponential(bits[i])


@compile_rows()
def _find(h: Any, block: int, point: Any) -> int:
    """The first unit of the block at which the running sum passes ``point``; without a branch in the whole blocks."""
    first, size = block * BLOCK, min(BLOCK, len(h) - block * BLOCK)
    running, passed = f32(0), 0
    if size == BLOCK:
        for k in range(BLOCK):
            running += abs(h[first + k])
            passed += i32(running <= point)
    else:
        for k in range(size):
            running += abs(h[first + k])
            passed += i32(running <= point)
    if passed < size:
        return first + int(passed)
    last = first + size - 1  # the sum in another order was an ulp larger: the last unit that has weight
    while h[last] == 0:
        last -= 1
    return last


@compile_rows()
def _multiply_positive(h: Any, scale: Any) -> None:
    """h times the scale, 0 where that has a minus: such units were not kept."""
    for j in range(len(scale)):
        scale[j] = max(scale[j], f32(0)) * h[j]


@compile_rows()
def _mark_positive(scale: Any, mask: Any) -> None:
    for j in range(len(scale)):
        mask[j] = scale[j] > f32(0)
