"""The command line: ``sap-art``. Torch is imported by the commands, so help comes at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sap_art import process
from sap_art.untrusted import visible

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code", help="The suite's or run's file may name code to run, and checkpoints anywhere: you trust it."
    ),
]

DONE, ATTACK_FAILED, BAD_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
CORE_INCOMPLETE = REFUSED = WORKER_DIED = NET_MISSING = STALE = 1


def main() -> None:
    """Run ``sap-art``; status 0 done, 1 as the command says (an attack failed), 2 bad input, 130, 143 by SIGTERM."""
    process.prepare()
    process.end_at_sigterm()
    try:
        status = app(standalone_mode=False)
    except typer.TyperException as error:
        typer.echo(f"sap-art: {visible(error)}; see sap-art --help", err=True)
        status = BAD_INPUT
    except ChildProcessError as error:
        typer.echo(f"sap-art: {visible(error)}", err=True)
        status = WORKER_DIED
    except (ValueError, OSError, ImportError) as error:
        typer.echo(f"sap-art: {visible(error)}", err=True)
        status = BAD_INPUT
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except process.Terminated:
        status = TERMINATED
    if status in (INTERRUPTED, TERMINATED):
        typer.echo("sap-art: interrupted; the same command goes on where it stopped", err=True)
    sys.exit(status if isinstance(status, int) else DONE)


@app.command()
def bench(
    output: Annotated[Path, typer.Option(help="Folder for records/, their sidecars and model_info/.")],
    suite: Annotated[str, typer.Option(help="Shipped suite by name, or FILE.toml.")] = "smoke",
    model: Annotated[
        str | None,
        typer.Option(
            help="Net by name, PACKAGE.MODULE:FUNCTION, FILE.py:FUNCTION or robustbench:ID; replaces the entries."
        ),
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="With --model: defence, such as sap:100 or sap:100@0-9; repeatable.")
    ] = None,
    tier: Annotated[str | None, typer.Option(help="Instead of the suite's: smoke, quick, full or audit.")] = None,
    data: Annotated[str | None, typer.Option(help="Data folder or FILE.npz; else SAP_ART_DATA, else bundled.")] = None,
    images: Annotated[int | None, typer.Option(help="First N test images.")] = None,
    eps: Annotated[str | None, typer.Option(help="Radius, such as 8/255.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes of one thread each; else one a core of the CPU. Results are the same."),
    ] = None,
    executor: Annotated[
        str, typer.Option(help="local: processes of this machine; ray: the cores or GPUs of a Ray cluster.")
    ] = "local",
    address: Annotated[
        str | None, typer.Option(help="HOST:PORT of the Ray cluster; else RAY_ADDRESS, else Ray on this machine alone.")
    ] = None,
    gpus_per_task: Annotated[float | None, typer.Option(help="Of a unit on Ray, above 0 and up to 1 (else).")] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what failed in an earlier run; else it stays failed.")
    ] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say what each flag saw, why, and what to do.")] = False,
    trust_code: TrustCode = False,
) -> int:
    """Attack every entry of a suite and say what it is worth: a table here, records in OUTPUT."""
    from dataclasses import replace

    import torch
    from rich.console import Console

    from sap_art import suites, table
    from sap_art.bench import EntryError, run_suite, with_entries
    from sap_art.devices import require_device
    from sap_art.distributed import chosen_cluster
    from sap_art.explain import explain as explanation
    from sap_art.progress import bar
    from sap_art.record import write_text

    chosen = suites.load(suite, trust_code=trust_code or model is not None)  # its entries are replaced then
    if model is not None:
        chosen = with_entries(chosen, model, policy or [])
    elif policy:
        raise ValueError("--policy needs --model: a suite names its own entries")
    given = {name: value for name, value in (("tier", tier), ("images", images), ("eps", eps)) if value is not None}
    chosen = replace(chosen, **given)
    cluster = chosen_cluster(executor, address, gpus_per_task)
    if cluster is not None:
        cluster.require(device)
    if require_device(device).type == "cpu":
        torch.set_num_threads(1)  # whatever the machine: the bits of a record depend on the threads
    console = Console()
    try:
        with bar(console) as watch:
            records = run_suite(
                chosen,
                output=output,
                device=device,
                source=data,
                workers=workers,
                cluster=cluster,
                retry_failed=retry_failed,
                watch=watch,
            )
    except EntryError as error:
        typer.echo(f"sap-art: {error}", err=True)
        return ATTACK_FAILED
    write_text(table.markdown(records), output / "table.md")
    console.print(table.terminal(records))
    if explain:
        text = "\n\n".join(map(explanation, records))
        console.print(f"\n{visible(text)}\n", markup=False, emoji=False, highlight=False)
    console.print(f"records: {output / 'records'}", highlight=False)
    errors = [f"{r.entry}: {a.id}: {a.error}" for r in records for a in r.attacks if a.error]
    for line in errors:
        typer.echo(f"sap-art: attack failed: {visible(line)}", err=True)
    return ATTACK_FAILED if any(record.verdict == "failed" for record in records) else DONE


@app.command()
def status(output: Annotated[Path, typer.Argument(help="OUTPUT of sap-art bench, while that is at work too.")]) -> int:
    """Say what of a run is done, running, failed and left, and how long that will take at most."""
    from sap_art.status import read_status

    typer.echo(str(read_status(output)))
    return DONE


@app.command()
def forecast(
    suite: Annotated[str, typer.Argument(help="Shipped suite by name, or FILE.toml.")],
    tier: Annotated[str | None, typer.Option(help="Instead of the suite's: smoke, quick, full or audit.")] = None,
    images: Annotated[int | None, typer.Option(help="First N test images.")] = None,
    gpus: Annotated[int, typer.Option(min=1, help="Devices that share the images.")] = 1,
    rate: Annotated[
        float | None, typer.Option(help="Passes a second of the machine that is meant; else this one is measured.")
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Of an hour of one device, in any currency.")] = None,
    data: Annotated[str | None, typer.Option(help="Data folder or FILE.npz; else SAP_ART_DATA, else bundled.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    trust_code: TrustCode = False,
) -> int:
    """Say what a suite will take if no image can be dropped; an upper bound, most images fall early."""
    from dataclasses import replace

    from sap_art import suites
    from sap_art.forecast import forecast_suite, summary

    chosen = suites.load(suite, trust_code=trust_code)
    given = {name: value for name, value in (("tier", tier), ("images", images)) if value is not None}
    chosen = replace(chosen, **given)
    found = forecast_suite(chosen, device=device, source=data, rate=rate)
    for entry in found:
        typer.echo(entry.line(gpus=gpus))
    devices = f"{gpus} x {device}" if rate is None else f"{gpus} of that rate"
    typer.echo(f"{chosen.name}, {chosen.images} images, on {devices}: {summary(found, gpus=gpus, price=price)}")
    return DONE


@app.command()
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


@app.command()
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


@app.command()
def game(
    records: Annotated[Path, typer.Argument(help="payoff.json, or the folder that holds it.")],
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
) -> int:
    """Say who should play what in the game of policies against attacks, and what randomising over policies buys."""
    from sap_art.game import analyse, describe, read

    payoffs, threat = read(records)
    typer.echo(describe(payoffs, threat, analyse(payoffs, seed=seed)))
    return DONE


@app.command()
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


@app.command()
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


@app.command()
def submit(
    entry: Annotated[str, typer.Argument(help="An entry's name, with --records, or its record FILE.json.")],
    to: Annotated[Path, typer.Option(help="New folder for the bundle.")],
    records: Annotated[Path | None, typer.Option(help="OUTPUT of sap-art bench that has the entry.")] = None,
    path: Annotated[
        list[str] | None,
        typer.Option(help="table, new-model, fixed-mask or external; repeatable; else all that are honest."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Hand in what is unreliable, with a footnote.")] = False,
    data: Annotated[str | None, typer.Option(help="Images of the run: folder or FILE.npz, as in bench.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    trust_code: TrustCode = False,
) -> int:
    """Write what can honestly be handed in for an entry, to our table and to RobustBench; status 1 if it is refused."""
    from sap_art.integrations.robustbench.submission import Refused, find_record
    from sap_art.integrations.robustbench.submission import submit as write_bundle
    from sap_art.models import Loader

    try:
        found = find_record(entry, records)
        bundle = write_bundle(
            found,
            to,
            paths=path or None,
            force=force,
            source=data,
            device=device,
            load_model=Loader(),
            trust_code=trust_code,
        )
    except Refused as refusal:
        typer.echo(f"sap-art: refused: {visible(refusal)}", err=True)
        return REFUSED
    for name, what in bundle.written.items():
        typer.echo(f"{bundle.folder / name}: {what}")
    for name, why in bundle.left_out.items():
        typer.echo(f"not {name}: {visible(why)}")
    return DONE


@app.command()
def site(
    records: Annotated[Path, typer.Option(help="Folder of records, such as OUTPUT/records of sap-art bench.")],
    output: Annotated[Path, typer.Option(help="Folder of the site; one that was built before is renewed.")],
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; status 1 if what is there is not what would be written.")
    ] = False,
) -> int:
    """Build the leaderboard, a static site that needs no network; the same records give the same bytes."""
    from rich.console import Console
    from rich.markup import escape

    from sap_art.site import build

    console = Console()
    with console.status("reading records") as status:
        files = build.render(records, watch=lambda entry: status.update(f"drawing {escape(entry)}"))
    if check:
        if differing := build.stale(files, output):
            typer.echo(f"sap-art: site is stale: {', '.join(differing[:5])}{' ...' if differing[5:] else ''}", err=True)
            return STALE
        typer.echo(f"{output} is up to date")
        return DONE
    build.write(files, output)
    size = sum(map(len, files.values())) / 1e6
    typer.echo(f"site: {output / 'index.html'} ({len(files)} files, {size:.1f} MB)")
    return DONE


@app.command()
def plot(
    record: Annotated[Path, typer.Argument(help="A record, FILE.json.")],
    output: Annotated[Path, typer.Option(help="Folder for the plots.")],
) -> int:
    """Draw the plots of one entry as PNG and SVG, for papers; those of its page in the site."""
    from sap_art.site.plots import write
    from sap_art.site.reading import read_images, read_record

    found = read_record(record)
    for path in write(found, read_images(record, found), output):
        typer.echo(str(path))
    return DONE


@app.command()
def doctor() -> int:
    """Say what is installed and found, what is missing, and the command that mends it; status 1 without the core."""
    from sap_art.doctor import examine

    report = examine()
    typer.echo(str(report))
    return DONE if report.complete else CORE_INCOMPLETE
