"""What runs on a node of a Ray cluster: units, in files that the driver gets; the node keeps nothing."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sap_art.attacks.cost import count_passes
from sap_art.blueprint import Images
from sap_art.devices import same_each_time
from sap_art.distributed.shipping import Run, Setting, Shipment
from sap_art.protocol.job import Call, Job, UnitError, finish
from sap_art.store import Store
from sap_art.worker import KEPT


class Ordered(NamedTuple):
    """A call; ``per_example`` may have been found to be otherwise than the model declared."""

    call: Call
    per_example: bool


class Finished(NamedTuple):
    """What came of a unit.

    Args:
        files: left in a store, by what follows the unit's key in their names: the unit's own last.
        death: the type and message of the error that its function raised, None if it did not.
        refusal: why this node may not compute for that driver, None if it may.
    """

    files: dict[str, bytes]
    passes: int
    death: tuple[str, str] | None = None
    refusal: str | None = None


def compute(order: bytes, shipped: Sequence[Any]) -> Finished:
    """Compute a pickled ``Ordered``; ``shipped`` are references to the ``Run`` and the ``Shipment``, which stay.

    An error of the unit's is an answer, so Ray does not try again; a process that dies is none, so Ray does.
    """
    run = _fetched(shipped[0])
    device = _device(run.blueprint.device)
    if refusal := refused(run.setting, Setting.here(device)):
        return Finished({}, 0, refusal=refusal)
    torch.set_num_threads(run.threads)
    job = _job(shipped[0], shipped[1], device)
    call, job.model.per_example = pickle.loads(order)
    with same_each_time():
        return _finished(job, call)


def refused(wanted: Setting, here: Setting) -> str | None:
    """What a node lacks of the driver's setting, None if nothing."""
    pairs = zip(Setting._fields, wanted, here, strict=True)
    differing = [f"{name} {theirs} (the driver: {ours})" for name, ours, theirs in pairs if ours != theirs]
    return ", ".join(differing) or None


def gpu_index(assigned: Sequence[int | str], visible: str | None) -> int:
    """The number that torch has for the first GPU that Ray assigned, in a process to which ``visible`` ones show.

    ``visible`` is the process's CUDA_VISIBLE_DEVICES: Ray names GPUs by its items where there is one.
    """
    first = str(assigned[0])
    return visible.split(",").index(first) if visible else int(first)


def _finished(job: Job, call: Call) -> Finished:
    passes = [0]

    def count(more: int) -> None:
        passes[0] += more

    with tempfile.TemporaryDirectory() as folder:
        store, death = Store(Path(folder)), None
        try:
            with count_passes(job.model, count):
                finish(replace(job, store=store, advance=count), call)
        except UnitError as error:
            death = error.kind, error.message
        return Finished(_files(store.root / "work", call.key), passes[0], death)


def _files(work: Path, key: str) -> dict[str, bytes]:
    """What follows the key in the names of its files -> their content, the unit's own last."""
    unit = work / key
    left = list(unit.parent.iterdir()) if unit.parent.exists() else []
    paths = [path for path in left if path.name.startswith(f"{unit.name}.")]
    paths.sort(key=lambda path: path.suffix == ".safetensors")
    return {path.name.removeprefix(unit.name): path.read_bytes() for path in paths}


def _device(name: str) -> torch.device:
    if name == "cpu":
        return torch.device(name)
    import ray

    device = torch.device(name, gpu_index(ray.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES")))
    torch.cuda.set_device(device)
    return device


@lru_cache(maxsize=1)
def _fetched(run: Any) -> Run:
    return _got(run)


def _got(reference: Any) -> Any:
    import ray

    return ray.get(reference)


@lru_cache(maxsize=KEPT)
def _job(run: Any, shipment: Any, device: torch.device) -> Job:
    """An entry, one of those that were asked for last."""
    shared = _fetched(run)
    entry: Shipment = _got(shipment)
    images = Images(*(t.to(device) for t in shared.images))
    return shared.blueprint.job(entry.unpack(device), images)
