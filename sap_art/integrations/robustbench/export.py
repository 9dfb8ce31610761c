"""Records in RobustBench's ``model_info`` schema: a superset of it, with everything of ours under the key ``sap_art``.

Two readers of RobustBench 1.1.1 need an accuracy to sort by, ``list_available_models`` and ``generate_leaderboard``:
they take ``external`` if a record has it and ``autoattack_acc`` else, and die of a TypeError where both are missing or
``external`` is null. So each record here has ``external``, which is a number we measured, and no reader needs an
``autoattack_acc`` that nobody measured; their template would show an empty column, ours shows a dash.
"""

from __future__ import annotations

import html
from fractions import Fraction
from pathlib import Path
from typing import Any

from sap_art.data import CLASS_NAMES
from sap_art.record import ModelInfo, Record, Value, write_json
from sap_art.tiers import STAND_ALONE
from sap_art.untrusted import file_name

EPS_DENOMINATOR = 255
MAX_NUMERATOR = 64
MAX_NUMERATOR_ERROR = 1e-9


def export(record: Record, root: Path) -> Path:
    """Write ``root/model_info/<dataset>/<norm>/<entry>.json``; by rename, the same record gives the same bytes.

    Raises:
        ValueError: entry, data set or norm is no name of a file, or the record lacks a metric that is exported.
    """
    path = info_path(root, dataset=record.data.set, threat_model=record.norm, entry=record.entry)
    return write_json(model_info(record), path)


def info_path(root: Path, *, dataset: str, threat_model: str, entry: str) -> Path:
    """Where RobustBench looks for an entry below ``root``; raises ValueError for what cannot name a file or folder."""
    parts = (file_name(dataset, ""), file_name(threat_model, ""), file_name(entry, ".json"))
    return (root / "model_info").joinpath(*parts)


def model_info(record: Record) -> dict[str, Any]:
    """The entry as RobustBench's readers expect it: accuracies are strings in percent, eps is ``8/255``.

    ``external`` is our worst case T1. ``autoattack_acc`` is there only if AutoAttack standard was run, on a net without
    randomness. ``unreliable`` says whether a flag of level R was raised or an attack failed; the footnote says which.
    Text is HTML, since RobustBench's templates take it for that.
    """
    worst = metric(record, "T1")
    standard = autoattack_standard(record)
    return {
        **to_fill_in(record.entry, record.model),
        "dataset": record.data.set,
        "eps": eps_text(record.eps),
        "clean_acc": percent(metric(record, "clean").value),
        "reported": percent(worst.value),
        "external": percent(worst.value),
        **({} if standard is None else {"autoattack_acc": percent(standard)}),
        "number_forward_passes": record.defence.draws,
        "unreliable": is_unreliable(record),
        "footnote": html.escape(footnote(record)),
        "sap_art": {
            "protocol": record.protocol,
            "tier": record.tier,
            "verdict": record.verdict,
            "flags_raised": raised(record),
            "images": record.data.n,
            **({} if standard is None else {"autoattack_images": _autoattack_images(record)}),
            "ids_sha256": record.data.ids_sha256,
            "defence": record.defence.spec,
        },
    }


def to_fill_in(entry: str, model: ModelInfo) -> dict[str, Any]:
    """What RobustBench's readers ask for of any entry and no record knows, but for name and architecture."""
    return {
        "name": html.escape(entry),
        "authors": "",
        "link": "",
        "venue": "Unpublished",
        "architecture": html.escape(model.architecture),
        "additional_data": False,
    }


def metric(record: Record, name: str) -> Value:
    """One of the metrics that each run measures; raises ValueError for a record without it."""
    if name not in record.metrics:
        raise ValueError(f"the record of {record.entry} has no metric {name}: it is no record of a run; run the suite")
    return record.metrics[name]


def autoattack_standard(record: Record) -> float | None:
    """What a whole AutoAttack standard reported, in [0, 1]; None if there was none, or on a random model.

    It is one of the tier full's reference columns. Where classes are too few it runs in part, and that is not it.
    """
    whole = record.defence.spec == "none" and record.data.set in CLASS_NAMES
    found = [a.reported for a in record.attacks if a.id == "autoattack-standard" and a.error is None]
    return found[0] if whole and found else None


def footnote(record: Record) -> str:
    """Who attacked and what was scored, what makes the evaluation unreliable, and why RobustBench cannot list it."""
    parts = [
        f"{record.protocol}, tier {record.tier}: {record.norm} adversary who knows weights and law of the randomness "
        f"but not the draw; scored on fresh draws of {record.data.n} images."
    ]
    if autoattack_standard(record) is not None:
        parts.append(f"AutoAttack on the first {_autoattack_images(record)} of them.")
    if is_unreliable(record):
        parts.append(f"Evaluation unreliable: {unreliable_because(record)}.")
    if record.defence.spec != "none":
        parts.append(f"Random forward pass ({record.defence.spec}), so not eligible for RobustBench's main table.")
    return " ".join(parts)


def is_unreliable(record: Record) -> bool:
    """Whether the verdict says that the numbers cannot be trusted."""
    return record.verdict in ("unreliable", "failed")


def unreliable_because(record: Record) -> str:
    """The reasons for that verdict: flags of level R that were raised, attacks that crashed."""
    crashed = [f"{attack.id} crashed" for attack in record.attacks if attack.error is not None]
    flags = [flag.code for flag in record.flags if flag.state == "raised" and flag.level == "R"]
    return ", ".join([*flags, *crashed]) or "an attack crashed"


def raised(record: Record) -> list[str]:
    """Codes of the flags that were raised."""
    return [flag.code for flag in record.flags if flag.state == "raised"]


def eps_text(eps: float) -> str:
    """``8/255`` for small multiples of 1/255 and of half of it, else the number: ``0.5``."""
    numerator = Fraction(eps * EPS_DENOMINATOR).limit_denominator(2)
    off = abs(float(numerator) - eps * EPS_DENOMINATOR) > MAX_NUMERATOR_ERROR
    if off or numerator > MAX_NUMERATOR:
        return f"{eps:g}"
    return f"{float(numerator):g}/{EPS_DENOMINATOR}"


def percent(fraction: float) -> str:
    """A fraction as RobustBench writes it: ``89.69``."""
    return f"{100 * fraction:.2f}"


def _autoattack_images(record: Record) -> int:
    return min(record.data.n, STAND_ALONE)
