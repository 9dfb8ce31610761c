"""The tiers ``full`` and ``audit`` on few images and with small budgets: every attack and every check of RDP-1."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor, nn

from sap_art import SAP, AttackerView, DefendedModel, portfolio, suites, tiers, wrap
from sap_art.attacks import library
from sap_art.attacks.cost import count_passes
from sap_art.attacks.objective import loss_and_gradient
from sap_art.bench import run_suite
from sap_art.forecast import forecast_suite
from sap_art.portfolio import references, short
from sap_art.record import Record
from sap_art.threat import ThreatModel
from sap_art.tiers import TIERS, Refinement, Tier

PAGE = Path(__file__).parents[1] / "benchmarks" / "full" / "page.py"


def cheap(tier: str) -> Tier:
    """A few steps of everything."""
    return replace(
        TIERS[tier],
        noise_points=4,
        draws=2,
        steps=4,
        selection_draws=4,
        report_draws=16,
        drop_draws=4,
        signal_draws=4,
        transfer_targets=2,
        long_steps=5,
        square_iterations=2,
        square_draws=2,
        boundary_queries=10,
        known_seeds=1,
        refinement=Refinement(best=1, restarts=2, targets=2, above=0.0),
        curve=(0.5, 1.0),
        planted=1,
        calls_compared=tier == "full",
        directions=2,
    )


@pytest.fixture
def small_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reference attacks with small budgets."""
    monkeypatch.setattr(references, "STEPS", 2)
    monkeypatch.setattr(references, "RAND_DRAWS", 2)
    monkeypatch.setattr(references, "QUERIES", 3)
    monkeypatch.setattr(short, "RESTARTS", (1, 2))
    monkeypatch.setattr(library, "TARGETS", 2)
    monkeypatch.setattr(references, "TARGETS", 2)


