"""Small images as data of a page: uncompressed, since what a compressor writes depends on its version."""

from __future__ import annotations

import base64
import struct

from torch import Tensor

HEADER = 54


def data_uri(image: Tensor) -> str:
    """An image (3, H, W) uint8, RGB, as ``data:image/bmp;base64,...``: 24 bits a pixel, rows from below."""
    _, height, width = image.shape
    rows = image.permute(1, 2, 0).flip(0).flip(2).contiguous().numpy()
    padding = bytes(-3 * width % 4)
    pixels = b"".join(row.tobytes() + padding for row in rows)
    file = struct.pack("<2sIHHI", b"BM", HEADER + len(pixels), 0, 0, HEADER)
    about = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, len(pixels), 0, 0, 0, 0)
    return "data:image/bmp;base64," + base64.b64encode(file + about + pixels).decode("ascii")
