"""The thresholds of RDP-1 that are choices, held against records of entries whose flags are known beforehand.

    python benchmarks/controls/calibrate.py --records DIR [DIR ...] --output DIR

The folders hold one record a file: those of the controls (``OUTPUT/records`` of run.py), and of suites if wanted.
Which entry must raise which flag is written in thresholds.toml. Writes calibration.md and calibration.json.
Exit status: 0 no threshold is wrong, 1 one does not separate, 2 bad input.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import expectations
import thresholds
from readings import RULES, Reading
from suite import EXPECTATIONS, HERE, SUITE, control
from thresholds import Finding

from sap_art import suites
from sap_art.record import Record, write_json

THRESHOLDS, PLANTED = HERE / "thresholds.toml", HERE.parent / "suites" / "thresholds.toml"


def main() -> int:
    arguments = parse()
    try:
        findings = run(arguments.records, output=arguments.output)
    except (ValueError, OSError) as error:
        print(f"calibrate: {error}", file=sys.stderr)
        return 2
    return 1 if any(finding.wrong for finding in findings) else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Hold the thresholds of RDP-1 against records.")
    parser.add_argument("--records", type=Path, required=True, nargs="+", action="extend", metavar="DIR")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    return parser.parse_args()


def run(folders: Sequence[Path], *, output: Path) -> list[Finding]:
    """Read, judge, print and write."""
    roles = thresholds.read(THRESHOLDS, expected=expectations.read(EXPECTATIONS), others=others())
    records = read(folders)
    findings = [thresholds.judge(code, roles[code], records) for code in RULES]
    text = markdown(records, findings)
    write_json({"records": settings(records), "flags": [asdict(f) for f in findings]}, output / "calibration.json")
    (output / "calibration.md").write_text(text, encoding="utf-8")
    print(text)
    return findings


def read(folders: Sequence[Path]) -> dict[str, Record]:
    """All records by entry, a control by its own name; raises ValueError for none, a damaged one or two of an entry."""
    short = short_names(SUITE) | short_names(PLANTED)
    found: dict[str, Record] = {}
    for folder in folders:
        paths = [path for path in sorted(folder.glob("*.json")) if not path.name.endswith(".run.json")]
        if not paths:
            raise ValueError(f"no records (*.json) in {folder}; give the folder records/ of a run")
        for path in paths:
            name = short.get(path.stem, path.stem)
            if name in found:
                raise ValueError(f"{path}: there is another record of {name}; give one of each entry")
            found[name] = Record.read(path)
    return found


def others() -> set[str]:
    """Entries that the lists may name beside the controls."""
    shipped = {entry.name for name in suites.shipped() for entry in suites.load(name).entries}
    return shipped | set(short_names(PLANTED).values())


def short_names(suite: Path) -> dict[str, str]:
    """The entries of a suite, each with the name that the lists have for it: a function's of models.py by itself."""
    entries = suites.load(str(suite), trust_code=True).entries
    return {e.name: control(e.model) if e.model.endswith(".py:" + control(e.model)) else e.name for e in entries}


def settings(records: Mapping[str, Record]) -> list[str]:
    """How many records there are of each tier, number of images and radius."""
    counts = Counter((r.tier, r.data.n, r.norm, r.eps) for r in records.values())
    return [f"{count} at tier {t}, {n} images, {norm} eps {eps:.4g}" for (t, n, norm, eps), count in counts.items()]


def markdown(records: Mapping[str, Record], findings: Sequence[Finding]) -> str:
    """A line a flag, below it what each entry says."""
    rows = (
        f"| {f.flag} | {f.threshold:g} {f.unit} | {_number(f.honest)} | {_number(f.planted)} | {_range(f)} "
        f"| {_number(f.margins[0])} / {_number(f.margins[1])} | {f.verdict} |"
        for f in findings
    )
    lines = [
        "# Thresholds of RDP-1 that are choices",
        "",
        f"Records: {'; '.join(settings(records))}.",
        "",
        "| flag | threshold | nearest that must not raise it | nearest that must | would separate | margins | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *rows,
    ]
    return "\n".join([*lines, *(line for finding in findings for line in _section(finding))]) + "\n"


def _section(finding: Finding) -> Iterator[str]:
    yield from ("", f"## {finding.flag}: {finding.verdict}", "", finding.why, "")
    if notes := list(_notes(finding)):
        yield from (*notes, "")
    yield f"| entry | | state | value [interval] | against {finding.threshold:g} |"
    yield "| --- | --- | --- | --- | --- |"
    for role, readings in finding.readings.items():
        for r in readings:
            yield f"| {r.entry} | {role} | {r.state} | {_interval(r)} | {_against(r)} |"


def _notes(finding: Finding) -> Iterator[str]:
    yield from (f"- Wrong: {text}" for text in finding.wrong)
    yield from (f"- Not measured, {role}: {', '.join(names)}" for role, names in finding.unmeasured.items() if names)


def _interval(reading: Reading) -> str:
    if reading.value is None or reading.numbers is None:
        return reading.evidence
    low, high = reading.numbers.low, reading.numbers.high
    interval = f"(at most {high:.3f})" if low is None else f"[{low:.3f}, {high:.3f}]"
    return f"{reading.value:.3f} {interval}"


def _against(reading: Reading) -> str:
    if reading.numbers is None:
        return "-"
    return _number(reading.numbers.number) + (", interval decides" if reading.numbers.by_interval else "")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value + 0.0:.3g}"  # no -0


def _range(finding: Finding) -> str:
    if finding.separating is None:
        return "none"
    low, high = finding.separating
    if low is None:
        return "any" if high is None else f"below {high:.3g}"
    return f"above {low:.3g}" if high is None else f"{low:.3g} to {high:.3g}"


if __name__ == "__main__":
    sys.exit(main())
