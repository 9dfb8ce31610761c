"""How much memory an evaluation takes beside one forward and backward pass, and how that grows with the images.

    python benchmarks/memory/run.py --output benchmarks/memory/results [--device cuda]

Each number is that of a process of its own. Linux only, for on a CPU it is the system that is asked.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sap_art import __version__, process

process.prepare()  # as the command line does it, before torch is loaded

import numpy as np  # noqa: E402
import torch  # noqa: E402

from sap_art import bench  # noqa: E402
from sap_art.attacker import AttackerView  # noqa: E402
from sap_art.attacks.objective import loss_and_gradient  # noqa: E402
from sap_art.blueprint import Blueprint, Images  # noqa: E402
from sap_art.entries import Entry  # noqa: E402
from sap_art.models import Loader  # noqa: E402
from sap_art.stochastic import default_max_batch  # noqa: E402
from sap_art.suites import Suite, SuiteEntry  # noqa: E402
from sap_art.tiers import TIERS  # noqa: E402

TARGET = 1.3
"""Times the peak of one forward and backward pass, at most."""
NET, CHEAP = "preact-resnet20", f"{Path(__file__).with_name('nets.py')}:small"
IMAGES = {None: (64, 256, 512), "sap:100": (64,)}
REPEATS = 3
"""Passes with each estimator: from the second on an allocator keeps what it has."""
MANY = {"smoke": (1000, 5000), "quick": (500, 2000)}
CLASSES = 10
COMMAND = "python benchmarks/memory/run.py --output benchmarks/memory/results"
LOOK = 0.002
"""Seconds between two looks at the memory."""
MIB = 2**20


@dataclass(frozen=True)
class Case:
    """One measurement: ``work`` is "pass", one forward and backward pass at the run's batch, or "bench"."""

    work: str
    model: str
    policy: str | None
    images: int
    device: str
    tier: str = "smoke"
    source: str | None = None


