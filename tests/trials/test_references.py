"""What the libraries say of the controls: on small budgets, interrupted, crashing, and beside each other's records."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sap_art import AttackerView, ThreatModel, evaluate, wrap, zoo
from sap_art.attacks import eot_apgd
from sap_art.attacks.cost import count_passes
from sap_art.foreign import ForeignModel
from sap_art.suites import Suite, SuiteEntry

CONTROLS = Path(__file__).parents[2] / "benchmarks" / "controls"


@pytest.fixture
def references(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with its neighbours in reach."""
    monkeypatch.syspath_prepend(CONTROLS)
    monkeypatch.delenv("SAP_ART_DATA", raising=False)
    return importlib.import_module("references")


def suite(*names: str, images: int = 3) -> Suite:
    entries = [SuiteEntry(f"{CONTROLS / 'models.py'}:{name}") for name in names]
    return Suite("small", tier="smoke", entries=entries, images=images)


def small(references: ModuleType, **changed: int) -> Any:
    settings = {"autoattack_steps": 2, "autoattack_draws": 2, "queries": 3, "pgd_steps": 2, "pgd_draws": 2}
    return references.Budget(**{**settings, "report_draws": 4, **changed})


def read(output: Path, name: str) -> dict[str, Any]:
    return json.loads((output / "records" / f"{name}.json").read_text(encoding="utf-8"))


def test_of_a_coin_the_libraries_report_their_luck(references: ModuleType, tmp_path: Path) -> None:
    """AutoAttack .7^3, for it asks three times and keeps every error; ART .7, by one draw; the points are worth .7."""
    n, m = 256, 8
    references.run(suite("coin", images=n), output=tmp_path, only=None, budget=small(references, report_draws=m))
    found = read(tmp_path, "coin")["outcomes"]

    for library, p in (("autoattack-rand", 0.7**3), ("art-pgd", 0.7)):
        assert abs(found[library]["reported"] - p) < 5 * math.sqrt(p * (1 - p) / n), library
        assert abs(found[library]["fresh"] - 0.7) < 5 * math.sqrt(0.21 / (n * m)), library


