"""What ``sap-art paper`` does, with a bar on the terminal: figures and their plots, or a game."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from sap_art.paper.budgets import Budget
from sap_art.paper.game import run_game
from sap_art.paper.plots import INSTALL, plot
from sap_art.paper.run import run_figures
from sap_art.progress import bar


def draw(
    figures: list[str],
    *,
    budget: Budget,
    seed: int,
    output: Path,
    device: str,
    data: str | None,
    checkpoints: Path | None,
) -> bool:
    """Compute figures, all if none is named, and plot them; whether there was a checkpoint for each line."""
    console = Console()
    with bar(console) as watch:
        results = run_figures(
            figures,
            budget=budget,
            seed=seed,
            output=output,
            device=device,
            source=data,
            checkpoints=checkpoints,
            watch=watch,
        )
    missing = [(result.figure, curve) for result in results for curve in result.missing]
    for name, curve in missing:
        text = f"sap-art: figure {name}: no {curve.defender}: no checkpoint of {curve.net}: {curve.command}"
        Console(stderr=True).print(text, soft_wrap=True, highlight=False, markup=False)
    if find_spec("matplotlib") is None:
        console.print(f"no plots: {INSTALL}; then the same command draws them", highlight=False, markup=False)
    else:
        for result in results:
            plot(result, output / "figures")
    console.print(f"page: {output / 'paper.md'}", highlight=False)
    return not missing


def play(
    game: int,
    *,
    role: str,
    budget: Budget,
    seed: int,
    output: Path,
    device: str,
    data: str | None,
    checkpoints: Path | None,
) -> None:
    """Compute the payoffs of the game within ``game`` / 255 of the net ``role``."""
    console = Console()
    with bar(console) as watch:
        payoffs = run_game(
            game,
            role=role,
            budget=budget,
            seed=seed,
            output=output,
            device=device,
            source=data,
            checkpoints=checkpoints,
            watch=watch,
        )
    console.print(f"payoffs: {payoffs}; who should play what: sap-art game {payoffs.parent}", highlight=False)
