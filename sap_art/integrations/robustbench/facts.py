"""What is known of RobustBench's CIFAR-10 Linf zoo without building a net: ``zoo.csv`` beside this file."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DATASET, THREAT_MODEL, CLASSES = "cifar10", "Linf", 10
MODEL_DIR = "./models"


@dataclass(frozen=True)
class ZooModel:
    """One model of the zoo; accuracies are fractions of the 10,000 test images at eps 8/255, of a few at 0.031.

    Args:
        id: as for ``robustbench.load_model``.
        architecture: in RobustBench's words.
        parameters: in all parts of the net.
        sites: activations that ``DefendedModel`` meets in one pass of 32 x 32 images by the default rule. Calls are
            counted, not modules; squeeze-excite gates and attention softmax are left alone. Among them are 50 in the
            split attention of Sehwag2021Proxy_ResNest152 and 1 on the logits of Bai2024MixedNUTS, no activations
            in the strict sense: call these gates to leave them alone.
        clean, autoattack: as published by RobustBench (arXiv:2010.09670); the latter by AutoAttack ``standard``.
        external: accuracy under a stronger attack, where RobustBench lists one.
    """

    id: str
    architecture: str
    parameters: int
    sites: int
    clean: float
    autoattack: float
    external: float | None


@cache
def zoo_models() -> dict[str, ZooModel]:
    """The 76 models of RobustBench 1.1.1 by id, in the order of its leaderboard; nothing is imported or built."""
    with Path(__file__).with_name("zoo.csv").open(encoding="utf-8", newline="") as file:
        models = [_parsed(row) for row in csv.DictReader(file)]
    return {model.id: model for model in models}


def zoo_model(zoo_id: str) -> ZooModel:
    """One of them; raises ValueError for an unknown id, naming those like it."""
    if zoo_id not in zoo_models():
        raise unknown_model(zoo_id, zoo_models())
    return zoo_models()[zoo_id]


def unknown_model(zoo_id: str, known: Iterable[str]) -> ValueError:
    """The error for an id that is not among those known."""
    ids = list(known)
    close = difflib.get_close_matches(zoo_id, ids, n=5, cutoff=0.4)
    like = f"; like it: {', '.join(close)}" if close else ""
    return ValueError(f"unknown model {zoo_id!r} of the {len(ids)} in RobustBench's {DATASET} {THREAT_MODEL} zoo{like}")


def checkpoint(zoo_id: str, model_dir: Path | str = MODEL_DIR) -> Path:
    """Where RobustBench looks for the weights of a model, and puts them; an ensemble's parts add ``_m0.pt``, ..."""
    return Path(model_dir) / DATASET / THREAT_MODEL / f"{zoo_id}.pt"


def _parsed(row: dict[str, str]) -> ZooModel:
    return ZooModel(
        id=row["id"],
        architecture=row["architecture"],
        parameters=int(row["parameters"]),
        sites=int(row["sites"]),
        clean=float(row["clean"]),
        autoattack=float(row["autoattack"]),
        external=float(row["external"]) if row["external"] else None,
    )