def evaluated(name: str, tmp_path: Path, **entry: str) -> Record:
    """One entry at the cheap form of a tier."""
    suite = replace(suites.load("full"), images=2, tier=name, entries=[suites.SuiteEntry("preact-resnet20", **entry)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TIERS, name, cheap(name))
        patch.delenv("SAP_ART_DATA", raising=False)
        (record,) = run_suite(suite, output=tmp_path / "out")
    return record


@pytest.mark.usefixtures("small_references")
@pytest.mark.parametrize("tier", ["full", "audit"])
def test_everything_runs_on_sap(tier: str, tmp_path: Path) -> None:
    """No attack fails, no flag is left open but for want of images or calls, and the record says all of it."""
    record = evaluated(tier, tmp_path, policy="sap:100")
    attacks = {attack.id: attack for attack in record.attacks}
    flags = {flag.code: flag for flag in record.flags}

    assert [a.error for a in record.attacks if a.error] == []
    assert {"apgd-t-dense", "eot-apgd-dlr-bpda", "em-apgd-bpda", "maximin-apgd-bpda", "long-apgd-bpda"} < set(attacks)
    assert {"hopskipjump", "known-seed-0", "known-seed-0-t", "known-seed-0-square"} < set(attacks)
    assert {"autoattack-rand", "art-pgd", "paper-fgsm", "paper-iterative"} < set(attacks)
    assert attacks["autoattack-rand"].reported is not None
    assert {"autoattack", "art-pgd", "paper", "T4-hopskipjump"} < set(record.metrics)
    for_few = {"planted-example-missed", "low-gradient-signal"}
    for_no_calls = set[str]() if cheap(tier).calls_compared else {"state-between-calls"}
    assert {code for code, flag in flags.items() if flag.state == "not-checked"} <= for_few | for_no_calls
    assert "planted in" in flags["planted-example-missed"].evidence
    assert record.convergence is not None
    assert {name: [point.value for point in points] for name, points in record.convergence.items()} == {
        "steps": [1, 2, 4, 8],
        "draws": [1, 2, 4],
        "restarts": [1, 2],
        "first_step": [0.5, 1, 2],
    }
    assert all(info.difference_cosine is not None for info in record.gradient.values())
    assert Record.read(record.write(tmp_path)) == record
    if tier == "full":
        check_page(record, tmp_path)


def check_page(record: Record, folder: Path) -> None:
    """``benchmarks/full/page.py``: every attack with its seconds, which add up; an image more, a pass more."""
    command = [sys.executable, str(PAGE), "--run", str(folder / "out"), "--output", str(folder / "page")]
    subprocess.run([*command, "--rates", "500", "1000"], check=True, cwd=folder)
    facts = json.loads((folder / "page" / "full.json").read_text())
    text = (folder / "page" / "full.md").read_text()
    sidecar = json.loads((folder / "out" / "records" / f"{record.entry}.run.json").read_text())
    (entry,), hours = facts["entries"], {(f["images"], f["rate"]): f["hours"] for f in facts["forecasts"]}

    assert sum(entry["seconds"].values()) == pytest.approx(sidecar["unit_seconds"], abs=2)
    assert entry["passes"] <= entry["planned"]
    assert all(f"\n| {attack.id} | " in text for attack in record.attacks)
    assert hours[1000, 500] == pytest.approx(2 * hours[1000, 1000], rel=0.01)
    assert 8 < hours[10_000, 500] / hours[1000, 500] < 10  # what is done on the stand-alone images does not grow
    assert Record.read(folder / "page" / "records" / f"{record.entry}.json") == record


@pytest.mark.usefixtures("small_references")
def test_a_net_without_a_defence(tmp_path: Path) -> None:
    """AutoAttack standard in place of rand; nothing that is about draws."""
    record = evaluated("full", tmp_path)
    ids = [attack.id for attack in record.attacks]

    assert [a.error for a in record.attacks if a.error] == []
    assert "autoattack-standard" in ids
    assert not [i for i in ids if i.startswith(("known-seed", "em-", "maximin-", "long-", "paper-"))]


def test_more_is_done_where_the_model_stands(tmp_path: Path, small_references: None) -> None:
    """Restarts and targets of the best attack on the images that are left, without a column of their own."""
    tier = replace(cheap("full"), refinement=Refinement(best=1, restarts=2, targets=2, above=0.5), planted=0)
    suite = replace(
        suites.load("full"), images=3, eps="1/2550", entries=[suites.SuiteEntry("preact-resnet20", "sap:100")]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TIERS, "full", replace(tier, converged=False, references=False, calls_compared=False))
        (record,) = run_suite(suite, output=tmp_path / "out")
    more = [a for a in record.attacks if a.id.endswith(("-restarts", "-targeted"))]

    assert [a.restarts for a in more] == [2, 1]
    assert all(a.accuracy is None and a.error is None and (a.forwards or 0) > 0 for a in more)


def test_planned_passes_bound_those_that_are_made(
    net: nn.Module, images: tuple[Tensor, Tensor], small_references: None
) -> None:
    """Exactly where no image is left early, but for other people's attacks and decisions on the boundary."""
    x, y = images[0][:2], images[1][:2]
    for model in (DefendedModel(net, SAP(100), seed=1), wrap(net, dense=net)):
        for planned in portfolio.plan(model, replace(cheap("full"), stops=False), ThreatModel(), classes=10):
            with count_passes(model) as passes:
                planned.run(model, x, y, ThreatModel(), seed=1)
            made, most = passes.forwards + passes.backwards, planned.passes * len(x)
            early = planned.id.startswith(("autoattack", "art", "hopskipjump"))
            assert made <= most if early else made == most, planned.id


def test_what_two_classes_and_other_balls_do_not_allow_is_left_out(net: nn.Module) -> None:
    """No DLR loss below three classes, the margin towards a target below four; the paper attacks in Linf alone."""
    model = DefendedModel(net, SAP(100), seed=1)
    two = [a.id for a in portfolio.plan(model, TIERS["full"], ThreatModel("L2", 0.5), classes=2)]
    ten = [a.id for a in portfolio.plan(model, TIERS["full"], ThreatModel(), classes=10)]

    assert set(ten) - set(two) == {"eot-apgd-dlr-bpda", "paper-fgsm", "paper-iterative"}
    targeted = [a for a in portfolio.plan(model, TIERS["full"], ThreatModel(), classes=3) if "-t" in a.id[-8:]]
    assert {dict(a.options)["targets"] for a in targeted if "targets" in dict(a.options)} <= {0, 2}


def test_every_tier_of_the_protocol_is_there() -> None:
    """In the order of their budgets."""
    assert list(tiers.TIERS) == ["smoke", "quick", "full", "audit"]


def test_a_forecast_of_a_given_rate_is_its_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes over the rate and the devices; more images than are there to be measured on."""
    monkeypatch.delenv("SAP_ART_DATA", raising=False)
    suite = replace(suites.load("full"), images=10_000, entries=[suites.SuiteEntry("preact-resnet20", "sap:100")])
    (found,) = forecast_suite(suite, device="cpu", source=None, rate=1000.0)
    (few,) = forecast_suite(replace(suite, images=64), device="cpu", source=None, rate=1000.0)

    assert found.forecast.hours(gpus=2) == found.forecast.passes / 1000 / 2 / 3600
    assert found.forecast.passes < few.forecast.passes * 10_000 / 64
    with pytest.raises(ValueError, match="above 0"):
        forecast_suite(suite, device="cpu", source=None, rate=0.0)


def test_the_measured_rate_is_that_of_this_machine(net: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    """Within a factor of three of what a loop of forwards and backwards makes."""
    x, y = images[0][:8], images[1][:8]
    suite = replace(suites.load("smoke"), images=8, entries=[suites.SuiteEntry("preact-resnet20")])
    (found,) = forecast_suite(suite, device="cpu", source=None, rate=None)
    view = AttackerView(wrap(net, dense=net), gradient="autograd")
    start = time.perf_counter()
    for _ in range(20):
        loss_and_gradient(view, x, y, loss="ce")
    rate = 2 * 8 * 20 / (time.perf_counter() - start)

    assert rate / 3 < found.forecast.rate < rate * 3
