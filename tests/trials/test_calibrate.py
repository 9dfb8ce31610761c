"""Thresholds held against records made by hand: what is right, what is wrong, what no record can show."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from sap_art.diagnostics import comparisons
from sap_art.diagnostics.gradient_signal import GradientSignal, low_gradient_signal
from sap_art.evaluation import Evaluation
from sap_art.flags import complete, flag
from sap_art.record import DataInfo, DefenceInfo, Flag, ModelInfo, Record, Value

CONTROLS = Path(__file__).parents[2] / "benchmarks" / "controls"
TRANSFER, SIGNAL = "transfer-beats-white-box", "low-gradient-signal"
SPREAD, GAP = "estimator-spread", "seed-gap"


@pytest.fixture(scope="module")
def calibrate() -> Generator[ModuleType]:
    """The script; ``calibrate.thresholds`` holds its judgement."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(CONTROLS)
        yield importlib.import_module("calibrate")


def record(*flags: Flag, entry: str = "net", images: int = 64) -> Record:
    """A record with these flags, the others not checked."""
    return Record(
        entry=entry,
        tier="quick",
        model=ModelInfo("net", "Net", "0" * 64),
        defence=DefenceInfo("foreign", "module", True, "single", 1),
        data=DataInfo("cifar10", images, "1" * 64),
        norm="Linf",
        eps=8 / 255,
        seeds={"base": 0},
        metrics={"clean": Value(0.8, 0.7, 0.9), "T1": Value(0.5, 0.4, 0.6)},
        attacks=[],
        gradient={},
        calibration={},
        flags=complete(flags, tier="quick"),
        verdict="incomplete",
    )


def column(right: torch.Tensor) -> Evaluation:
    """Draws (m, B) that are right where 1."""
    return Evaluation(torch.stack([right, 1 - right], -1).log_softmax(-1), torch.zeros(right.shape[1]).long())


def rows(share: float, *, images: int = 64) -> torch.Tensor:
    """16 draws of images of which a share is always right, the others never."""
    return (torch.arange(images) < round(share * images)).float().expand(16, images)


def transfer(images: int) -> Flag:
    """Transfer is better on the first ``images`` of 64, the white box on the next ten."""
    columns = {"w": column(rows(images / 64)), "t": column(rows((images + 10) / 64) - rows(images / 64))}
    return comparisons.transfer_beats_white_box(columns, transfer=["t"], white_box=["w"], seed=1)


def signal(*cosines: float) -> Flag:
    """Of one estimator for each cosine, the same on all of 12 images."""
    rest = {name: torch.zeros(12) for name in ("snr", "sign_agreement", "zero", "non_finite")}
    found = {f"e{number}": [GradientSignal(cosine=torch.full((12,), c), **rest)] for number, c in enumerate(cosines)}
    return low_gradient_signal(found, others=[])


def spread(share: float, *, images: int = 64) -> Flag:
    """One estimator leaves this share more than the other."""
    columns = {"a": column(rows(share, images=images)), "b": column(rows(0, images=images))}
    return comparisons.estimator_spread(columns, names=["a", "b"], seed=1)


def gap(share: float) -> Flag:
    """The known seeds cost this share of 64 images."""
    return comparisons.seed_gap(column(rows(share)), torch.zeros(2, 64, dtype=torch.bool), seed=1)


BY_A_HAIR = flag(
    TRANSFER, "raised", "white-box minus transfer +0.010 [+0.000, +0.020]; transfer is better on 1.6% of the images"
)
"""Its interval is above 0, but not in the three digits that the evidence gives."""


def judge(calibrate: ModuleType, code: str, *, planted: Sequence[Flag] = (), honest: Sequence[Flag] = ()) -> Any:
    """The finding on one flag, from an entry for each of the flags that must and must not be raised."""
    records = {f"planted-{n}": record(f) for n, f in enumerate(planted)}
    records |= {f"honest-{n}": record(f) for n, f in enumerate(honest)}
    lists = [[name for name in records if name.startswith(start)] for start in ("planted", "honest")]
    return calibrate.thresholds.judge(code, calibrate.thresholds.Roles(*lists, [], "Because."), records)


