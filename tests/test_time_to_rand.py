"""The contest with AutoAttack-rand: where our side stops, what its time holds, what is written; not the times."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import reference
import torch
from scripts import script
from torch import Tensor, nn

from sap_art import SAP, DefendedModel, ThreatModel, wrap
from sap_art.portfolio import PlannedAttack
from sap_art.tiers import TIERS

FOLDER = Path(__file__).parents[1] / "benchmarks" / "attacks"
CHEAP = replace(
    TIERS["quick"],
    noise_points=2,
    steps=3,
    draws=2,
    square_iterations=2,
    known_seeds=1,
    selection_draws=4,
    report_draws=10,
)


contest = script("attacks/contest")


def tiny_net() -> nn.Module:
    """Ten classes from 3 x 32 x 32 pixels, one activation."""
    net = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10))
    generator = torch.Generator().manual_seed(4)
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return net


def tiny_case() -> Any:
    """Four images that the tiny net under SAP mostly gets right."""
    net = tiny_net()
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        y = net(x).argmax(1)
    return contest.Case(DefendedModel(net, SAP(400), seed=1), x, y, ThreatModel("Linf", 0.1), CHEAP, seed=1)


def stronger_and_stronger(model: nn.Module, tier: object, threat: ThreatModel, *, classes: int) -> list[PlannedAttack]:
    """A plan of five attacks: each of the first four breaks one image more, the last none."""

    def attack(view: object, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int, broken: int) -> Tensor:
        return torch.cat([1 - x[:broken], x[broken:]])

    planned = partial(PlannedAttack, attack=attack, estimator="autograd", loss="ce", draws=1, steps=1, passes=1)
    return [planned(f"breaks-{n}", options=(("broken", n),)) for n in (1, 2, 3, 4, 0)]


class Half(nn.Module):
    """Class 1 if the first pixel is above .5, with certainty."""

    def forward(self, x: Tensor) -> Tensor:
        first = x[:, 0, 0, 0]
        return torch.stack([0.5 - first, first - 0.5], 1)


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Four images of a net that the plan above breaks one after the other."""
    monkeypatch.setattr(contest, "plan", stronger_and_stronger)
    x = torch.full((4, 1, 2, 2), 0.9)
    return contest.Case(wrap(Half()), x, torch.ones(4, dtype=torch.long), ThreatModel("Linf", 1.0), CHEAP, seed=1)


@pytest.mark.parametrize(
    ("until", "expected"),
    [(1.0, [0.75]), (0.5, [0.75, 0.5]), (0.3, [0.75, 0.5, 0.25]), (-1.0, [0.75, 0.5, 0.25, 0.0, 0.0])],
)
def test_we_stop_at_the_first_attack_that_is_low_enough(until: float, expected: list[float], half: Any) -> None:
    """At the number or below it, and else after the last attack; what was once found is not lost."""
    steps = list(contest.our_steps(half, until=until))

    assert [step.accuracy for step in steps] == expected
    assert [step.attack for step in steps] == [f"breaks-{n}" for n in (1, 2, 3, 4, 0)][: len(steps)]
    assert all(earlier.seconds < later.seconds for earlier, later in pairwise(steps))


