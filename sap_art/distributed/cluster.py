"""Which Ray, and how much of it a unit takes; all that can be wrong with that is said before any work."""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module

import torch

from sap_art.distributed.shipping import packed
from sap_art.entries import Entry

CLIENT = "ray://"
REACH = 10.0
"""Seconds in which a cluster must answer; Ray itself would try for a quarter of an hour."""
ENVIRONMENT = {
    "GOMP_SPINCOUNT": "1000",
    "OPENBLAS_NUM_THREADS": "1",
    "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",
}
"""Of the processes on the nodes: as ``sap_art.process`` has it, and each may use the GPU that its task is given."""


@dataclass(frozen=True)
class RayCluster:
    """Where units are computed, one a task.

    A task takes one core a thread of torch on a CPU, one core and ``gpus_per_task`` of a GPU on a GPU.

    Args:
        address: HOST:PORT of a running cluster, from one of its nodes. None takes the cluster that ``RAY_ADDRESS``
            names or that runs on this machine, else starts one of this machine alone that ends with the run.
        gpus_per_task: in (0, 1], on a GPU only; None is a whole one. With 0.5, two units share a GPU.
    """

    address: str | None = None
    gpus_per_task: float | None = None

    def require(self, device: str) -> None:
        """Raise what would keep a run on ``device`` from its work.

        The driver computes too, choices and checks of an entry: it needs the type of device that the tasks have, so
        a run on GPUs is started on a node with one. Which GPU a task takes is Ray's choice.

        Raises:
            ImportError: Ray is not installed.
            ValueError: an address that no driver can have, or that does not answer; a device with a number; a share
                of a GPU that is none, or on a CPU; a GPU that this machine lacks.
        """
        require_ray()
        where = torch.device(device)
        if where not in (torch.device("cpu"), torch.device("cuda")):
            raise ValueError(f"on Ray the device is cpu or cuda, and Ray chooses which GPU, got {device!r}")
        if where.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                "on Ray the driver needs a GPU as its tasks do, for it computes choices and checks of an entry, and "
                "this machine has none: start it on a node with one (ray job submit --entrypoint-num-gpus 1 ...), or "
                "give --device cpu for tasks on cores"
            )
        if self.gpus_per_task is not None and (where.type == "cpu" or not 0 < self.gpus_per_task <= 1):
            raise ValueError(f"GPUs a task must be in (0, 1], on a GPU only, got {self.gpus_per_task} on {where.type}")
        self._require_reachable()

    def resources(self, device: torch.device) -> dict[str, float]:
        """What Ray sets aside for a task."""
        if device.type == "cuda":
            return {"num_cpus": 1, "num_gpus": self.gpus_per_task or 1}
        return {"num_cpus": torch.get_num_threads()}

    def slots(self, device: torch.device, nodes: Iterable[Mapping[str, float]]) -> int:
        """Tasks that run at once on nodes with so much of ``CPU`` and ``GPU`` each; 0 if none ever can."""
        return sum(self._slots(self.resources(device), node) for node in nodes)

    def _slots(self, wanted: Mapping[str, float], node: Mapping[str, float]) -> int:
        cores = int(node.get("CPU", 0) // wanted["num_cpus"])
        if "num_gpus" not in wanted:
            return cores
        return min(cores, int(node.get("GPU", 0)) * math.floor(1 / wanted["num_gpus"] + 1e-9))

    def _require_reachable(self) -> None:
        if self.address is None or ":" not in self.address:
            return
        if self.address.startswith(CLIENT):
            raise ValueError(
                f"{self.address} is for Ray's client, whose driver is elsewhere: start this on a node of the cluster, "
                "with --address HOST:PORT, or by ray job submit"
            )
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=REACH).close()
        except (OSError, ValueError) as error:
            raise ValueError(
                f"no Ray cluster answers at {self.address} ({error}); start one with ray start --head"
            ) from error


@contextmanager
def connected(cluster: RayCluster) -> Generator[None]:
    """Within, this process is a driver of the cluster; a connection that it had before is used, and stays.

    Of a cluster that is started here, nothing is told to anybody: no usage statistics, no dashboard.
    """
    require_ray()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as Ray will do it, which it announces else
    import ray

    if ray.is_initialized():
        yield
        return
    try:
        ray.init(cluster.address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise ValueError(f"no Ray cluster answers at {cluster.address}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def require_ray() -> None:
    """Raise ImportError, with what installs Ray, where it is missing."""
    try:
        import_module("ray")
    except ImportError as error:
        raise ImportError("--executor ray needs Ray: pip install 'sap-art[ray]'") from error


def chosen_cluster(executor: str, address: str | None, gpus_per_task: float | None) -> RayCluster | None:
    """The cluster of the executor ``ray``, None for ``local``; raises ValueError for other ones and stray settings."""
    if executor == "ray":
        return RayCluster(address, gpus_per_task)
    if executor != "local":
        raise ValueError(f"the executor must be local or ray, got {executor!r}")
    if address is not None or gpus_per_task is not None:
        raise ValueError("--address and --gpus-per-task need --executor ray")
    return None


def require_shippable(entries: Iterable[Entry]) -> None:
    """Raise ValueError for a model that cannot be pickled, before there is any work to lose."""
    for entry in entries:
        packed(entry.model, entry.name)
