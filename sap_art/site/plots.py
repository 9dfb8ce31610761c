"""The plots of one record, from its numbers alone; for the page, and as files for papers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sap_art.per_image import PerImage
from sap_art.record import Record
from sap_art.site import drawing
from sap_art.site.drawing import CALM, percent, signed
from sap_art.table import ABSENT, attack_order, attack_title

FORMATS = ("png", "svg")
INSTALL = "plots need matplotlib: pip install 'sap-art[plots]'"
BUDGETS = {"steps": "steps", "draws": "draws of one gradient", "restarts": "restarts", "first_step": "first step size"}
WHERE = {"clean": "clean images", "adversarial": "worst points", "noise": "random noise"}


@dataclass(frozen=True)
class Plot:
    """A drawing with what it says in words and in numbers; ``size`` in inches, ``parts`` the heights of its panels."""

    name: str
    title: str
    says: str
    header: tuple[str, ...]
    rows: list[list[str]]
    size: tuple[float, float]
    draw: Callable[..., None]
    parts: tuple[float, ...] = (1,)


def plots_of(record: Record, images: PerImage | None) -> list[Plot]:
    """All that the record has numbers for, in the order of the page."""
    return [*_curves(record), *_attacks(record), *_gradient(record), *_calibration(record), *_strip(images)]


def write(record: Record, images: PerImage | None, folder: Path) -> list[Path]:
    """Write ``folder/<plot>.png`` and ``.svg`` for each; the same record gives the same bytes with one matplotlib.

    Raises:
        ImportError: without matplotlib.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for plot in plots_of(record, images):
        for kind in FORMATS:
            path = folder / f"{plot.name}.{kind}"
            with style(plot.name):
                no_date: dict[str, None] = {"Date": None} if kind == "svg" else {"Software": None}
                figure_of(plot).savefig(path, dpi=200, metadata=no_date)
            paths.append(path)
    return paths


def figure_of(plot: Plot) -> Any:
    """The plot drawn; within ``style`` when it is saved too."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=plot.size, layout="constrained")
    axes = figure.subplots(len(plot.parts), 1, squeeze=False, height_ratios=plot.parts)[:, 0]
    plot.draw(*axes)
    return figure


def style(salt: str) -> Any:
    """Matplotlib's settings within: calm, text as text, the same bytes each time."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ImportError(INSTALL) from error
    settings: dict[Any, Any] = {**CALM, "svg.hashsalt": salt}
    return mpl.rc_context(settings)


def _curves(record: Record) -> Iterator[Plot]:
    worst = record.metrics["T1"]
    if record.eps_curve:
        scale, unit = (255, "eps, in 1/255") if record.norm == "Linf" else (1, "eps")
        points = [(point.eps * scale, point.accuracy) for point in record.eps_curve]
        beside = {"clean": record.metrics["clean"], "worst": (record.eps * scale, worst)}
        yield Plot(
            "accuracy-eps",
            "Accuracy against eps",
            f"Accuracy under one short attack falls from {percent(points[0][1].value)} % at {points[0][0]:g} to "
            f"{percent(points[-1][1].value)} % at {points[-1][0]:g} ({unit}). The worst case over all attacks at "
            f"{record.eps * scale:g} is {percent(worst.value)} %.",
            (unit, "accuracy in %", "95 % interval"),
            [[f"{x:g}", percent(v.value), drawing.interval(v)] for x, v in points],
            (4.4, 2.7),
            partial(drawing.curve, points=points, unit=unit, **beside),
        )
    order = list(BUDGETS)
    place = {name: order.index(name) if name in order else len(order) for name in record.convergence or {}}
    for name, found in sorted((record.convergence or {}).items(), key=lambda item: (place[item[0]], item[0])):
        if not found:
            continue
        points, unit = [(point.value, point.accuracy) for point in found], BUDGETS.get(name, name)
        yield Plot(
            f"accuracy-{drawing.file_name(name)}",
            f"Accuracy against {unit}",
            f"Accuracy under the best attack is {percent(points[0][1].value)} % with {unit} {points[0][0]:g} and "
            f"{percent(points[-1][1].value)} % with {points[-1][0]:g}.",
            (unit, "accuracy in %", "95 % interval"),
            [[f"{x:g}", percent(v.value), drawing.interval(v)] for x, v in points],
            (4.4, 2.7),
            partial(drawing.curve, points=points, unit=unit),
        )


