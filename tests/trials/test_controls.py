"""The evaluator on trial, in small: planted failures are broken or flagged, and a coin stays a coin."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import cast

import pytest
import torch
from scipy import stats
from scripts import script
from torch import Tensor, nn

from sap_art import AttackerView, ThreatModel, data, suites, zoo
from sap_art.attacks import eot_apgd, evaluate_known_seed, known_seed, square
from sap_art.bench import run_suite
from sap_art.diagnostics import comparisons, gradient_signal, probes
from sap_art.evaluation import evaluate
from sap_art.foreign import wrap
from sap_art.record import Record, Value
from sap_art.stochastic import StochasticModel
from sap_art.tiers import TIERS

ROOT = Path(__file__).parents[2]
CONTROLS = ROOT / "benchmarks" / "controls"
IMAGES = 8
RUN = ("undefended", "zero_gradient", "nan_gradient", "per_batch_noise", "remembers", "dropout", "coin")


def control(name: str) -> nn.Module:
    return zoo.load_model(f"{CONTROLS / 'models.py'}:{name}")


@pytest.fixture(scope="module")
def expectations() -> ModuleType:
    """What reads the expectations and judges by them."""
    return script("controls/expectations", name="controls_expectations")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Record]:
    """A few controls through the whole evaluator, with less of everything than the tier smoke has."""
    suite = suites.load(str(ROOT / "benchmarks" / "suites" / "controls.toml"), trust_code=True)
    chosen = [e for e in suite.entries if e.model.rpartition(":")[2] in RUN]
    small = replace(TIERS["smoke"], noise_points=10, draws=2, steps=15, selection_draws=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.delenv("SAP_ART_DATA", raising=False)
        patch.setitem(TIERS, "smoke", small)
        output = tmp_path_factory.mktemp("controls") / "out"
        found = run_suite(replace(suite, entries=chosen, images=IMAGES), output=output)
    return {e.model.rpartition(":")[2]: record for e, record in zip(chosen, found, strict=True)}


@pytest.mark.parametrize("name", RUN)
def test_what_had_to_come_out_came_out(name: str, records: Mapping[str, Record], expectations: ModuleType) -> None:
    """As written in expectations.toml before any run."""
    expected = expectations.read(CONTROLS / "expectations.toml")[name]
    result = expectations.judge(name, expected, records, tier="smoke")

    assert (result.state, result.missed) == ("met", [])


def test_no_expectation_fits_another_control_s_record(records: Mapping[str, Record], expectations: ModuleType) -> None:
    """So that meeting one means something."""
    written = expectations.read(CONTROLS / "expectations.toml")
    for name, other in [
        ("undefended", "per_batch_noise"),
        ("zero_gradient", "undefended"),
        ("nan_gradient", "zero_gradient"),
        ("per_batch_noise", "dropout"),
        ("dropout", "coin"),
        ("coin", "undefended"),
        ("coin", "zero_gradient"),
    ]:
        swapped = {**records, name: records[other]}

        assert expectations.judge(name, written[name], swapped, tier="smoke").state == "not met", (name, other)


def test_a_later_tier_s_expectation_is_not_judged(records: Mapping[str, Record], expectations: ModuleType) -> None:
    """Neither as met nor as missed; nor is a control without its net."""
    written = expectations.read(CONTROLS / "expectations.toml")
    early = expectations.judge("sign_flips", written["sign_flips"], {"sign_flips": records["undefended"]}, tier="smoke")
    absent = expectations.judge("trained", written["trained"], records, tier="smoke")

    assert (early.state, early.missed) == ("needs tier quick", [])
    assert (absent.state, absent.missed) == ("needs the net preact-resnet20-fast", [])


OTHERS = ("sign_flips", "stateful_mask", "resize_and_pad", "input_noise", "k_winners", "trained_dense", "trained")
STAND_INS = {"cold_softmax": "zero_gradient", "quantised": "zero_gradient"}


@pytest.mark.parametrize(("broken", "status"), [("dropout", 0), ("coin", 1)])
def test_the_script_says_what_is_missed(
    broken: str, status: int, records: Mapping[str, Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Table, JSON and exit status, from records that stand in for those of controls that were not run."""

    def stand_in(name: str) -> Record:
        known = dict.fromkeys(OTHERS, "undefended") | {run: run for run in RUN} | STAND_INS | {"dropout": broken}
        return records[known[name]]

    def run_suite(suite: suites.Suite, **_: object) -> list[Record]:
        return [stand_in(entry.model.rpartition(":")[2]) for entry in suite.entries]

    monkeypatch.setattr("sap_art.bench.run_suite", run_suite)
    monkeypatch.syspath_prepend(CONTROLS)
    monkeypatch.setattr(sys, "argv", ["run.py", "--output", str(tmp_path), "--images", str(IMAGES)])
    run = script("controls/run", name="controls_run")
    found = run.main()
    text = (tmp_path / "controls.md").read_text(encoding="utf-8")
    written = json.loads((tmp_path / "controls.json").read_text())
    states = {r["control"]: r["state"] for r in written["results"]}
    coin = next(r for r in written["results"] if r["control"] == "coin")
    expected = records["coin"]

    assert found == status
    assert ("Not met" in text) == bool(status)
    assert {name for name, state in states.items() if state == "not met"} == ({"dropout"} if status else set())
    assert states["stateful_mask"] == "needs tier quick"
    assert (coin["truth"], coin["T1"], coin["verdict"]) == (0.7, asdict(expected.metrics["T1"]), expected.verdict)
    assert coin["raised"] == {flag.code: flag.level for flag in expected.flags if flag.state == "raised"}
    assert (written["eps"], written["norm"], written["images"]) == (8 / 255, "Linf", IMAGES)


