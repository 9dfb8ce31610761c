"""The pages: templates filled with what records say. Every text is escaped; a page may load nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from sap_art.explain import EXPLANATIONS
from sap_art.flags import LEVELS
from sap_art.record import PROTOCOL
from sap_art.site.columns import COLUMNS, EXPORTED
from sap_art.site.drawing import percent, signed
from sap_art.site.exports import PAPERS, bib_entry
from sap_art.site.ranking import Ranking, setting_of
from sap_art.site.reading import Entry
from sap_art.site.rows import CONTROL, ENTRY, Row, raised

UNIT = 10_000
"""Paired differences in a page are whole multiples of 1 / UNIT."""
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
STYLE_SPACE = re.compile(r"\s*([{};])\s*|\s+(?=\s)")
SCRIPT_SPACE = re.compile(r"^(?:\s*//.*\n|\s+)", re.MULTILINE)
"""Lines that are a comment, and what lines begin with."""
AT_ONCE = 100
"""Rows that are drawn before anything else; the others follow as soon as the browser has time."""
NEVER_TWICE = ("rank", "defence", "net")
FILTERS = {"kind": "Kind", "defence": "Defence", "net": "Net", "verdict": "Verdict", "tier": "Tier", "eps": "eps"}
CONTROLS = "Controls, whose answer is known beforehand: they test the evaluation and have no rank"
VERDICT_WORDS = {
    "failed": "FAILED",
    "unreliable": "Unreliable",
    "warning": "Warning",
    "incomplete": "Not all checked",
    "no-known-failure": "No known failure",
}
VERDICT_SENTENCES = {
    "failed": "An attack crashed, so nothing says what it would have found.",
    "unreliable": "At least one check says that these numbers cannot be trusted.",
    "warning": "The numbers stand, and what is flagged belongs beside them.",
    "incomplete": "No check failed, but this tier does not make all of them.",
    "no-known-failure": "All checks were made and none failed, which does not mean that the defence is robust.",
}


def index_page(entries: Sequence[Entry], rows: Sequence[Row], fragments: Mapping[str, str]) -> str:
    """The main table; ``fragments``: file name of a RobustBench table -> what it is of."""
    seen = {entry.slug: seen_of(entry) for entry in entries}
    groups: dict[str, list[tuple[int, Row, dict[str, str]]]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(_heading(row), []).append((number, row, seen[row["slug"]]))
    data = {
        "rows": rows,
        "columns": [{"key": c.key, "kind": c.kind} for c in COLUMNS],
        "csv": EXPORTED,
        "bib": {entry.slug: bib_entry(entry) for entry in entries},
        "papers": PAPERS,
        "at_once": AT_ONCE,
        "explanations": explanations(),
    }
    filters = [
        {
            "key": key,
            "label": label,
            "options": [(v, VERDICT_WORDS[v] if key == "verdict" else v) for v in _values(rows, key)],
        }
        for key, label in FILTERS.items()
    ]
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    where = f": {settings[0]}" if len(settings) == 1 else f" in {len(settings)} settings, each ranked by itself"
    return page(
        "index.html.j2",
        styles=("controls.css", "table.css"),
        scripts=("common.js", "table.js"),
        data=data,
        columns=COLUMNS,
        filters=filters,
        groups=list(groups.items()),
        fragments=list(fragments.items()),
        at_once=AT_ONCE,
        summary=f"{_counted(rows)}{where}.",
    )


def compare_page(
    entries: Sequence[Entry], rows: Sequence[Row], ranking: Ranking, drawn: Mapping[str, Sequence[Mapping[str, str]]]
) -> str:
    """Two to four entries side by side; ``drawn`` holds the plots of each entry."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(_heading(row), []).append(row)
    data = {
        "rows": rows,
        "columns": [{"key": c.key, "label": c.label, "kind": c.kind} for c in COLUMNS if c.key not in NEVER_TWICE],
        "verdicts": VERDICT_WORDS,
        "explanations": explanations(),
        "seen": {entry.slug: found for entry in entries if (found := seen_of(entry))},
        "unit": UNIT,
        "pairs": [_pairs(found) for found in ranking.pairs.values() if found],
    }
    return page(
        "compare.html.j2",
        styles=("controls.css", "plots.css", "compare.css"),
        scripts=("common.js", "compare.js"),
        data=data,
        groups=list(groups.items()),
        drawn=[(row["slug"], row["name"], drawn[row["slug"]]) for row in rows if row["slug"] in drawn],
    )


