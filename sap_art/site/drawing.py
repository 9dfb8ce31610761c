"""How the plots are drawn with matplotlib: few colours, told apart by colour-blind eyes, by shape, and in grey."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sap_art.record import AttackResult, Bin, DrawsPoint, Value
from sap_art.table import attack_title

Axes = Any
INK, MUTED, GRID = "#1c2024", "#60646c", "#e0e1e6"
BLUE, RED, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#aa4499"
"""After Okabe and Ito's palette for colour-blind readers."""
MARKS = ((BLUE, "o"), (RED, "D"), (GREEN, "s"), (PURPLE, "^"))
LEVELS = ("#eceef1", "#c6dbea", "#93bfdd", "#5a9fcb", "#1f7ab5", "#0b4f80")
"""Right in no draw, in up to a quarter, half, three quarters, in more, in all."""
CALM = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "font.family": "sans-serif",
    "font.size": 8.5,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
}
FACE = {"linewidth": 0, "clip_on": False}


def percent(fraction: float) -> str:
    """``47.3``."""
    return f"{100 * fraction:.1f}"


def signed(fraction: float) -> str:
    """Points with their sign: ``+0.4``, ``−5.1``, and ``0.0`` without."""
    text = percent(abs(fraction))
    return text if float(text) == 0 else f"{'−' if fraction < 0 else '+'}{text}"


def interval(value: Value) -> str:
    """``[44.1, 50.5]``."""
    return f"[{percent(value.low)}, {percent(value.high)}]"


def file_name(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "other"


def curve(
    axes: Axes,
    points: Sequence[tuple[float, Value]],
    unit: str,
    *,
    clean: Value | None = None,
    worst: tuple[float, Value] | None = None,
) -> None:
    """Accuracy with its band; the clean accuracy as a line and the worst case as a point, if there."""
    x = [at for at, _ in points]
    _band(axes, x, [value for _, value in points], BLUE, "o", "one short attack" if worst else None)
    if clean is not None:
        axes.axhline(100 * clean.value, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), label="clean")
    if worst is not None:
        at, value = worst
        axes.errorbar([at], [100 * value.value], _bars([value]), fmt="D", color=RED, markersize=4.5, linewidth=1.2,
                      label="worst case")  # fmt: skip
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, handlelength=1.6, columnspacing=1.2)
    if min(x) > 0:
        axes.set_xscale("log", base=2)
    axes.set_xticks(x, [f"{at:g}" for at in x], minor=False)
    axes.set(xlabel=unit, ylabel="accuracy in %", ylim=(0, 100))


def over_draws(axes: Axes, curves: Mapping[str, Sequence[DrawsPoint]]) -> None:
    """ECE against K with bands."""
    for (label, points), (colour, mark) in zip(curves.items(), MARKS, strict=False):
        _band(axes, [point.draws for point in points], [point.ece for point in points], colour, mark, label)
    ticks = sorted({point.draws for points in curves.values() for point in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
    axes.minorticks_off()
    axes.set(xlabel="K, softmaxes in the mean", ylabel="ECE in %")
    axes.set_ylim(bottom=0)
    axes.legend()


def attacks(axes: Axes, found: Sequence[AttackResult], worst: Value) -> None:
    """One bar an attack with its interval; a ring where a library says otherwise, a word where it crashed."""
    colours = [_kind(attack.id) for attack in found]
    for y, (attack, (colour, _)) in enumerate(zip(found, colours, strict=True)):
        if attack.accuracy is None:
            axes.text(1, y, "crashed", va="center", color=RED)
        else:
            value = attack.accuracy
            axes.barh(y, 100 * value.value, height=0.62, color=colour, **FACE)
            axes.plot([100 * value.low, 100 * value.high], [y, y], color=INK, linewidth=0.9, solid_capstyle="butt")
            axes.text(101, y, percent(value.value), va="center", color=INK)
        if attack.reported is not None:
            axes.plot([100 * attack.reported], [y], "o", color=INK, markersize=5, fillstyle="none", clip_on=False)
    axes.axvline(100 * worst.value, color=RED, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(found)), [clipped(attack_title(attack.id)) for attack in found])
    axes.tick_params(axis="y", colors=INK)
    axes.set(xlim=(0, 100), xlabel="accuracy in %; dashed: worst case of all", ylim=(len(found) - 0.4, -0.6))
    axes.grid(visible=False, axis="y")
    names = dict.fromkeys(colours)
    if len(names) > 1:
        handles = [axes.barh([0], [0], color=colour, label=name, linewidth=0) for colour, name in names]
        axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.4, 1), ncols=len(names), handlelength=0.8)


