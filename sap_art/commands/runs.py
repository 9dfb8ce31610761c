"""``sap-art bench``, ``status`` and ``forecast``: a suite is run, looked at, or counted beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sap_art.commands.common import ATTACK_FAILED, DONE, TrustCode
from sap_art.untrusted import visible


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
        typer.Option(
            min=1,
            help="Processes of one thread each; else one a core of the CPU, or one a GPU for the device cuda. Results "
            "are the same.",
        ),
    ] = None,
    executor: Annotated[
        str, typer.Option(help="local: processes of this machine; ray: the cores or GPUs of a Ray cluster.")
    ] = "local",
    address: Annotated[
        str | None, typer.Option(help="HOST:PORT of the Ray cluster; else RAY_ADDRESS, else Ray on this machine alone.")
    ] = None,
    gpus_per_task: Annotated[float | None, typer.Option(help="Of a unit on Ray, above 0 and up to 1 (else).")] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume/--no-resume", help="Go on where an earlier run in OUTPUT stopped; else it must be new."),
    ] = True,
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
    from sap_art.store import require_new

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
    if not resume:
        require_new(output)
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


def status(output: Annotated[Path, typer.Argument(help="OUTPUT of sap-art bench, while that is at work too.")]) -> int:
    """Say what of a run is done, running, failed and left, and how long that will take at most."""
    from sap_art.status import read_status

    typer.echo(str(read_status(output)))
    return DONE


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
