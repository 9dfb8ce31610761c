"""The driver of a run on Ray: units go out as tasks, and what comes back is written here."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, cast

import torch

from sap_art.blueprint import Blueprint, Images
from sap_art.distributed import node
from sap_art.distributed.cluster import ENVIRONMENT, RayCluster, connected
from sap_art.distributed.node import Finished, Ordered
from sap_art.distributed.shipping import Run, Setting, Shipment
from sap_art.files import write_file
from sap_art.protocol.job import Call, Job, UnitError
from sap_art.store import Unit
from sap_art.waiting import Waiting
from sap_art.workers import LOOK, WorkerError, pack

RETRIES = 5
"""Of a unit whose process or node was lost: Ray begins it anew elsewhere, and it comes out the same."""


class OnRay:
    """An ``Executor`` with the cores or GPUs of a Ray cluster; use it in a ``with``.

    A task is one unit. Its model and images go to each node once. As many tasks are given to Ray as run at once, and
    as many more to be at hand; nodes may come and go. Units wait in the order of ``Waiting``. They come back to this
    process, which writes them, so the nodes need no storage in common with it. If it dies, Ray ends its tasks: the
    same run begun again goes on from the units that were written.
    """

    def __init__(self, blueprint: Blueprint, images: Images, cluster: RayCluster) -> None:
        self._blueprint, self._images, self._cluster = blueprint, images, cluster
        self._device = blueprint.where
        self._waiting = Waiting()
        self._asked, self._shown = set[str](), set[str]()
        self._tasks: dict[Any, tuple[Job, Call]] = {}
        self._deaths: dict[str, tuple[str, str]] = {}
        self._shipped: dict[str, Any] = {}
        self._connection = ExitStack()

    def __enter__(self) -> Self:
        self._connection.enter_context(connected(self._cluster))
        try:
            self._begin_run()
        except BaseException:
            self._connection.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        import ray

        for task in self._tasks:
            ray.cancel(task, force=True)
        self._connection.close()

    @property
    def slots(self) -> int:
        """Tasks that run at once, on the nodes that are there now."""
        return self._cluster.slots(self._device, _nodes())

    def submit(self, job: Job, calls: Sequence[Call]) -> None:
        new = [call for call in calls if call.key not in self._asked and not job.store.has(call.key)]
        self._asked.update(call.key for call in new)
        self._waiting.add(job, new)
        self._begin()

    def result(self, job: Job, call: Call) -> Unit:
        while (unit := job.store.find(call.key)) is None:
            if call.key in self._deaths:
                raise UnitError(call.key, *self._deaths[call.key])
            self.submit(job, [call])
            self._look(job)
        return unit

    def _begin_run(self) -> None:
        import ray

        if not self.slots:
            wanted, there = self._cluster.resources(self._device), _nodes()
            raise ValueError(f"a task needs {wanted} on one node, and no node of the cluster has that: {there}")
        self._compute = ray.remote(node.compute).options(
            **self._cluster.resources(self._device),
            max_retries=RETRIES,
            retry_exceptions=False,
            runtime_env={"env_vars": ENVIRONMENT},
        )
        images = Images(*(t.cpu() for t in self._images))
        run = Run(self._blueprint, images, Setting.here(self._device), torch.get_num_threads())
        self._run = ray.put(run)

    def has_room(self) -> bool:
        """Whether a unit would be begun at once."""
        return not self._waiting and self._room() > 0

    def _room(self) -> int:
        return 2 * max(1, self.slots) - len(self._tasks)

    def _begin(self) -> None:
        """Give to Ray what there is room for: no more, for what waits there cannot be overtaken."""
        room = self._room() if self._waiting else 0
        while self._waiting and room > 0:
            job, call = self._waiting.pop()
            order = pack(Ordered(call, job.model.per_example))
            self._tasks[self._compute.remote(order, [self._run, self._shipment(job)])] = job, call
            room -= 1
            stage = call.key.rpartition("/")[0]
            if stage not in self._shown:
                self._shown.add(stage)
                job.announce(call.name)

    def _shipment(self, job: Job) -> Any:
        """The entry, in the store of objects of the cluster as long as units of it wait."""
        import ray

        name = job.entry.name
        if name not in self._shipped:
            in_use = {job.entry.name for job, _ in (*self._waiting, *self._tasks.values())}
            self._shipped = {entry: at for entry, at in self._shipped.items() if entry in in_use}
            self._shipped[name] = ray.put(Shipment.of(job.entry))
        return self._shipped[name]

    def _look(self, waits: Job) -> None:
        """Wait for a moment, or until a task has ended, and keep what came of it."""
        import ray

        with waits.aside():
            ended = ray.wait(list(self._tasks), timeout=LOOK)[0]
        for task in (task for task in ended if task in self._tasks):  # another job's look may have met it
            job, call = self._tasks.pop(task)
            self._asked.discard(call.key)
            self._keep(job, call, self._fetch(task, call))

    def _fetch(self, task: Any, call: Call) -> Finished:
        import ray
        from ray.exceptions import RayError

        try:
            return cast(Finished, ray.get(task))
        except RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise WorkerError(
                f"Ray could not compute {call.key}, after {RETRIES} retries where a process or node was lost: "
                f"{type(error).__name__}: {reason}; every node needs sap-art[ray] of this version, and memory for the "
                "unit; finished units are kept, the same command goes on"
            ) from error

    def _keep(self, job: Job, call: Call, found: Finished) -> None:
        if found.refusal:
            raise ValueError(f"a node of the cluster has another {found.refusal}: results would depend on the node")
        job.advance(found.passes)
        for suffix, content in found.files.items():
            write_file(content, job.store.path(call.key, suffix))
        if found.death:
            self._deaths[call.key] = found.death


def _nodes() -> list[dict[str, float]]:
    """``CPU`` and ``GPU`` of each node that is there now."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()
    return [{kind: n["Resources"].get(kind, 0.0) for kind in ("CPU", "GPU")} for n in nodes if n["Alive"]]
