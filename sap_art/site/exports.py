"""The table as CSV, JSON and BibTeX, and as RobustBench's own table: its columns, our rows."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from typing import Any

from sap_art.integrations.robustbench.export import eps_text, model_info
from sap_art.record import Record
from sap_art.site.columns import EXPORTED
from sap_art.site.reading import Entry
from sap_art.site.rows import Row

FORMULA = re.compile(r"[=+\-@\t\r]")
SPECIAL = {c: f"\\{c}" for c in "#$%&_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
SOFTWARE = """@software{sap_art,
  title = {{sap\\_art: Stochastic Activation Pruning and an evaluation of randomised defences}},
  author = {{The sap\\_art authors}},
  license = {MIT}
}"""
PAPER = """@inproceedings{dhillon2018stochastic,
  title = {Stochastic Activation Pruning for Robust Adversarial Defense},
  author = {Dhillon, Guneet S. and Azizzadenesheli, Kamyar and Lipton, Zachary C. and Bernstein, Jeremy and Kossaifi, Jean and Khanna, Aran and Anandkumar, Animashree},
  booktitle = {International Conference on Learning Representations},
  year = {2018},
  eprint = {1803.01442},
  archiveprefix = {arXiv}
}"""  # noqa: E501  one field, one line
PAPERS = (SOFTWARE, PAPER)


def csv_text(rows: Sequence[Row]) -> str:
    """Comma-separated; fractions as in records, absent ones empty, no text that a spreadsheet takes for a formula."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow([key if part in (None, "value") else f"{key}_{part}" for key, part in EXPORTED])
    writer.writerows([_cell(_part(row[key], part)) for key, part in EXPORTED] for row in rows)
    return buffer.getvalue()


def json_text(rows: Sequence[Row]) -> str:
    """The rows as they are."""
    return json.dumps(rows, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def bib_entry(entry: Entry) -> str:
    """One record as ``@misc``: what was measured, on what, with which result; the year if its run says when."""
    record, worst = entry.record, entry.record.metrics["T1"]
    title = f"{record.defence.spec} on {record.model.name}: evaluation of a random defence by {record.protocol}"
    kind = "Entry" if entry.control is None else "Control, no submission:"
    note = (
        f"{kind} {record.entry}; tier {record.tier}, {record.data.n} images of {record.data.set}, {record.norm} eps = "
        f"{eps_text(record.eps)}; worst-case accuracy {100 * worst.value:.1f} % "
        f"[{100 * worst.low:.1f}, {100 * worst.high:.1f}]; verdict: {record.verdict}"
    )
    fields = {"title": f"{{{tex(title)}}}", "author": r"{The sap\_art authors}", "note": tex(note)}
    finished = re.match(r"(\d{4})-", str((entry.run or {}).get("finished", "")))
    if finished:
        fields["year"] = finished[1]
    key = re.sub(r"[^A-Za-z0-9._-]", "-", entry.slug)
    return "\n".join([f"@misc{{{key},", *(f"  {name} = {{{text}}}," for name, text in fields.items()), "}"])


def bib_text(entries: Sequence[Entry]) -> str:
    """All entries, this software, and the paper of the defence that it is about."""
    return "\n\n".join([*map(bib_entry, entries), *PAPERS]) + "\n"


def tex(text: str) -> str:
    """A text in which TeX sees nothing but text."""
    return " ".join("".join(SPECIAL.get(c, c) for c in text).split())


def robustbench_fragments(records: Sequence[Record]) -> dict[str, str]:
    """File name -> RobustBench's ``<table>`` of the records of one set, norm and eps; highest worst case first."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("sap_art.integrations.robustbench", "")
    template = Environment(loader=loader, autoescape=True, undefined=StrictUndefined).get_template(
        "leaderboard.html.j2"
    )
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for record in sorted(records, key=lambda r: (-r.metrics["T1"].value, r.entry)):
        info = model_info(record)
        safe = {key: Text(value) if key in TEXTS else value for key, value in info.items()}
        groups.setdefault((record.data.set, record.norm, eps_text(record.eps)), []).append(safe)
    return {
        f"robustbench-{re.sub(r'[^A-Za-z0-9.]+', '-', '-'.join(key))}.html": template.render(
            dataset=key[0], threat_model=key[1], models=models, acc_field="autoattack_acc"
        )
        + "\n"
        for key, models in sorted(groups.items())
    }


TEXTS = ("name", "authors", "architecture", "footnote", "venue")
"""What is HTML already, in RobustBench's schema."""


class Text(str):
    """HTML as it is."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


def _part(value: Any, part: str | None) -> Any:
    return value if part is None or value is None else value.get(part)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.10g}"
    text = str(value)
    return f"'{text}" if isinstance(value, str) and FORMULA.match(text) else text
