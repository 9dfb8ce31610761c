"""Units on a Ray cluster of two nodes: the same bytes as in one process, whatever node, process or driver is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sap_art.bench import Watch, run_suite
from sap_art.cli import BAD_INPUT, main
from sap_art.distributed import OnRay, RayCluster, chosen_cluster, executor
from sap_art.distributed.node import gpu_index, refused
from sap_art.distributed.shipping import Setting, Shipment
from sap_art.entries import make_entry
from sap_art.models import Loader
from sap_art.suites import Suite, SuiteEntry
from sap_art.tiers import TIERS
from sap_art.workers import WorkerError

WHOLE = TIERS["smoke"]
SMOKE = replace(TIERS["smoke"], noise_points=2, draws=2, steps=2, report_draws=10)
BESIDE = """
import torch

def noise(x):
    return x + 0.1 * torch.randn_like(x)
"""
NETS = """
import os, threading, time
from pathlib import Path
import ray, torch
from torch import nn
from beside_nets import noise

HERE = Path(__file__).parent

def node():
    "In a task the node that it runs on, else None."
    context = ray.get_runtime_context() if ray.is_initialized() else None
    return context.get_node_id() if context and context.get_task_id() else None

def linear(seed=3):
    net = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10))
    generator = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator) / p.shape[-1] ** 0.5
    return net.eval()

