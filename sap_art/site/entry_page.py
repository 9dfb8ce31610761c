"""The page of one entry: its whole record, readable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor

from sap_art.data import CLASS_NAMES
from sap_art.explain import EXPLANATIONS, LEVEL_WORDS
from sap_art.per_image import PerImage
from sap_art.record import Calibration, Record, Value
from sap_art.site.command import command_of
from sap_art.site.drawing import percent, signed
from sap_art.site.exports import bib_entry
from sap_art.site.pages import VERDICT_SENTENCES, explanations, page, ranked_beside
from sap_art.site.pictures import GREY, change, data_uri
from sap_art.site.plots import WHERE
from sap_art.site.ranking import Ranking
from sap_art.site.reading import Entry
from sap_art.site.rows import Row
from sap_art.table import ABSENT, attack_order

FIGURES = (
    ("worst_case", "Worst case"),
    ("clean", "Clean"),
    ("persistent_10", "Persistent @10"),
    ("known_seed", "Known seed"),
    ("transfer_gap", "Transfer gap, points"),
    ("ece_clean", "ECE clean"),
    ("ece_attacked", "ECE attacked"),
    ("passes", "Passes an image"),
)
METRICS = {
    "clean": "clean images",
    "T1": "worst case, fresh draws",
    "T3": "known random numbers",
    "T4-transfer": "transfer from the deterministic counterpart",
    "T4-square": "queries: Square",
    "T4-hopskipjump": "queries: HopSkipJump",
    "noise": "random noise",
    "autoattack": "points of AutoAttack",
    "art-pgd": "points of PGD of ART",
    "paper": "points of the attack of the paper",
}
SECTIONS = {"attacks": "attacks", "gradient-signal": "gradient", "images": "images"}


def entry_page(
    entry: Entry, row: Row, entries: Sequence[Entry], ranking: Ranking, drawn: Sequence[dict[str, Any]]
) -> str:
    """The page of ``entry``; ``drawn`` are its plots."""
    record = entry.record
    command = command_of(record)
    examples = [] if entry.images is None else _examples(record, entry.images)
    data = {
        "slug": entry.slug,
        "bib": bib_entry(entry),
        "explanations": explanations(),
        "counts": None if entry.images is None else _counts(entry.images),
    }
    return page(
        "entry.html.j2",
        styles=("plots.css", "entry.css"),
        scripts=("common.js", "entry.js"),
        data=data,
        root="../",
        row=row,
        record=record,
        control=entry.control,
        ranked=ranked_beside(entry, entries, ranking),
        verdict_words=VERDICT_SENTENCES[record.verdict],
        level_words=LEVEL_WORDS,
        figures=[_figure(row, key, label) for key, label in FIGURES],
        flags=_flags(record),
        plots=_sections(drawn),
        missing=_missing(record),
        attacks=sorted(record.attacks, key=lambda a: attack_order(a.id)),
        calibration=[_calibration(where, record.calibration[where]) for where in WHERE if where in record.calibration],
        examples=examples,
        slopes=sorted({example["slope"] for example in examples}),
        grey=GREY / 255,
        reach_words="plus and minus eps" if record.norm == "Linf" else "the largest change",
        command=command,
        beside=_beside(record, command.line),
        environment=[(name, _listed(value)) for name, value in (entry.run or {}).items()],
        facts=_facts(record),
        metrics=[(name, _value(value), _words(name)) for name, value in sorted(record.metrics.items())],
        has_run=entry.run is not None,
    )


def _listed(value: object) -> object:
    return " and ".join(map(str, cast(list[object], value))) if isinstance(value, list) else value


def _figure(row: Row, key: str, label: str) -> dict[str, str]:
    value = row[key]
    if value is None:
        return {"key": key, "label": label, "text": ABSENT, "below": "not measured"}
    if key == "passes":
        below = "" if row["seconds"] is None else f"{row['seconds']:,.0f} s"
        return {"key": key, "label": label, "text": f"{value:,}", "below": below}
    if key == "transfer_gap":
        masked = "no masking seen" if value <= 0 else "above 0: look at the flags"
        return {"key": key, "label": label, "text": signed(value), "below": masked}
    below = f"[{100 * value['low']:.1f}, {100 * value['high']:.1f}]" if "low" in value else ""
    return {"key": key, "label": label, "text": f"{100 * value['value']:.1f}", "below": below}


def _flags(record: Record) -> dict[str, list[Any]]:
    found = sorted(record.flags, key=lambda flag: flag.level)
    return {s: [(f, EXPLANATIONS[f.code]) for f in found if f.state == s] for s in ("raised", "clear", "not-checked")}


def _sections(drawn: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    sections: dict[str, list[dict[str, Any]]] = {
        n: [] for n in ("curves", "attacks", "gradient", "calibration", "images")
    }
    for found in drawn:
        name = found["name"]
        curve = "curves" if name.startswith("accuracy-") else "calibration"
        sections[SECTIONS.get(name, curve)].append(found)
    return sections


def _missing(record: Record) -> str:
    """What the tier has not measured, and which one does."""
    lacks: list[str] = []
    if not record.eps_curve:
        lacks.append("Accuracy against eps is measured from the tier quick on")
    if not record.convergence:
        lacks.append("Accuracy against steps, draws and restarts is measured from the tier full on")
    return f"{'. '.join(lacks)}. This is the tier {record.tier}." if lacks else ""


def _calibration(where: str, found: Calibration) -> list[Any]:
    intervals, null, temperature = found.intervals or {}, found.null, found.temperature
    percents = {name: (percent(value.low), percent(value.high)) for name, value in intervals.items()}
    plain = {name: (f"{value.low:.3f}", f"{value.high:.3f}") for name, value in intervals.items()}

    def cell(text: str, interval: tuple[str, str] | None = None) -> tuple[str, str]:
        return text, "" if interval is None else f"[{interval[0]}, {interval[1]}]"

    return [
        WHERE[where],
        cell(str(found.draws)),
        cell(f"{100 * found.ece:.1f}", percents.get("ece")),
        (ABSENT, "") if null is None else (f"{100 * null.mean:.1f}", f"95 % below {100 * null.quantile:.1f}"),
        cell(ABSENT if null is None else f"{null.p_value:.2g}"),
        cell(ABSENT if found.squared_l2 is None else f"{found.squared_l2:.4f}", plain.get("squared_l2")),
        cell(f"{found.brier:.3f}", plain.get("brier")),
        cell(f"{found.nll:.3f}", plain.get("nll")),
        cell(signed(found.gap), percents.get("gap")),
        cell(ABSENT if temperature is None else f"{100 * temperature.ece_after:.1f} at {temperature.temperature:.2f}"),
    ]


def _examples(record: Record, images: PerImage) -> list[dict[str, Any]]:
    shown, names = images.examples, CLASS_NAMES.get(record.data.set)

    def name_of(number: int) -> str:
        return names[number] if names is not None and number < len(names) else f"class {number}"

    def votes(counts: Any) -> str:
        named = sorted(
            ((int(count), number) for number, count in enumerate(counts) if count > 0), key=lambda v: (-v[0], v[1])
        )
        rest = sum(count for count, _ in named[2:])
        said = [f"{name_of(number)} {count}/{int(counts.sum())}" for count, number in named[:2]]
        return ", ".join([*said, *([f"others {rest}"] if rest else [])])

    def one(i: int) -> dict[str, Any]:
        clean, worst = shown.clean[i], shown.worst[i]
        by = change(clean, worst)
        return {
            "index": int(shown.index[i]),
            "label": name_of(int(shown.label[i])),
            "clean": data_uri(clean),
            "other": data_uri(worst if by is None else by),
            "is_change": by is not None,
            "slope": _slope(record, worst.int() - clean.int()),
            "width": clean.shape[2],
            "height": clean.shape[1],
            "clean_votes": votes(shown.clean_votes[i]),
            "worst_votes": votes(shown.worst_votes[i]),
        }

    return [one(i) for i in range(len(shown.index))]


def _slope(record: Record, by: Tensor) -> float:
    """What makes the largest change, which is eps where that bounds every pixel, one from grey to black or white."""
    most = record.eps * 255 if record.norm == "Linf" else max(1, int(by.abs().max()))
    return round((GREY - 1) / most, 6)


def _counts(images: PerImage) -> dict[str, Any]:
    clean, worst = images.clean.sum(0).tolist(), images.worst.sum(0).tolist()
    return {"draws": len(images.worst), "clean": clean, "worst": worst}


def _beside(record: Record, line: str) -> str:
    return ", and that of the undefended net beside it" if "--policy" in line else ""


def _facts(record: Record) -> list[tuple[str, str]]:
    model, defence = record.model, record.defence
    facts = {
        "entry": record.entry,
        "protocol": f"{record.protocol}, schema {record.schema}",
        "architecture": model.architecture,
        "deterministic counterpart": model.dense or "none",
        "weights, SHA-256": model.weights_sha256,
        "defence": defence.spec,
        "where it acts": defence.where,
        "noise": "of its own for each image" if defence.per_example else "shared by the images of a batch",
        "predictor": f"{defence.predictor}, K = {defence.draws}",
        "images, SHA-256": record.data.ids_sha256,
        "worst points, SHA-256": record.adversarial_sha256 or "not kept",
        "right draws, SHA-256": record.counts_sha256 or "not kept",
        "seeds": ", ".join(f"{name} {seed}" for name, seed in sorted(record.seeds.items())) or "none",
    }
    if record.precision:
        facts["half-width of the worst case"] = f"{100 * record.precision.half_width:.1f} points"
    return list(facts.items())


def _words(name: str) -> str:
    if "T2@" in name:
        return f"{'clean images' if name.startswith('clean') else 'worst case'}, all of {name.rpartition('@')[2]} right"
    return METRICS.get(name, "")


def _value(value: Value) -> dict[str, float]:
    return {"value": value.value, "low": value.low, "high": value.high}