@pytest.mark.parametrize(
    ("made", "low", "high", "number", "by_interval"),
    [
        (transfer(2), -0.2, 0.0, 2, False),
        (transfer(3), -0.2, 0.0, 3, False),
        (transfer(40), 0.2, 0.7, 40, True),
        (BY_A_HAIR, 0.0, 0.02, 1, True),
        (signal(0.04, 0.02), None, 0.04, 0.04, False),
        (signal(-0.02, 0.3), None, 0.3, 0.3, False),
        (spread(8 / 64), 0.05, 0.25, 0.125, False),
        (spread(0.0), 0.0, 0.0, 0.0, True),
        (spread(1 / 8, images=8), 0.0, 0.4, 0.125, True),
        (gap(16 / 64), 0.15, 0.4, 0.25, False),
    ],
)
def test_the_numbers_of_a_flag_are_read_from_what_the_flag_says(
    made: Flag, low: float | None, high: float, number: float, by_interval: bool, calibrate: ModuleType
) -> None:
    """Of flags that the diagnostics raised or not: intervals about right, what is held against the threshold exact."""
    found = sys.modules["readings"].reading(record(made), made.code, entry="net")

    assert (found.state, found.value) == (made.state, made.value)
    assert found.numbers.low == (None if low is None else pytest.approx(low, abs=0.11))
    assert found.numbers.high == pytest.approx(high, abs=0.11)
    assert found.numbers.number == pytest.approx(number, abs=1e-9 if made.code != SIGNAL else 5e-4)
    assert found.numbers.by_interval == by_interval


@pytest.mark.parametrize("images", [4, 8, 64, 256])
def test_images_are_counted_from_their_percentage(images: int, calibrate: ModuleType) -> None:
    """One of them, of at most 64 stand-alone images; 2 % of 64 are less than the 3 images that the rule asks for."""
    alone = min(images, 64)
    columns = {"w": column(rows(1 / alone, images=alone)), "t": column(rows(0, images=alone))}
    made = comparisons.transfer_beats_white_box(columns, transfer=["t"], white_box=["w"], seed=1)
    found = sys.modules["readings"].reading(record(made, images=images), TRANSFER, entry="net")

    assert found.numbers.number == 1
    assert (
        comparisons.DISCOVERED_SHARE * 64
        < comparisons.DISCOVERED_IMAGES
        == sys.modules["readings"].RULES[TRANSFER].threshold
    )


def test_a_threshold_between_the_two_separates(calibrate: ModuleType) -> None:
    """With the range of those that would, and the way to either end."""
    found = judge(calibrate, GAP, planted=[gap(0.5), gap(0.25)], honest=[gap(0.0), gap(6 / 64)])

    assert (found.verdict, found.wrong, found.unmeasured) == ("separates", [], {"must raise": [], "must not raise": []})
    assert (found.honest, found.planted) == (6 / 64, 0.25)
    assert found.separating == (6 / 64, 0.25)
    assert found.margins == pytest.approx((0.1 - 6 / 64, 0.15))


def test_where_less_raises_the_flag_the_range_is_turned_round(calibrate: ModuleType) -> None:
    """The largest cosine that must raise it is its lower end; margins are positive all the same."""
    found = judge(calibrate, SIGNAL, planted=[signal(0.0), signal(0.03)], honest=[signal(0.9), signal(0.4)])

    assert found.verdict == "separates"
    assert (found.honest, found.planted) == (0.4, 0.03)
    assert found.separating == (0.03, 0.4)
    assert found.margins == pytest.approx((0.3, 0.07))


@pytest.mark.parametrize(
    ("code", "planted", "honest", "separating", "margins"),
    [
        (GAP, gap(0.5), gap(0.25), (0.25, 0.5), (-0.15, 0.4)),
        (GAP, gap(6 / 64), gap(0.0), (None, 6 / 64), (None, 6 / 64 - 0.1)),
        (GAP, gap(0.25), gap(0.5), None, (-0.4, 0.15)),
        (GAP, gap(0.25), gap(0.25), None, (-0.15, 0.15)),
        (GAP, gap(0.0), gap(0.0), None, (None, None)),
        (SIGNAL, signal(0.2), signal(0.4), (0.2, 0.4), (0.3, -0.1)),
        (SIGNAL, signal(0.4), signal(0.02), None, (-0.08, -0.3)),
        (SIGNAL, flag(SIGNAL, "clear", "no estimate"), signal(0.4), None, (0.3, None)),
        (TRANSFER, transfer(3), transfer(40), None, (None, 0)),
        (SPREAD, spread(0.5), spread(0.25), (0.25, 0.5), (-0.2, 0.45)),
    ],
)  # fmt: skip
def test_a_threshold_that_does_not_separate_is_wrong(
    code: str,
    planted: Flag,
    honest: Flag,
    separating: tuple[float | None, float | None] | None,
    margins: tuple[float | None, float | None],
    calibrate: ModuleType,
) -> None:
    """With the thresholds that would; there is none if the two overlap, or if an interval or a reason decides alone."""
    found = judge(calibrate, code, planted=[planted], honest=[honest])

    assert found.verdict == "does not separate"
    assert len(found.wrong) == (planted.state == "clear") + (honest.state == "raised")
    assert found.separating == separating
    assert found.margins == pytest.approx(margins)


