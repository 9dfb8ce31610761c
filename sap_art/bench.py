"""Runs a suite: everything checked first, then entry by entry, each record on disk as soon as it is there."""

from __future__ import annotations

import datetime
import os
import platform
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import torch
from torch import Tensor

from sap_art import __version__, data, kernels, per_image, portfolio, protocol
from sap_art.attacks.cost import count_passes
from sap_art.blueprint import Blueprint, Images
from sap_art.entries import Entry, fingerprint
from sap_art.forecast import Forecast, forecast_entry
from sap_art.integrations.robustbench.export import export
from sap_art.models import Loader
from sap_art.protocol.assemble import to_record
from sap_art.protocol.job import Executor, InProcess
from sap_art.record import DataInfo, Record, write_json
from sap_art.store import Store
from sap_art.suites import Suite
from sap_art.tiers import TIERS
from sap_art.workers import Workers, cores

WORK_OF_A_WORKER = 15.0
"""Seconds of one core: four times what a process takes to start."""


@dataclass(frozen=True)
class Watch:
    """What a run tells: before it works what is left to do, then passes expected in all, done, and what it is doing."""

    forecast: Callable[[list[Forecast]], None] = lambda left: None
    expect: Callable[[int], None] = lambda passes: None
    advance: Callable[[int], None] = lambda passes: None
    announce: Callable[[str], None] = lambda stage: None


def run_suite(
    suite: Suite,
    *,
    output: Path,
    device: str = "cpu",
    source: str | None = None,
    workers: int | None = 1,
    watch: Watch | None = None,
) -> list[Record]:
    """Evaluate every entry of ``suite`` and leave ``records/``, their ``.run.json`` and ``model_info/`` in ``output``.

    Models are named as for ``models.Loader``. A second call with the same arguments goes on where the first stopped;
    finished entries are read.

    Args:
        workers: processes, each with as many threads as torch has here; 1 computes in this one, None takes one a core
            where there is work enough. Records do not depend on it.

    Raises:
        ValueError: bad images, labels, nets, policies or device, several workers on a GPU, or an output folder of
            another run; before any work. Later, a model that a worker cannot make again.
        workers.WorkerError: a worker was killed.
    """
    plan = Blueprint(suite, TIERS[suite.tier], source, device, output)
    _require_workers(workers, plan.where)
    images, load = plan.images(), Loader()
    ids = data.ids_sha256(images.x.cpu(), images.y.cpu())
    info = DataInfo(set=data.set_name(suite.dataset, source=source), n=len(images.x), ids_sha256=ids)
    entries = [plan.entry(chosen, images, load) for chosen in suite.entries]
    store = Store.open(output, _manifest(suite, info, entries, images.x))
    run = _Run(plan, images, info, store, watch or Watch())
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        left = [entry for entry in entries if not store.finished(entry.name)]
        forecast = [forecast_entry(entry, images.x, passes=run.passes(entry)) for entry in left]
        workers = workers or _worth_starting(forecast, plan.where)
        run.begin(entries, [replace(entry, rate=entry.rate * workers) for entry in forecast])
        with Workers(plan, workers) if left and workers > 1 else nullcontext(InProcess()) as executor:
            return [run.finish(entry, executor, workers=workers) for entry in entries]


def with_entries(suite: Suite, model: str, policies: list[str]) -> Suite:
    """The suite's tier and settings with other entries: ``model`` as it is, and under each policy.

    Raises:
        ValueError: a policy that is unknown or given twice.
    """
    from sap_art.suites import SuiteEntry

    entries = [SuiteEntry(model), *(SuiteEntry(model, policy) for policy in policies)]
    return replace(suite, name=f"{suite.name} with --model", entries=entries)


@dataclass(frozen=True)
class _Run:
    """One run of a suite: what it is made of, where its results go and who is told."""

    plan: Blueprint
    images: Images
    info: DataInfo
    store: Store
    watch: Watch

    def passes(self, entry: Entry) -> int:
        """Forecast for one entry."""
        tier, threat = self.plan.tier, self.plan.suite.threat()
        return portfolio.expected_passes(entry.model, tier, threat, images=self.info.n, classes=entry.classes)

    def begin(self, entries: list[Entry], left: list[Forecast]) -> None:
        """Tell what there is to do."""
        if left:
            self.watch.forecast(left)
        self.watch.expect(sum(map(self.passes, entries)))

    def finish(self, entry: Entry, executor: Executor, *, workers: int) -> Record:
        """The record of one entry, read or computed and written."""
        passes, path = self.passes(entry), self.store.records / f"{entry.name}.json"
        if self.store.finished(entry.name):
            self.watch.advance(passes)
            return Record.read(path)
        made = [0]

        def advance(more: int) -> None:
            made[0] += more
            self.watch.advance(more)

        job = replace(
            self.plan.job(entry, self.images),
            executor=executor,
            announce=lambda stage: self.watch.announce(f"{entry.name}: {stage}"),
            advance=advance,
        )
        start = time.perf_counter()
        with count_passes(entry.model, advance):
            found = protocol.run(job)
            record = to_record(job, found, self.info)
        self.watch.advance(passes - made[0])
        sidecar = _run_info(job.x.device, seconds=time.perf_counter() - start, workers=workers)
        write_json(sidecar, self.store.records / f"{entry.name}.run.json")
        seen = per_image.collect(job.x, found.worst_points, clean=found.clean, worst=found.worst)
        seen.write(self.store.records / f"{entry.name}{per_image.SUFFIX}")
        export(record, self.store.root)
        record.write(self.store.records)
        return record


def _require_workers(workers: int | None, device: torch.device) -> None:
    if workers is not None and (workers < 1 or (workers > 1 and device.type != "cpu")):
        raise ValueError(f"workers must be at least 1, and 1 on a GPU, got {workers} on {device.type}")


def _worth_starting(left: list[Forecast], device: torch.device) -> int:
    """One a core, but each with work for long enough to pay for its start."""
    if device.type != "cpu":
        return 1
    seconds = 3600 * sum(entry.hours(gpus=1) for entry in left)
    return max(1, min(cores(), int(seconds / WORK_OF_A_WORKER)))


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


def _run_info(device: torch.device, *, seconds: float, workers: int) -> dict[str, Any]:
    """What may differ between two runs of one computation."""
    return {
        "seconds": round(seconds, 1),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "workers": workers,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "kernel": kernels.describe(device),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "sap_art": __version__,
    }
