"""The tables, for the terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ratios import Case, Ratio, Row, Section, Spread
from rich.table import Table

SCHEMA = 1
ABSENT = "–"
VERSIONS = ("sap_art", "torch", "numba", "triton", "python")
QUICK_WARNING = "--quick: sizes too small and rounds too few for the targets; the verdicts say nothing"


def heading(facts: Mapping[str, Any]) -> list[str]:
    """Machine, versions, how to read: lines of text."""
    lines = [
        *origin(facts, VERSIONS),
        "contestants of a case take turns; a ratio is the median of the rounds' ratios; times are median (min..max)",
    ]
    return [*lines, QUICK_WARNING] if facts["quick"] else lines


def origin(facts: Mapping[str, Any], versions: Sequence[str]) -> list[str]:
    """Command, machine, the named versions and how the process was prepared: lines of text."""
    return [
        f"command: {facts['command']}",
        f"device: {facts['device']}; CPU cores {facts['cores']}, threads {facts['threads']}; {facts['platform']}",
        f"versions: {', '.join(f'{name} {facts[name] or ABSENT}' for name in versions)}",
        f"process: {facts['prepared']}",
    ]


def terminal(section: Section) -> Table | str:
    """The section as rich prints it; a section without rows is a sentence."""
    if not section.rows:
        return f"{section.title}: {section.note}"
    header, cells = _table(section)
    table = Table(title=section.title, title_justify="left", title_style="bold", caption=section.note)
    table.caption_justify = "left"
    for number, title in enumerate(header):
        table.add_column(title, justify="left" if number < 2 else "right")
    for number, row in enumerate(cells):
        last = number + 1 == len(cells) or bool(cells[number + 1][0])
        table.add_row(*row, end_section=last)
    return table


def write(stem: Path, facts: Mapping[str, Any], sections: Sequence[Section]) -> None:
    """``stem``.md and ``stem``.json."""
    content = {"schema": SCHEMA, "environment": facts, "sections": [asdict(section) for section in sections]}
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    stem.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    head = "\n".join(f"- {line}" for line in heading(facts))
    parts = ["# Speed", head, *(_markdown(section) for section in sections)]
    stem.with_suffix(".md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _markdown(section: Section) -> str:
    parts = [f"## {section.title}", section.note]
    if section.rows:
        header, cells = _table(section)
        rule = ["---", "---", *["---:"] * (len(header) - 2)]
        parts.append("\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *cells)))
    return "\n\n".join(parts)


def _table(section: Section) -> tuple[list[str], list[list[str]]]:
    """Header and cells; a case is named in the first of its rows."""
    titles = list(dict.fromkeys(ratio.title for row in section.rows for ratio in row.ratios))
    cells: list[list[str]] = []
    before: Case = {}
    for row in section.rows:
        cells.append(
            [
                "" if row.case == before else _case(row.case),
                row.name,
                _spread(row.value),
                *(_ratio(row, title) for title in titles),
            ]
        )
        before = row.case
    return ["case", "contestant", section.unit, *titles], cells


def _case(case: Case) -> str:
    return ", ".join(value if isinstance(value, str) else f"{key} = {value}" for key, value in case.items())


def _spread(spread: Spread) -> str:
    return f"{_number(spread.median)} ({_number(spread.low)}..{_number(spread.high)})"


def _ratio(row: Row, title: str) -> str:
    for ratio in row.ratios:
        if ratio.title == title:
            return _number(ratio.value.median) + _verdict(ratio)
    return ABSENT


def _verdict(ratio: Ratio) -> str:
    if ratio.target is None:
        return ""
    sign = "≥" if ratio.faster else "≤"
    return f" (target {sign} {ratio.target:g}: {'met' if ratio.met else 'not met'})"


def _number(value: float) -> str:
    """Three figures."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
