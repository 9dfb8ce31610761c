"""What the tier ``full`` found on a few images, what it took, and what more images would take on one GPU.

    sap-art bench --suite full --images 32 --model preact-resnet20 --policy sap:100 --output DIR
    python benchmarks/full/page.py --run DIR --output benchmarks/full/results

Copies the records, writes full.json with the seconds of every attack and check, and full.md from the two. ``--rates``
are passes a second of GPUs that nobody has measured here; hours are at most, for most images fall early.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sap_art import suites
from sap_art.forecast import Forecast, Staged, forecast_suite
from sap_art.record import Record, Value, write_json
from sap_art.record_parts import AttackResult
from sap_art.suites import SuiteEntry

IMAGES = (1000, 10_000)
RATES = (10_000.0, 50_000.0)
SHOWN = 10.0
"""Seconds from which on a check has a name of its own."""
BLOCK_AND_HASH = re.compile(r"(-[0-9]{4})?-[0-9a-f]{12}$")
COMMAND = "python benchmarks/full/page.py --run DIR --output benchmarks/full/results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="output of sap-art bench")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, metavar="R")
    given = parser.parse_args()
    found = [collect(path, given.run, given.output) for path in records(given.run)]
    forecasts = [line for rate in given.rates for line in forecast(found, rate=rate)]
    facts = {"entries": [entry for _, entry in found], "forecasts": forecasts}
    write_json(facts, given.output / "full.json")
    (given.output / "full.md").write_text(page(facts, [record for record, _ in found]), encoding="utf-8")


def records(run: Path) -> list[Path]:
    """Those of a run; raises SystemExit if there are none."""
    paths = [path for path in sorted((run / "records").glob("*.json")) if not path.name.endswith(".run.json")]
    if not paths:
        raise SystemExit(f"no records in {run / 'records'}; give the output of sap-art bench")
    return paths


def collect(path: Path, run: Path, output: Path) -> tuple[Record, dict[str, Any]]:
    """A record, copied, and what its units took: by attack or check, the slowest first."""
    record, sidecar = Record.read(path), json.loads(path.with_suffix(".run.json").read_text(encoding="utf-8"))
    (output / "records").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, output / "records" / path.name)
    planned = json.loads((run / "work" / "plan.json").read_text(encoding="utf-8"))["entries"][record.entry]
    seconds, passes = Counter[str](), 0
    for name, unit in units(run / "work" / planned["place"]):
        seconds[name] += unit["seconds"]
        passes += unit["passes"]
    machine = {name: sidecar[name] for name in ("device", "threads", "workers", "torch", "kernel", "python")}
    took = {name: round(value, 1) for name, value in seconds.most_common()}
    facts = {
        "entry": record.entry,
        "model": record.model.name,
        "policy": record.defence.spec,
        "images": record.data.n,
    }
    return record, {**facts, "planned": planned["passes"], "passes": passes, "seconds": took, "machine": machine}


def units(place: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The stage of each unit, and what it took."""
    for path in sorted(place.rglob("*.run.json")):
        key = "-".join(path.relative_to(place).parts).removesuffix(".run.json")
        yield BLOCK_AND_HASH.sub("", key), json.loads(path.read_text(encoding="utf-8"))


def forecast(found: Sequence[tuple[Record, dict[str, Any]]], *, rate: float) -> Iterator[dict[str, Any]]:
    """Hours at most on one GPU that makes so many passes a second."""
    entries = [SuiteEntry(e["model"], None if e["policy"] == "none" else e["policy"]) for _, e in found]
    for images in IMAGES:
        suite = replace(suites.load("full"), entries=entries, images=images)
        for staged in forecast_suite(suite, device="cpu", source=None, rate=rate):
            yield hours(staged)


def hours(staged: Staged) -> dict[str, Any]:
    """As data."""
    found: Forecast = staged.forecast
    numbers = {"images": found.images, "passes": found.passes, "rate": found.rate}
    return {"entry": found.entry, **numbers, "hours": round(staged.hours(gpus=1), 2), "bytes": staged.bytes}


def page(facts: dict[str, Any], found: Sequence[Record]) -> str:
    """full.md."""
    entries = facts["entries"]
    machine = ", ".join(f"{name} {value}" for name, value in entries[0]["machine"].items())
    return "\n".join(
        [
            f"# The tier full on {entries[0]['images']} images",
            "",
            f"`{COMMAND}`; {machine}. Accuracy in %, with 95 % intervals.",
            "",
            *table(["entry", "clean", "worst case", "T2@10", "verdict", "raised", "not checked"], map(outcome, found)),
            *(line for pair in zip(found, entries, strict=True) for line in attacks(*pair)),
            "",
            "## One GPU",
            "",
            "Hours at most, if no image can be dropped, at rates that are assumed: no GPU was at hand. Of the passes "
            f"planned the runs above made {' and '.join(map(share_made, entries))}.",
            "",
            *table(["entry", "images", "passes", "passes a second", "hours", "GB"], map(at_most, facts["forecasts"])),
            "",
        ]
    )


def share_made(entry: dict[str, Any]) -> str:
    """In words."""
    return f"{100 * entry['passes'] / entry['planned']:.0f} % ({entry['entry']})"


def outcome(record: Record) -> list[str]:
    """A row of the first table."""
    codes = {state: [flag.code for flag in record.flags if flag.state == state] for state in ("raised", "not-checked")}
    numbers = [percent(record.metrics[name]) for name in ("clean", "T1", "T2@10")]
    return [record.entry, *numbers, record.verdict, *(", ".join(found) or "none" for found in codes.values())]


def attacks(record: Record, facts: dict[str, Any]) -> list[str]:
    """The section of one entry: what each attack's own points are worth, and what it took."""
    left = dict(facts["seconds"])
    rows = [[*row(a), f"{left.pop(a.id, 0):,.0f}"] for a in record.attacks]
    long = {name: seconds for name, seconds in left.items() if seconds >= SHOWN}
    checks = ", ".join(f"{name} {seconds:,.0f}" for name, seconds in long.items())
    others = f"{len(left) - len(long)} others {sum(left.values()) - sum(long.values()):,.0f} together"
    minutes = sum(facts["seconds"].values()) / 60
    return [
        "",
        f"## {record.entry}",
        "",
        f"{facts['passes']:,} passes, {minutes:.0f} minutes of one core in all.",
        "",
        *table(["attack", "accuracy at its points", "the library's own number", "seconds"], rows),
        "",
        f"Choices, scores and checks, seconds: {checks}, {others}.",
    ]


def row(attack: AttackResult) -> list[str]:
    """What one attack says."""
    reported = "" if attack.reported is None else f"{100 * attack.reported:.1f}"
    return [attack.id, attack.error or percent(attack.accuracy), reported]


def at_most(line: dict[str, Any]) -> list[str]:
    """A row of the last table."""
    counts = [f"{line[name]:,.0f}" for name in ("images", "passes", "rate")]
    return [line["entry"], *counts, f"{line['hours']:,.1f}", f"{line['bytes'] / 1e9:.2f}"]


def percent(value: Value | None) -> str:
    """With its interval."""
    return "-" if value is None else f"{100 * value.value:.1f} [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def table(head: Sequence[str], rows: Iterator[list[str]] | Sequence[list[str]]) -> list[str]:
    """In Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


if __name__ == "__main__":
    main()
