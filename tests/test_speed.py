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
NAMES = ("torch.multinomial + scatter", "dropout", "sap_art multinomial, torch", "sap_art multinomial, numba")
RATIOS = ("multinomial, numba", "multinomial, torch", "bpda, numba", "autograd, numba")


def test_it_times_every_kernel_beside_its_peers(tmp_path: Path) -> None:
    """In small sizes, whose ratios mean nothing: contestants, files, no path of the machine."""
    command = [sys.executable, str(RUN), "--quick", "--only", "draw,eot", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    text = (tmp_path / "speed-cpu.md").read_text(encoding="utf-8")

    assert done.returncode == 0, done.stderr
    for contestant in NAMES:
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


def test_the_readme_s_numbers_are_the_committed_ones() -> None:
    """Times of one draw and ratios of a forward pass, rounded as the README writes them."""
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    table = (RESULTS / "speed-cpu.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    first = {row[1]: row for row in reversed(rows)}  # of several cases the first: 16,384 units, one thread
    draw = [float(first[name][2].split()[0]) for name in NAMES]
    ratio = {name: float(first[f"SAP {name}"][3].split()[0]) for name in RATIOS}

    assert (
        "take {:.0f} ms, dropout {:.1f} ms, our torch kernel {:.1f} ms and the compiled one {:.1f} ms".format(*draw)
        in readme
    )
    assert f"costs {ratio['multinomial, numba']:.1f} times the dense one" in readme
    assert f"({ratio['multinomial, torch']:.1f} times without numba)" in readme
    assert f"{ratio['bpda, numba']:.1f} to {ratio['autograd, numba']:.1f} times" in readme