@pytest.mark.parametrize(
    ("planted", "honest", "verdict"),
    [
        ([], [gap(0.05)], "only its silence is shown"),
        ([gap(0.3)], [], "only that it is raised is shown"),
        ([gap(0.3)], [flag(GAP, "clear", "there is no random number to be told")], "only that it is raised is shown"),
        ([], [flag(GAP, "clear", "there is no random number to be told")], "nothing is shown"),
        ([flag(GAP, "not-checked", "this tier does not")], [gap(0.05)], "only its silence is shown"),
        ([flag(GAP, "not-checked", "this tier does not")], [], "nothing is shown"),
    ],
)
def test_what_no_record_shows_is_not_called_shown(
    planted: list[Flag], honest: list[Flag], verdict: str, calibrate: ModuleType
) -> None:
    """A flag that was not checked, or is clear without a number, proves nothing; nor is it wrong."""
    found = judge(calibrate, GAP, planted=planted, honest=honest)
    unmeasured = [f"planted-{n}" for n, f in enumerate(planted) if f.state == "not-checked"]

    assert (found.verdict, found.wrong) == (verdict, [])
    assert found.unmeasured == {"must raise": unmeasured, "must not raise": []}


def folder(path: Path, **flags: Flag) -> Path:
    """Records of these entries, one flag each, with a sidecar that is none."""
    for entry, made in flags.items():
        name = f"models.py-{entry}"
        record(made, entry=name).write(path)
        (path / f"{name}.run.json").write_text("{}")
    return path


