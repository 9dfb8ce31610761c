"""``sap-art doctor``: what this machine has."""

from __future__ import annotations

import typer

from sap_art.commands.common import CORE_INCOMPLETE, DONE


def doctor() -> int:
    """Say what is installed and found, what is missing, and the command that mends it; status 1 without the core."""
    from sap_art.doctor import examine

    report = examine()
    typer.echo(str(report))
    return DONE if report.complete else CORE_INCOMPLETE