class Random(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = linear()

    def forward(self, x):
        return self.net(noise(x))

class Slow(Random):
    def forward(self, x):
        if node():
            (HERE / node()).touch()
            time.sleep(0.02)
        return super().forward(x)

class Raises(Random):
    def forward(self, x):
        if x.requires_grad and ((x * 255 - (x * 255).round()).abs() > 1e-3).any():
            with (HERE / "raised").open("a") as file:
                file.write("once\\n")
            raise KeyError("one")
        return super().forward(x)

class Stops(Random):
    def forward(self, x):
        if node() and x.requires_grad and (HERE / "die").exists():
            os._exit(3)
        if node() and x.requires_grad and (HERE / "sleep").exists():
            (HERE / "asleep").write_text(str(os.getpid()))
            time.sleep(600)
        return super().forward(x)

class Locked(Random):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()

def other_each_time():
    return linear(seed=time.time_ns() % 2**62)
"""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """The images that ship with the package, few passes, and one thread: a task takes as many cores as threads."""
    monkeypatch.delenv("SAP_ART_DATA", raising=False)
    monkeypatch.setitem(TIERS, "smoke", SMOKE)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def nets(tmp_path: Path) -> str:
    """A user's file that imports another one."""
    (tmp_path / "beside_nets.py").write_text(BESIDE)
    (tmp_path / "nets.py").write_text(NETS)
    return str(tmp_path / "nets.py")


@pytest.fixture(scope="module")
def cluster() -> Generator[Any]:
    """A head and another node, of one core each, to which this process is connected."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
        nodes = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        try:
            nodes.add_node(**node)
            ray.init(nodes.address, include_dashboard=False, log_to_driver=False)
            yield nodes
        finally:
            ray.shutdown()
            nodes.shutdown()


START = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from sap_art.cli import main; main()"
"""Where the tests run in the background, Ctrl-C may be ignored, and is by what they start."""


def results(folder: Path) -> dict[str, bytes]:
    """All that was written, but what says when, where and by how many."""
    files = [p for p in folder.rglob("*") if p.is_file() and not p.name.endswith((".run.json", ".lock", "plan.json"))]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def until(condition: Any, seconds: float = 60) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether there is a process of that number that is not a zombie."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_a_unit_that_raises_is_an_error_as_in_one_process(
    monkeypatch: pytest.MonkeyPatch, cluster: Any, nets: str, tmp_path: Path
) -> None:
    """Tried once, and the rest goes on; passes are told; each model is shipped once, with a file beside the user's."""
    shipped: list[str] = []
    ship = Shipment.of
    monkeypatch.setattr(Shipment, "of", lambda entry: (shipped.append(entry.name), ship(entry))[1])
    suite = Suite("small", "smoke", [SuiteEntry(f"{nets}:Raises"), SuiteEntry(f"{nets}:linear", "sap:100")], images=3)
    told: dict[str, list[int]] = {"ray": [], "one": []}
    watch = Watch(advance=told["ray"].append)
    records = run_suite(suite, output=tmp_path / "ray", cluster=RayCluster(cluster.address), watch=watch)
    raised = (tmp_path / "raised").read_text().count("once")
    (tmp_path / "raised").unlink()
    run_suite(suite, output=tmp_path / "one", watch=Watch(advance=told["one"].append))

    climbs = dict.fromkeys(("eot-apgd-ce-autograd", "long-apgd-autograd"), "KeyError: 'one'")
    assert {a.id: a.error for a in records[0].attacks} == {**climbs, "noise": None}
    assert raised == (tmp_path / "raised").read_text().count("once") > 0
    assert results(tmp_path / "ray") == results(tmp_path / "one")
    assert shipped == ["nets.py-Raises", "nets.py-linear-sap-100"]
    assert told["ray"][-1] == told["one"][-1]  # passes that were expected and not made


def test_nodes_with_other_versions_are_refused(
    monkeypatch: pytest.MonkeyPatch, cluster: Any, nets: str, tmp_path: Path
) -> None:
    """Their bits would be others."""
    monkeypatch.setattr(
        executor.Setting, "here", lambda device: Setting("0.0", torch.__version__, np.__version__, "numba 0")
    )
    suite = Suite("small", "smoke", [SuiteEntry(f"{nets}:linear")], images=2)

    with pytest.raises(ValueError, match=r"another sap_art .* \(the driver: 0\.0\), kernel .* \(the driver: numba 0\)"):
        run_suite(suite, output=tmp_path / "ray", cluster=RayCluster(cluster.address))


@pytest.mark.parametrize(("how", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_driver_that_is_killed_or_interrupted_leaves_what_was_finished(
    monkeypatch: pytest.MonkeyPatch, cluster: Any, nets: str, tmp_path: Path, how: signal.Signals, status: int
) -> None:
    """Its tasks end with it; the same command goes on from the units that it wrote, to the bytes of one process."""
    out = tmp_path / "out"
    (tmp_path / "sleep").touch()
    command = ["bench", "--images", "2", "--model", f"{nets}:Stops", "--output", str(out), "--executor", "ray"]
    driver = subprocess.Popen(
        [sys.executable, "-c", START, *command, "--address", cluster.address],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until(lambda: (tmp_path / "asleep").exists() and list(out.rglob("*.safetensors")))
    finally:
        driver.send_signal(how)
        assert driver.wait(timeout=60) == status
    asleep = int((tmp_path / "asleep").read_text())
    until(lambda: not alive(asleep))
    (tmp_path / "sleep").unlink()
    finished = {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")}
    suite = Suite("smoke with --model", "smoke", [SuiteEntry(f"{nets}:Stops")], images=2)
    monkeypatch.setitem(TIERS, "smoke", WHOLE)
    run_suite(suite, output=out, cluster=RayCluster(cluster.address))
    run_suite(suite, output=tmp_path / "one")

    assert finished
    assert {p: p.stat().st_mtime_ns for p in finished} == finished
    assert results(out) == results(tmp_path / "one")


def test_a_process_that_always_dies_is_an_error(
    monkeypatch: pytest.MonkeyPatch, cluster: Any, nets: str, tmp_path: Path
) -> None:
    """With the unit's key, once Ray has tried often enough."""
    monkeypatch.setattr(executor, "RETRIES", 0)
    (tmp_path / "die").touch()
    suite = Suite("small", "smoke", [SuiteEntry(f"{nets}:Stops")], images=2)

    with pytest.raises(WorkerError, match=r"could not compute nets\.py-Stops.*WorkerCrashedError"):
        run_suite(suite, output=tmp_path / "ray", cluster=RayCluster(cluster.address))


def test_a_node_that_is_lost_costs_time_only(
    monkeypatch: pytest.MonkeyPatch, cluster: Any, nets: str, tmp_path: Path
) -> None:
    """In the middle of a unit; and Ray never holds more tasks than run at once and as many more."""
    suite = Suite("small", "smoke", [SuiteEntry(f"{nets}:Slow")], images=66)
    (other,) = cluster.worker_nodes
    most: list[int] = []
    look = OnRay._look
    monkeypatch.setattr(OnRay, "_look", lambda self, job: (most.append(len(self._tasks)), look(self, job)))

    def remove() -> None:
        until((tmp_path / other.node_id).exists)
        cluster.remove_node(other, allow_graceful=False)

    thread = threading.Thread(target=remove)
    thread.start()
    run_suite(suite, output=tmp_path / "ray", cluster=RayCluster(cluster.address))
    thread.join()
    run_suite(suite, output=tmp_path / "one")

    assert not cluster.worker_nodes
    assert 2 <= max(most) <= 4
    assert results(tmp_path / "ray") == results(tmp_path / "one")


def test_a_task_that_no_node_is_large_enough_for_is_refused(cluster: Any, nets: str, tmp_path: Path) -> None:
    """Two nodes of one core each are none of two."""
    torch.set_num_threads(2)

    with pytest.raises(
        ValueError, match=r"a task needs \{'num_cpus': 2\} on one node, and no node .* has that: .*1\.0"
    ):
        run_suite(
            Suite("s", "smoke", [SuiteEntry(f"{nets}:linear")], images=2),
            output=tmp_path / "out",
            cluster=RayCluster(cluster.address),
        )


def test_what_cannot_travel_is_said_before_any_work(nets: str, tmp_path: Path) -> None:
    """A lock; a model that is another one each time that it is made."""
    x, y = torch.rand(2, 3, 32, 32), torch.zeros(2, dtype=torch.long)
    suite = Suite("small", "smoke", [SuiteEntry(f"{nets}:linear"), SuiteEntry(f"{nets}:Locked")], images=2)
    with pytest.raises(
        ValueError, match=r"nets\.py-Locked cannot be sent to the nodes .*cannot pickle '_thread\.lock'"
    ):
        run_suite(suite, output=tmp_path / "out", cluster=RayCluster())
    device = torch.device("cpu")
    other = make_entry("other", f"{nets}:other_each_time", None, x=x, y=y, seed=0, device=device, load=Loader())
    with pytest.raises(ValueError, match="is another model each time that it is made"):
        Shipment.of(other)

    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_shipment_is_the_model_as_it_was_before_it_was_called(nets: str) -> None:
    """Weights, policy and what a record says of it; a model made anew is one more copy."""
    x, y, device = torch.rand(2, 3, 32, 32), torch.zeros(2, dtype=torch.long), torch.device("cpu")
    entry = make_entry("e", f"{nets}:linear", "sap:100", x=x, y=y, seed=0, device=device, load=Loader())
    there = Shipment.of(entry).unpack(device)
    new = there.anew()

    assert (there.name, there.classes, there.model_info, there.defence) == (
        entry.name, entry.classes, entry.model_info, entry.defence
    )  # fmt: skip
    assert torch.equal(there.model.single(x), entry.anew().single(x))
    assert torch.equal(new.single(x), entry.anew().single(x))
    assert new is not there.anew()


def test_a_net_that_entries_share_stays_where_it_is(nets: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry is shipped while another is attacked on a GPU: what goes to the CPU on its way is a copy."""
    x, y, device = torch.rand(2, 3, 32, 32), torch.zeros(2, dtype=torch.long), torch.device("cpu")
    net, moved, to_cpu = Loader()(f"{nets}:linear"), list[nn.Module](), nn.Module.cpu
    entry = make_entry("e", "shared", "sap:100", x=x, y=y, seed=0, device=device, load=lambda _: net)
    monkeypatch.setattr(nn.Module, "cpu", lambda module: moved.append(module) or to_cpu(module))
    Shipment.of(entry)

    assert len(moved) == 1
    assert not any(module is net for module in moved[0].modules())


def test_without_ray_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Before any work."""
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(sys, "argv", ["sap-art", "bench", "--executor", "ray", "--output", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as left:
        main()

    assert left.value.code == BAD_INPUT
    assert capsys.readouterr().err == "sap-art: --executor ray needs Ray: pip install 'sap-art[ray]'\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("cluster", "device", "message"),
    [
        (RayCluster(), "cuda:1", "cpu or cuda, and Ray chooses which GPU, got 'cuda:1'"),
        (RayCluster(), "meta", "cpu or cuda"),
        (RayCluster(gpus_per_task=0.5), "cpu", r"must be in \(0, 1\], on a GPU only, got 0\.5 on cpu"),
        (RayCluster(gpus_per_task=1.5), "cuda", r"must be in \(0, 1\]"),
        (RayCluster(gpus_per_task=0.0), "cuda", r"must be in \(0, 1\]"),
        (RayCluster("ray://there:10001"), "cpu", "Ray's client, whose driver is elsewhere"),
        (RayCluster("127.0.0.1:1"), "cpu", r"no Ray cluster answers at 127\.0\.0\.1:1 .*ray start --head"),
        (RayCluster("127.0.0.1:x"), "cpu", "no Ray cluster answers"),
    ],
)
def test_settings_that_cannot_be(
    monkeypatch: pytest.MonkeyPatch, cluster: RayCluster, device: str, message: str
) -> None:
    """Each says what is allowed."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    with pytest.raises(ValueError, match=message):
        cluster.require(device)


def test_a_driver_without_a_gpu_cannot_have_tasks_on_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It computes too, and a record is of one type of device."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(ValueError, match=r"the driver needs a GPU .*--entrypoint-num-gpus 1"):
        run_suite(Suite("s", "smoke", [SuiteEntry("x")]), output=tmp_path, device="cuda", cluster=RayCluster())
    with pytest.raises(ValueError, match="with a cluster its size is the number of workers, got workers=2"):
        run_suite(Suite("s", "smoke", [SuiteEntry("x")]), output=tmp_path, workers=2, cluster=RayCluster())


def test_tasks_at_once() -> None:
    """A core a thread on a CPU; on GPUs a core and a share each, and no unit on two GPUs."""
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    there = [{"CPU": 10.0, "GPU": 3.0}]
    found = [RayCluster(gpus_per_task=share).slots(cuda, there) for share in (None, 1.0, 0.5, 0.4, 1 / 3, 0.1)]

    assert found == [3, 3, 6, 6, 9, 10]
    assert RayCluster().slots(cpu, there) == 10
    assert RayCluster().slots(cuda, [{"CPU": 8.0}]) == RayCluster().slots(cpu, []) == 0
    torch.set_num_threads(3)
    assert RayCluster().slots(cpu, [{"CPU": 2.0}, {"CPU": 7.0}, {"CPU": 2.0}]) == 2  # of one node each
    assert RayCluster(gpus_per_task=0.25).resources(cuda) == {"num_cpus": 1, "num_gpus": 0.25}
    assert RayCluster().resources(cuda) == {"num_cpus": 1, "num_gpus": 1}


def test_which_gpu_and_which_executor() -> None:
    """Ray names GPUs as the node's CUDA_VISIBLE_DEVICES does, torch by their place in it; local needs no settings."""
    assert gpu_index([3], None) == 3
    assert gpu_index(["4"], "2,4") == 1
    assert gpu_index(["GPU-b"], "GPU-a,GPU-b") == 1
    assert chosen_cluster("local", None, None) is None
    assert chosen_cluster("ray", "a:1", 0.5) == RayCluster("a:1", 0.5)
    for arguments in (("local", "a:1", None), ("local", None, 1.0), ("slurm", None, None)):
        with pytest.raises(ValueError, match=r"--executor ray|must be local or ray, got 'slurm'"):
            chosen_cluster(*arguments)
    assert refused(Setting("1", "2", "3", "k"), Setting("1", "2", "3", "k")) is None
