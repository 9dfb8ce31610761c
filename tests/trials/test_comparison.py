"""The table of what everybody reports: from records alone, complete or not, and none that do not fit together."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sap_art.record import Value, write_json

CONTROLS = Path(__file__).parents[2] / "benchmarks" / "controls"
STANDARD = "autoattack-standard of trained_dense"
CAPTION = (
    "cifar10, Linf eps = 8/255, seed 0; accuracy in %. AutoAttack-rand (100 steps, 20 draws) and ART's PGD (20 steps, "
    "10 draws) on 32 images: what the library prints and, in brackets, what 50 fresh draws an image say of the points "
    "that it returned. sap_art: tier smoke, 64 images, T1 with its 95 % interval, verdict and raised R flags.\n"
)
EXPECTED = """
| control | AutoAttack-rand reports | ART PGD reports | sap_art reports | truth |
| --- | ---: | ---: | --- | ---: |
| coin | 34.3 (70.1) | 68.8 (69.9) | 70.2 [58.0, 80.0], UNRELIABLE: large-eps-survives | 70.0 |
| nan_gradient | error | error | 91.0 [82.0, 96.0], FAILED: an attack crashed: zero-or-non-finite-gradient | 0.0 |
| dropout | – | – | 0.0 [0.0, 5.7], no flag raised, not all checked | 0.0 |
| trained | 40.0 (40.1) | – | not run | 38.2 (autoattack-standard of trained_dense) |
| trained_dense | – | – | not run | 38.2 (autoattack-standard of trained_dense) |

{errors}

- nan_gradient, autoattack-rand: FloatingPointError: NaN
- nan_gradient, art-pgd: ValueError: none
"""


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with its neighbours in reach."""
    monkeypatch.syspath_prepend(CONTROLS)
    return importlib.import_module("table")


def ours(table: ModuleType) -> Any:
    def result(control: str, truth: float | str, **more: Any) -> Any:
        return table.Result(control, "expected", "why", truth, "found", "met", [], **more)

    value, large, zero = Value(0.702, 0.58, 0.8), "large-eps-survives", "zero-or-non-finite-gradient"
    results = [
        result("coin", 0.7, T1=value, verdict="unreliable", raised={large: "R", "seed-gap": "W"}),
        result("nan_gradient", 0.0, T1=Value(0.91, 0.82, 0.96), verdict="failed", raised={zero: "R"}),
        result("dropout", 0.0, T1=Value(0.0, 0.0, 0.0566), verdict="incomplete"),
        result("trained", STANDARD),
        result("trained_dense", STANDARD),
    ]
    return table.Results("controls", "smoke", "cifar10", 64, "Linf", 8 / 255, 0, results)


def reference(table: ModuleType, control: str, **outcomes: Any) -> Any:
    budget = importlib.import_module("libraries").FULL
    named = {name.replace("_", "-"): table.Outcome(*o) for name, o in outcomes.items()}
    shared = {"dataset": "cifar10", "images": 32, "ids_sha256": "0", "norm": "Linf", "eps": 8 / 255, "seed": 0}
    return table.Reference(control, budget=budget, versions={"torch": "2"}, outcomes=named, **shared)


def theirs(table: ModuleType) -> dict[str, Any]:
    crash = {"autoattack_rand": (None, None, "FloatingPointError: NaN"), "art_pgd": (None, None, "ValueError:\n none")}
    return {
        "coin": reference(table, "coin", autoattack_rand=(0.343, 0.701), art_pgd=(0.6875, 0.699)),
        "nan_gradient": reference(table, "nan_gradient", **crash),
        "trained": reference(table, "trained", autoattack_rand=(0.4, 0.401)),
        "trained_dense": reference(table, "trained_dense", autoattack_standard=(0.382, 0.382)),
    }


def written(table: ModuleType, folder: Path, references: dict[str, Any]) -> tuple[Path, Path]:
    """Both kinds of records, as the scripts leave them."""
    write_json(asdict(ours(table)), folder / "controls.json")
    for name, found in references.items():
        write_json(asdict(found), folder / "references" / f"{name}.json")
    return folder, folder / "references"


def test_the_table_says_what_each_reports_and_what_is_true(table: ModuleType, tmp_path: Path) -> None:
    """To the letter, by the command: W flags are left out, what is absent is a dash, what crashed no number."""
    records, references = written(table, tmp_path, theirs(table))
    command = [sys.executable, str(CONTROLS / "table.py"), "--records", str(records), "--references", str(references)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    text = (tmp_path / "comparison.md").read_text(encoding="utf-8")

    assert (done.returncode, done.stderr) == (0, "")
    assert text == CAPTION + EXPECTED.format(errors=table.ERRORS)
    assert done.stdout == text + "\n"


def test_a_truth_that_has_not_been_measured_names_its_source(table: ModuleType) -> None:
    """Where the other library's record is not there, or is an error."""
    without = {name: r for name, r in theirs(table).items() if name != "trained_dense"}
    crashed = {**without, "trained_dense": reference(table, "trained_dense", autoattack_standard=(None, None, "E"))}

    for found in (without, crashed):
        assert table.markdown(ours(table), found).count(f"| not run | {STANDARD} |") == 2


@pytest.mark.parametrize(
    "changed",
    [{"eps": 4 / 255}, {"norm": "L2"}, {"seed": 1}, {"dataset": "svhn"}, {"ids_sha256": "1"}, {"versions": {}}],
)
def test_records_of_different_runs_are_not_compared(changed: dict[str, Any], table: ModuleType, tmp_path: Path) -> None:
    """The error names the file and what differs."""
    found = theirs(table)
    found["trained"] = replace(found["trained"], **changed)
    with pytest.raises(ValueError, match=rf"trained\.json is of another run than the rest: {next(iter(changed))} diff"):
        table.read(*written(table, tmp_path, found))


def test_what_is_no_record_is_refused(table: ModuleType, tmp_path: Path) -> None:
    """No controls.json, no reference, another version's file; by the command with status 2."""
    records, references = written(table, tmp_path / "a", {})
    with pytest.raises(ValueError, match=r"holds no <control>\.json; references\.py leaves them"):
        table.read(records, references)
    written(table, tmp_path / "a", theirs(table))
    (references / "coin.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"coin\.json is no record of this version's scripts"):
        table.read(records, references)
    command = [sys.executable, str(CONTROLS / "table.py"), "--records", str(tmp_path), "--references", str(references)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "controls.json" in done.stderr
