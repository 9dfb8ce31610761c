"""The speed benchmark runs, and what is committed of it is what the README says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUN = ROOT / "benchmarks" / "speed" / "run.py"
RESULTS = ROOT / "benchmarks" / "speed" / "results"


def test_it_times_every_kernel_beside_its_peers(tmp_path: Path) -> None:
    """In small sizes, whose ratios mean nothing: contestants, files, no path of the machine."""
    command = [sys.executable, str(RUN), "--quick", "--only", "draw,eot", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    text = (tmp_path / "speed-cpu.md").read_text(encoding="utf-8")

    assert done.returncode == 0, done.stderr
    for contestant in (
        "torch.multinomial + scatter",
        "dropout",
        "sap_art multinomial, torch",
        "sap_art multinomial, numba",
    ):
        assert contestant in text
    assert "k = 2" in text
    assert json.loads((tmp_path / "speed-cpu.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "drow"], "unknown: drow; known: draw, forward"),
        (["--threads", "0"], "must be a whole number, at least 1, got '0'"),
        (["--device", "tpu"], "invalid choice: 'tpu'"),
    ],
)
def test_bad_arguments_are_refused(arguments: list[str], message: str, tmp_path: Path) -> None:
    """Before anything is timed."""
    command = [sys.executable, str(RUN), *arguments, "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()
