"""``sap-art paper`` and ``game``: the figures and the game of the paper that proposed SAP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sap_art.commands.common import DONE, NET_MISSING


def paper(
    output: Annotated[Path, typer.Option(help="Folder for paper.md and figures/; one for all figures.")],
    figure: Annotated[list[str] | None, typer.Option(help="1a, 1b, 1c, 2, 3, 4, 5 or 6; repeatable; else all.")] = None,
    game: Annotated[
        int | None,
        typer.Option(
            help="Instead of figures, the game of section 3 at this lambda / 255: 1, 2, 4, 8, 16, 32 or 64; leaves "
            "game/lambda-N/payoff.json, which sap-art game reads."
        ),
    ] = None,
    net: Annotated[
        str | None, typer.Option(help="With --game: net of all its policies, dense (else), adv or dropout-RATE.")
    ] = None,
    images: Annotated[int | None, typer.Option(help="First N test images; else the budget's.")] = None,
    budget: Annotated[str, typer.Option(help="quick: 256 images, for two cores; full: all, for a GPU.")] = "quick",
    checkpoints: Annotated[
        Path | None, typer.Option(help="Folder of trained nets, before the zoo; else benchmarks/checkpoints.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Data folder or FILE.npz; else SAP_ART_DATA, else bundled.")] = None,
    seed: Annotated[int, typer.Option(help="Of attacks and draws.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
) -> int:
    """Compute the paper's figures, and beside its numbers and ours what an adaptive attacker makes of them.

    Status 1 if a line is left out, for its net has no checkpoint: the page names it, and the command that trains it.
    """
    from sap_art.paper.budgets import budget_named
    from sap_art.paper.command import draw, play

    if game is not None and figure:
        raise ValueError("--game computes no figure; leave out --figure")
    if game is None and net is not None:
        raise ValueError("--net needs --game: figures name their own nets")
    chosen = budget_named(budget).over(images)
    where: dict[str, Any] = {"output": output, "device": device, "data": data, "checkpoints": checkpoints}
    if game is not None:
        play(game, role=net or "dense", budget=chosen, seed=seed, **where)
        return DONE
    return DONE if draw(figure or [], budget=chosen, seed=seed, **where) else NET_MISSING


def game(
    records: Annotated[Path, typer.Argument(help="payoff.json, or the folder that holds it.")],
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
) -> int:
    """Say who should play what in the game of policies against attacks, and what randomising over policies buys."""
    from sap_art.game import analyse, describe, read

    payoffs, threat = read(records)
    typer.echo(describe(payoffs, threat, analyse(payoffs, seed=seed)))
    return DONE
