"""What commands share: exit statuses, and the option to trust code."""

from __future__ import annotations

from typing import Annotated

import typer

DONE, ATTACK_FAILED, BAD_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
CORE_INCOMPLETE = REFUSED = WORKER_DIED = NET_MISSING = STALE = 1

TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code", help="The suite's or run's file may name code to run, and checkpoints anywhere: you trust it."
    ),
]
