"""``corruptions_acc`` in RobustBench's ``model_info`` schema, for its threat model ``corruptions``."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from sap_art.corruptions.files import IMAGES
from sap_art.corruptions.record import CorruptionRecord, published_mean
from sap_art.integrations.robustbench.export import info_path, percent, to_fill_in
from sap_art.integrations.robustbench.facts import DATASET
from sap_art.record import write_json
from sap_art.untrusted import read_json

THREAT_MODEL = "corruptions"


def export_corruptions(record: CorruptionRecord, root: Path) -> Path:
    """Write ``root/model_info/cifar10/corruptions/<entry>.json``; what is there keeps its other keys.

    ``corruptions_acc`` and ``clean_acc`` are strings in percent, ours is all under ``sap_art``. A mean corruption error
    (``corruptions_mce``) is relative to AlexNet's errors, which RobustBench lost, and is absent.

    Raises:
        ValueError: the record is a check without the files of CIFAR-10-C, its entry is no name of a file, or the file
            there is no JSON object.
    """
    path = info_path(root, dataset=DATASET, threat_model=THREAT_MODEL, entry=record.entry)
    entry = corruption_info(record)
    before = _before(path)
    ours = {**before.get("sap_art", {}), **entry["sap_art"]}
    described = {**to_fill_in(record.entry, record.model), **before}  # what a user has filled in stays
    return write_json({**described, **entry, "sap_art": ours}, path)


def corruption_info(record: CorruptionRecord) -> dict[str, Any]:
    """What a record says, in RobustBench's schema: to merge into an entry.

    Raises:
        ValueError: the record is a check without the files of CIFAR-10-C.
    """
    mean = published_mean(record)
    return {
        "dataset": DATASET,
        "clean_acc": percent(record.clean.value),
        "reported": percent(mean.value),
        "corruptions_acc": percent(mean.value),
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


def _footnote(record: CorruptionRecord) -> str:
    images = "" if record.images == IMAGES else f", first {record.images} test images"
    random = "" if record.defence.spec == "none" else f" Random forward pass ({record.defence.spec})."
    return html.escape(
        f"CIFAR-10-C, mean over 15 corruptions and 5 severities{images}, {record.draws} draws an image.{random}"
    )


def _before(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    found = read_json(path, what="JSON; delete it to have it written anew")
    if not isinstance(found, dict) or not isinstance(found.get("sap_art", {}), dict):
        raise ValueError(f"{path} is no entry in RobustBench's schema; delete it to have it written anew")
    return found
