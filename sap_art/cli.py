"""The command line: ``sap-art``. Torch is imported by the commands, so help comes at once."""

from __future__ import annotations

import sys

import typer

from sap_art import process
from sap_art.commands.common import BAD_INPUT, DONE, INTERRUPTED, TERMINATED, WORKER_DIED
from sap_art.commands.leaderboard import plot, site, submit
from sap_art.commands.machine import doctor
from sap_art.commands.nets import corruptions, train, zoo
from sap_art.commands.paper import game, paper
from sap_art.commands.runs import bench, forecast, status
from sap_art.untrusted import visible

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
for _command in (bench, status, forecast, corruptions, train, game, paper, zoo, submit, site, plot, doctor):
    app.command()(_command)  # in the order in which help lists them


def main() -> None:
    """Run ``sap-art``; status 0 done, 1 as the command says (an attack failed), 2 bad input, 130, 143 by SIGTERM."""
    process.prepare()
    process.end_at_sigterm()
    try:
        ended = app(standalone_mode=False)
    except typer.TyperException as error:
        typer.echo(f"sap-art: {visible(error)}; see sap-art --help", err=True)
        ended = BAD_INPUT
    except ChildProcessError as error:
        typer.echo(f"sap-art: {visible(error)}", err=True)
        ended = WORKER_DIED
    except (ValueError, OSError, ImportError) as error:
        typer.echo(f"sap-art: {visible(error)}", err=True)
        ended = BAD_INPUT
    except (KeyboardInterrupt, typer.Abort):
        ended = INTERRUPTED
    except process.Terminated:
        ended = TERMINATED
    if ended in (INTERRUPTED, TERMINATED):
        typer.echo("sap-art: interrupted; the same command goes on where it stopped", err=True)
    sys.exit(ended if isinstance(ended, int) else DONE)
