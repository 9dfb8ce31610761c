"""Small images as data of a page: PNG whose bytes depend on no compressor's version."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sap_art.site.deflate import zlib_stream

SIGNATURE = b"\x89PNG\r\n\x1a\n"
RGB = (8, 2, 0, 0, 0)
"""Bits a channel, colour without alpha, and the only compression, filters and order that there are."""


GREY = 128
"""No change, where an image is that of a change."""


def change(clean: Tensor, worst: Tensor) -> Tensor | None:
    """What is to be added to ``clean`` (3, H, W) uint8 for ``worst``, plus 128, uint8; None if that is too much.

    Within eps it has few values, so that as a PNG it is half as large as ``worst``.
    """
    by = worst.int() - clean.int() + GREY
    return by.byte() if int(by.min()) >= 0 and int(by.max()) <= 255 else None


def data_uri(image: Tensor) -> str:
    """An image (3, H, W) uint8, RGB, as ``data:image/png;base64,...``."""
    return "data:image/png;base64," + base64.b64encode(png(image)).decode("ascii")


def png(image: Tensor) -> bytes:
    """An image (3, H, W) uint8, RGB, as a PNG file (ISO 15948) without loss."""
    _, height, width = image.shape
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    header = struct.pack(">IIBBBBB", width, height, *RGB)
    content = min((zlib_stream(rows) for rows in (_filtered(pixels), _as_they_are(pixels))), key=len)
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", content) + _chunk(b"IEND", b"")


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _as_they_are(pixels: NDArray[np.uint8]) -> bytes:
    """Rows (H, W, 3) with filter 0: shorter where there are few values."""
    return b"".join(b"\0" + row.tobytes() for row in pixels)


def _filtered(pixels: NDArray[np.uint8]) -> bytes:
    """Rows (H, W, 3) less what PNG's filters 0 to 4 expect of them; of each row the one that leaves least."""
    p = pixels.astype(np.int16)
    left, up, corner = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    left[:, 1:], up[1:], corner[1:, 1:] = p[:, :-1], p[:-1], p[:-1, :-1]
    expected = np.stack([np.zeros_like(p), left, up, (left + up) // 2, _paeth(left, up, corner)])
    rest = (p - expected).astype(np.uint8)
    size = abs(rest.astype(np.int8).astype(np.int64)).sum((2, 3))
    return b"".join(bytes([kind]) + rest[kind, row].tobytes() for row, kind in enumerate(size.argmin(0)))


def _paeth(left: NDArray[np.int16], up: NDArray[np.int16], corner: NDArray[np.int16]) -> NDArray[np.int16]:
    """Whichever is nearest to left + up - corner, in this order."""
    at = left + up - corner
    by = [abs(at - value) for value in (left, up, corner)]
    return np.where((by[0] <= by[1]) & (by[0] <= by[2]), left, np.where(by[1] <= by[2], up, corner))
