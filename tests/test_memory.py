"""Memory: what is kept on the disk, what is done in pieces, and a CPU that has too little for a whole batch."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import cast

import pytest
import torch
from small_suites import results
from torch import nn

from sap_art import SAP, DefendedModel, evaluation, wrap
from sap_art.calibration import bootstrap_intervals, null_floor, uncertainty
from sap_art.determinants import described, digest
from sap_art.evaluation import Evaluation
from sap_art.mapping import mapped
from sap_art.protocol.outcome import points_in
from sap_art.stochastic import one_draw
from sap_art.store import Store, Stored
from sap_art.workers import pack

RUN = """
import resource, sys
from pathlib import Path
import torch
from small_suites import SMOKE, put, suite
from sap_art.bench import run_suite
from sap_art.tiers import TIERS

folder, limit = Path(sys.argv[1]), int(sys.argv[2])
TIERS["smoke"] = SMOKE
(folder / "nets.py").write_text(Path(sys.argv[3]).read_text())
chosen = suite(folder, "net", images=10)
torch.set_num_threads(1)
torch.nn.Linear(3, 3)(torch.rand(2, 3, requires_grad=True)).sum().backward()  # its threads have memory of their own
if limit:
    used = 1024 * int(next(l for l in open("/proc/self/status") if l.startswith("VmSize")).split()[1])
    resource.setrlimit(resource.RLIMIT_AS, (used + limit, resource.RLIM_INFINITY))
run_suite(chosen, output=folder / "out", workers=1)
"""
GREEDY = """
import numpy as np
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 10))
        generator = torch.Generator().manual_seed(1)
        for p in self.net.parameters():
            p.data = torch.randn(p.shape, generator=generator)

    def forward(self, x):
        needed = {take}
        return torch.cat([self.net(row[None]) for row in x])

def net():
    return Net().eval()
"""
ROW = 50 * 2**20
TAKES = {
    "torch": f"torch.empty(len(x) * {ROW}, dtype=torch.uint8)",
    "numpy": f"np.empty(len(x) * {ROW}, dtype=np.uint8)",
}


def run(folder: Path, net: Path, *, limit: int) -> None:
    """In a process of its own, with so many bytes more than it has when it begins; 0 for no limit."""
    folder.mkdir()
    places = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {k: v for k, v in os.environ.items() if k != "SAP_ART_DATA"} | {"PYTHONPATH": os.pathsep.join(places)}
    command = [sys.executable, "-c", RUN, str(folder), str(limit), str(net)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
@pytest.mark.parametrize("take", TAKES)
def test_a_cpu_that_is_short_of_memory_halves_the_batch(take: str, tmp_path: Path) -> None:
    """For real: two draws of 10 images take 1,000 MiB, of 5 images 500, there are 900; the sidecar says so."""
    net = tmp_path / "greedy.py"
    net.write_text(GREEDY.replace("{take}", TAKES[take]))
    run(tmp_path / "short", net, limit=900 * 2**20)
    run(tmp_path / "plenty", net, limit=0)
    short, plenty = (
        json.loads((tmp_path / name / "out" / "records" / "nets.py-net.run.json").read_text())
        for name in ("short", "plenty")
    )

    assert short["least_rows"] == 5
    assert short["units_short_of_memory"] > 1
    assert "least_rows" not in plenty
    assert results(tmp_path / "short" / "out") == results(tmp_path / "plenty" / "out")


@pytest.mark.parametrize("message", ["DefaultCPUAllocator: not enough memory", "could not create a primitive"])
def test_one_draw_of_a_probe_is_halved_too(message: str) -> None:
    """With the numbers that it has in one pass; another error is raised at once."""
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(48, 99), nn.ReLU(), nn.Linear(99, 4)), torch.rand(7, 3, 4, 4)

    class Small(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > 2:
                raise RuntimeError(message)
            return cast(torch.Tensor, net(x))

    with torch.no_grad():
        small, whole = (one_draw(DefendedModel(module, SAP(50), seed=1), x) for module in (Small(), net))
        torch.testing.assert_close(small, whole)
        message = "another one"
        with pytest.raises(RuntimeError, match="another one"):
            one_draw(wrap(Small()), x)


def test_mapped_tensors_are_those_of_their_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their file has no name, so nothing is left of it; they can be written to."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    parts = [torch.arange(6.0).view(2, 3), torch.ones(1, 3), torch.zeros(0, 3)]
    whole = mapped(iter(parts))

    assert torch.equal(whole, torch.cat(parts))
    assert not list(tmp_path.iterdir())
    whole[0] = 7
    assert whole.sum() == 21 + 12 + 3
    assert mapped([torch.tensor([1, 2])]).dtype == torch.int64


def test_a_stored_unit_is_read_each_time_and_travels_whole(tmp_path: Path) -> None:
    """It stands for its key, in which there is all that it depends on."""
    store = Store(tmp_path)
    unit = store.unit("a/u", lambda: {"x": torch.arange(3.0)})
    kept = Stored("a/u", store)
    arrived = pickle.loads(pack([kept]))[0]
    store.path("a/u").unlink()

    assert described(kept) == "a/u"
    assert digest([kept]) == digest([arrived]) != digest([Stored("a/v", store)])
    assert torch.equal(arrived.read()["x"], unit["x"])
    with pytest.raises(FileNotFoundError):
        kept.read()


def test_where_an_attack_left_nothing_the_image_stands() -> None:
    """Image numbers are those of all images, places those of the block."""
    x = torch.arange(6.0).view(6, 1)
    unit = Stored("u", {"index": torch.tensor([65, 69]), "x_adv": torch.tensor([[-1.0], [-2.0]])})
    points, done = points_in(unit, x, 1)

    assert points.flatten().tolist() == [0, -1, 2, 3, 4, -2]
    assert done.tolist() == [False, True, False, False, False, True]
    assert torch.equal(points_in(None, x, 1).points, x)
    assert x[1] == 1


def test_what_is_averaged_in_pieces_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws by images; resamples and simulations by rows, from the same random numbers."""
    draws = torch.randn(5, 200, 4, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    y = torch.arange(200) % 4

    def found() -> tuple[torch.Tensor, list[float]]:
        p = Evaluation(draws, y).probabilities
        floor, intervals = null_floor(p, y, seed=1), bootstrap_intervals(p, y, seed=1)
        return p, [floor.mean, floor.quantile, floor.p_value, *intervals.ece, *intervals.brier, *intervals.nll]

    whole, scores = found()
    monkeypatch.setattr(evaluation, "PIECE", 64)
    monkeypatch.setattr(uncertainty, "AT_ONCE", 7 * 200)
    pieces, same = found()

    torch.testing.assert_close(pieces, whole, rtol=1e-14, atol=0)
    assert same == pytest.approx(scores, rel=1e-12)
