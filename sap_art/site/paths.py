"""Paths of SVG as matplotlib writes them, written shorter: the same points, to the tenth that they have."""

from __future__ import annotations

import re
from collections.abc import Iterator

STEP = re.compile(r"([MLCQz])([^MLCQz]*)")
TENTHS = 10

Point = tuple[int, int]


def bounds(path: str) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of its points, control points among them; a path without any has no bounds.

    >>> bounds("M 1 2 L 3.5 -4")
    (1.0, -4.0, 3.5, 2.0)
    """
    points = [point for _, found in _steps(path) for point in found]
    if not points:
        raise ValueError(f"a path without points: {path!r}")
    x, y = [x / TENTHS for x, _ in points], [y / TENTHS for _, y in points]
    return min(x), min(y), max(x), max(y)


def shortest(path: str) -> str:
    """Absolute M, L, C, Q and z -> relative steps between the same points, no longer than need be.

    >>> shortest("M 35.2 169.2 L 35.2 6.2 L 40 6.2 z M 1 1 L 2 2")
    'M35.2 169.2v-163h4.8zM1 1l1 1'
    """
    written, drawn, last, start = "", False, (0, 0), (0, 0)
    for letter, points in _steps(path):
        if letter == "z":
            written, last = f"{written}z", start
            continue
        steps = [(x - last[0], y - last[1]) for x, y in points]
        if letter == "M":
            ways = [f"M{_numbers(*points)}", f"m{_numbers(*steps)}"]
            written += min(ways, key=len) if written else ways[0]
            start, drawn = points[-1], False
        elif letter != "L" or steps[-1] != (0, 0) or not drawn:  # a dot shows where ends are drawn
            written, drawn = written + _relative(letter, steps), True
        last = points[-1]
    return written


def _steps(path: str) -> Iterator[tuple[str, list[Point]]]:
    for letter, rest in STEP.findall(path):
        numbers = [round(TENTHS * float(number)) for number in rest.split()]
        yield letter, list(zip(numbers[::2], numbers[1::2], strict=True))


def _relative(letter: str, steps: list[Point]) -> str:
    (x, y), *more = steps
    if more or letter != "L":
        return letter.lower() + _numbers(*steps)
    return f"h{_number(x)}" if y == 0 else f"v{_number(y)}" if x == 0 else f"l{_numbers((x, y))}"


def _numbers(*points: Point) -> str:
    """With a space only where a sign does not part them."""
    return " ".join(_number(part) for point in points for part in point).replace(" -", "-")


def _number(tenths: int) -> str:
    """``.5`` for 0.5."""
    text = f"{tenths / TENTHS:g}"
    return text.replace("0.", ".", 1) if abs(tenths) < TENTHS else text
