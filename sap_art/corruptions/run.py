"""A model on all corrupted images, cell by cell, each on disk once it is done."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sap_art import __version__
from sap_art.corruptions.inputs import Inputs
from sap_art.corruptions.record import CorruptionRecord
from sap_art.corruptions.scoring import Cell, right, right_on, share, summarise
from sap_art.entries import fingerprint
from sap_art.record import Value
from sap_art.store import Store, Unit, tensor_sha256


def run_corruptions(
    inputs: Inputs, *, draws: int, seed: int, output: Path, announce: Callable[[str], None] = lambda line: None
) -> CorruptionRecord:
    """Score an entry; the record is ``output/corruptions/<entry>.json``, the work lies beside it.

    A second call with the same arguments goes on where the first stopped.

    Args:
        inputs: of ``prepare``.
        draws: fresh ones, an image; a model without randomness takes one.
        seed: of the draws.
        output: a folder; that of ``sap-art bench`` will do.
        announce: is told the accuracy of each corruption and severity.

    Raises:
        ValueError: draws below 1, a folder that holds the work of another run, or is in use.
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    entry, images = inputs.entry, inputs.corrupted
    draws = 1 if entry.model.deterministic else draws
    folder = output / "corruptions"

    def score(work: Callable[..., Tensor], *arguments: object) -> Unit:
        return {"right": work(entry.model, *arguments, draws=draws, seed=seed)}

    cells: dict[Cell, Tensor] = {}
    with Store.open(folder / entry.name, _manifest(inputs, draws=draws, seed=seed), tell=announce) as store:
        plain = store.unit("clean", partial(score, right_on, inputs.x, inputs.y))["right"]
        for cell in images.cells:
            cells[cell] = store.unit("{}-{}".format(*cell), partial(score, right, images, cell))["right"]
            announce("{} {}: ".format(*cell) + f"{100 * cells[cell].double().mean().item():.1f} %")
    accuracy = summarise(cells, per_example=entry.model.per_example)
    record = CorruptionRecord(
        entry=entry.name,
        model=entry.model_info,
        defence=entry.defence,
        source=images.source,
        images=len(images.labels),
        draws=draws,
        seed=seed,
        clean=Value(*share(plain, per_example=entry.model.per_example)),
        clean_images=len(inputs.y),
        mean=Value(*accuracy.mean),
        cells={name: [Value(*cell) for cell in found] for name, found in accuracy.cells.items()},
    )
    record.write(folder)
    return record


def _manifest(inputs: Inputs, *, draws: int, seed: int) -> dict[str, Any]:
    """What must be the same for finished work to be taken up again."""
    return {
        "source": inputs.corrupted.source,
        "images": inputs.corrupted.digest,
        "clean": tensor_sha256(inputs.x, inputs.y),
        "model": fingerprint(inputs.entry.model, inputs.x),
        "draws": draws,
        "seed": seed,
        "device": inputs.x.device.type,
        "threads": torch.get_num_threads(),
        "version": __version__,
    }
