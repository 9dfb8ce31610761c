"""``sap-art submit``, ``site`` and ``plot``: what is shown of records, and handed in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sap_art.commands.common import DONE, REFUSED, STALE, TrustCode
from sap_art.untrusted import visible


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
