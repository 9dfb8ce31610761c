"""What AutoAttack says of models whose robust accuracy is known: closed forms, the library, committed results."""

from __future__ import annotations

import importlib
import itertools
import json
import math
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sap_art import evaluate, wrap
from sap_art.entries import Entry
from sap_art.record import DefenceInfo, ModelInfo

FOLDER = Path(__file__).parents[1] / "benchmarks" / "references"
RESULTS = FOLDER / "results"


@pytest.fixture(autouse=True)
def _scripts_in_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)


@pytest.fixture
def law() -> ModuleType:
    return importlib.import_module("coin_law")


def run_protocol(e: float, attacks: int, *, broken_by_attacks: bool, rng: random.Random) -> tuple[bool, bool]:
    """One image through AutoAttack, look by look: whether it counts as robust, whether its point is broken."""
    look = [1 - e, 0.0]  # P(right) of a clean and of a broken point
    if rng.random() >= look[0]:
        return False, False
    for _ in range(attacks):
        attacked = rng.random() < look[0]
        broken = attacked and broken_by_attacks
        if rng.random() >= look[broken]:
            return False, broken
    return True, False


@pytest.mark.parametrize("version", ["rand", "standard"])
@pytest.mark.parametrize("model", ["coin", "breakable"])
def test_the_closed_forms_are_those_of_the_looks(law: ModuleType, model: str, version: str) -> None:
    """Beside a walk through AutoAttack's looks, image by image."""
    e, n, rng = 0.3, 40000, random.Random(1)
    expected = getattr(law, model)(e, version)
    attacks = {"rand": 2, "standard": 4}[version]
    found = [run_protocol(e, attacks, broken_by_attacks=model == "breakable", rng=rng) for _ in range(n)]
    robust = sum(robust for robust, _ in found) / n
    worth = [0.0 if broken else 1 - e for _, broken in found]
    spread = sum((w - expected.worth) ** 2 for w in worth) / n

    assert abs(robust - expected.says) < 5 * math.sqrt(expected.says * (1 - expected.says) / n)
    assert abs(sum(worth) / n - expected.worth) <= 5 * math.sqrt(expected.spread / n) + 1e-9
    assert spread == pytest.approx(expected.spread, rel=0.05, abs=1e-9)


def test_the_closed_forms_are_near_what_others_measured(law: ModuleType) -> None:
    """.853, .738, .517 and .767, .592, .327 on coins, .062, .112, .205 on the breakable model; on a few 100 images."""
    said = {"rand": (0.853, 0.738, 0.517), "standard": (0.767, 0.592, 0.327)}
    for version, numbers in said.items():
        for e, number in zip((0.05, 0.1, 0.2), numbers, strict=True):
            assert law.coin(e, version).says == pytest.approx(number, abs=0.011)
    for e, number in zip((0.05, 0.1, 0.2), (0.062, 0.112, 0.205), strict=True):
        assert law.breakable(e, "rand").worth == pytest.approx(number, abs=0.011)


@pytest.mark.parametrize("draws", [1, 3, 5])
def test_the_error_of_a_mean_prediction_is_that_of_the_majority(law: ModuleType, draws: int) -> None:
    """By going through all 2^K outcomes; an even K is refused."""
    e = 0.2
    outcomes = itertools.product((True, False), repeat=draws)
    expected = sum(
        math.prod(e if wrong else 1 - e for wrong in outcome) for outcome in outcomes if 2 * sum(outcome) > draws
    )

    assert law.prediction_error(e, draws) == pytest.approx(expected)
    with pytest.raises(ValueError, match="must be odd"):
        law.prediction_error(e, draws + 1)


@pytest.mark.parametrize("model", ["Coin", "Breakable"])
def test_the_models_are_what_they_are_said_to_be(law: ModuleType, model: str) -> None:
    """Right with 1 - p on clean images, the mean of 5 by the majority, and nothing on what is a little darker."""
    models = importlib.import_module("coin_models")
    net, n, m, e = getattr(models, model)(0.2), 200, 100, 0.2
    x, y = models.images(n)
    clean = evaluate(net, x, y, draws=m, seed=1)
    of_five = law.prediction_error(e, 5)
    darker = evaluate(net, x - x.clamp(max=models.EPS / 2), y, draws=4, seed=2)

    assert abs(clean.accuracy - (1 - e)) < 5 * math.sqrt(e * (1 - e) / (n * m))
    assert abs(clean.under("mean_prob", 5).value - (1 - of_five)) < 5 * math.sqrt(of_five * (1 - of_five) / (n * m / 5))
    assert (darker.accuracy == 0) == (model == "Breakable")


