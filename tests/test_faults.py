"""Faults for real: a full disk, a read-only one, kill -9, SIGTERM, two runs at once, a clock that jumps."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from small_suites import SMOKE, put, results, suite, units

from sap_art.bench import Watch, run_suite
from sap_art.cli import main
from sap_art.status import read_status
from sap_art.tiers import TIERS

KILL = Path(__file__).parents[1] / "benchmarks" / "faults" / "kill.py"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little work, on the bundled images."""
    monkeypatch.setitem(TIERS, "smoke", SMOKE)
    monkeypatch.delenv("SAP_ART_DATA", raising=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The results of a run that nothing happened to."""
    folder = put(tmp_path_factory.mktemp("whole"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TIERS, "smoke", SMOKE)
        patch.delenv("SAP_ART_DATA", raising=False)
        run_suite(suite(folder, "one", "two"), output=folder / "out")
    return results(folder / "out")


def mount(*arguments: str) -> None:
    """Or skip the test where nobody may."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"this machine lets nobody mount a file system: {done.stderr.strip() or done.returncode}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A file system of 400 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount("-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place))
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(small_disk: Path, tmp_path: Path, whole: dict[str, bytes]) -> None:
    """Said with the file; finished units stay, nothing half-written is left, and with room the run goes on."""
    chosen, out = suite(put(tmp_path), "one", "two"), small_disk / "out"
    with pytest.raises(OSError, match=r"No space left on device.*\.safetensors|No space left on device") as caught:
        run_suite(chosen, output=out)
    made = units(out)

    assert caught.value.errno == errno.ENOSPC
    assert made
    assert not list(out.rglob("*.part"))
    assert not read_status(out).at_work
    mount("-o", "remount,size=40m", str(small_disk))
    run_suite(chosen, output=out)
    assert made.items() <= units(out).items()
    assert results(out) == whole


def test_files_that_may_not_grow(tmp_path: Path, whole: dict[str, bytes]) -> None:
    """The same where nobody can mount a disk: by the system's limit on a file's size."""
    chosen, out = suite(put(tmp_path), "one", "two"), tmp_path / "out"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (37_000, hard))  # three images are smaller, some units larger
    try:
        with pytest.raises(OSError, match=r"File too large.*out/work/.*\.safetensors"):
            run_suite(chosen, output=out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    made = units(out)

    assert not list(out.rglob("*.part"))
    assert not list(out.rglob("*.failed.json"))  # a full disk is no fault of the attack
    run_suite(chosen, output=out)
    assert made.items() <= units(out).items()
    assert results(out) == whole


def test_an_output_that_is_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said at once, with status 2; what is there can be looked at."""
    out = tmp_path / "out"
    run_suite(suite(put(tmp_path), "one"), output=out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    mount("--bind", str(out), str(out))
    try:
        mount("-o", "remount,ro,bind", str(out))
        monkeypatch.setattr(
            "sys.argv",
            ["sap-art", "bench", "--model", f"{tmp_path}/nets.py:one", "--images", "3", "--output", str(out)],
        )
        with pytest.raises(OSError, match="Read-only file system"):
            run_suite(suite(tmp_path, "one", "two"), output=out)
        with pytest.raises(SystemExit) as caught:
            main()
        assert read_status(out).entries[0].finished
    finally:
        subprocess.run(["umount", str(out)], check=True)

    assert caught.value.code == 2
    assert "sap-art: " in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_clock_that_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, bytes]) -> None:
    """Back and forth by days, at each look: nothing is waited for by it, and no result depends on it."""
    jumps = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: 1e9 + 1e6 * (-1) ** next(jumps))
    seen: list[str] = []
    chosen, out = suite(put(tmp_path), "one", "two"), tmp_path / "out"
    run_suite(chosen, output=out, watch=Watch(announce=lambda stage: seen.append(str(read_status(out)))))

    assert results(out) == whole
    assert all("-" not in text.rpartition("time left:")[2] for text in seen)


def test_sigterm_and_a_second_run(tmp_path: Path) -> None:
    """A second run is refused at once, the first one goes on; SIGTERM ends it like Ctrl-C, with status 143."""
    put(tmp_path)
    slow = (tmp_path / "nets.py").read_text().replace("return self.net(x)", "time.sleep(0.3); return self.net(x)")
    (tmp_path / "nets.py").write_text(f"import time\n{slow}")
    out = tmp_path / "out"
    start = "from sap_art.cli import main; main()"
    options = ["--model", f"{tmp_path / 'nets.py'}:net", "--images", "1", "--workers", "1", "--output", str(out)]
    command = [sys.executable, "-c", start, "bench", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 120
        while not list(out.glob("work/**/*.part")):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert process.poll() is None
        assert read_status(out).at_work
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=60)

    assert second.returncode == 2
    assert f"sap-art: another run is at work in {out} (process {process.pid} on " in second.stderr
    assert process.returncode == 143
    assert error == "sap-art: interrupted; the same command goes on where it stopped\n"
    assert not list(out.rglob("*.part"))
    assert not read_status(out).at_work


@pytest.mark.timeout(900)
def test_killed_three_times_at_random(tmp_path: Path) -> None:
    """One unit in work is lost, none that was finished, and the records are the same to the byte."""
    command = [sys.executable, str(KILL), "--kills", "3", "--output", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=800)
    trials = json.loads((tmp_path / "kill.json").read_text())["trials"]

    assert done.returncode == 0, done.stdout + done.stderr
    assert len(trials) == 3
    for trial in trials:
        assert trial["same"]
        assert trial["lost"] <= 1
        assert trial["computed_again"] == 0
    assert "3 of 3 lost nothing but units in work" in (tmp_path / "kill.md").read_text()
