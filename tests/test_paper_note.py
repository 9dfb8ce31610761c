"""The note on what SAP is worth: its numbers are those of the results, and its words are checked against them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from scripts import script

from sap_art.game import Payoffs
from sap_art.game import write as write_game
from sap_art.paper.budgets import BUDGETS
from sap_art.paper.figures import FIGURES, LAMBDAS, Curve
from sap_art.paper.results import CurveResult, FigureResult, MissingCurve, NetInfo, PointResult, Score, Settings
from sap_art.record_parts import DataInfo, Value
from sap_art.threat import ThreatModel

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks" / "paper"
RESULTS, NOTE = FOLDER / "results", ROOT / "docs" / "what-sap-is-worth.md"
Accuracy = Callable[[Curve, int], float]


note_readings, note_words, note = map(script, ("paper/note_readings", "paper/note_words", "paper/note"))


def value(number: float) -> Value:
    """With an interval of ten points either way."""
    return Value(number, max(0.0, number - 0.1), min(1.0, number + 0.1))


def score(mean: float) -> Score:
    """Three ways to score that differ, in the order that they have."""
    return Score(single=value(0.9 * mean), mean=value(mean), every=value(0.5 * mean))


def attacked(curve: Curve, lam: int) -> float:
    """As in the paper: the own gradient does less damage than the dense net's, and few draws less than many."""
    rates = {"iterative-defended-10": 0.05, "fgsm-defended-1": 0.05, "fgsm-defended-10": 0.06}
    return max(0.0, 0.87 - rates.get(curve.attacker.name, 0.1) * lam)


def worst(curve: Curve, lam: int) -> float:
    """Nothing at 8/255 but for the adversarially trained net, with SAP or without."""
    return max(0.0, 0.83 - (0.03 if curve.defender.role == "adv" else 0.2) * lam)


def result(name: str, attacked: Accuracy, worst: Accuracy) -> FigureResult:
    """A figure with these accuracies."""
    figure = FIGURES[name]
    budget = {**asdict(BUDGETS["quick"]), "lambdas": list(LAMBDAS)}
    net = NetInfo("dense", "preact-resnet20", "0" * 64, 0.9168, 10_000, "standard", 60, None, None)
    curves = [
        CurveResult(
            defender=c.defender.name,
            net="preact-resnet20",
            policy=c.defender.policy or "none",
            attack=c.attacker.kind,
            gradient=c.attacker.source,
            gradient_draws=c.attacker.draws,
            random=c.defender.policy is not None,
            images=32 if c.attacker.draws == 1000 else 256,
            report_draws=10,
            points=[PointResult(lam, score(attacked(c, lam)), score(worst(c, lam))) for lam in LAMBDAS],
        )
        for c in figure.curves
    ]
    settings = Settings(budget, DataInfo("cifar10", 256, "0" * 64), 0, "cpu", "0.1.0")
    return FigureResult(name, figure.title, settings, [net], curves)


GAME = ((10, 60, 35), (55, 50, 40), (60, 60, 30))
"""Right draws of 100 without defence, of SAP and of noise, at points found on each: SAP is hurt most by another's."""
PENNIES = ((90, 10, 50), (10, 90, 50), (20, 20, 20))


def write(
    folder: Path, attacked: Accuracy = attacked, worst: Accuracy = worst, game: Sequence[Sequence[int]] = GAME
) -> Path:
    """The figures that the note reads, and the game."""
    for name in ("1c", "3", "6"):
        result(name, attacked, worst).write(folder / "figures")
    policies = ("none", "sap:50", "rna:0.1")
    counts = np.repeat(np.array(game)[:, :, None], 8, axis=2)
    payoffs = Payoffs(policies, tuple(f"rdp-1 on {policy}" for policy in policies), 100, counts)
    write_game(payoffs, ThreatModel("Linf", 1 / 255), folder / "game" / "lambda-1")
    return folder


