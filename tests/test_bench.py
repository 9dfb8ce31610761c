"""The main job for real: the smoke suite through the command line, interruption, users' own nets."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from html import escape
from pathlib import Path

import pytest
import torch

from sap_art import suites
from sap_art.provenance import manifest
from sap_art.record import DataInfo, Record

SMALL = ["--model", "preact-resnet20", "--policy", "sap:100", "--images", "3"]


def command(*arguments: str) -> list[str]:
    """The installed console script's command line, run by this interpreter."""
    return [sys.executable, "-c", "from sap_art.cli import main; main()", *arguments]


def run(*arguments: str, timeout: float = 600, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """``sap-art`` without the data set, so on the bundled images."""
    environment = {k: v for k, v in os.environ.items() if k != "SAP_ART_DATA"} | {"COLUMNS": "300"}
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=timeout, env=environment, cwd=cwd, check=False
    )


def contents(folder: Path, pattern: str) -> dict[str, bytes]:
    """File names and bytes; sidecars left out, they say when and where."""
    return {p.name: p.read_bytes() for p in folder.glob(pattern) if not p.name.endswith(".run.json")}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The whole smoke suite, once."""
    output = tmp_path_factory.mktemp("smoke") / "out"
    return output, run("bench", "--suite", "smoke", "--output", str(output), timeout=1200)


@pytest.fixture(scope="module")
def records(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> dict[str, Record]:
    """Its records by entry."""
    output, result = smoke
    assert result.returncode == 0, result.stderr
    return {p.stem: Record.read(p) for p in (output / "records").glob("*.json") if not p.name.endswith(".run.json")}


@pytest.mark.timeout(1500)
def test_the_undefended_net_falls_to_zero(records: dict[str, Record]) -> None:
    """At 8/255 in every attack but noise and one step; no flag is raised."""
    dense = records["preact-resnet20"]

    assert dense.metrics["clean"].value > 0.85
    assert dense.metrics["T1"].value == 0.0
    assert {a.id: a.accuracy.value for a in dense.attacks if a.accuracy and "pgd" in a.id} == {
        "pgd-dense": 0.0,
        "eot-apgd-ce-autograd": 0.0,
    }
    assert [f.code for f in dense.flags if f.state == "raised"] == []


def test_sap_falls_with_it(records: dict[str, Record]) -> None:
    """The worst case is within a few of 64 images of 0 %, while noise leaves it nearly unharmed."""
    for name in ("preact-resnet20-sap-100", "preact-resnet20-sap-200"):
        record = records[name]

        assert record.metrics["T1"].value < 3 / 64
        assert record.metrics["noise"].value > 0.3
        assert record.metrics["T1"].high < record.metrics["noise"].low


def test_the_worst_case_is_no_better_than_any_attack_alone(records: dict[str, Record]) -> None:
    """Beyond what fresh draws can move."""
    for record in records.values():
        best = min(a.accuracy.value for a in record.attacks if a.accuracy)
        assert record.metrics["T1"].low <= best


def test_each_attack_is_shown_by_itself(
    smoke: tuple[Path, subprocess.CompletedProcess[str]], records: dict[str, Record]
) -> None:
    """In the terminal, in table.md and in the records, with what it cost."""
    output, result = smoke
    for title in (
        "noise",
        "FGSM transfer",
        "PGD transfer",
        "EOT-APGD bpda",
        "EOT-APGD frozen",
        "EOT-APGD autograd",
        "long APGD bpda",
    ):
        assert title in (output / "table.md").read_text()
        assert title.split()[0] in result.stdout
    costs = {a.id: (a.forwards, a.backwards) for a in records["preact-resnet20-sap-100"].attacks}
    assert costs == {
        "noise": (100.0, 0.0),
        "fgsm-dense": (1.0, 1.0),
        "pgd-dense": (20.0, 20.0),
        **{f"eot-apgd-ce-{e}": (80.0, 80.0) for e in ("bpda", "frozen", "autograd")},
        "long-apgd-bpda": (100.0, 100.0),
    }
    assert sum(a.images_won or 0 for a in records["preact-resnet20-sap-100"].attacks) <= 64


def test_every_flag_has_a_state_and_the_verdict_follows(records: dict[str, Record]) -> None:
    """What the smoke tier checks was checked; what it leaves out is said."""
    left_out = {
        "not-monotone", "steps-not-converged", "draws-not-converged", "restarts-not-converged",
        "selection-not-converged", "low-gradient-signal", "known-seed-attack-fails",
        "seed-gap", "planted-example-missed", "state-between-calls",
    }  # fmt: skip
    for record in records.values():
        assert {f.code for f in record.flags if f.state == "not-checked"} == left_out
        assert record.verdict in ("incomplete", "warning")


def test_the_same_command_again_reads_what_is_there(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """Nothing is computed, nothing changes; a lost record is rebuilt from its units to the byte."""
    output, _ = smoke
    before = contents(output, "records/*.json") | contents(output, "model_info/*/*/*.json")
    (output / "records" / "preact-resnet20-sap-100.json").unlink()
    result = run("bench", "--suite", "smoke", "--output", str(output))

    assert result.returncode == 0, result.stderr
    assert contents(output, "records/*.json") | contents(output, "model_info/*/*/*.json") == before


def test_another_suite_s_folder_is_refused(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """And left as it was."""
    output, _ = smoke
    before = contents(output, "**/*.json")
    result = run("bench", "--suite", "smoke", "--eps", "4/255", "--output", str(output))

    assert result.returncode == 2
    assert "another run, which differs in: eps" in result.stderr
    assert contents(output, "**/*.json") == before


@pytest.mark.timeout(900)
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    """kill -9 in the middle, twice; the records are those of a run that was left alone."""
    whole = run("bench", *SMALL, "--output", str(tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    cut = tmp_path / "cut"
    for units in (2, 5):
        with subprocess.Popen(
            command("bench", *SMALL, "--output", str(cut)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={k: v for k, v in os.environ.items() if k != "SAP_ART_DATA"},
        ) as process:  # fmt: skip
            deadline = time.monotonic() + 300
            while len(list(cut.glob("work/*/*/*.safetensors"))) < units and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
    assert not (cut / "records" / "preact-resnet20-sap-100.json").exists()
    finished = {p: p.stat().st_mtime_ns for p in cut.glob("work/*/*/*.safetensors")}
    result = run("bench", *SMALL, "--output", str(cut))

    assert result.returncode == 0, result.stderr
    assert contents(cut, "records/*.json") == contents(tmp_path / "whole", "records/*.json")
    assert all(p.stat().st_mtime_ns == t for p, t in finished.items())
    assert not list(cut.rglob("*.part"))


def test_a_user_s_random_defence_is_evaluated(tmp_path: Path) -> None:
    """A file with a function; its noise is found, its coin cannot be broken and is called unreliable."""
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "class Coin(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return torch.randn(len(x), 10) * 5 + 0 * x.sum((1, 2, 3))[:, None]\n"
        "def net():\n"
        "    return Coin()\n"
    )
    result = run("bench", "--model", "mine.py:net", "--images", "2", "--output", "out", cwd=tmp_path)
    record = Record.read(next((tmp_path / "out" / "records").glob("mine*net.json")))

    assert result.returncode == 0, result.stderr
    assert record.defence.spec == "foreign"
    assert record.verdict == "unreliable"
    assert {a.id for a in record.attacks} == {"eot-apgd-ce-autograd", "long-apgd-autograd", "noise"}


def test_a_crashed_attack_is_an_error_and_never_robustness(tmp_path: Path) -> None:
    """NaN gradients: exit status 1, the verdict is failed, the attack has no accuracy."""
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "from sap_art import zoo\n"
        "class Masked(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.net = zoo.load('preact-resnet20')\n"
        "    def forward(self, x):\n"
        "        zero = torch.where(x > 2, x / (x - x), 0 * x)\n"
        "        return self.net(x + zero)\n"
        "def net():\n"
        "    return Masked()\n"
    )
    result = run("bench", "--model", "mine.py:net", "--images", "2", "--output", "out", cwd=tmp_path)
    record = Record.read(next((tmp_path / "out" / "records").glob("mine*net.json")))
    crashed = [a for a in record.attacks if a.error]

    assert result.returncode == 1
    assert "attack failed" in result.stderr
    assert record.verdict == "failed"
    assert {a.id for a in crashed} == {"pgd-dense", "fgsm-dense", "eot-apgd-ce-autograd"}
    assert all(a.accuracy is None for a in crashed)
    assert "FloatingPointError" in (crashed[0].error or "")
    assert "zero-or-non-finite-gradient" in {f.code for f in record.flags if f.state == "raised"}


def test_sidecars_hold_what_may_differ(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """Seconds, machine and versions are beside the record, not in it."""
    output, _ = smoke
    sidecar = json.loads((output / "records" / "preact-resnet20.run.json").read_text())

    assert {"seconds", "finished", "torch", "device", "threads"} <= set(sidecar)
    assert "seconds" not in json.loads((output / "records" / "preact-resnet20.json").read_text())


def test_a_site_is_built_of_what_a_run_leaves(
    smoke: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Its sidecars, as they are, are taken; a page names the kinds of processor that its units were computed on."""
    output, _ = smoke
    result = run("site", "--records", str(output / "records"), "--output", str(tmp_path / "site"))
    devices = json.loads((output / "records" / "preact-resnet20-sap-100.run.json").read_text())["unit_devices"]

    assert result.returncode == 0, result.stderr
    pages = [page.read_text(encoding="utf-8") for page in (tmp_path / "site" / "entries").glob("*sap-100.html")]
    assert pages
    assert all(f"<dt>unit_devices</dt><dd>{escape(' and '.join(devices))}</dd>" in page for page in pages)


