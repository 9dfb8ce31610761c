"""Plots of the figures, from their results alone: accuracy against lambda, and reliability diagrams."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sap_art.paper.page import attacker_of, describe
from sap_art.paper.printed import printed
from sap_art.paper.results import CurveResult, FigureResult
from sap_art.record_parts import Value

FORMATS = ("png", "svg")
INSTALL = "plots need matplotlib: pip install 'sap-art[plots]'"


def plot(result: FigureResult, folder: Path) -> list[Path]:
    """Write ``folder/<figure>.png`` and ``.svg``; the same result gives the same bytes with one matplotlib.

    Without any curve, since all nets are missing, there is nothing to draw and no file.

    Raises:
        ImportError: without matplotlib.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
        from matplotlib.rcsetup import cycler
    except ImportError as error:
        raise ImportError(INSTALL) from error
    if not result.curves:
        return []
    paths = [folder / f"{result.figure}.{kind}" for kind in FORMATS]
    folder.mkdir(parents=True, exist_ok=True)
    colours = mpl.color_sequences["tab10" if len(result.curves) <= 10 else "tab20"]
    with mpl.rc_context({"svg.hashsalt": result.figure, "axes.prop_cycle": cycler(color=colours)}):
        drawn = _reliability(result, Figure) if _calibrated(result.curves) else _accuracy(result, Figure)
        for path in paths:
            drawn.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})
    return paths


def _accuracy(result: FigureResult, make: Any) -> Any:
    """Mean predictions against lambda; dashed the worst case of the defender, crosses what the paper prints."""
    figure = make(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    lambdas = sorted({point.lam for curve in result.curves for point in curve.points})
    colours: dict[str, str] = {}
    for curve in result.curves:
        x = [lambdas.index(point.lam) for point in curve.points]
        drawn = axes.errorbar(
            x, *_bars([p.attacked.mean for p in curve.points]), marker="o", markersize=3, capsize=2, label=_label(curve)
        )
        colour = colours.setdefault(curve.defender, drawn[0].get_color())
        if colour == drawn[0].get_color():
            worst = [100 * p.worst.mean.value for p in curve.points]
            axes.plot(x, worst, "--", color=colour, alpha=0.6, label=f"{curve.defender}, worst case of RDP-1")
        found = [(i, printed(curve.defender, attacker_of(curve), p.lam)) for i, p in zip(x, curve.points, strict=True)]
        there = [(i, 100 * p.value) for i, p in found if p is not None]
        if there:
            axes.plot(*zip(*there, strict=True), "x", color=drawn[0].get_color())
    axes.set(xlabel="lambda, in 1/255", ylabel="accuracy in % (x: printed in the paper)", title=result.title)
    axes.set_xticks(range(len(lambdas)), [str(lam) for lam in lambdas])
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small")
    return figure


def _reliability(result: FigureResult, make: Any) -> Any:
    """A diagram for each defender (row) and lambda (column), with its ECE."""
    rows, columns = len(result.curves), max(len(curve.points) for curve in result.curves)
    figure = make(figsize=(2 * columns, 2.1 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for curve, line in zip(result.curves, grid, strict=True):
        for point, axes in zip(curve.points, line, strict=False):
            if point.calibration is None:
                continue
            bins = [b for b in point.calibration.bins if b.accuracy is not None]
            axes.bar([b.low for b in bins], [b.accuracy for b in bins], width=1 / 15, align="edge", alpha=0.7)
            axes.plot([0, 1], [0, 1], "k:", linewidth=1)
            title = f"{curve.defender}, {point.lam}: ECE {100 * point.calibration.ece:.1f} %"
            axes.set_title(title, fontsize="x-small")
    figure.supxlabel("confidence")
    figure.supylabel("accuracy")
    return figure


def _bars(values: Sequence[Value]) -> tuple[list[float], list[list[float]]]:
    """Heights in percent and their error bars downwards and upwards."""
    down = [100 * max(0.0, v.value - v.low) for v in values]
    up = [100 * max(0.0, v.high - v.value) for v in values]
    return [100 * v.value for v in values], [down, up]


def _label(curve: CurveResult) -> str:
    return f"{curve.defender}: {describe(curve)}"


def _calibrated(curves: Sequence[CurveResult]) -> bool:
    return any(point.calibration for curve in curves for point in curve.points)
