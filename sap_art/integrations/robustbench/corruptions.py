"""``corruptions_acc`` in RobustBench's ``model_info`` schema, for its threat model ``corruptions``."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from sap_art.corruptions.files import IMAGES
from sap_art.corruptions.record import CorruptionRecord, published_mean
from sap_art.record import write_json

THREAT_MODEL = "corruptions"


def export_corruptions(record: CorruptionRecord, root: Path) -> Path:
    """Write ``root/model_info/cifar10/corruptions/<entry>.json``; what is there keeps its other keys.

    ``corruptions_acc`` and ``clean_acc`` are strings in percent, ours is all under ``sap_art``. A mean corruption error
    (``corruptions_mce``) is relative to AlexNet's errors, which RobustBench lost, and is absent.

    Raises:
        ValueError: the record is a check without the files of CIFAR-10-C, or the file there is no JSON object.
    """
    path = root / "model_info" / "cifar10" / THREAT_MODEL / f"{record.entry}.json"
    entry = corruption_info(record)
    before = _before(path)
    ours = {**before.get("sap_art", {}), **entry["sap_art"]}
    described = {**_unknown(record), **before}  # what a user has filled in stays
    return write_json({**described, **entry, "sap_art": ours}, path)


def corruption_info(record: CorruptionRecord) -> dict[str, Any]:
    """What a record says, in RobustBench's schema: to merge into an entry.

    Raises:
        ValueError: the record is a check without the files of CIFAR-10-C.
    """
    mean = published_mean(record)
    return {
        "dataset": "cifar10",
        "clean_acc": _percent(record.clean.value),
        "reported": _percent(mean.value),
        "corruptions_acc": _percent(mean.value),
        "number_forward_passes": record.defence.draws,
        "footnote": _footnote(record),
        "sap_art": {
            "defence": record.defence.spec,
            "corruptions": {
                "images": record.images,
                "draws": record.draws,
                "mean": {"value": mean.value, "low": mean.low, "high": mean.high},
                "clean_images": record.clean_images,
            },
        },
    }


def _unknown(record: CorruptionRecord) -> dict[str, Any]:
    """What RobustBench's readers ask for and a record does not know."""
    return {
        "name": html.escape(record.entry),
        "authors": "",
        "link": "",
        "venue": "Unpublished",
        "architecture": html.escape(record.model.architecture),
        "additional_data": False,
    }


def _footnote(record: CorruptionRecord) -> str:
    images = "" if record.images == IMAGES else f", first {record.images} test images"
    random = "" if record.defence.spec == "none" else f" Random forward pass ({record.defence.spec})."
    return html.escape(
        f"CIFAR-10-C, mean over 15 corruptions and 5 severities{images}, {record.draws} draws an image.{random}"
    )


def _before(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); delete it to have it written anew") from error
    if not isinstance(found, dict) or not isinstance(found.get("sap_art", {}), dict):
        raise ValueError(f"{path} is no entry in RobustBench's schema; delete it to have it written anew")
    return found


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"