def test_a_crash_is_an_error_and_no_number(
    references: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of both libraries on NaN gradients; the next control is run all the same, and neither a second time."""
    controls = suite("nan_gradient", "coin")
    references.run(controls, output=tmp_path, only=None, budget=small(references))
    monkeypatch.setattr(references, "attack", pytest.fail)
    references.run(controls, output=tmp_path, only=None, budget=small(references))
    crashed = read(tmp_path, "nan_gradient")["outcomes"]

    for library in ("autoattack-rand", "art-pgd"):
        assert set(crashed[library]) == {"error"}
        assert crashed[library]["error"].startswith("FloatingPointError: the gradient is NaN or inf")
    assert set(read(tmp_path, "coin")["outcomes"]["art-pgd"]) == {"reported", "fresh"}


def test_what_is_interrupted_goes_on_where_it_was(
    references: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each library runs once on each control, on a net of its own; the records are those of a run in one go."""
    attack: Callable[..., Any] = references.attack
    calls: list[nn.Module] = []

    def stop_at_the_fourth(library: str, model: ForeignModel, *given: Any, **options: Any) -> Any:
        calls.append(model.module)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return attack(library, model, *given, **options)

    controls, budget = suite("coin", "stateful_mask", "input_noise"), small(references)
    monkeypatch.setattr(references, "attack", stop_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        references.run(controls, output=tmp_path / "cut", only=None, budget=budget)
    left = sorted(path.stem for path in (tmp_path / "cut" / "records").iterdir())
    references.run(controls, output=tmp_path / "cut", only=["stateful_mask", "input_noise"], budget=budget)
    calls_before = len(calls)
    references.run(controls, output=tmp_path / "cut", only=None, budget=budget)
    references.run(controls, output=tmp_path / "whole", only=["input_noise", "stateful_mask", "coin"], budget=budget)
    same = [
        (tmp_path / run / "records" / f"{name}.json").read_bytes()
        for run in ("cut", "whole")
        for name in ("coin", "stateful_mask", "input_noise")
    ]

    assert left == ["coin"]
    assert calls_before == 7  # six, and the one that was cut off
    assert len(calls) == len(set(calls)) == 7 + 6
    assert same[:3] == same[3:]


def test_another_run_s_folder_is_left_alone(references: ModuleType, tmp_path: Path) -> None:
    """Other images, other budgets; and unknown controls are refused before a folder is made."""
    references.run(suite("coin"), output=tmp_path / "out", only=None, budget=small(references))
    before = read(tmp_path / "out", "coin")
    with pytest.raises(ValueError, match="another run, which differs in: ids_sha256, images"):
        references.run(suite("coin", images=2), output=tmp_path / "out", only=None, budget=small(references))
    with pytest.raises(ValueError, match="another run, which differs in: budget"):
        references.run(suite("coin"), output=tmp_path / "out", only=None, budget=small(references, pgd_steps=3))
    with pytest.raises(ValueError, match="unknown controls: toss, die; known: coin"):
        references.run(suite("coin"), output=tmp_path / "no", only=["coin", "toss", "die"], budget=small(references))

    assert read(tmp_path / "out", "coin") == before
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("library", ["autoattack-rand", "art-pgd"])
def test_each_library_spends_the_draws_it_is_given(
    library: str, references: ModuleType, images: tuple[Tensor, Tensor]
) -> None:
    """On a net that is never wrong, so that no image is left out: forecast and count agree."""
    x, y = (t[:3] for t in images)
    net = zoo.load_model(f"{CONTROLS / 'models.py'}:coin")
    net.p = torch.tensor(1.0)  # type: ignore[assignment]
    model = wrap(net, seed=1)
    budget = small(references, autoattack_steps=20, autoattack_draws=5, pgd_steps=20, pgd_draws=4, report_draws=0)
    with count_passes(model) as spent:
        references.attack(library, model, x, y, threat=ThreatModel("Linf", 8 / 255), budget=budget, seed=1)
    forecast = references.passes(library, budget) * len(x)

    assert 0.95 * forecast < spent.forwards + spent.backwards < 1.1 * forecast


def test_the_truth_of_the_trained_nets_is_somebody_s_report(references: ModuleType, tmp_path: Path) -> None:
    """AutoAttack standard runs on the deterministic one, and every source that is named is there."""
    expected = importlib.import_module("expectations").read(CONTROLS / "expectations.toml")
    sources = {e.truth for e in expected.values() if isinstance(e.truth, str)}
    references.run(suite("trained_dense", images=2), output=tmp_path, only=None, budget=small(references))
    standard = read(tmp_path, "trained_dense")["outcomes"]["autoattack-standard"]

    assert sources == {"autoattack-standard of trained_dense"}
    assert standard["reported"] == standard["fresh"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "coin,toss"], "unknown controls: toss; known: undefended, zero_gradient"),
        (["--images", "0"], "images must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(
    arguments: list[str],
    message: str,
    *,
    references: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Status 2, nothing written."""
    monkeypatch.setattr(sys, "argv", ["references.py", "--output", str(tmp_path / "out"), *arguments])

    assert references.main() == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_truth_of_zero_is_shown_by_a_point(references: ModuleType, images: tuple[Tensor, Tensor]) -> None:
    """No draw of any control that stands on the undefended net is right on what APGD finds on that net."""
    del references  # only its neighbours
    x, y = (t[:8] for t in images)
    expected = importlib.import_module("expectations").read(CONTROLS / "expectations.toml")
    base: nn.Module = zoo.load("preact-resnet20")
    view = AttackerView(wrap(base), gradient="autograd")
    points = eot_apgd(view, x, y, ThreatModel("Linf", 8 / 255), seed=1, steps=50)
    names = [name for name, e in expected.items() if e.truth == 0]

    assert len(names) == 13
    for name in names:
        model = wrap(zoo.load_model(f"{CONTROLS / 'models.py'}:{name}"))
        assert evaluate(model, points, y, draws=4, seed=1).accuracy == 0, name
