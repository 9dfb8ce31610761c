"""``sap-art train``, ``zoo`` and ``corruptions``: what nets there are, and how they do without an attacker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sap_art.commands.common import DONE


def train(
    arch: Annotated[str, typer.Option(help="Architecture, such as preact-resnet20.")],
    output: Annotated[Path, typer.Option(help="Folder for the checkpoint, its card and the state to resume from.")],
    recipe: Annotated[
        str,
        typer.Option(help="standard; the paper's: paper, dropout:RATE, adv; beyond it: fast (FGSM), madry (PGD)."),
    ] = "standard",
    data: Annotated[str | None, typer.Option(help="Folder with the training set; else SAP_ART_DATA.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's; one cycle of the rate.")] = None,
    seed: Annotated[int, typer.Option(help="Of initial weights, order, augmentation, dropout and attacks.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
) -> int:
    """Train a net and write its checkpoint with a card; interrupted, the same command goes on."""
    from rich.console import Console

    from sap_art.checkpoints import train_and_save
    from sap_art.progress import training_bar

    console = Console()
    with training_bar(console) as report:
        path = train_and_save(
            arch, recipe, output=output, source=data, epochs=epochs, seed=seed, device=device, report=report
        )
    console.print(path.with_suffix(".json").read_text(), highlight=False)
    return DONE


def zoo() -> int:
    """List the nets that can be named, RobustBench's too: checkpoint, accuracy, size, and what is missing."""
    from sap_art.integrations.robustbench import zoo_models
    from sap_art.integrations.robustbench.facts import checkpoint
    from sap_art.zoo import list_nets

    for net in list_nets():
        state = f"{net.bytes or 0:,} bytes" if net.present else "missing: train it with sap-art train"
        accuracy = "" if net.accuracy is None else f"{100 * net.accuracy:.2f} % clean, "
        typer.echo(f"{net.name}: {net.architecture}, {accuracy}{state}")
    for model in zoo_models().values():
        path = checkpoint(model.id)
        files = list(path.parent.glob(f"{path.name}*"))
        state = f"{sum(file.stat().st_size for file in files):,} bytes" if files else f"missing: {path}"
        accuracy = f"{100 * model.clean:.2f} % clean, {100 * model.autoattack:.2f} % under AutoAttack"
        size = f"{model.parameters / 1e6:.1f} M parameters, {model.sites} activations"
        typer.echo(f"robustbench:{model.id}: {model.architecture}, {accuracy}, {size}, {state}")
    return DONE


def corruptions(
    model: Annotated[
        str, typer.Option(help="Net by name, PACKAGE.MODULE:FUNCTION, FILE.py:FUNCTION or robustbench:ID.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for corruptions/ and model_info/; that of bench will do.")],
    policy: Annotated[str | None, typer.Option(help="Defence, such as sap:100 or sap:100@0-9.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder with CIFAR-10-C; else three corruptions that are one formula, a check.")
    ] = None,
    images: Annotated[int | None, typer.Option(help="First N test images; else 10,000, or 64 in the check.")] = None,
    draws: Annotated[int, typer.Option(help="Fresh draws an image; one if nothing is random.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
) -> int:
    """Accuracy on CIFAR-10-C: corruptions_acc, 15 corruptions at 5 severities; without its files, a check."""
    from sap_art import corruptions as corrupted
    from sap_art.integrations.robustbench.corruptions import export_corruptions
    from sap_art.models import Loader

    inputs = corrupted.prepare(model, policy, source=data, images=images, seed=seed, device=device, load_model=Loader())
    record = corrupted.run_corruptions(inputs, draws=draws, seed=seed, output=output, announce=typer.echo)
    typer.echo(str(record))
    if record.published:
        typer.echo(f"corruptions_acc: {export_corruptions(record, output)}")
    return DONE
