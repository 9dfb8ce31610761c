"""Records in RobustBench's ``model_info`` schema: a superset of it, with everything of ours under one key."""

from __future__ import annotations

import html
from fractions import Fraction
from pathlib import Path
from typing import Any

from sap_art.record import Record, write_json

EPS_DENOMINATOR = 255
MAX_NUMERATOR = 64
MAX_NUMERATOR_ERROR = 1e-9


def export(record: Record, root: Path) -> Path:
    """Write ``root/model_info/<dataset>/<norm>/<entry>.json``; by rename, the same record gives the same bytes."""
    return write_json(model_info(record), root / "model_info" / record.data.set / record.norm / f"{record.entry}.json")


def model_info(record: Record) -> dict[str, Any]:
    """The entry as RobustBench's readers expect it: accuracies are strings in percent, eps is ``8/255``.

    ``external`` is our worst case T1. ``autoattack_acc`` only ever holds a real AutoAttack standard run and is absent
    here, ``unreliable`` says whether a flag of level R was raised or an attack failed.
    """
    unreliable = record.verdict in ("unreliable", "failed")
    return {
        "name": html.escape(record.entry),
        "authors": "",
        "link": "",
        "venue": "Unpublished",
        "dataset": record.data.set,
        "architecture": html.escape(record.model.architecture),
        "eps": eps_text(record.eps),
        "clean_acc": _percent(record.metrics["clean"].value),
        "reported": _percent(record.metrics["T1"].value),
        "external": _percent(record.metrics["T1"].value),
        "additional_data": False,
        "number_forward_passes": record.defence.draws,
        "unreliable": unreliable,
        "footnote": _footnote(record),
        "sap_art": {
            "protocol": record.protocol,
            "tier": record.tier,
            "verdict": record.verdict,
            "flags_raised": [flag.code for flag in record.flags if flag.state == "raised"],
            "images": record.data.n,
            "ids_sha256": record.data.ids_sha256,
            "defence": record.defence.spec,
        },
    }


def eps_text(eps: float) -> str:
    """``8/255`` for small multiples of 1/255 and of half of it, else the number: ``0.5``."""
    numerator = Fraction(eps * EPS_DENOMINATOR).limit_denominator(2)
    off = abs(float(numerator) - eps * EPS_DENOMINATOR) > MAX_NUMERATOR_ERROR
    if off or numerator > MAX_NUMERATOR:
        return f"{eps:g}"
    return f"{float(numerator):g}/{EPS_DENOMINATOR}"


def _footnote(record: Record) -> str:
    random = f" Random forward pass ({record.defence.spec}), so not eligible for RobustBench's main table."
    return html.escape(
        f"{record.protocol}, tier {record.tier}: {record.norm} adversary who knows weights and law of the randomness "
        f"but not the draw; scored on fresh draws of {record.data.n} images."
        + ("" if record.defence.spec == "none" else random)
    )


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"