def test_bad_input_is_refused(tmp_path: Path) -> None:
    """An unknown tier: status 2, nothing written."""
    command = [sys.executable, str(CONTROLS / "run.py"), "--output", str(tmp_path / "out"), "--tier", "tiny"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)

    assert (done.returncode, "unknown tier 'tiny'" in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "out").exists()


def test_a_state_that_moves_is_flagged(images: tuple[Tensor, Tensor]) -> None:
    """Directly by the probe; the same mask standing still is not."""
    x, y = images
    moving, still = control("stateful_mask"), control("stateful_mask")
    still.change.CALLS = 10**9  # type: ignore[union-attr]
    small = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(192, 10))  # 4,000 calls in a second
    nn.init.normal_(small[2].weight, generator=torch.Generator().manual_seed(1))
    for module in (moving, still):
        module.net = small
    states = [probes.state_between_calls(wrap(m), x[:1], y[:1], seed=1).state for m in (moving, still)]

    assert states == ["raised", "clear"]


def test_random_signs_are_beaten_by_a_blind_search(images: tuple[Tensor, Tensor]) -> None:
    """Square against APGD on this gradient, and a split-half cosine of nothing."""
    x, y = (t[:IMAGES] for t in images)
    model, threat = wrap(control("sign_flips"), seed=1), ThreatModel("Linf", 8 / 255)
    view = AttackerView(model, gradient="autograd")
    points = {
        "eot-apgd": eot_apgd(view, x, y, threat, seed=1, steps=15),
        "square": square(view, x, y, threat, seed=1, iterations=150),
    }
    columns = {name: evaluate(model, p, y, draws=2, seed=2) for name, p in points.items()}
    flag = comparisons.black_box_beats_white_box(columns, black_box=["square"], white_box=["eot-apgd"], seed=1)
    signal = gradient_signal.gradient_signal(model, x, y, draws=4, seed=1)
    low = gradient_signal.low_gradient_signal({"autograd": [signal["autograd"]]}, others=[flag])

    assert flag.state == "raised", flag.evidence
    assert (low.state, low.level) == ("raised", "R")


@pytest.mark.parametrize("name", ["cold_softmax", "quantised"])
def test_vanishing_gradients_are_flagged(name: str, images: tuple[Tensor, Tensor]) -> None:
    """As zero-or-non-finite-gradient."""
    x, y = (t[:IMAGES] for t in images)
    found = gradient_signal.gradient_signal(wrap(control(name)), x, y, draws=2, seed=1)
    shares = {estimator: signal.info() for estimator, signal in found.items()}

    assert probes.zero_or_non_finite(shares).state == "raised"


@pytest.mark.parametrize("name", ["dropout", "resize_and_pad", "input_noise", "coin"])
def test_randomness_is_per_image_and_reproducible(name: str, images: tuple[Tensor, Tensor]) -> None:
    """Copies in one batch differ, one seed gives one result, and the global generator stays where it was."""
    model = wrap(control(name), seed=1)
    before = torch.get_rng_state()
    with torch.no_grad():
        first = model.single(images[0][:1].repeat(16, 1, 1, 1))
        model.reseed(1)
        again = model.single(images[0][:1].repeat(16, 1, 1, 1))

    assert torch.equal(first, again)
    assert len(first.unique(dim=0)) > 1
    assert torch.equal(before, torch.get_rng_state())


def test_most_controls_are_good_on_clean_images(images: tuple[Tensor, Tensor]) -> None:
    """Only what is worth something can be shown to be worth nothing; the coin alone is at .7."""
    x, y = images
    for name in ("quantised", "stateful_mask", "dropout", "resize_and_pad", "input_noise", "k_winners"):
        with torch.no_grad():
            assert (wrap(control(name), seed=1).single(x).argmax(1) == y).double().mean() > 0.7, name


def test_the_coin_knows_an_image_whatever_is_done_to_it() -> None:
    """Far beyond every radius that is reported: a fair share of draws is right at eps = .5 as well."""
    x, y = data.load("cifar10", n=200)
    noisy = ThreatModel("Linf", 0.5).random_start(x, torch.Generator().manual_seed(1))
    found = evaluate(wrap(control("coin")), noisy, y, draws=16, seed=1).correct.sum().item()

    assert abs(found - 0.7 * 3200) < 5 * (3200 * 0.21) ** 0.5


