"""Time of a draw against the number of units N, of draws r and of rows B, as rows and as a figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from draw import NAIVE, relu_of_normals
from peers import CATEGORIES, multinomial
from ratios import Against, Row, Section, compare
from setting import Setting, Size
from timing import Times, Work, race

from sap_art.sampling import keep_set

UNITS, FEW_UNITS, FEW_ROWS = 16384, 4096, 4
NAIVE_SECONDS = 2.0
"""Drawing one by one is left out where it would take longer, at the pace of the point before."""

PANELS = {
    "N": "units N = r",
    "r": f"draws r, N = {UNITS:,}, B = {FEW_ROWS}",
    "B": f"rows B, N = r = {FEW_UNITS:,}",
}
Point = dict[str, int]


def measure(setting: Setting) -> Section:
    rows = [row for axis, points in _points(setting.size).items() for row in _panel(axis, points, setting)]
    path = setting.output / f"growth-{setting.device.type}.svg"
    plot(rows, path)
    note = f"Drawn in {path.name}. {NAIVE} only where the point before promises less than {NAIVE_SECONDS:g} s."
    return Section("growth", "One draw against N, r and B", "ms", tuple(rows), note)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Three panels on logarithmic axes: milliseconds a row against N and r, milliseconds a batch against B."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained")
    for axes, (axis, title) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        _draw_panel(axes, axis, [row for row in rows if row.case["panel"] == f"{axis} grows"])
        axes.set(xscale="log", yscale="log", xlabel=title, ylabel="ms a batch" if axis == "B" else "ms a row")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})


def _draw_panel(axes: Any, axis: str, rows: Sequence[Row]) -> None:
    for name in dict.fromkeys(row.name for row in rows):
        own = [row for row in rows if row.name == name]
        each = [1 if axis == "B" else row.case["B"] for row in own]
        values = [row.value.median / n for row, n in zip(own, each, strict=True)]
        axes.plot([row.case[axis] for row in own], values, marker="o", markersize=3, label=name)


def _points(size: Size) -> dict[str, list[Point]]:
    return {
        "N": [{"B": max(1, size.growth_elements // units), "N": units, "r": units} for units in size.growth_units],
        "r": [{"B": FEW_ROWS, "N": UNITS, "r": draws} for draws in size.growth_draws],
        "B": [{"B": rows, "N": FEW_UNITS, "r": FEW_UNITS} for rows in size.growth_rows],
    }


def _panel(axis: str, points: Sequence[Point], setting: Setting) -> Iterator[Row]:
    pace = 0.0  # milliseconds of one naive draw, as last seen
    for point in points:
        draws = point["B"] * point["r"]
        naive = point["N"] < CATEGORIES and pace * draws < 1e3 * NAIVE_SECONDS
        times = _times(point, setting, naive=naive)
        if naive:
            pace = min(times[NAIVE]) / draws
        case = {"panel": f"{axis} grows", **point}
        yield from compare(case, times, [Against(NAIVE, faster=True)])


def _times(point: Point, setting: Setting, *, naive: bool) -> Times:
    weights = relu_of_normals((point["B"], point["N"]), setting)
    work: dict[str, Work] = {
        kernel: partial(keep_set, weights, point["r"], setting.generator("draws"), kernel=kernel)
        for kernel in setting.kernels
    }
    if naive:
        work[NAIVE] = partial(multinomial, weights, point["r"], setting.generator("draws"))
    return race(work, rounds=setting.size.forward_rounds, device=setting.device)
