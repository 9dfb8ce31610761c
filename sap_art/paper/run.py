"""Computes figures of the paper: everything checked first, each figure on disk as soon as it is there."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from sap_art import __version__, data
from sap_art.bench import Watch
from sap_art.devices import require_device, same_each_time
from sap_art.paper.budgets import Budget
from sap_art.paper.figures import FIGURES, Curve, Figure, figure_named
from sap_art.paper.nets import Absent, Net, find_net, roles_of
from sap_art.paper.page import page
from sap_art.paper.printed import PRINTED
from sap_art.paper.results import (
    CurveResult,
    Difference,
    FigureResult,
    MissingCurve,
    NetInfo,
    PointResult,
    Settings,
)
from sap_art.paper.scores import more
from sap_art.paper.work import WORST, Work
from sap_art.randomness import derive_seed
from sap_art.record import DataInfo, write_text
from sap_art.store import Store


def run_figures(
    names: list[str],
    *,
    budget: Budget,
    seed: int,
    output: Path,
    device: str,
    source: str | None,
    checkpoints: Path | None = None,
    watch: Watch | None = None,
) -> list[FigureResult]:
    """Compute figures and leave ``figures/<name>.json`` and ``paper.md``, of all figures there, in ``output``.

    A second call with the same arguments goes on where the first stopped; other figures, or a net that has been trained
    meanwhile, go into the same folder. A curve whose net is missing is listed with the command that trains it.

    Args:
        names: of ``FIGURES``; none for all.
        checkpoints: where nets are looked for before the zoo, as ``find_net`` has it.
        source: of the images, as for ``data.load``.

    Raises:
        ValueError: unknown figure, bad images, nets or device, or an output folder of another run, or with another
            figure of nets that have other weights by now; before any work.
        FileNotFoundError: no such folder of checkpoints.
    """
    figures = [figure_named(name) for name in names or FIGURES]
    found = {role: find_net(role, checkpoints=checkpoints) for role in roles_of(figures)}
    nets = {role: net for role, net in found.items() if isinstance(net, Net)}
    with open_work(
        nets, budget=budget, seed=seed, output=output, device=device, source=source, watch=watch or Watch()
    ) as (work, settings):
        _require_same_nets(_others(work.store.root, {figure.name for figure in figures}), nets)
        work.announce_all([curve for figure in figures for curve in figure.curves if curve.defender.role in nets])
        return [_finish(figure, work, found, settings) for figure in figures]


@contextmanager
def open_work(
    nets: dict[str, Net], *, budget: Budget, seed: int, output: Path, device: str, source: str | None, watch: Watch
) -> Generator[tuple[Work, Settings]]:
    """The images and nets of a run on its device, with the store in ``output``, and the settings it is kept under.

    Within, the store is this run's alone, and cuDNN takes the same algorithms each time.

    Raises:
        ValueError: bad images or device, or an output folder of another run, or in use.
    """
    where = require_device(device)
    x, y = data.load("cifar10", n=budget.images, source=source)
    info = DataInfo(set=data.set_name("cifar10", source=source), n=len(x), ids_sha256=data.ids_sha256(x, y))
    spent = {**asdict(budget), "lambdas": list(budget.lambdas)}
    settings = Settings(spent, info, seed, where.type, __version__)
    with (
        Store.open(output, _manifest(settings), tell=watch.note) as store,
        same_each_time(),
    ):
        for net in nets.values():
            net.module.to(where)
        yield Work(nets, x.to(where), y.to(where), budget, seed, store, watch), settings


def _finish(figure: Figure, work: Work, found: dict[str, Net | Absent], settings: Settings) -> FigureResult:
    result = _compute(figure, work, found, settings)
    result.write(work.store.root / "figures")
    write_text(page(_others(work.store.root, set())), work.store.root / "paper.md")
    return result


def _others(root: Path, names: set[str]) -> list[FigureResult]:
    """The figures in ``root`` that are not among ``names``, in the paper's order."""
    paths = [root / "figures" / f"{name}.json" for name in FIGURES if name not in names]
    return [FigureResult.read(path) for path in paths if path.exists()]