@dataclass
class Peak:
    """MiB above those of a process that has loaded the model: its own, and with what is mapped from files."""

    own: float
    whole: float
    baseline: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        sys.stdout.write(json.dumps(asdict(measured(Case(**json.loads(given.case))))))
        return
    found = {"setting": setting(given.device), "runs": runs(given.device), "growth": growth(given.device)}
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "memory.json").write_text(json.dumps(found, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (given.output / "memory.md").write_text(page(found), encoding="utf-8")


def runs(device: str) -> list[dict[str, Any]]:
    """Whole runs beside one pass."""
    rows: list[dict[str, Any]] = []
    for policy, counts in IMAGES.items():
        one = apart(Case("pass", NET, policy, default_max_batch(torch.device(device)), device))
        for images in counts:
            run = apart(Case("bench", NET, policy, images, device))
            rows.append({"policy": policy, "images": images, "pass": asdict(one), "bench": asdict(run)})
    return rows


def growth(device: str) -> list[dict[str, Any]]:
    """Runs with a net that takes next to nothing, on images made up."""
    rows: list[dict[str, Any]] = []
    for tier, counts in MANY.items():
        with tempfile.TemporaryDirectory() as folder:
            source = str(Path(folder) / "images.npz")
            pixels = np.random.default_rng(0).integers(0, 256, (max(counts), 32, 32, 3), dtype=np.uint8)
            np.savez(source, images=pixels, labels=np.arange(max(counts)) % CLASSES)
            peaks = [apart(Case("bench", CHEAP, None, images, device, tier, source)) for images in counts]
        rows += [{"tier": tier, "images": n, "bench": asdict(peak)} for n, peak in zip(counts, peaks, strict=True)]
    return rows


def apart(case: Case) -> Peak:
    """Measured in a process of its own."""
    command = [sys.executable, __file__, "--case", json.dumps(asdict(case))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{case} failed:\n{done.stderr}")
    sys.stderr.write(f"{case}: {done.stdout}\n")
    return Peak(**json.loads(done.stdout))


def measured(case: Case) -> Peak:
    with tempfile.TemporaryDirectory() as folder:
        suite = Suite("memory", case.tier, [SuiteEntry(case.model, case.policy)], images=case.images)
        plan = Blueprint(suite, TIERS[case.tier], case.source, case.device, Path(folder) / "out")
        few = replace(plan, suite=replace(suite, images=case.images if case.work == "pass" else 1))
        images = few.images()
        entry = few.entry(suite.entries[0], images, Loader())
        one_pass(entry, Images(images.x[:1], images.y[:1]))  # compiled code and threads are no part of it
        with watched(plan.where) as peak:
            if case.work == "bench":
                bench.run_suite(suite, output=plan.output, device=case.device, source=case.source)
            else:
                for _ in range(REPEATS):
                    one_pass(entry, images)
    return peak


def one_pass(entry: Entry, images: Images) -> None:
    """Forwards and backwards, one draw an image, with each estimator."""
    for estimator in entry.model.estimators:
        loss_and_gradient(AttackerView(entry.model, gradient=estimator), *images, loss="ce")


@contextmanager
def watched(device: torch.device) -> Generator[Peak]:
    """Within, the peak of this process, above what it has now; on a GPU of torch's tensors there."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / MIB
        peak = Peak(0, 0, before)
        yield peak
        peak.own = peak.whole = torch.cuda.max_memory_allocated() / MIB - before
        return
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the highest so far is that of now
    own, whole = status("RssAnon", "VmRSS")
    peak, over = Peak(0, 0, whole), threading.Event()

    def look() -> None:
        while not over.wait(LOOK):
            peak.own = max(peak.own, status("RssAnon")[0] - own)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()
        peak.whole = status("VmHWM")[0] - whole


def status(*names: str) -> list[float]:
    """MiB of this process."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return [int(re.findall(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)[0]) / 1024 for name in names]


def setting(device: str) -> dict[str, Any]:
    here = f"{platform.machine()}, {torch.get_num_threads()} threads"
    name = torch.cuda.get_device_name() if device == "cuda" else here
    return {"device": device, "machine": name, "torch": torch.__version__, "sap_art": __version__}


def page(found: dict[str, Any]) -> str:
    where = found["setting"]
    first = "| entry | images | one pass, MiB | run, MiB | run / pass | with mapped files |"
    lines = [
        "# Memory of an evaluation",
        "",
        f"`{COMMAND}{'' if where['device'] == 'cpu' else ' --device ' + where['device']}`, tier `smoke`, "
        f"{where['machine']}, torch {where['torch']}, sap_art {where['sap_art']}. MiB above those of a process that "
        "has loaded the model and made a pass with one image. A pass goes forwards and backwards with the rows "
        f"that a run puts into one: the peak of {REPEATS} with each estimator, one after the other.",
        "",
        first,
        "|---|---:|---:|---:|---:|---:|",
        *(_run(row) for row in found["runs"]),
        "",
        f"Aimed at: at most {TARGET} times. *Run* is memory of the process's own. *With mapped files* is its largest "
        "resident set, beside that of the pass, in which files count that it has looked into: images, points and "
        "libraries, which the system drops when memory is short."
        if where["device"] == "cpu"
        else "",
        "",
        "A net that takes next to nothing shows what images take:",
        "",
        "| tier | images | run, MiB | with mapped files, MiB |",
        "|---|---:|---:|---:|",
        *(
            f"| {row['tier']} | {row['images']:,} | {row['bench']['own']:.0f} | {row['bench']['whole']:.0f} |"
            for row in found["growth"]
        ),
        "",
        "What grows is the draws (16 an image in `smoke`, 50 in `quick`) and, up to a thousand images, the resamples "
        "of calibration scores, which are made in pieces of 16 MiB beyond that.",
        "",
        *(f"{tier}: {_rise(found['growth'], tier):.1f} KiB of its own an image.  " for tier in MANY),
    ]
    return "\n".join(lines) + "\n"


def _run(row: dict[str, Any]) -> str:
    one, run = row["pass"], row["bench"]
    ratios = f"{run['own'] / one['own']:.2f} | {run['whole'] / one['whole']:.2f}"
    return f"| {row['policy'] or 'dense'} | {row['images']} | {one['own']:.0f} | {run['own']:.0f} | {ratios} |"


def _rise(rows: list[dict[str, Any]], tier: str) -> float:
    few, many = (row for row in rows if row["tier"] == tier)
    return 1024 * (many["bench"]["own"] - few["bench"]["own"]) / (many["images"] - few["images"])


if __name__ == "__main__":
    main()