def test_the_console_script_is_installed() -> None:
    """``sap-art --version`` is not needed to know that help works; torch is not loaded for it."""
    script = shutil.which("sap-art", path=str(Path(sys.executable).parent))
    assert script is not None
    result = subprocess.run([script, "bench", "--help"], capture_output=True, text=True, timeout=60, check=False)

    assert result.returncode == 0
    assert "--suite" in result.stdout


NETS = """
import torch
from sap_art import zoo
NET = zoo.load("preact-resnet20")
class Flips(torch.nn.Module):
    def forward(self, x):
        return NET(x) * (1 - 2 * (torch.rand(len(x), 1) < SHARE).float())
class Fragile(torch.nn.Module):
    def forward(self, x):
        off_grid = (x * 255 - (x * 255).round()).abs().flatten(1).amax(1) > 1e-3
        return NET(x) + torch.where(off_grid, torch.nan, 0.0)[:, None]
class FragileWhenScored(torch.nn.Module):
    def forward(self, x):
        return NET(x) if torch.is_grad_enabled() else Fragile()(x)
class PerBatchCoin(torch.nn.Module):
    def forward(self, x):
        return NET(x) * (1 if torch.rand(()) < 0.7 else -1)
SHARE = 0.3
def flips():
    return Flips()
def fragile():
    return Fragile()
def scored():
    return FragileWhenScored()
def coin():
    return PerBatchCoin()
def narrow():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(7, 10))
"""


