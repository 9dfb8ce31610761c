"""Fills the committed leaderboard from runs, and builds its site.

    sap-art bench --suite benchmarks/suites/leaderboard.toml --output DIR
    python benchmarks/controls/run.py --tier quick --output DIR
    python benchmarks/leaderboard/collect.py DIR [DIR ...] [--to leaderboard]

From the repository's root. What the runs hold of the two suites replaces ``records`` and ``model_info`` there, with
``controls.toml``, which says what is known of each control; the site says of them that they are no submissions.
Prints what is there and what is missing. Exit status: 0 done, 2 bad input and nothing changed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks" / "controls"))  # its suite and what is written about each control

from expectations import read as read_expectations  # noqa: E402
from suite import EXPECTATIONS, SUITE, control  # noqa: E402

from sap_art import suites  # noqa: E402
from sap_art.integrations.robustbench import export  # noqa: E402
from sap_art.per_image import SUFFIX  # noqa: E402
from sap_art.site import build  # noqa: E402
from sap_art.site.reading import CONTROLS, RUN, read_folder, read_record  # noqa: E402
from sap_art.tiers import TIERS  # noqa: E402

ENTRIES = ROOT / "benchmarks" / "suites" / "leaderboard.toml"
LOWEST = "quick"
FOLDERS = ("records", "model_info")


def main() -> int:
    parser = argparse.ArgumentParser(description="Fill the committed leaderboard from runs and build its site.")
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="DIR", help="--output of sap-art bench, or of the controls"
    )
    parser.add_argument("--to", type=Path, default=ROOT / "leaderboard", metavar="DIR", help="default: leaderboard")
    arguments = parser.parse_args()
    try:
        missing = collect(arguments.runs, to=arguments.to)
    except (ValueError, OSError) as error:
        print(f"collect: {error}", file=sys.stderr)
        return 2
    there = len(read_folder(arguments.to / "records"))
    print(f"{there} records in {arguments.to}; missing: {', '.join(missing) or 'none'}")
    return 0


def collect(runs: list[Path], *, to: Path) -> list[str]:
    """Copy what ``runs`` have of the two suites to ``to``, build ``to/site``, and say which entries no run has.

    Raises:
        ValueError: no records, an invalid one, one below the tier quick, or one entry in two runs; nothing is changed.
    """
    controls, wanted = known(), [entry.name for entry in suites.load(str(ENTRIES), trust_code=True).entries]
    found = records_of(runs, [*wanted, *controls])
    with TemporaryDirectory(dir=to.parent) as folder:
        fresh = Path(folder)
        for path in found.values():
            _copy(path, fresh / "records")
            export(read_record(path), fresh)
        lines = [
            f"{json.dumps(name)} = {json.dumps(text, ensure_ascii=False)}\n"
            for name, text in controls.items()
            if name in found
        ]
        (fresh / "records" / CONTROLS).write_text("".join(lines), encoding="utf-8")
        files = build.render(fresh / "records")
        for name in FOLDERS:
            shutil.rmtree(to / name, ignore_errors=True)
            shutil.move(fresh / name, to / name)
    build.write(files, to / "site")
    return [name for name in (*wanted, *controls) if name not in found]


def known() -> dict[str, str]:
    """The controls' entries, and what is written about each."""
    expected = read_expectations(EXPECTATIONS)
    entries = suites.load(str(SUITE), trust_code=True).entries
    return {entry.name: " ".join(expected[control(entry.model)].why.split()) for entry in entries}


def records_of(runs: list[Path], wanted: list[str]) -> dict[str, Path]:
    """The wanted records that runs hold, by entry; raises ValueError for one that cannot be taken."""
    found: dict[str, Path] = {}
    for run in runs:
        paths = sorted(p for p in (run / "records").glob("*.json") if not p.name.endswith(RUN))
        if not paths:
            raise ValueError(f"no records in {run / 'records'}")
        for path in paths:
            record = read_record(path)
            if record.entry not in wanted:
                continue
            if list(TIERS).index(record.tier) < list(TIERS).index(LOWEST):
                raise ValueError(f"{path} is of the tier {record.tier}; the leaderboard needs at least {LOWEST}")
            if record.entry in found:
                raise ValueError(f"{path}: {found[record.entry]} is a record of {record.entry} too")
            found[record.entry] = path
    if not found:
        raise ValueError(f"no run holds an entry of {ENTRIES.name} or {SUITE.name}")
    return found


def _copy(path: Path, folder: Path) -> None:
    """The record and what lies beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in (".json", RUN, SUFFIX):
        beside = path.with_name(path.stem + suffix)
        if beside.exists():
            shutil.copyfile(beside, folder / beside.name)


if __name__ == "__main__":
    sys.exit(main())
