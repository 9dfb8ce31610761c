"""What makes a page light: pictures and paths written shorter, without loss and without anybody's compressor."""

from __future__ import annotations

import base64
import io
import math
import re
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from sap_art.site.deflate import code_lengths, zlib_stream
from sap_art.site.paths import bounds, shortest
from sap_art.site.pictures import change, data_uri, png

FIBONACCI = [1, 1]
while len(FIBONACCI) < 20:
    FIBONACCI.append(sum(FIBONACCI[-2:]))


def image(height: int, width: int, *, seed: int = 0) -> torch.Tensor:
    """A smooth picture with a little noise, (3, H, W) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    values = (
        128 + 90 * np.sin(x / 5 + np.arange(3)[:, None, None]) * np.cos(y / 7) + rng.normal(0, 3, (3, height, width))
    )
    return torch.from_numpy(values.clip(0, 255).astype(np.uint8))


CONTENTS = {
    "nothing": b"",
    "one value": b"aaaa",
    "every value": bytes(range(256)),
    "few values": bytes([0] * 1000 + [255] * 3),
    "geometric": np.random.default_rng(1).geometric(0.1, 5000).clip(0, 255).astype(np.uint8).tobytes(),
    "deeper than 15 bits": b"".join(bytes([i]) * n for i, n in enumerate(FIBONACCI)),
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
def test_zlib_reads_it_back(content: bytes) -> None:
    """And its length is the entropy and less than 1 bit a byte, as Huffman's code promises, and the code itself."""
    stream = zlib_stream(content)
    shares = np.bincount(np.frombuffer(content, np.uint8), minlength=256) / max(1, len(content))
    entropy = -sum(p * math.log2(p) for p in shares if p) * len(content) / 8

    assert zlib.decompress(stream) == content
    assert len(stream) <= entropy + len(content) / 8 + 180


def test_code_lengths_are_the_best_that_there_are() -> None:
    """Against all complete codes of five symbols; above the limit of the length nothing, Kraft's sum 1."""
    counts = {0: 7, 1: 1, 2: 1, 3: 3, 4: 20}
    for longest in (3, 4, 5):
        found = code_lengths(counts, longest=longest)

        assert sum(counts[s] * bits for s, bits in found.items()) == _best(list(counts.values()), longest)
        assert max(found.values()) <= longest
    deep = code_lengths(dict(enumerate(FIBONACCI)), longest=15)
    assert max(deep.values()) == 15
    assert sum(2.0**-bits for bits in deep.values()) == 1
    assert code_lengths({7: 3}, longest=15) == {7: 1}


def _best(counts: Sequence[int], longest: int) -> int:
    """Bits of the best prefix code, by trying all lengths."""
    lengths = np.array(np.meshgrid(*[range(1, longest + 1)] * len(counts))).reshape(len(counts), -1)
    fits = (2.0**-lengths).sum(0) <= 1
    return int((np.array(counts)[:, None] * lengths)[:, fits].sum(0).min())


@pytest.mark.parametrize(("height", "width"), [(32, 32), (1, 1), (5, 3), (2, 40)])
def test_pictures_are_what_the_attack_saw(height: int, width: int) -> None:
    """A PNG without loss, smaller than its pixels; of noise not much larger."""
    for seed, picture in enumerate([image(height, width), torch.randint(0, 256, (3, height, width)).byte()]):
        found = np.asarray(Image.open(io.BytesIO(png(picture))))

        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, picture.permute(1, 2, 0).numpy())
        assert len(png(picture)) < 3 * height * width * (1.05 if seed else 0.8) + 200
    uri = data_uri(image(height, width))
    assert base64.b64decode(uri.removeprefix("data:image/png;base64,")) == png(image(height, width))