def test_choosing_and_scoring_are_in_our_time_and_the_caller_s_own_work_is_not(
    half: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that only attacks (1 s), choices (10 s), scores (100 s) and the caller (1,000 s) move."""
    clock = [0.0]

    def costs(name: str, seconds: float) -> None:
        real = getattr(contest, name)

        def slow(*args: Any, **options: Any) -> Any:
            clock[0] += seconds
            return real(*args, **options)

        monkeypatch.setattr(contest, name, slow)

    def run(*args: Any, **options: Any) -> Tensor:
        clock[0] += 1
        return attack(*args, **options)

    attack = PlannedAttack.run
    monkeypatch.setattr(PlannedAttack, "run", run)
    costs("choose_worst", 10)
    costs("evaluate", 100)
    costs("reported_autoattack", 7)
    monkeypatch.setattr(contest.Case, "now", lambda case: clock[0])
    seconds = []
    for step in contest.our_steps(half, until=0.5):
        seconds.append(step.seconds)
        clock[0] += 1000

    assert seconds == [111, 222]
    assert contest.time_rand(tiny_case(), steps=2, draws=1).seconds == 7  # scoring its points is no part of its time


def test_no_draw_serves_two_purposes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks, choices, reports and rand: each use has a seed of its own."""
    seeds: list[int] = []

    def listened(real: Any) -> Any:
        def call(*args: Any, seed: int, **options: Any) -> Any:
            seeds.append(seed)
            return real(*args, seed=seed, **options)

        return call

    for name in ("choose_worst", "evaluate", "reported_autoattack"):
        monkeypatch.setattr(contest, name, listened(getattr(contest, name)))
    monkeypatch.setattr(PlannedAttack, "run", listened(PlannedAttack.run))
    case = tiny_case()
    contest.time_rand(case, steps=2, draws=1)
    steps = list(contest.our_steps(case, until=-1.0))

    assert len(seeds) == 2 + 3 * len(steps)
    assert len(set(seeds)) == len(seeds)


def test_the_whole_plan_of_the_tier_runs() -> None:
    """Cheapest and strongest first, on all images, within eps; the worst case is not above the clean accuracy."""
    case = tiny_case()
    contest.warm_up(case)
    steps = list(contest.our_steps(case, until=-1.0))

    assert [step.attack for step in steps] == [planned.id for planned in case.plan()]
    assert steps[0].attack == "apgd-ce-dense"
    assert steps[-1].accuracy < case.score(case.x, "clean") - 0.1


def test_of_a_coin_we_never_say_what_rand_says() -> None:
    """It is right with .7 whatever is done: rand reports about .34, our worst case stays at .7."""
    x, y = reference.coin_data(200)
    case = contest.Case(wrap(reference.Coin(0.7, classes=4), seed=1), x, y, ThreatModel(), CHEAP, seed=1)
    rand = contest.time_rand(case, steps=2, draws=1)
    result = contest.Result(rand, tuple(contest.our_steps(case, until=rand.reported)))
    error = (0.21 / (200 * CHEAP.report_draws)) ** 0.5

    assert abs(rand.reported - 0.7**3) < 5 * (0.343 * 0.657 / 200) ** 0.5
    assert [step.attack for step in result.steps] == [planned.id for planned in case.plan()]
    assert all(abs(accuracy - 0.7) < 5 * error for accuracy in (rand.scored, *(s.accuracy for s in result.steps)))
    assert (result.reached, result.ratio, result.met) == (False, None, False)


@pytest.mark.parametrize(("seconds", "ratio", "met"), [(2.0, 50.0, True), (2.5, 40.0, False)])
def test_the_ratio_is_rand_s_time_over_ours_until_there(seconds: float, ratio: float, met: bool) -> None:
    """Of the last step, whose time holds all before it."""
    steps = (contest.Step("first", 1.0, 0.4), contest.Step("second", seconds, 0.2))
    result = contest.Result(contest.Rand(100.0, 0.2, 0.3), steps)

    assert (result.reached, result.ratio, result.met) == (True, ratio, met)
    assert contest.Result(contest.Rand(100.0, 0.1, 0.3), steps).ratio is None


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The script on four bundled images, with small budgets; gives its exit status and the files' stem."""
    logger = logging.getLogger("auto-attack")
    monkeypatch.delenv("SAP_ART_DATA", raising=False)
    monkeypatch.setitem(TIERS, "quick", CHEAP)
    paths, handlers, level = list(sys.path), list(logger.handlers), logger.level

    def run(*more: str) -> tuple[int, Path]:
        arguments = ["--images", "4", "--steps", "2", "--draws", "1", *more, "--output", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", ["time_to_rand.py", *arguments])
        return script("attacks/time_to_rand").main(), tmp_path / "out" / "time_to_rand"

    yield run
    sys.path[:], logger.handlers[:] = paths, handlers
    logger.setLevel(level)


def read(stem: Path) -> tuple[str, Any]:
    """What was written: the table's text, and the numbers."""
    return stem.with_suffix(".md").read_text(encoding="utf-8"), json.loads(stem.with_suffix(".json").read_text())


def test_the_command_prints_and_writes_both_sides(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped net under SAP falls to the first attack; whatever the ratio is, the status is 0."""
    status, stem = command()
    printed, (text, content) = capsys.readouterr(), read(stem)

    assert status == 0
    assert [step["attack"] for step in content["steps"]] == ["apgd-ce-dense"]
    assert content["ratio"] == content["rand"]["seconds"] / content["steps"][0]["seconds"]
    assert f"{content['ratio']:.1f} times sooner (target ≥ 50: {'met' if content['met'] else 'not met'})" in text
    assert content["environment"]["threads"] == torch.get_num_threads()
    assert content["environment"]["pyautoattack"] in text
    assert content["setting"] | {"images": 4, "steps": 2, "policy": "sap:100", "norm": "Linf"} == content["setting"]
    assert "| apgd-ce-dense |" in text
    assert "times sooner" in printed.out
    assert "AutoAttack: running apgd-ce" in printed.err


def test_the_command_says_when_we_never_get_there(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 1, no ratio."""
    never = contest.Rand(1.0, -0.1, 0.5)
    monkeypatch.setattr(contest, "time_rand", lambda case, *, steps, draws: never)
    monkeypatch.setattr(contest, "plan", stronger_and_stronger)
    monkeypatch.setattr(ThreatModel, "require", lambda *_: None)
    status, stem = command()
    text, content = read(stem)

    assert status == 1
    assert (content["ratio"], content["met"], len(content["steps"])) == (None, False, 5)
    assert "never gets to" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policy", "sap:none"], "'none' is not a number"),
        (["--images", "10000"], "512"),
        (["--device", "tpu"], "device 'tpu' is not available here"),
    ],
)
def test_bad_input_is_refused(
    arguments: list[str], message: str, command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, nothing written."""
    status, stem = command(*arguments)

    assert (status, message in capsys.readouterr().err) == (2, True)
    assert not stem.parent.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tier", "tiny"], "invalid choice: 'tiny'"),
        (["--draws", "0"], "must be a whole number, at least 1, got '0'"),
    ],
)
def test_arguments_are_read_before_torch_is_there(arguments: list[str], message: str, tmp_path: Path) -> None:
    """So that the process can be prepared first; what argparse refuses has status 2."""
    code = (
        f"import runpy, sys; sys.argv[1:] = {[*arguments, '--output', 'out']}\n"
        f"try:\n    runpy.run_path({str(FOLDER / 'time_to_rand.py')!r}, run_name='__main__')\n"
        "except SystemExit as status:\n    print(status, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)

    assert done.stdout == "2 False\n"
    assert message in done.stderr
    assert not (tmp_path / "out").exists()