def _attacks(record: Record) -> Iterator[Plot]:
    found = sorted((a for a in record.attacks if a.accuracy or a.error), key=lambda a: attack_order(a.id))
    if not found:
        return
    there = [a for a in found if a.accuracy is not None]
    best = min(there, key=lambda a: a.accuracy.value if a.accuracy else 1.0) if there else None
    crashed = sum(a.error is not None for a in found)
    said = [] if best is None else [f"The most damaging is {attack_title(best.id)}, which leaves {_accuracy(best)} %."]
    said += [f"{crashed} crashed."] if crashed else []
    yield Plot(
        "attacks",
        "Accuracy under each attack by itself",
        " ".join([f"{len(found)} attacks.", *said]),
        ("attack", "accuracy in %", "95 % interval"),
        [[attack_title(a.id), _accuracy(a), drawing.interval(a.accuracy) if a.accuracy else ""] for a in found],
        (6.4, 0.55 + 0.22 * len(found)),
        lambda a: drawing.attacks(a, found, record.metrics["T1"]),
    )


def _accuracy(attack: Any) -> str:
    return "crashed" if attack.accuracy is None else percent(attack.accuracy.value)


def _gradient(record: Record) -> Iterator[Plot]:
    measures = {
        "split_half_cosine": "cosine between halves of the draws",
        "sign_agreement": "sign agreement",
        "dense_cosine": "cosine to the dense gradient",
        "difference_cosine": "cosine to finite differences",
        "zero": "share of zero gradients",
        "non_finite": "share not finite",
    }
    shown = {m: t for m, t in measures.items() if any(getattr(g, m) is not None for g in record.gradient.values())}
    if not shown:
        return
    rows = {e: [getattr(g, m) for m in shown] for e, g in sorted(record.gradient.items())}
    halves = [g.split_half_cosine for g in record.gradient.values() if g.split_half_cosine is not None]
    best = f" Gradients from separate draws agree best with a median cosine of {max(halves):.2f}." if halves else ""
    yield Plot(
        "gradient-signal",
        "Signal in the gradient",
        f"Estimators {', '.join(rows)}; medians over images.{best}",
        ("estimator", *shown.values(), "signal-to-noise ratio"),
        [
            [e, *(ABSENT if v is None else f"{v:.3f}" for v in values), _snr(record.gradient[e].snr)]
            for e, values in rows.items()
        ],
        (6.4, 0.75 + 0.28 * len(shown)),
        lambda a: drawing.gradient(a, list(shown.values()), rows),
    )


def _snr(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.3g}"


def _calibration(record: Record) -> Iterator[Plot]:
    for where in ("clean", "adversarial"):
        found = record.calibration.get(where)
        bins = [b for b in found.bins if b.confidence is not None and b.accuracy is not None] if found else []
        if found is None or not bins:
            continue
        yield Plot(
            f"reliability-{where}",
            f"Reliability on {WHERE[where]}",
            f"Expected calibration error {percent(found.ece)} %; mean confidence minus accuracy {signed(found.gap)} "
            f"points, mean of K = {found.draws} softmaxes.",
            ("confidence", "accuracy in %", "images"),
            [[percent(b.confidence or 0), percent(b.accuracy or 0), str(b.count)] for b in bins],
            (3.4, 3.5),
            partial(drawing.reliability, bins=bins),
            parts=(4, 1),
        )
    calibrated = {where: record.calibration.get(where) for where in WHERE}
    curves = {where: found.curve for where, found in calibrated.items() if found and found.curve}
    if curves:
        yield Plot(
            "ece-draws",
            "Calibration error against K",
            "Expected calibration error of the mean of K softmaxes: "
            + "; ".join(
                f"on {WHERE[w]} {percent(c[0].ece.value)} % at K = {c[0].draws}, "
                f"{percent(c[-1].ece.value)} % at K = {c[-1].draws}"
                for w, c in curves.items()
            )
            + ".",
            ("images", "K", "ECE in %", "95 % interval"),
            [
                [WHERE[w], str(p.draws), percent(p.ece.value), drawing.interval(p.ece)]
                for w, c in curves.items()
                for p in c
            ],
            (3.4, 3.5),
            lambda a: drawing.over_draws(a, {WHERE[w]: c for w, c in curves.items()}),
        )


def _strip(images: PerImage | None) -> Iterator[Plot]:
    if images is None:
        return
    shares = {"clean": images.clean.double().mean(0).tolist(), "worst point": images.worst.double().mean(0).tolist()}
    counted = {
        where: (sum(s == 1 for s in found), sum(0 < s < 1 for s in found), sum(s == 0 for s in found))
        for where, found in shares.items()
    }
    yield Plot(
        "images",
        "Right draws, image by image",
        "; ".join(
            f"{where}: {always} images right in every draw, {some} in some, {never} in none"
            for where, (always, some, never) in counted.items()
        )
        + ".",
        ("images", "right in every draw", "in some", "in none"),
        [[where, *map(str, numbers)] for where, numbers in counted.items()],
        (6.4, 0.5 + 2 * drawing.strip_height(len(shares["clean"]))),
        lambda top, below: drawing.strips(top, below, shares),
        parts=(1, 1),
    )
