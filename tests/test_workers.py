"""Several processes: the same bytes as one, whatever is interrupted, raised, killed or left to itself."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
import weakref
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from sap_art import bench, worker
from sap_art.bench import Watch, run_suite
from sap_art.blueprint import Blueprint
from sap_art.forecast import Forecast
from sap_art.models import Loader
from sap_art.protocol import checks
from sap_art.protocol.job import Call, InProcess, Job, UnitError
from sap_art.record import Record
from sap_art.store import Unit
from sap_art.suites import Suite, SuiteEntry
from sap_art.tiers import TIERS, Refinement
from sap_art.worker import IDLE, Board, Facts, Task, Worker, placed, start
from sap_art.workers import Workers, pack

NETS = """
import multiprocessing, os, threading, time
from pathlib import Path
import torch
from torch import nn

HERE = Path(__file__).parent
WORKER = multiprocessing.parent_process() is not None

def linear(seed=3):
    net = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10))
    generator = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator) / p.shape[-1] ** 0.5
    return net.eval()

class Random(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.calls, self.lock = linear(), 0, threading.Lock()  # no pickle takes it

    def forward(self, x):
        return self.net(x + 0.1 * torch.randn_like(x))

class Coin(Random):
    def forward(self, x):
        return self.net(x) * (1 if torch.rand(()) < 0.7 else -1)

class Drifts(Random):
    def forward(self, x):
        self.calls += 1
        return self.net(x + (0.1 + self.calls / 1e4) * torch.randn_like(x))

class TwoArguments(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")

class Raises(Random):
    def forward(self, x):
        if x.requires_grad and ((x * 255 - (x * 255).round()).abs() > 1e-3).any():
            raise TwoArguments("one", "two")
        return self.net(x + 0.1 * torch.randn_like(x))

class Stops(Random):
    def forward(self, x):
        if WORKER and x.requires_grad and (HERE / "die").exists():
            os._exit(3)
        if WORKER and x.requires_grad and (HERE / "sleep").exists():
            (HERE / "asleep").touch()
            time.sleep(600)
        if WORKER:
            time.sleep(1e-3)
        return self.net(x + 0.1 * torch.randn_like(x))

def other_each_time():
    return linear(seed=time.time_ns() % 2**62)
"""
TINY = replace(
    TIERS["full"],
    noise_points=2,
    draws=1,
    steps=2,
    losses=("ce",),
    other_losses=("ce",),
    stops=False,
    drop_draws=59,
    drop_bound=0.05,
    selection_draws=2,
    report_draws=10,
    signal_draws=4,
    transfer_targets=0,
    long_steps=0,
    selective=False,
    square_iterations=2,
    square_draws=1,
    boundary_queries=0,
    known_seeds=1,
    told_all=False,
    references=False,
    refinement=Refinement(best=1, restarts=2, targets=0, above=0.5),
    curve=(0.5, 1.0),
    planted=9,
    directions=1,
)
SMOKE = replace(TIERS["smoke"], noise_points=2, draws=2, steps=2, report_draws=10)


@pytest.fixture(autouse=True)
def bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The images that ship with the package."""
    monkeypatch.delenv("SAP_ART_DATA", raising=False)


@pytest.fixture
def nets(tmp_path: Path) -> str:
    """A user's file."""
    path = tmp_path / "nets.py"
    path.write_text(NETS)
    return str(path)


def results(folder: Path) -> dict[str, bytes]:
    """All that was written, but what says when, where and by how many."""
    files = [p for p in folder.rglob("*") if p.is_file() and not p.name.endswith((".run.json", ".lock", "plan.json"))]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def test_interrupted_and_resumed_by_two_is_the_same_as_one_left_alone(
    monkeypatch: pytest.MonkeyPatch, nets: str, tmp_path: Path
) -> None:
    """Every record and every unit, of a policy and of users' own models; no finished unit is made again."""
    monkeypatch.setitem(TIERS, "full", TINY)
    entries = [SuiteEntry(f"{nets}:linear", "sap:100"), SuiteEntry(f"{nets}:Coin")]
    suite = Suite("small", "full", entries, images=70)
    run_suite(suite, output=tmp_path / "one")

    def interrupt(passes: int) -> None:
        if len(list((tmp_path / "two" / "work").rglob("*.safetensors"))) > 10:  # a stage may be over in no time
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_suite(suite, output=tmp_path / "two", workers=2, watch=Watch(advance=interrupt))
    finished = {p: p.stat().st_mtime_ns for p in (tmp_path / "two").rglob("*.safetensors")}
    run_suite(suite, output=tmp_path / "two", workers=2)

    assert finished
    assert {p: p.stat().st_mtime_ns for p in finished} == finished
    assert results(tmp_path / "two") == results(tmp_path / "one")


def test_what_is_wrong_with_a_model_is_said_as_by_one_process(
    monkeypatch: pytest.MonkeyPatch, nets: str, tmp_path: Path
) -> None:
    """An error that cannot travel is a text; a state between calls is seen; another net each time is refused."""
    monkeypatch.setitem(TIERS, "smoke", replace(SMOKE, calls_compared=True))
    raises, drifts, other = (SuiteEntry(f"{nets}:{name}") for name in ("Raises", "Drifts", "other_each_time"))
    run_suite(Suite("small", "smoke", [raises], images=3), output=tmp_path / "one")
    run_suite(Suite("small", "smoke", [raises, drifts], images=3), output=tmp_path / "two", workers=2)
    with pytest.raises(ValueError, match=r"is another model each time that it is made .* or give --workers 1"):
        run_suite(Suite("small", "smoke", [drifts, other], images=3), output=tmp_path / "other", workers=2)

    records = {p.stem: Record.read(p) for p in (tmp_path / "two" / "records").glob("*[!n].json") if "run" not in p.name}
    errors = {a.id: a.error for a in records["nets.py-Raises"].attacks}
    assert (tmp_path / "one/records/nets.py-Raises.json").read_bytes() == (
        tmp_path / "two/records/nets.py-Raises.json"
    ).read_bytes()
    climbs = dict.fromkeys(("eot-apgd-ce-autograd", "long-apgd-autograd"), "TwoArguments: one and two")
    assert errors == {**climbs, "noise": None}
    assert [f.state for f in records["nets.py-Drifts"].flags if f.code == "state-between-calls"] == ["raised"]


def test_passes_are_told_while_a_unit_is_in_work(nets: str, tmp_path: Path) -> None:
    """About twice a second, and in the end all of them."""
    plan = Blueprint(Suite("s", "smoke", [SuiteEntry(f"{nets}:Stops")], images=1), SMOKE, None, "cpu", tmp_path / "out")
    images = plan.images()
    entry = plan.entry(plan.suite.entries[0], images, Loader())
    told: list[int] = []
    stages: list[str] = []
    with Workers(plan, 1) as workers:
        job = replace(plan.job(entry, images), executor=workers, advance=told.append, announce=stages.append)
        unit = job.unit(Call("a/b/c", "calls", checks.call_successively, (), 2000))
        with pytest.raises(UnitError, match=r"a/b/d: TypeError: .*unexpected|a/b/d: TypeError: .*takes") as caught:
            job.unit(Call("a/b/d", "calls", checks.call_successively, (1,), 2000))

    assert unit["logits"].shape == (2000, 10)
    assert len([n for n in told if n > 0]) > 2
    assert 2000 <= sum(told) <= 2100  # and those that look for noise
    assert stages == ["calls"]
    assert caught.value.reason.startswith("TypeError: ")


def command(*arguments: str) -> list[str]:
    """``sap-art bench`` on two images with two workers."""
    # Where the tests run in the background, Ctrl-C may be ignored, and is by what they start.
    start = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from sap_art.cli import main; main()"
    )
    return [sys.executable, "-c", start, "bench", "--images", "2", "--workers", "2", *arguments]


def until(condition: object, seconds: float = 120) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def gone(group: int) -> bool:
    """Whether no process of that group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("how", ["interrupted", "killed"])
def test_no_process_outlives_the_driver(nets: str, tmp_path: Path, how: str) -> None:
    """Ctrl-C goes to all of them, kill -9 to the driver alone: in the middle of a long pass all end, in silence."""
    (tmp_path / "sleep").touch()
    entries = [f'[[entries]]\nmodel = "{nets}:{name}"\n' for name in ("Stops", "Random")]
    (tmp_path / "two.toml").write_text("\n".join(['name = "two"\ntier = "smoke"\n', *entries]))
    process = subprocess.Popen(
        command("--suite", str(tmp_path / "two.toml"), "--trust-code", "--output", str(tmp_path / "out")),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        until((tmp_path / "asleep").exists)
        if how == "interrupted":
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.kill()
        _, error = process.communicate(timeout=20)
        until(lambda: gone(process.pid), 20)
    finally:
        if not gone(process.pid):
            os.killpg(process.pid, signal.SIGKILL)

    assert process.returncode == (130 if how == "interrupted" else -signal.SIGKILL)
    assert "Traceback" not in error
    assert how == "killed" or error == "sap-art: interrupted; the same command goes on where it stopped\n"
    assert not list((tmp_path / "out" / "records").glob("*"))


def test_a_worker_that_dies_is_named_with_its_unit(nets: str, tmp_path: Path) -> None:
    """Status 1 and one line; the same command goes on."""
    arguments = command("--model", f"{nets}:Stops", "--output", str(tmp_path / "out"))
    (tmp_path / "die").touch()
    died = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120)
    (tmp_path / "die").unlink()
    finished = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.safetensors")}
    again = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120)

    assert died.returncode == 1
    assert len(died.stderr.splitlines()) == 1
    assert "a worker process died" in died.stderr
    assert "nets.py-Stops-" in died.stderr
    assert again.returncode == 0, again.stderr
    assert {p: p.stat().st_mtime_ns for p in finished} == finished
    assert (tmp_path / "out" / "records" / "nets.py-Stops.json").exists()


def test_a_worker_keeps_the_entries_that_it_built_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two, so that one fills the gaps of the other; memory does not grow with the suite."""
    built: list[str] = []

    def build(self: Worker, task: Task) -> str:
        built.append(task.entry)
        return task.entry

    monkeypatch.setattr(Worker, "_build", build)
    worker = Worker(cast(Any, None), cast(Any, None), 0)
    facts, call = cast(Facts, None), cast(Call, None)
    jobs = [worker._job(Task(0, call, name, facts, True)) for name in "ababacacb"]  # pyright: ignore[reportPrivateUsage]

    assert [str(job) for job in jobs] == list("ababacacb")
    assert built == ["a", "b", "c", "b"]  # c goes in for b, which was used longest ago


@pytest.mark.parametrize(
    ("device", "theirs"), [("cpu", "cpu"), ("cuda", "cuda:2"), ("cuda:0", "cuda:0"), ("cuda:1", "cuda:1")]
)
def test_each_process_has_a_gpu_of_its_own(device: str, theirs: str, tmp_path: Path) -> None:
    """Unless the user names one, or there is none."""
    plan = Blueprint(Suite("s", "smoke", [SuiteEntry("preact-resnet20")]), SMOKE, None, device, tmp_path)

    assert placed(plan, 2) == replace(plan, device=theirs)


def test_a_process_begins_on_its_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The one of its place, before anything is computed."""
    plan = Blueprint(Suite("s", "smoke", [SuiteEntry("preact-resnet20")]), SMOKE, None, "cuda", tmp_path)
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr("sap_art.blueprint.require_device", torch.device)  # there is no GPU here
    for harmful in ("signal.signal", "process.prepare", "_end_with", "torch.set_num_threads"):
        monkeypatch.setattr(f"sap_art.worker.{harmful}", lambda *_: None)
    monkeypatch.setattr("sap_art.worker._worker", None)
    places = multiprocessing.SimpleQueue()
    places.put(1)
    start(plan, 1, board=cast(Any, None), places=places, driver=cast(Any, None))

    assert chosen == [torch.device("cuda:1")]
    assert cast(Worker, worker._worker)._blueprint.device == "cuda:1"  # pyright: ignore[reportPrivateUsage]


def test_units_of_a_process_have_one_algorithm(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of the driver have, or a GPU's bits would depend on who computed them."""
    seen: list[bool] = []
    monkeypatch.setattr("sap_art.worker.finish", lambda job, call: seen.append(torch.backends.cudnn.deterministic))
    monkeypatch.setattr("sap_art.worker.count_passes", lambda model, hear: nullcontext())
    monkeypatch.setattr(Worker, "_job", lambda self, task: cast(Any, type)("Job", (), {"model": None}))
    board = Board(cast(Any, [0]), cast(Any, [IDLE]))
    Worker(cast(Any, None), board, 0).finish(Task(0, cast(Any, None), "e", cast(Any, None), True))

    assert seen == [True]
    assert not torch.backends.cudnn.deterministic


def test_a_model_stays_no_longer_than_its_entry_has_work(nets: str, tmp_path: Path) -> None:
    """Workers go on with other entries; what they know of those before takes no memory."""
    plan = Blueprint(Suite("s", "smoke", [SuiteEntry(f"{nets}:Stops")], images=1), SMOKE, None, "cpu", tmp_path / "out")
    images = plan.images()
    first, second = (plan.job(plan.entry(plan.suite.entries[0], images, Loader()), images) for _ in range(2))
    model = weakref.ref(first.model)
    with Workers(plan, 1) as workers:
        replace(first, executor=workers).unit(Call("a/b/c", "calls", checks.call_successively, (), 2000))
        del first
        replace(second, executor=workers).unit(Call("a/b/d", "calls", checks.call_successively, (), 2000))
        gc.collect()
        assert model() is None


def test_what_travels_is_small() -> None:
    """A view comes without what it is a view of, and can be written to."""
    images = torch.rand(1000, 3, 32, 32)
    call = Call("k", "n", checks.call_successively, (images[3:5], torch.tensor([True])), 1)
    data = pack(Task(0, call, "e", Facts(10, None, None), True))  # type: ignore[arg-type]
    points, flag = pickle.loads(data).call.arguments
    points += 1

    assert len(data) < 30_000
    assert torch.equal(points - 1, images[3:5] + 1 - 1)
    assert flag.dtype == torch.bool


def test_in_one_process_a_unit_that_raised_is_not_tried_again(nets: str, tmp_path: Path) -> None:
    """It is when it is submitted that it is computed; what the store raises is no error of the unit."""
    plan = Blueprint(
        Suite("s", "smoke", [SuiteEntry(f"{nets}:Random")], images=1), SMOKE, None, "cpu", tmp_path / "out"
    )
    images = plan.images()
    job = plan.job(plan.entry(plan.suite.entries[0], images, Loader()), images)
    tried: list[int] = []

    def fails(job: Job) -> Unit:
        tried.append(1)
        raise KeyError("no")

    def succeeds(job: Job) -> Unit:
        return {"x": torch.ones(1)}

    call = Call("a/b", "n", fails, (), 1)
    job.submit([call])
    assert tried == [1]
    with pytest.raises(UnitError, match="a/b: KeyError: 'no'"):
        job.unit(call)
    assert tried == [1]
    (tmp_path / "out" / "work" / "b").touch()
    with pytest.raises(NotADirectoryError):
        InProcess().result(job, Call("b/c", "n", succeeds, (), 1))


def test_workers_are_started_where_they_are_worth_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One for each quarter of a minute of work, at most one a core, or one a GPU if none is named."""
    monkeypatch.setattr("sap_art.workers.cores", lambda: 4)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    cpu, suite = torch.device("cpu"), Suite("s", "smoke", [SuiteEntry("preact-resnet20")])
    forecasts = {seconds: [Forecast("e", 1, seconds, 2.0), Forecast("f", 1, seconds, 2.0)] for seconds in (1, 40, 900)}
    found = {seconds: bench._worth_starting(left, cpu) for seconds, left in forecasts.items()}

    assert found == {1: 1, 40: 2, 900: 4}
    assert bench._worth_starting(forecasts[900], torch.device("cuda")) == 3
    assert bench._worth_starting(forecasts[40], torch.device("cuda")) == 2
    assert bench._worth_starting(forecasts[900], torch.device("cuda:1")) == 1
    refused = {
        ("cpu", 0): "workers must be at least 1, got 0",
        ("meta", 2): "workers must be at most 1 with the device meta, one a GPU, got 2",
    }
    for (device, workers), said in refused.items():
        with pytest.raises(ValueError, match=said):
            run_suite(suite, output=tmp_path / "out", device=device, workers=workers)
    assert not (tmp_path / "out").exists()
