"""The evaluator on trial: runs the controls and says whether what came out is what had to.

    python benchmarks/controls/run.py --output DIR [--images N] [--tier smoke]

From the repository's root. Interrupted, the same command goes on. Writes controls.md and controls.json beside the
records. Exit status: 0 nothing is missed, 1 something is, 2 bad input, as for sap-art.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from suite import control, load

from sap_art.process import prepare

if TYPE_CHECKING:
    from expectations import Result

    from sap_art.suites import Suite


def main() -> int:
    arguments = parse()
    prepare()  # before torch is loaded, as in the command line of sap-art
    try:
        results = run(arguments.output, images=arguments.images, tier=arguments.tier)
    except (ValueError, OSError) as error:
        print(f"controls: {error}", file=sys.stderr)
        return 2
    return 1 if any(result.missed for result in results) else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run the controls of RDP-1 and compare with what must come out.")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--images", type=int, metavar="N", help="first N test images; default: the suite's")
    parser.add_argument("--tier", help="default: the suite's")
    return parser.parse_args()


def run(output: Path, *, images: int | None, tier: str | None) -> list[Result]:
    """Evaluate the controls that can be, compare, print and write the table."""
    from dataclasses import asdict

    import torch
    from expectations import Results, judge
    from rich.console import Console

    from sap_art.bench import run_suite
    from sap_art.progress import bar
    from sap_art.record import write_json

    suite, expected = load(images=images, tier=tier)
    torch.set_num_threads(1)  # each of the processes, as in sap-art bench
    with bar(Console(stderr=True)) as watch:
        records = run_suite(suite, output=output, workers=None, watch=watch)
    found = {control(entry.model): record for entry, record in zip(suite.entries, records, strict=True)}
    results = [judge(name, e, found, tier=suite.tier) for name, e in expected.items()]
    text = markdown(suite, results)
    (output / "controls.md").write_text(text, encoding="utf-8")
    written = Results(
        suite.name,
        tier=suite.tier,
        dataset=suite.dataset,
        images=suite.images,
        norm=suite.norm,
        eps=suite.threat().eps,
        seed=suite.seed,
        results=results,
    )
    write_json(asdict(written), output / "controls.json")
    print(text)
    return results


def markdown(suite: Suite, results: list[Result]) -> str:
    """A line a control, what is missed below."""
    head = f"Controls at tier {suite.tier}: {suite.images} images, {suite.norm} eps = {suite.eps}, seed {suite.seed}."
    rows = [f"| {r.control} | {r.expected} | {r.found} | {r.state} |" for r in results]
    table = ["| control | expected | found | |", "| --- | --- | --- | --- |", *rows]
    missed = [f"- {r.control}: {text}. Expected because: {r.why}" for r in results for text in r.missed]
    return "\n".join([head, "", *table, *(["", "Not met:", "", *missed] if missed else [])]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