@pytest.mark.parametrize("version", ["rand", "standard"])
@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize("model", ["coin", "breakable"])
def test_autoattack_says_what_the_closed_form_says(law: ModuleType, model: str, draws: int, version: str) -> None:
    """The library itself, on few steps: its looks do not depend on them."""
    coins = importlib.import_module("coins")
    n, error = 600, 0.2
    row = coins.run(model, error, draws, version=version, images=n, seed=1, budget=coins.Budget(3, 2, 20))
    expected = getattr(law, model)(law.prediction_error(error, draws), version)

    assert (row.must_say, row.must_score, row.truth) == (expected.says, expected.worth, expected.truth)
    check(law, row, images=n, report_draws=coins.REPORT_DRAWS)


def check(law: ModuleType, row: Any, *, images: int, report_draws: int) -> None:
    """Within five standard errors; FAB and Square may leave some of what the first two attacks left."""
    e = law.prediction_error(row.error, row.draws)
    expected = getattr(law, row.model)(e, row.version)
    left = law.breakable(e, "rand").says if (row.model, row.version) == ("breakable", "standard") else 0.0
    say_variance = max(expected.says * (1 - expected.says), left)
    score_variance = expected.spread + expected.worth * e * row.draws / report_draws

    assert abs(row.said - expected.says) < 5 * math.sqrt(say_variance / images) + left, row
    assert abs(row.scored - expected.worth) < 5 * math.sqrt(score_variance / images) + left, row


def test_the_committed_results_are_those_of_the_closed_forms(law: ModuleType) -> None:
    """Each row, and the Markdown is made of them to the letter."""
    coins = importlib.import_module("coins")
    content = json.loads((RESULTS / "coins.json").read_text(encoding="utf-8"))
    rows = [coins.Row(**row) for row in content["rows"]]
    setting = content["setting"]

    assert (RESULTS / "coins.md").read_text(encoding="utf-8") == coins.markdown(content)
    assert len(rows) == 2 * len(coins.ERRORS) * len(coins.DRAWS) * 2
    for row in rows:
        check(law, row, images=setting["images"], report_draws=setting["report_draws"])


def test_the_committed_predictors_are_those_of_their_tables() -> None:
    """The Markdown is made of the JSON; both versions, single draws and the mean."""
    predictors = importlib.import_module("predictors")
    found = sorted(RESULTS.glob("predictors-*.json"))

    assert found
    for path in found:
        content = json.loads(path.read_text(encoding="utf-8"))
        assert path.with_suffix(".md").read_text(encoding="utf-8") == predictors.markdown(content)
        k = content["setting"]["draws"]
        assert {(row["version"], row["draws"]) for row in content["rows"]} == {
            (version, draws) for version in ("rand", "standard") for draws in (1, k)
        }


def test_both_predictors_of_a_defended_net_are_attacked() -> None:
    """What is attacked is what is scored: a coin of error .2 is right with .8 alone and with .896 in threes."""
    predictors, models = (importlib.import_module(name) for name in ("predictors", "coin_models"))
    x, y = models.images(100)
    model = wrap(models.Coin(0.2), seed=1)
    entry = Entry("coin", model, 10, ModelInfo("", "", ""), DefenceInfo("", "", True, "", 1), lambda: model)
    rows = list(predictors.measure(entry, x, y, draws=3, seed=1, steps=2, queries=5))
    truth = {1: 0.8, 3: 0.896}

    assert [(row.version, row.draws) for row in rows] == [("standard", 1), ("rand", 1), ("standard", 3), ("rand", 3)]
    for row in rows:
        right, looks = truth[row.draws], {"rand": 3, "standard": 5}[row.version]
        for value, expected, n in (
            (row.clean, right, 2000),
            (row.scored, right, 2000),
            (row.said, right**looks, 100),
        ):
            assert abs(value - expected) < 5 * math.sqrt(expected * (1 - expected) / n), row
        assert row.low < row.scored < row.high
    with pytest.raises(ValueError, match="at least 2 draws"):
        next(predictors.measure(entry, x, y, draws=1, seed=1))
