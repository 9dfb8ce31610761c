"""How the runs of ART's own tests on our classifier are compared, and that the page in the repository is theirs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch

from sap_art import SAP

FOLDER = Path(__file__).parents[1] / "benchmarks" / "art"
PASSED = ("passed", "")
UNEQUAL = ("failure", "AssertionError: Arrays are not equal Mismatched elements: 3 / 10")
LUCK = ("failure", "AssertionError")
DOUBLE = ("failure", "RuntimeError: Input type (double) and bias type (float) should be the same")
DOUBLE_ROWS = ("failure", "RuntimeError: mat1 and mat2 must have the same dtype, but got Double and Float")
REMOVED = ("failure", "AttributeError: `np.Inf` was removed in the NumPy 2.0 release. Use `np.inf` instead.")
NO_SITE = ("failure", "ValueError: no activation was met in Model, so sap:100 would defend nothing")
LEAVES = ("failure", "ValueError: inputs lie in [0, 3], outside clip_values [0, 1]: scale them")


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> Generator[Any]:
    """The module beside the command."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("verdicts")
    sys.modules.pop("verdicts")


@pytest.mark.parametrize(
    ("ends", "runs"),
    [
        ((PASSED, PASSED, PASSED, PASSED), {}),
        ((UNEQUAL, UNEQUAL, LUCK, UNEQUAL), {}),
        ((DOUBLE, PASSED, PASSED, PASSED), {"off": "CAST"}),
        ((PASSED, PASSED, UNEQUAL, PASSED), {"on": "EQUAL_ANSWERS"}),
        ((PASSED, PASSED, LUCK, PASSED), {"on": "SINGLE_ANSWERS"}),
        ((PASSED, DOUBLE, DOUBLE, DOUBLE), {"off": "UNEXPECTED"}),
        ((UNEQUAL, PASSED, PASSED, PASSED), {"off": "UNEXPECTED"}),
        ((DOUBLE, UNEQUAL, UNEQUAL, UNEQUAL), {"off": "UNEXPECTED"}),
        ((UNEQUAL, LUCK, LUCK, LUCK), {"off": "UNEXPECTED"}),
        ((PASSED, PASSED, UNEQUAL, UNEQUAL), {"on": "UNEXPECTED", "fixed": "UNEXPECTED"}),
        ((PASSED, PASSED, PASSED, UNEQUAL), {"fixed": "UNEXPECTED"}),
        ((UNEQUAL, UNEQUAL, PASSED, UNEQUAL), {"on": "PASSES"}),
        ((LUCK, LUCK, LUCK, PASSED), {"fixed": "PASSES"}),
        ((REMOVED, REMOVED, REMOVED, PASSED), {"fixed": "UNEXPECTED"}),
        ((DOUBLE_ROWS, PASSED, PASSED, PASSED), {"off": "CAST"}),
        ((DOUBLE_ROWS, REMOVED, REMOVED, REMOVED), {"off": "CAST"}),
        ((UNEQUAL, REMOVED, REMOVED, REMOVED), {"off": "UNEXPECTED"}),
        ((PASSED, PASSED, ("absent", ""), ("absent", "")), {"on": "UNEXPECTED", "fixed": "UNEXPECTED"}),
    ],
)
def test_what_explains_a_difference(ends: tuple[Any, ...], runs: dict[str, str], verdicts: Any) -> None:
    """Off: float64 alone; on: whatever is gone where the noise is held; held: nothing that the net passes."""
    found = verdicts.reasons("some.test", dict(zip(verdicts.RUNS, ends, strict=True)))

    assert found == {name: getattr(verdicts, reason) for name, reason in runs.items()}


def test_refusals_and_layers_without_the_defence(verdicts: Any) -> None:
    """Said by name; equality with the bare layers in the tests that are made of it, nowhere else."""
    ends = {"plain": PASSED, "off": PASSED, "on": LEAVES, "fixed": NO_SITE}
    layers = {"plain": PASSED, "off": PASSED, "on": UNEQUAL, "fixed": UNEQUAL}

    found = verdicts.reasons("some.test", ends)
    assert ("leaves clip_values" in found["on"], "no activation" in found["fixed"]) == (True, True)
    assert set(verdicts.reasons("a.test_get_activation_modular[cpu]", layers).values()) == {verdicts.WITHOUT}
    assert set(verdicts.reasons("a.test_predict", layers).values()) == {verdicts.UNEXPECTED}
    assert verdicts.reasons("a.test", {**ends, "off": LEAVES})["off"] == verdicts.UNEXPECTED
    rises = ("failure", "AssertionError: np.False_ is not true")
    for test, reason in (("a.test_newtonfool.b", verdicts.STEPS), ("a.test_simba.b", verdicts.UNEXPECTED)):
        assert verdicts.reasons(test, {**ends, "fixed": rises})["fixed"] == reason


def test_runs_without_a_reason_are_counted(verdicts: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """So that the command ends with 1; also where nothing passes."""
    good, bad = {"a": PASSED, "b": UNEQUAL}, {"b": UNEQUAL}

    assert verdicts.judge(dict.fromkeys(verdicts.RUNS, good)) == 0
    assert verdicts.judge({"plain": good, "off": {**good, "a": LUCK}, "on": good, "fixed": good}) == 3
    assert verdicts.judge(dict.fromkeys(verdicts.RUNS, bad)) == 1
    assert "UNEXPECTED" in capsys.readouterr().out


def test_results_come_back(verdicts: Any, tmp_path: Path) -> None:
    """In the order of the runs, with versions."""
    runs = {name: {"a": PASSED, "b": UNEQUAL} for name in ("on", "plain")}
    verdicts.write_results(tmp_path, runs)
    packages, found = verdicts.read_results(tmp_path)

    assert (found, list(found)) == (runs, ["plain", "on"])
    assert packages == verdicts.versions()
    assert torch.__version__.startswith(packages["torch"])
    assert verdicts.read_results(tmp_path / "nowhere") == ({}, {})


def test_held_noise_is_sap_with_one_set_of_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of images alike in any batch; kept units are divided by their keep probability."""
    monkeypatch.syspath_prepend(str(FOLDER))
    policy = importlib.import_module("one_mask").OneMask()
    generator = torch.Generator().manual_seed(1)
    h = torch.rand(3, 4, 50, generator=generator)
    h[2] = h[0]

    out = policy(h, generator)

    torch.testing.assert_close(out[2], out[0], rtol=0, atol=0)
    torch.testing.assert_close(policy(h[1:2], generator), out[1:2])
    q = SAP(100, "bernoulli").keep_probability(h)
    kept = out != 0
    torch.testing.assert_close(out[kept], (h / q)[kept])
    assert abs(float(kept.float().mean() - q.mean())) < 5 * float((q * (1 - q)).sum().sqrt() / q.numel())


def test_the_page_is_that_of_the_results(verdicts: Any) -> None:
    """In which every difference has its reason."""
    packages, results = verdicts.read_results(FOLDER / "results")

    assert verdicts.judge(results) == 0
    assert (FOLDER / "results" / "own-tests.md").read_text(encoding="utf-8") == verdicts.page(packages, results)
