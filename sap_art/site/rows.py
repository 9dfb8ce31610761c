"""The main table's rows: one dict an entry, the same for the page, the exports and the comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sap_art.flags import LEVELS
from sap_art.integrations.robustbench.export import eps_text
from sap_art.record import Flag, Record, Value
from sap_art.site.ranking import Ranking, setting_of
from sap_art.site.reading import Entry

DIGITS = 6
UNNAMED = {"foreign": "own noise", "none": "none"}
AUTOATTACK = ("autoattack-rand", "autoattack-standard")

ENTRY, CONTROL = "entry", "control"

Row = dict[str, Any]


def rows_of(entries: Sequence[Entry], ranking: Ranking) -> list[Row]:
    """All rows: settings in their order, then by rank, then by worst case; without a rank last, then controls."""
    rows = [_row(entry, ranking) for entry in entries]
    order = {entry.slug: setting_of(entry.record).order for entry in entries}

    def place(row: Row) -> tuple[Any, ...]:
        worst = row["worst_case"]["value"]
        return order[row["slug"]], row["kind"] == CONTROL, row["rank"] is None, row["rank"], -worst, row["slug"]

    return sorted(rows, key=place)


def raised(record: Record) -> list[Flag]:
    """The flags that were raised, those that make the evaluation unreliable first, else as the protocol has them."""
    codes = list(LEVELS)
    return sorted((f for f in record.flags if f.state == "raised"), key=lambda f: (f.level != "R", codes.index(f.code)))


def defence_of(record: Record) -> str:
    """What is random, as people say it."""
    return UNNAMED.get(record.defence.spec, record.defence.spec)


def name_of(record: Record) -> str:
    """The entry as a heading: ``preact-resnet20 with sap:100``."""
    net, defence = record.model.name, defence_of(record)
    return f"{net}, undefended" if defence == "none" else f"{net} with {defence}"


def passes(record: Record) -> int | None:
    """Forward and backward passes an image of all attacks; None if no attack has said."""
    said = [number for attack in record.attacks for number in (attack.forwards, attack.backwards) if number is not None]
    return round(sum(said)) if said else None


def transfer_gap(record: Record) -> float | None:
    """Accuracy under attacks through the defence minus under transfer; above 0 gradients are masked."""
    return next((flag.value for flag in record.flags if flag.code == "transfer-beats-white-box"), None)


def _row(entry: Entry, ranking: Ranking) -> Row:
    record, run = entry.record, entry.run or {}
    seconds = run.get("unit_seconds", run.get("seconds"))  # by the clock only where no more is known
    autoattack = next((a for a in record.attacks if a.id in AUTOATTACK and a.reported is not None), None)
    return {
        "slug": entry.slug,
        "setting": str(setting_of(record)),
        "rank": ranking.rank.get(entry.slug),
        "not_ranked": ranking.unranked.get(entry.slug),
        "entry": record.entry,
        "kind": ENTRY if entry.control is None else CONTROL,
        "name": name_of(record) if entry.control is None else f"{record.model.name}, a control",
        "defence": defence_of(record),
        "net": record.model.name,
        "architecture": record.model.architecture,
        "dataset": record.data.set,
        "images": record.data.n,
        "norm": record.norm,
        "eps": eps_text(record.eps),
        "tier": record.tier,
        "clean": _value(record.metrics["clean"]),
        "worst_case": _value(record.metrics["T1"]),
        "persistent_10": _value(record.metrics.get("T2@10")),
        "known_seed": _value(record.metrics.get("T3")),
        "transfer_gap": _rounded(transfer_gap(record)),
        "autoattack": None if autoattack is None else _rounded(autoattack.reported),
        "autoattack_version": None if autoattack is None else autoattack.id.removeprefix("autoattack-"),
        "ece_clean": _ece(record, "clean"),
        "ece_attacked": _ece(record, "adversarial"),
        "verdict": record.verdict,
        "flags": [flag.code for flag in raised(record)],
        "passes": passes(record),
        "seconds": seconds if isinstance(seconds, int | float) else None,
    }


def _ece(record: Record, where: str) -> dict[str, float] | None:
    found = record.calibration.get(where)
    if found is None:
        return None
    interval = (found.intervals or {}).get("ece")
    return {"value": _rounded(found.ece)} if interval is None else _value(interval)


def _value(value: Value | None) -> dict[str, float] | None:
    if value is None:
        return None
    return {"value": _rounded(value.value), "low": _rounded(value.low), "high": _rounded(value.high)}


def _rounded(number: float | None) -> Any:
    return None if number is None else round(number, DIGITS) + 0.0  # no minus zero