def page(
    template: str,
    *,
    styles: Sequence[str],
    scripts: Sequence[str],
    data: Mapping[str, Any],
    root: str = "",
    **values: Any,
) -> str:
    """One page: ``data`` for its scripts, ``values`` for its template, ``root`` the way to the site's folder."""
    style, theme = "\n".join(map(static, ("site.css", *styles))), static("theme.js")
    script = "\n".join(map(static, scripts)).replace('\n"use strict";', "")
    policy = {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": digest(style),
        "script-src": f"{digest(theme)} {digest(script)}",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return (
        _environment()
        .get_template(template)
        .render(
            **values,
            data=data,
            root=root,
            style=_as_is(style),
            theme=_as_is(theme),
            script=_as_is(script),
            policy="; ".join(f"{name} {source}" for name, source in policy.items()),
            protocol=PROTOCOL,
            verdicts=VERDICT_WORDS,
            explanations=explanations(),
        )
    )


@cache
def static(name: str) -> str:
    """A style sheet or script of the package without comments and indents; that of the table hides columns too."""
    text = (files("sap_art.site") / "static" / name).read_text(encoding="utf-8")
    if name == "table.css":
        text += "".join(f"#board.no-{column.key} .{column.key} {{ display: none; }}\n" for column in COLUMNS)
    if name.endswith(".css"):
        return STYLE_SPACE.sub(r"\1", COMMENT.sub("", text)).strip()
    return SCRIPT_SPACE.sub("", text)


def digest(text: str) -> str:
    """What a content security policy calls this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


def explanations() -> dict[str, dict[str, str]]:
    """What is to be said of each flag."""
    return {code: {"level": LEVELS[code], "why": e.why, "remedy": e.remedy} for code, e in EXPLANATIONS.items()}


def seen_of(entry: Entry) -> dict[str, str]:
    """The evidence of the flags that were raised."""
    return {flag.code: flag.evidence for flag in raised(entry.record)}


def ranked_beside(entry: Entry, entries: Sequence[Entry], ranking: Ranking) -> int:
    """How many entries have a rank in its setting."""
    setting = setting_of(entry.record)
    return sum(e.slug in ranking.rank and setting_of(e.record) == setting for e in entries)


def _pairs(found: Mapping[tuple[str, str], Any]) -> dict[str, Any]:
    """Names in order, then value, low and high of the pairs (0, 1), (0, 2), ... in multiples of 1 / UNIT."""
    names = sorted({name for pair in found for name in pair})
    ordered = [found[a, b] for i, a in enumerate(names) for b in names[i + 1 :]]
    return {"names": names, "units": [_unit(number) for estimate in ordered for number in estimate]}


def _unit(number: float) -> int:
    """Rounded, but never to 0: an interval that leaves 0 out still does."""
    return round(number * UNIT) or (number > 0) - (number < 0)


def _heading(row: Row) -> str:
    return row["setting"] if row["kind"] == ENTRY else f"{CONTROLS}: {row['setting']}"


def _counted(rows: Sequence[Row]) -> str:
    """``16 entries and 15 controls``."""
    controls = sum(row["kind"] == CONTROL for row in rows)
    entries = len(rows) - controls
    said = [f"{entries} {'entry' if entries == 1 else 'entries'}"] if entries else []
    said += [f"{controls} {'control' if controls == 1 else 'controls'}"] if controls else []
    return " and ".join(said)


def _values(rows: Sequence[Row], key: str) -> list[str]:
    return sorted({row[key] for row in rows})


def _as_is(text: str) -> Any:
    from markupsafe import Markup

    if "</" in text:
        raise ValueError("a script or style sheet of a page must not close its element")
    return Markup(text)


@cache
def _environment() -> Any:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise ImportError("the site needs jinja2: pip install 'sap-art[site]'") from error
    made = Environment(
        loader=PackageLoader("sap_art.site"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["percent"] = percent
    made.filters["signed"] = signed
    made.filters["thousands"] = lambda number: f"{number:,.0f}"
    return made