def test_numbers_of_the_note_are_those_of_the_results(tmp_path: Path) -> None:
    """Printed numbers and ours, with intervals, each in its row; nothing is left to be filled in."""
    text = note.note(note_readings.Readings.read(write(tmp_path)))

    assert "| SAP-100, paper's own attack: printed | 83.3 | 82.0 | 80.2 | 76.7 |" in text
    assert "| SAP-100, paper's own attack: here | 87.0 (77.0 to 97.0) | 82.0 (72.0 to 92.0) | 77.0 " in text
    assert "| SAP-100, from the dense net: here | 87.0 (77.0 to 97.0) | 77.0 (67.0 to 87.0) | 67.0 " in text
    assert "| SAP-100, worst case | 83.0 (73.0 to 93.0) | 63.0 (53.0 to 73.0) | 43.0 (33.0 to 53.0) | 3.0 " in text
    assert "| ADV+SAP-100, worst case | 83.0 (73.0 to 93.0) | 71.0 (61.0 to 81.0) | 59.0 " in text
    assert "91.68 % clean on all test images,\nthe paper's 89.8 %" in text
    assert "67.0 (57.0 to 77.0), 63.0 (53.0 to 73.0), 47.0 (37.0 to 57.0) and 47.0 (37.0 to 57.0) (the last " in text
    assert "right on 73.8 (63.8 to 83.8), the mean of 10 draws on 82.0 (72.0 to 92.0), and all" in text
    assert "draws together on 41.0 (31.0 to 51.0)." in " ".join(text.split())
    assert "best mix is 100 % `sap:50`, right on 40.0 (" in " ".join(text.split())
    assert "`sap:50`, has 40.0 at its worst attack. Drawing among policies buys 0.0 (0.0 to " in " ".join(text.split())
    assert "3 policies (none, " in text
    assert "for 1 of the 3 policies the worst of these" in " ".join(text.split())
    assert "{" not in text


def test_words_that_the_numbers_contradict(tmp_path: Path) -> None:
    """The note is refused, with what is not so: no sentence stands by itself."""
    for attack, hurt, words in (
        (lambda curve, lam: 0.5, worst, "transfer beats the own gradient at lambda 2"),
        (attacked, lambda curve, lam: 0.8, "next to nothing is left of SAP at lambda 8"),
        (attacked, lambda curve, lam: 0.4 * ("+" in curve.defender.name), "ADV with SAP and without"),
    ):
        readings = note_readings.Readings.read(write(tmp_path, attack, hurt))
        with pytest.raises(ValueError, match=f"do not bear out what the note says: .*{words}"):
            note.note(readings)
    readings = note_readings.Readings.read(write(tmp_path, game=PENNIES))
    with pytest.raises(ValueError, match="randomising over policies buys nothing that can be told from none; nor"):
        note.note(readings)


def test_a_mix_is_named_from_its_larger_part(tmp_path: Path) -> None:
    """90 p + 30 (1 - p) = 10 p + 60 (1 - p): p = 3 / 11 without defence; what is not played is left out."""
    readings = note_readings.Readings.read(write(tmp_path, game=((90, 10, 50), (30, 60, 50), (20, 20, 20))))

    assert note_words.fields(readings)["mix"] == "73 % `sap:50`, 27 % `none`"


def test_results_that_do_not_belong_together(tmp_path: Path) -> None:
    """Lines that are missing are named with their command; figures of two runs are refused."""
    full = result("3", attacked, worst)
    write(tmp_path)
    replace(full, missing=[MissingCurve("ADV", "preact-resnet20-adv", "sap-art train")]).write(tmp_path / "figures")
    with pytest.raises(ValueError, match=r"missing: ADV \(sap-art train\)"):
        note_readings.Readings.read(tmp_path)
    replace(full, settings=replace(full.settings, seed=1)).write(tmp_path / "figures")
    with pytest.raises(ValueError, match="runs with different settings"):
        note_readings.Readings.read(tmp_path)


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Text and two plots, the same bytes each time; without results, status 2 and nothing written."""
    write(tmp_path / "results")
    for output in ("a", "b"):
        arguments = ["--results", str(tmp_path / "results"), "--output", str(tmp_path / output)]
        monkeypatch.setattr("sys.argv", ["note.py", *arguments])
        assert note.main() == 0
    names = ["what-sap-is-worth-attacks.svg", "what-sap-is-worth-nets.svg", "what-sap-is-worth.md"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)

    monkeypatch.setattr("sys.argv", ["note.py", "--results", str(tmp_path), "--output", str(tmp_path / "c")])
    assert note.main() == 2
    assert "1c.json" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_the_note_of_the_repository_is_what_its_results_say() -> None:
    """Whoever changes one regenerates the other, by the command in the note; both or neither are there."""
    assert NOTE.exists() == (RESULTS / "figures").exists()
    if NOTE.exists():
        assert NOTE.read_text(encoding="utf-8") == note.note(note_readings.Readings.read(RESULTS))