def test_the_bytes_of_a_picture_are_known() -> None:
    """Written once and for all: a page must not change with a library's version."""
    picture = (torch.arange(3 * 16 * 16).view(3, 16, 16).pow(2) // 57 % 256).byte()

    assert len(png(picture)) == 614
    assert zlib.crc32(png(picture)) == 2578450846


def test_a_change_is_smaller_than_where_it_leads() -> None:
    """It is what is added, plus 128; where a channel changes by more than that there is none."""
    clean = image(32, 32)
    by = torch.from_numpy(np.random.default_rng(2).choice([-8, 8], (3, 32, 32)))
    worst = (clean.int() + by).clamp(0, 255).byte()
    found = change(clean, worst)

    assert found is not None
    assert torch.equal(clean.int() + found.int() - 128, worst.int())
    assert len(png(found)) < 0.4 * len(png(worst))
    assert change(torch.full((3, 1, 1), 255).byte(), torch.full((3, 1, 1), 127).byte()) is not None
    assert change(torch.full((3, 1, 1), 255).byte(), torch.full((3, 1, 1), 126).byte()) is None
    assert change(torch.zeros(3, 1, 1).byte(), torch.full((3, 1, 1), 128).byte()) is None


def points(path: str) -> list[tuple[str, float, float]]:
    """Where each step of a path ends, and of which kind it is; lines of any writing are lines."""
    found: list[tuple[str, float, float]] = []
    at, start = (0.0, 0.0), (0.0, 0.0)
    for letter, rest in re.findall(r"([a-zA-Z])([^a-zA-Z]*)", path):
        numbers = [float(n) for n in re.findall(r"-?(?:\d+\.?\d*|\.\d+)", rest)]
        if letter == "z":
            at = start
        elif letter in "hv":
            at = (at[0] + numbers[0] * (letter == "h"), at[1] + numbers[0] * (letter == "v"))
        else:
            base = (0.0, 0.0) if letter.isupper() else at
            found += [
                (f"{letter}~".upper(), base[0] + x, base[1] + y)
                for x, y in zip(numbers[:-2:2], numbers[1:-2:2], strict=True)
            ]
            at = (base[0] + numbers[-2], base[1] + numbers[-1])
        start = at if letter in "Mm" else start
        found.append(({"h": "L", "v": "L"}.get(letter, letter.upper()), round(at[0], 6), round(at[1], 6)))
    return [(kind, round(x, 6), round(y, 6)) for kind, x, y in found]


@pytest.mark.parametrize(
    ("path", "short"),
    [
        ("M 35.2 169.2 L 35.2 6.2", "M35.2 169.2v-163"),
        ("M 0 0.5 L 0.5 0.5 L 1 -1 z M 100 100 L 101 100", "M0 .5h.5l.5-1.5zM100 100h1"),
        ("M 45.6 19.1 L 58.1 19.1 L 58.1 31.6 z M 45.6 33.3 L 58.1 33.3 z", "M45.6 19.1h12.5v12.5zm0 14.2h12.5z"),
        ("M 0 1.8 C 0.5 1.8 0.9 -1.6 1.3 1.3 Q 1 1 0 0 z", "M0 1.8c.5 0 .9-3.4 1.3-.5q-.3-.3-1.3-1.3z"),
    ],
)
def test_a_path_leads_through_the_same_points(path: str, short: str) -> None:
    """Relative steps do not add up their rounding."""
    assert shortest(path) == short
    assert points(short) == points(path)


def test_long_walks_end_where_they_should() -> None:
    """A thousand steps of a tenth; a step of nothing is left out but where it is the only one."""
    rng = np.random.default_rng(3)
    walk = (rng.integers(-50, 50, (1000, 2)).cumsum(0) / 10).tolist()
    path = "M 0 0 " + " ".join(f"L {x:g} {y:g}" for x, y in walk)

    assert points(shortest(path))[-1] == ("L", *walk[-1])
    assert shortest("M 1 1 L 1 1 L 1 1 L 2 1 L 2 1") == "M1 1h0h1"
    assert bounds("M 1 2 C 3.5 -4 0 0 2 2 z") == (0, -4, 3.5, 2)
    with pytest.raises(ValueError, match="a path without points"):
        bounds("z")