def _require_same_nets(results: list[FigureResult], nets: dict[str, Net]) -> None:
    """One page has one net a role: raise ValueError for a figure of a net that has been trained anew since."""
    for result in results:
        for net in result.nets:
            if net.role in nets and nets[net.role].sha256 != net.weights_sha256:
                raise ValueError(
                    f"figure {result.figure} is there already, with other weights of {net.name}; compute it again too, "
                    f"with --figure {result.figure}, or choose another --output"
                )


def _compute(figure: Figure, work: Work, found: dict[str, Net | Absent], settings: Settings) -> FigureResult:
    curves = [curve for curve in figure.curves if curve.defender.role in work.nets]
    absent = {curve.defender: found[curve.defender.role] for curve in figure.curves if curve not in curves}
    return FigureResult(
        figure=figure.name,
        title=figure.title,
        settings=settings,
        nets=[net_info(role, work.nets[role]) for role in dict.fromkeys(curve.defender.role for curve in curves)],
        curves=[_curve(curve, figure, work) for curve in curves],
        differences=_differences(curves, work),
        missing=[MissingCurve(d.name, n.name, n.command) for d, n in absent.items() if isinstance(n, Absent)],
    )


def _curve(curve: Curve, figure: Figure, work: Work) -> CurveResult:
    scores = work.scores(curve.defender, curve.attacker)
    images = len(scores.labels)
    worst = work.scores(curve.defender, WORST).first(images)
    points: list[PointResult] = []
    for lam in scores.right:
        seed = derive_seed(work.seed, "interval", curve.defender.name, images, lam)  # clean is clean, whatever follows
        calibration = scores.calibration(lam, seed=seed) if figure.calibration else None
        points.append(PointResult(lam, scores.score(lam, seed=seed), worst.score(lam, seed=seed), calibration))
    return CurveResult(
        defender=curve.defender.name,
        net=work.nets[curve.defender.role].name,
        policy=curve.defender.policy or "none",
        attack=curve.attacker.kind,
        gradient=curve.attacker.source,
        gradient_draws=curve.attacker.draws,
        random=not work.model(curve.defender).deterministic,
        images=images,
        report_draws=len(next(iter(scores.right.values()))),
        points=points,
    )


def _differences(curves: list[Curve], work: Work) -> list[Difference]:
    """Those of which the paper prints a number."""
    by_name: dict[str, list[Curve]] = {}
    for curve in curves:
        by_name.setdefault(curve.defender.name, []).append(curve)
    found: list[Difference] = []
    for p in (p for p in PRINTED if p.minus is not None):
        first = [c for c in by_name.get(p.defender, []) if c.attacker == p.attacker]
        second = by_name.get(p.minus or "", [])
        if first and second and p.lam in work.budget.lambdas and second[0].attacker.kind == p.attacker.kind:
            ours, other = (work.scores(c.defender, c.attacker) for c in (first[0], second[0]))
            seed = derive_seed(work.seed, "difference", p.defender, p.lam)
            found.append(Difference(p.defender, str(p.minus), p.lam, more(ours, other, p.lam, seed=seed)))
    return found


def net_info(role: str, net: Net) -> NetInfo:
    """What results say of a net."""
    return NetInfo(
        role=role,
        name=net.name,
        weights_sha256=net.sha256,
        accuracy=net.accuracy,
        test_images=net.test_images,
        recipe=net.recipe,
        epochs=net.epochs,
        schedule=net.schedule,
        instead_of=net.instead_of,
    )


def _manifest(settings: Settings) -> dict[str, Any]:
    """What must be the same for finished work to be taken up again; nets are in the units' keys by their weights."""
    return {"command": "paper", **asdict(settings), "threads": torch.get_num_threads()}