def gradient(axes: Axes, measures: Sequence[str], rows: Mapping[str, Sequence[float | None]]) -> None:
    """One line a measure, one mark an estimator."""
    for number, (estimator, values) in enumerate(rows.items()):
        colour, mark = MARKS[number % len(MARKS)]
        there = [(value, y) for y, value in enumerate(values) if value is not None]
        x, y = [value for value, _ in there], [at for _, at in there]
        axes.plot(x, y, mark, color=colour, markersize=5.5, label=clipped(estimator), clip_on=False, alpha=0.9)
    axes.set_yticks(range(len(measures)), measures)
    axes.tick_params(axis="y", colors=INK)
    lowest = min([0.0, *(value for values in rows.values() for value in values if value is not None)])
    axes.set(xlim=(lowest - 0.02, 1), ylim=(len(measures) - 0.5, -0.5))
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1), ncols=4, handletextpad=0.1)


def reliability(top: Axes, below: Axes, bins: Sequence[Bin]) -> None:
    """Accuracy against confidence, a bar a bin and its gap to the diagonal; below how many images are in each."""
    for found in bins:
        confidence, accuracy = found.confidence or 0.0, found.accuracy or 0.0
        width = found.high - found.low
        top.bar(found.low + width / 2, 100 * accuracy, width=0.86 * width, color=LEVELS[2], **FACE)
        top.plot([confidence] * 2, [100 * accuracy, 100 * confidence], color=RED, linewidth=1.1, clip_on=False)
        top.plot([confidence], [100 * accuracy], "o", color=BLUE, markersize=3.6, clip_on=False)
        below.bar(found.low + width / 2, found.count, width=0.86 * width, color=MUTED, **FACE)
    top.plot([0, 1], [0, 100], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    top.set(xlim=(0, 1), ylim=(0, 100), ylabel="accuracy in %")
    top.tick_params(labelbottom=False)
    most = max(found.count for found in bins)
    below.set(xlim=(0, 1), ylim=(0, most), yticks=[0, most], ylabel="images", xlabel="confidence")
    below.grid(visible=False)


def strip_height(images: int) -> float:
    """Inches of one strip."""
    return 0.3 + 6.0 / _columns(_cells(images)) * math.ceil(_cells(images) / _columns(_cells(images)))


def strips(top: Axes, below: Axes, shares: Mapping[str, Sequence[float]]) -> None:
    """A square an image, darker the more draws are right; the same place in both strips is the same image."""
    from matplotlib.collections import PathCollection
    from matplotlib.path import Path

    for axes, (label, found) in zip((top, below), shares.items(), strict=True):
        cells = _grouped(found)
        columns = _columns(len(cells))
        for level, colour in enumerate(LEVELS):
            corners = [divmod(i, columns) for i, share in enumerate(cells) if level_of(share) == level]
            squares = [[(x, y), (x + 0.88, y), (x + 0.88, y + 0.88), (x, y + 0.88)] for y, x in corners]
            if squares:
                path = Path.make_compound_path(*(Path([*square, square[0]], closed=True) for square in squares))
                axes.add_collection(PathCollection([path], facecolors=[colour], linewidths=0, clip_on=False))
        axes.set(xlim=(0, columns), ylim=(math.ceil(len(cells) / columns), 0), aspect="equal", xticks=[], yticks=[])
        axes.set_title(label, loc="left", fontsize=8.5, color=MUTED)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)


def level_of(share: float) -> int:
    """Which of ``LEVELS``: exactly none, exactly all, and quarters between."""
    return 0 if share == 0 else 5 if share == 1 else 1 + min(3, int(4 * share))


def clipped(text: str) -> str:
    """At most 40 characters."""
    return text if len(text) <= 40 else f"{text[:39]}…"


def _band(axes: Axes, x: Sequence[float], values: Sequence[Value], colour: str, mark: str, label: str | None) -> None:
    axes.fill_between(
        x, [100 * v.low for v in values], [100 * v.high for v in values], color=colour, alpha=0.16, linewidth=0
    )
    axes.plot(x, [100 * v.value for v in values], marker=mark, color=colour, markersize=3.6, linewidth=1.5, label=label)


def _bars(values: Sequence[Value]) -> list[list[float]]:
    return [[100 * max(0.0, v.value - v.low) for v in values], [100 * max(0.0, v.high - v.value) for v in values]]


def _kind(attack: str) -> tuple[str, str]:
    """Colour and name of its kind."""
    if attack in ("noise", "square", "hopskipjump"):
        return "#b0b4ba", "no gradient"
    if attack.endswith("-dense"):
        return LEVELS[2], "transfer"
    if attack.startswith("known-seed"):
        return PURPLE, "known seed"
    if attack.startswith(("autoattack", "art-", "paper-")):
        return GREEN, "as others run it"
    return BLUE, "through the defence"


def _cells(images: int) -> int:
    return math.ceil(images / math.ceil(images / 1000))


def _grouped(shares: Sequence[float]) -> list[float]:
    """At most 1,000 cells: one an image, or the mean of neighbours."""
    size = math.ceil(len(shares) / 1000)
    groups = [shares[i : i + size] for i in range(0, len(shares), size)]
    return [sum(group) / len(group) for group in groups]


def _columns(cells: int) -> int:
    return 32 if cells <= 64 else 64 if cells <= 512 else 100