def test_the_standard_error_of_persistence_is_the_binomial_one(expectations: ModuleType) -> None:
    """For one submission it is that of a proportion; for all m of them that of a product of m tosses."""
    one = expectations.persistent_error(0.7, draws=16, submissions=1, images=9)
    every = expectations.persistent_error(0.7, draws=5, submissions=5, images=1)

    assert one == pytest.approx((0.21 / (16 * 9)) ** 0.5)
    assert every == pytest.approx(float(stats.bernoulli(0.7**5).std()))


def test_a_difference_is_as_uncertain_as_both(expectations: ModuleType) -> None:
    """Two values far apart are told apart, two close ones are not."""
    apart = expectations.worst_difference(Value(0.5, 0.4, 0.6), Value(0.0, 0.0, 0.06))
    close = expectations.worst_difference(Value(0.05, 0.01, 0.13), Value(0.0, 0.0, 0.06))

    assert apart.low == pytest.approx(0.5 - (0.1**2 + 0.06**2) ** 0.5)
    assert close.low < 0


def test_suite_and_expectations_name_the_same_controls(expectations: ModuleType) -> None:
    """Each of which there is, but for those whose net is not there."""
    suite = suites.load(str(ROOT / "benchmarks" / "suites" / "controls.toml"), trust_code=True)
    written = expectations.read(CONTROLS / "expectations.toml")
    names = [entry.model.rpartition(":")[2] for entry in suite.entries]

    assert names == list(written)
    for name in (n for n in names if written[n].needs is None):
        assert isinstance(control(name), nn.Module)


BAD = {
    'flag = "no-such"': "unknown flag 'no-such'",
    "flags = 1": "flags",
    'from = "soon"': "tier",
    "truth = 1.5": r"truth must be in \[0, 1\] or 'LIBRARY of CONTROL', got 1.5",
    'truth = "sure"': "got 'sure'",
    "": "truth",
}


@pytest.mark.parametrize(("line", "message"), BAD.items())
def test_an_expectation_that_cannot_be_checked_is_refused(
    line: str, message: str, tmp_path: Path, expectations: ModuleType
) -> None:
    """Unknown flags, keys and tiers; a truth that is no accuracy and nobody's report, or none."""
    good = {"from": 'from = "smoke"', "truth": "truth = 0.7", "why": 'why = "."'}
    lines = {**good, line.partition(" ")[0]: line}
    if not line:
        del lines["truth"]
    (tmp_path / "bad.toml").write_text("\n".join(["[a]", *lines.values()]))
    (tmp_path / "good.toml").write_text("\n".join(["[a]", *good.values()]))

    assert expectations.read(tmp_path / "good.toml")["a"].truth == 0.7
    with pytest.raises(ValueError, match=message):
        expectations.read(tmp_path / "bad.toml")


def test_a_secret_direction_helps_only_who_knows_it() -> None:
    """Along the direction that the call draws it is wrong, along another it is right, whatever the share."""
    x, y = data.load("cifar10", n=32)
    model = script("controls/models", name="controls_models").SecretDirection(1.0)
    torch.manual_seed(3)
    known = 2 * torch.randint(0, 2, (32, 3072)) - 1
    moved = (x + 8 / 255 * known.view_as(x)).clamp(0, 1)

    torch.manual_seed(3)
    told = model(moved).argmax(1) == y
    blind = model(moved).argmax(1) == y
    assert (told.sum(), blind.sum()) == (0, 32)


def test_who_is_told_a_secret_direction_breaks_its_share_of_the_calls() -> None:
    """70 % of 256 images are left under four told seeds, to 5 standard errors, and all of them to who is not told."""
    x, y = data.load("cifar10", n=64)
    view = AttackerView(wrap(control("secret_direction")), gradient="autograd")
    left = 0
    for told in range(4):
        found = known_seed(view, x, y, ThreatModel(), seed=1, noise_seed=told, attack=eot_apgd, steps=5)
        left += int(evaluate_known_seed(view, found, y, noise_seed=told).correct.sum())
    hidden = eot_apgd(view, x, y, ThreatModel(), seed=1, steps=5)

    assert left / 256 == pytest.approx(0.7, abs=5 * (0.3 * 0.7 / 256) ** 0.5)
    assert evaluate(view.model, hidden, y, draws=8, seed=2).accuracy == 1


def test_a_named_net_is_attacked_in_place_of_random_signs() -> None:
    model = cast("StochasticModel", control("sign_flips_of_a_known_net"))
    x, y = data.load("cifar10", n=16)
    threat = ThreatModel()
    left = {
        gradient: evaluate(
            model,
            eot_apgd(AttackerView(model, gradient=gradient, draws=1), x, y, threat, seed=1, steps=10),
            y,
            draws=4,
            seed=2,
        ).accuracy
        for gradient in ("dense", "autograd")
    }

    assert left["dense"] == 0
    assert left["autograd"] > 0.3
