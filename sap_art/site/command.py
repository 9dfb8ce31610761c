"""The command that makes a record again."""

from __future__ import annotations

import json
import shlex
from typing import NamedTuple

from sap_art.data import CLASS_NAMES
from sap_art.integrations.robustbench.export import eps_text
from sap_art.record import Record
from sap_art.suites import SuiteEntry, parse_eps

SUITE = "suite.toml"


class Command(NamedTuple):
    """What to type, and the file that it needs if the record's settings have no options."""

    line: str
    suite: str | None = None


def command_of(record: Record) -> Command:
    """The command whose run gives this record to the byte, on one device type and thread count.

    A net of the user's own is named as the record names it: without the folder in which it lies.
    """
    policy = _policy(record)
    own = record.data.set not in CLASS_NAMES
    data = ["--data", "FILE.npz"] if own else []
    if record.norm != "Linf" or record.seeds.get("base", 0) != 0:
        return Command(
            shlex.join(["sap-art", "bench", "--suite", SUITE, *data, "--output", "DIR"]), _suite(record, policy)
        )
    defended = [] if policy is None else ["--policy", policy]
    settings = ["--tier", record.tier, "--images", str(record.data.n), "--eps", _eps(record.eps)]
    parts = ["sap-art", "bench", "--model", record.model.name, *defended, *settings, *data, "--output", "DIR"]
    return Command(shlex.join(parts))


def _policy(record: Record) -> str | None:
    """The policy that gave the entry its name, if one did; a model that is random by itself has none."""
    spec = record.defence.spec
    return spec if SuiteEntry(record.model.name, spec).name == record.entry else None


def _suite(record: Record, policy: str | None) -> str:
    rows = {
        "name": record.entry,
        "tier": record.tier,
        "images": record.data.n,
        "norm": record.norm,
        "eps": _eps(record.eps),
        "seed": record.seeds.get("base", 0),
    }
    entry = {"model": record.model.name, **({} if policy is None else {"policy": policy})}
    lines = [f"{key} = {json.dumps(value)}" for key, value in rows.items()]
    return "\n".join([*lines, "", "[[entries]]", *(f"{key} = {json.dumps(value)}" for key, value in entry.items()), ""])


def _eps(eps: float) -> str:
    text = eps_text(eps)
    return text if parse_eps(text) == eps else repr(eps)