@pytest.fixture
def started(calibrate: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """The script's main with these folders; its output goes to ``out``."""

    def start(*folders: Path) -> int:
        words = ["--records", *map(str, folders), "--output", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", ["calibrate.py", *words])
        return calibrate.main()

    return start


def test_the_script_writes_what_it_found(
    started: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From two folders: printed, as a table and as data; a control by its own name, the rest by the record's."""
    one = folder(tmp_path / "one", sign_flips=signal(0.02), input_noise=signal(0.377))
    record(signal(0.5), entry="preact-resnet20-sap-100").write(tmp_path / "two")
    record(signal(0.05), entry="somebody-s").write(tmp_path / "two")
    status = started(one, tmp_path / "two")
    text = (tmp_path / "out" / "calibration.md").read_text(encoding="utf-8")
    found = json.loads((tmp_path / "out" / "calibration.json").read_text(encoding="utf-8"))
    signal_found = {f["flag"]: f for f in found["flags"]}[SIGNAL]

    assert status == 0
    assert text in capsys.readouterr().out
    assert [f["flag"] for f in found["flags"]] == [TRANSFER, SIGNAL, SPREAD, GAP]
    assert (signal_found["verdict"], signal_found["separating"]) == ("separates", [0.02, 0.377])
    assert {role: [r["entry"] for r in listed] for role, listed in signal_found["readings"].items()} == {
        "must raise": ["sign_flips"],
        "must not raise": ["input_noise", "preact-resnet20-sap-100"],
        "left out": [],
        "not listed": ["somebody-s"],
    }
    assert "| input_noise | must not raise | clear | 0.377 (at most 0.377) | 0.377 |" in text
    assert "| 0.377 | 0.02 | 0.02 to 0.377 | 0.277 / 0.08 | separates |" in text
    assert "Not measured, must raise: coin, sign_flips_of_a_known_net, secret_direction" in text
    assert str(tmp_path) not in text


def test_the_script_s_status_tells_of_a_wrong_threshold(started: Callable[..., int], tmp_path: Path) -> None:
    """A flag that must be raised is not."""
    status = started(folder(tmp_path / "in", sign_flips=flag(SIGNAL, "clear", "no estimate"), coin=signal(0.0)))
    text = (tmp_path / "out" / "calibration.md").read_text(encoding="utf-8")

    assert status == 1
    assert "Wrong: sign_flips must raise it, and it is clear: no estimate" in text


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.mkdir(), "no records (*.json) in"),
        (lambda path: None, "no records (*.json) in"),
        (lambda path: folder(path, coin=gap(0.0)).joinpath("a.json").write_text("{"), "a.json is not a valid record"),
        (lambda path: folder(path, coin=replace(gap(0.0), threshold=0.2)), "has the threshold 0.2, here it is 0.1"),
        (lambda path: folder(path, coin=replace(gap(0.3), evidence="much")), "gives no interval: 'much'"),
        (lambda path: replace(record(), flags=[]).write(path), "the record of net has no flag"),
        (lambda path: folder(path, undefended=gap(0.0)), "there is another record of undefended"),
    ],
)
def test_bad_input_is_refused(
    spoil: Callable[[Path], object],
    message: str,
    started: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No folder, none in it, not a record, one of other code, two of an entry: status 2, a message, nothing written."""
    good = folder(tmp_path / "good", undefended=gap(0.0))
    spoil(tmp_path / "bad")

    assert started(good, tmp_path / "bad") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def lists(calibrate: ModuleType, path: Path) -> Any:
    """As the script reads them."""
    expected = calibrate.expectations.read(CONTROLS / "expectations.toml")
    return calibrate.thresholds.read(path, expected=expected, others=calibrate.others())


@pytest.mark.parametrize(
    ("pattern", "put", "message"),
    [
        ('"sign_flips", "coin"', '"sign_flops", "coin"', "sign_flops: unknown"),
        ('"sign_flips", "coin"', '"coin"', "sign_flips: missing"),
        ('"sign_flips", "coin"', '"sign_flips", "coin", "quantised"', "quantised: named twice"),
        ('"sign_flips", "coin"', '"sign_flips", "coin", "coin"', "coin: named twice"),
        (r"\[seed-gap\]", "[seed-gup]", "seed-gap, seed-gup: the flags must be"),
        ("left_out =", "let_out =", "left_out"),
        ("left_out =", "others = []\nleft_out =", "others"),
        ('why = """', 'reason = """', "why"),
        ("must_raise = .*", "must_raise = 1", "must_raise"),
    ],
)
def test_lists_that_cannot_be_meant_are_refused(
    pattern: str, put: str, message: str, calibrate: ModuleType, tmp_path: Path
) -> None:
    """Each is the shipped file with one thing changed."""
    text = (CONTROLS / "thresholds.toml").read_text(encoding="utf-8")
    (tmp_path / "good.toml").write_text(text)
    (tmp_path / "bad.toml").write_text(re.sub(pattern, put, text, count=1))

    assert lists(calibrate, tmp_path / "good.toml")
    with pytest.raises(ValueError, match=message):
        lists(calibrate, tmp_path / "bad.toml")


def test_no_honest_control_may_raise_a_flag(calibrate: ModuleType, tmp_path: Path) -> None:
    """Nor be left out, whether it is sound or broken: expectations.toml has the word."""
    shipped = (CONTROLS / "thresholds.toml").read_text(encoding="utf-8")
    for name in ("undefended", "dropout", "trained"):
        text = re.sub(f'"{name}",', "", shipped, count=1).replace("left_out = [", f'left_out = ["{name}",', 1)
        (tmp_path / "t.toml").write_text(text)
        with pytest.raises(ValueError, match=f"{TRANSFER}: {name}: honest"):
            lists(calibrate, tmp_path / "t.toml")


def test_the_marked_thresholds_of_the_protocol_are_those_that_ship(calibrate: ModuleType) -> None:
    """Four flags; 3 images, a cosine of .1, 5 and 10 points."""
    rules = sys.modules["readings"].RULES

    assert {code: rule.threshold for code, rule in rules.items()} == {TRANSFER: 3, SIGNAL: 0.1, SPREAD: 0.05, GAP: 0.1}
