"""Runs a suite: everything checked first, then entry by entry, each record on disk as soon as it is there."""

from __future__ import annotations

import datetime
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import torch
from torch import Tensor

from sap_art import __version__, data, kernels, portfolio, protocol
from sap_art.attacks.cost import count_passes
from sap_art.devices import require_device
from sap_art.entries import Entry, fingerprint, make_entry
from sap_art.forecast import Forecast, forecast_entry
from sap_art.integrations.robustbench.export import export
from sap_art.models import Loader
from sap_art.protocol.assemble import to_record
from sap_art.protocol.campaign import Job
from sap_art.record import DataInfo, Record, write_json
from sap_art.store import Store
from sap_art.suites import Suite
from sap_art.tiers import TIERS


@dataclass(frozen=True)
class Watch:
    """What a run tells: before it works what is left to do, then passes expected in all, done, and what it is doing."""

    forecast: Callable[[list[Forecast]], None] = lambda left: None
    expect: Callable[[int], None] = lambda passes: None
    advance: Callable[[int], None] = lambda passes: None
    announce: Callable[[str], None] = lambda stage: None


def run_suite(
    suite: Suite, *, output: Path, device: str = "cpu", source: str | None = None, watch: Watch | None = None
) -> list[Record]:
    """Evaluate every entry of ``suite`` and leave ``records/``, their ``.run.json`` and ``model_info/`` in ``output``.

    Models are named as for ``models.Loader``. A second call with the same arguments goes on where the first stopped;
    finished entries are read.

    Raises:
        ValueError: bad images, labels, nets, policies or device, or an output folder of another run; before any work.
    """
    watch = watch or Watch()
    where = require_device(device)
    x, y = data.load(suite.dataset, n=suite.images, source=source)
    if tuple(x.shape[1:]) != data.IMAGE_SHAPES[suite.dataset]:
        raise ValueError(f"images must have shape {data.IMAGE_SHAPES[suite.dataset]}, got {tuple(x.shape[1:])}")
    images = DataInfo(set=data.set_name(suite.dataset, source=source), n=len(x), ids_sha256=data.ids_sha256(x, y))
    x, y = x.to(where), y.to(where)
    prepared = partial(make_entry, x=x, y=y, seed=suite.seed, device=where, load=Loader())
    entries = [prepared(e.name, e.model, e.policy) for e in suite.entries]
    store = Store.open(output, _manifest(suite, images, entries, x))
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        left = [entry for entry in entries if not _record_path(store, entry).exists()]
        if left:
            watch.forecast([forecast_entry(entry, x, passes=_passes(suite, entry, images=len(x))) for entry in left])
        watch.expect(sum(_passes(suite, entry, images=len(x)) for entry in entries))
        return [_finish(suite, entry, images, (x, y), store, watch) for entry in entries]


def with_entries(suite: Suite, model: str, policies: list[str]) -> Suite:
    """The suite's tier and settings with other entries: ``model`` as it is, and under each policy.

    Raises:
        ValueError: a policy that is unknown or given twice.
    """
    from sap_art.suites import SuiteEntry

    entries = [SuiteEntry(model), *(SuiteEntry(model, policy) for policy in policies)]
    return replace(suite, name=f"{suite.name} with --model", entries=entries)


def _finish(
    suite: Suite, entry: Entry, images: DataInfo, xy: tuple[Tensor, Tensor], store: Store, watch: Watch
) -> Record:
    tier = TIERS[suite.tier]
    passes = _passes(suite, entry, images=images.n)
    path = _record_path(store, entry)
    if path.exists():
        watch.advance(passes)
        return Record.read(path)
    job = Job(
        entry=entry,
        x=xy[0],
        y=xy[1],
        threat=suite.threat(),
        tier=tier,
        seed=suite.seed,
        store=store,
        announce=lambda stage: watch.announce(f"{entry.name}: {stage}"),
    )
    start = time.perf_counter()
    with count_passes(entry.model, watch.advance) as spent:
        record = to_record(job, protocol.run(job), images)
    watch.advance(passes - spent.forwards - spent.backwards)
    sidecar = _run_info(xy[0].device, seconds=time.perf_counter() - start)
    write_json(sidecar, store.records / f"{entry.name}.run.json")
    export(record, store.root)
    record.write(store.records)
    return record


def _record_path(store: Store, entry: Entry) -> Path:
    return store.records / f"{entry.name}.json"


def _passes(suite: Suite, entry: Entry, *, images: int) -> int:
    """Forecast for one entry."""
    tier = TIERS[suite.tier]
    return portfolio.expected_passes(entry.model, tier, suite.threat(), images=images, classes=entry.classes)


def _manifest(suite: Suite, images: DataInfo, entries: list[Entry], x: Tensor) -> dict[str, Any]:
    """What must be the same for finished work to be taken up again; models by what they compute, not by their name."""
    return {
        **asdict(suite),
        "data": asdict(images),
        "models": {entry.name: fingerprint(entry.model, x) for entry in entries},
        "device": x.device.type,
        "threads": torch.get_num_threads(),
        "version": __version__,
    }


def _run_info(device: torch.device, *, seconds: float) -> dict[str, Any]:
    """What may differ between two runs of one computation."""
    return {
        "seconds": round(seconds, 1),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "kernel": kernels.describe(device),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "sap_art": __version__,
    }
