"""Runs a suite: everything checked first, then the entries, each record on disk as soon as it is there."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sap_art import data, provenance
from sap_art.blueprint import Blueprint
from sap_art.devices import same_each_time
from sap_art.distributed import OnRay, RayCluster, require_shippable
from sap_art.finishing import Candidate, Run, Watch
from sap_art.forecast import Forecast, forecast_entry
from sap_art.models import Loader
from sap_art.protocol.job import InProcess, UnitError
from sap_art.record import DataInfo, Record
from sap_art.results import Place, others
from sap_art.store import Store
from sap_art.suites import Suite, SuiteEntry
from sap_art.tiers import TIERS
from sap_art.workers import Workers, processes

WORK_OF_A_WORKER = 15.0
"""Seconds of one core: four times what a process takes to start."""


class EntryError(RuntimeError):
    """Entries have no record, for a unit failed without which there is none; the others have theirs."""


def run_suite(
    suite: Suite,
    *,
    output: Path,
    device: str = "cpu",
    source: str | None = None,
    workers: int | None = 1,
    cluster: RayCluster | None = None,
    retry_failed: bool = False,
    watch: Watch | None = None,
) -> list[Record]:
    """Evaluate every entry of ``suite`` and leave ``records/``, their ``.run.json`` and ``model_info/`` in ``output``.

    Models are named as for ``models.Loader``. A second call with the same arguments goes on where the first stopped;
    finished entries are read. With other entries, or entries that have changed, those alone are computed.

    Args:
        workers: processes, each with as many threads as torch has here; 1 computes in this one, None takes one a core,
            or one a GPU where ``device`` is ``cuda``, if there is work enough. Records do not depend on it.
        cluster: Ray, for units on its cores or GPUs in place of processes of this machine; records do not depend on it
            either, on machines of one kind.
        retry_failed: whether units that failed in an earlier run are tried again; else they stay failed.

    Raises:
        ValueError: bad images, labels, nets, policies, device or cluster, more workers than GPUs, or an output
            folder of another run, or in use; before any work. Later, a model that a worker cannot make again, or a
            node with other versions.
        ImportError: there is a cluster, and Ray is not installed; before any work.
        workers.WorkerError: a worker was killed, or Ray lost a unit too often.
        EntryError: in the end, if there are entries of which nothing can be said.
    """
    plan = Blueprint(suite, TIERS[suite.tier], source, device, output)
    _require_workers(workers, plan, cluster)
    images, load = plan.images(), Loader()
    ids = data.ids_sha256(images.x.cpu(), images.y.cpu())
    info = DataInfo(set=data.set_name(suite.dataset, source=source), n=len(images.x), ids_sha256=ids)
    manifest = provenance.manifest(suite, info, images.x)
    candidates = [
        Candidate.of(plan.entry(chosen, images, load), images, plan, manifest=manifest) for chosen in suite.entries
    ]
    watch = watch or Watch()
    with (
        Store.open(output, manifest, tell=watch.note, name_of=name_of) as store,
        same_each_time(),
    ):
        places = {c.name: Place(store, c.name, c.determinants) for c in candidates}
        if removed := others(store, places):
            watch.note(f"{', '.join(removed)}: no entry of this suite, so left as it is")
        for place in places.values():
            place.tell_changes()
            if retry_failed:
                place.forget_failures()
        finished = {name: record for name, place in places.items() if (record := place.record()) is not None}
        run = Run(plan, images, info, places, finished, watch)
        left = [candidate for candidate in candidates if candidate.name not in finished]
        forecast = [forecast_entry(candidate.wake(), images.x, passes=candidate.passes) for candidate in left]
        with ExitStack() as stack:
            on_ray = None
            if left and cluster is not None:
                require_shippable(candidate.wake() for candidate in left)
                on_ray = stack.enter_context(OnRay(plan, images, cluster))
            run = replace(run, workers=on_ray.slots if on_ray else workers or _worth_starting(forecast, plan.where))
            run.announce(candidates, [replace(f, rate=f.rate * run.workers) for f in forecast])
            several = left and run.workers > 1 and not on_ray
            local = stack.enter_context(Workers(plan, run.workers)) if several else InProcess()
            ends = run.finish_all(candidates, on_ray or local)
    if failed := [str(end) for end in ends if isinstance(end, UnitError)]:
        raise EntryError(f"no record, for a unit failed that it needs; --retry-failed tries again: {failed}")
    return [end for end in ends if isinstance(end, Record)]


def name_of(entry: dict[str, Any]) -> str:
    """Of an entry in ``suite.json``."""
    return SuiteEntry(entry["model"], entry["policy"]).name


def with_entries(suite: Suite, model: str, policies: list[str]) -> Suite:
    """The suite's tier and settings with other entries: ``model`` as it is, and under each policy.

    Raises:
        ValueError: a policy that is unknown or given twice.
    """
    entries = [SuiteEntry(model), *(SuiteEntry(model, policy) for policy in policies)]
    return replace(suite, name=f"{suite.name} with --model", entries=entries)


def _require_workers(workers: int | None, plan: Blueprint, cluster: RayCluster | None) -> None:
    if cluster is not None:
        cluster.require(plan.device)
        if workers not in (None, 1):
            raise ValueError(f"with a cluster its size is the number of workers, got workers={workers}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if workers is not None and plan.where.type != "cpu" and workers > (most := processes(plan.where)):
        raise ValueError(f"workers must be at most {most} with the device {plan.device}, one a GPU, got {workers}")


def _worth_starting(left: list[Forecast], device: torch.device) -> int:
    """One a core or GPU, but each with work for long enough to pay for its start."""
    seconds = 3600 * sum(entry.hours(gpus=1) for entry in left)
    return max(1, min(processes(device), int(seconds / WORK_OF_A_WORKER)))
