"""Compression that depends on no library's version: deflate (RFC 1951) by one Huffman code, without repetitions."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping

END = 256
LONGEST, LONGEST_OF_LENGTHS = 15, 7
ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
"""Of the lengths of the code of code lengths (RFC 1951, 3.2.7)."""
RUNS = ((18, 11, 7, 138), (17, 3, 3, 10))
"""Of zeros: symbol, shortest run, bits that say how long, longest run."""


def zlib_stream(content: bytes) -> bytes:
    """``content`` as a zlib stream (RFC 1950): about its entropy and 100 bytes; for pixels that were filtered."""
    bits = _Bits()
    bits.put(0b101, 3)  # the last block, with a code of its own
    symbols = [*content, END]
    lengths = code_lengths(Counter(symbols), longest=LONGEST)
    _put_code(bits, [lengths.get(symbol, 0) for symbol in range(END + 1)])
    codes = _codes(lengths)
    for symbol in symbols:
        bits.put(*codes[symbol])
    return b"\x78\x01" + bits.bytes() + struct.pack(">I", zlib.adler32(content))


def code_lengths(counts: Mapping[int, int], *, longest: int) -> dict[int, int]:
    """Bits of each symbol in the shortest prefix code without a word above ``longest`` (package-merge, Larmore 1990).

    A symbol that is alone has 1 bit.

    >>> code_lengths({0: 1, 1: 1, 2: 2, 3: 4}, longest=3)
    {0: 3, 1: 3, 2: 2, 3: 1}
    """
    coins = sorted((count, (symbol,)) for symbol, count in counts.items())
    merged = coins
    for _ in range(longest - 1):
        pairs = zip(merged[::2], merged[1::2], strict=False)
        merged = sorted([*coins, *((a + b, one + other) for (a, one), (b, other) in pairs)])
    used = Counter(symbol for _, symbols in merged[: 2 * len(coins) - 2] for symbol in symbols)
    return {symbol: used[symbol] or 1 for symbol in sorted(counts)}


class _Bits:
    """Numbers from their lowest bit on, filling bytes from theirs."""

    def __init__(self) -> None:
        self._number, self._length = 0, 0
        self._whole = bytearray()

    def put(self, number: int, length: int) -> None:
        self._number |= number << self._length
        self._length += length
        while self._length >= 8:
            self._whole.append(self._number & 255)
            self._number >>= 8
            self._length -= 8

    def bytes(self) -> bytes:
        return bytes(self._whole) + (bytes([self._number]) if self._length else b"")


def _put_code(bits: _Bits, literals: list[int]) -> None:
    """The lengths of literals and of one distance that is never used, as runs, in a code of their own."""
    runs = list(_runs([*literals, 1]))
    lengths = code_lengths(Counter(symbol for symbol, _, _ in runs), longest=LONGEST_OF_LENGTHS)
    codes = _codes(lengths)
    ordered = [lengths.get(symbol, 0) for symbol in ORDER]
    while not ordered[-1]:
        ordered.pop()
    bits.put(len(literals) - 257, 5)
    bits.put(0, 5)
    bits.put(len(ordered) - 4, 4)
    for length in ordered:
        bits.put(length, 3)
    for symbol, more, length in runs:
        bits.put(*codes[symbol])
        bits.put(more, length)


def _runs(lengths: list[int]) -> Iterable[tuple[int, int, int]]:
    """Symbol, extra bits and how many: a length as it is, zeros as runs."""
    at = 0
    while at < len(lengths):
        zeros = next((i for i, length in enumerate(lengths[at:]) if length), len(lengths) - at)
        for symbol, shortest, extra, most in RUNS:
            if zeros >= shortest:
                run = min(zeros, most)
                yield symbol, run - shortest, extra
                at += run
                break
        else:
            yield lengths[at], 0, 0
            at += 1


def _codes(lengths: Mapping[int, int]) -> dict[int, tuple[int, int]]:
    """Canonical words (RFC 1951, 3.2.2) with their lengths, turned round: they go from their highest bit on."""
    codes: dict[int, tuple[int, int]] = {}
    word, last = 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in lengths.items()):
        word <<= length - last
        codes[symbol] = (int(f"{word:0{length}b}"[::-1], 2), length)
        word, last = word + 1, length
    return codes