def test_a_net_that_is_random_by_itself_takes_no_policy(tmp_path: Path) -> None:
    """And one that does not take the images is refused; status 2, nothing written."""
    (tmp_path / "nets.py").write_text(NETS)
    for arguments, message in [
        (["nets.py:flips", "--policy", "sap:100"], "is random by itself"),
        (["nets.py:narrow"], "does not take images of shape (3, 32, 32)"),
    ]:
        result = run("bench", "--model", *arguments, "--images", "2", "--output", "out", cwd=tmp_path)

        assert (result.returncode, message in result.stderr) == (2, True), result.stderr
        assert not (tmp_path / "out").exists()


def test_results_of_another_function_of_the_same_name_are_not_taken_up(tmp_path: Path) -> None:
    """The user has changed the code: all is computed anew, and what has changed is said."""
    (tmp_path / "nets.py").write_text(NETS)
    arguments = ("bench", "--model", str(tmp_path / "nets.py") + ":flips", "--images", "1", "--output", "out")
    assert run(*arguments, cwd=tmp_path).returncode == 0
    record = tmp_path / "out" / "records" / "nets.py-flips.json"
    before = record.read_bytes()
    (tmp_path / "nets.py").write_text(NETS.replace("SHARE = 0.3", "SHARE = 0.6"))
    result = run(*arguments, cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    assert "nets.py-flips: computed anew, for there are changes in: answers, source.nets.py" in result.stdout
    assert record.read_bytes() != before
    assert len(list((tmp_path / "out" / "work").glob("nets.py-flips-*"))) == 2


def test_a_model_that_answers_an_attack_with_nan_is_an_error(tmp_path: Path) -> None:
    """Any pixel that is no multiple of 1/255 breaks this one: only FGSM gets through, the rest is said; status 1."""
    (tmp_path / "nets.py").write_text(NETS)
    result = run("bench", "--model", "nets.py:fragile", "--images", "2", "--output", "out", cwd=tmp_path)

    record = Record.read(next((tmp_path / "out" / "records").glob("*fragile.json")))

    assert result.returncode == 1, result.stderr
    assert record.verdict == "failed"
    assert {a.id for a in record.attacks if a.error} == {"pgd-dense", "eot-apgd-ce-autograd", "noise"}


def test_nan_in_scoring_is_an_error_of_that_attack(tmp_path: Path) -> None:
    """This one answers with NaN only where no gradient is asked for, so the attacks themselves succeed."""
    (tmp_path / "nets.py").write_text(NETS)
    result = run("bench", "--model", "nets.py:scored", "--images", "2", "--output", "out", cwd=tmp_path)
    record = Record.read(next((tmp_path / "out" / "records").glob("*scored.json")))
    errors = {a.id: a.error for a in record.attacks if a.error}

    assert (result.returncode, record.verdict) == (1, "failed"), result.stderr
    assert "scoring failed" in errors["pgd-dense"]
    assert "scoring failed" in errors["eot-apgd-ce-autograd"]
    assert "fgsm-dense" not in errors


def test_noise_shared_by_the_batch_is_drawn_one_by_one(tmp_path: Path) -> None:
    """Flagged, and 16 draws of two images are 16 tosses, not one that is copied into a batch."""
    (tmp_path / "nets.py").write_text(NETS)
    result = run("bench", "--model", "nets.py:coin", "--images", "2", "--output", "out", cwd=tmp_path)
    record = Record.read(next((tmp_path / "out" / "records").glob("*coin.json")))

    assert result.returncode == 0, result.stderr
    assert "batch-shared-noise" in {f.code for f in record.flags if f.state == "raised"}
    assert 0 < record.metrics["clean"].value < 1


def test_the_manifest_says_device_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bits are the same on one device type, thread count and torch: others must not take up half-finished work."""
    suite, images = suites.load("smoke"), DataInfo("cifar10", 1, "0")
    x = torch.rand(1, 3, 32, 32)
    before = manifest(suite, images, x)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    monkeypatch.setattr(torch, "__version__", "77.0")

    assert manifest(suite, images, x) == {**before, "threads": 77, "torch": "77.0"}
    assert manifest(suite, images, x.to("meta"))["device"] == "meta"
