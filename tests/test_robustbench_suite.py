"""RobustBench's models in suites: ``robustbench:ID``, loaded once, forecast without weights, evaluated end to end."""

from __future__ import annotations

import gc
import importlib
import io
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from sap_art import forecast, models, portfolio, suites, wrap
from sap_art.bench import Watch, run_suite
from sap_art.cli import main
from sap_art.entries import Entry
from sap_art.integrations.robustbench import build, repaired, zoo_models
from sap_art.progress import bar
from sap_art.record import DefenceInfo, ModelInfo, Record
from sap_art.suites import Suite, SuiteEntry
from sap_art.tiers import TIERS

ZOO = Path(__file__).parents[1] / "benchmarks" / "suites" / "zoo.toml"
SMALL = "Standard"


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, the bundled images, a working directory of its own."""

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr("gdown.download", fail)
    monkeypatch.delenv("SAP_ART_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def slim(monkeypatch: pytest.MonkeyPatch) -> None:
    """RobustBench's Standard has 10 layers in place of 28, a tenth as wide."""
    with repaired():
        net = importlib.import_module("robustbench.model_zoo.architectures.wide_resnet").WideResNet
        enums = importlib.import_module("robustbench.model_zoo.enums")
        zoo = importlib.import_module("robustbench.model_zoo").model_dicts
    entry = zoo[enums.BenchmarkDataset("cifar10")][enums.ThreatModel("Linf")][SMALL]
    monkeypatch.setitem(entry, "model", lambda: net(depth=10, widen_factor=1))


def test_the_suite_of_ten_models() -> None:
    """Each dense and under SAP-100, 200 and 400, in the tier of a first verdict."""
    suite = suites.load(str(ZOO))
    nets = list(dict.fromkeys(entry.model for entry in suite.entries))

    assert (suite.tier, suite.images, suite.threat().eps) == ("quick", 256, 8 / 255)
    assert len(nets) == 10
    assert all(models.robustbench_id(net) in zoo_models() for net in nets)
    assert [(e.model, e.policy) for e in suite.entries] == [
        (net, policy) for net in nets for policy in (None, "sap:100", "sap:200", "sap:400")
    ]


def test_a_forecast_needs_no_weights(monkeypatch: pytest.MonkeyPatch, net: nn.Module) -> None:
    """Nor, at a given rate, the nets: passes are counted, for each of the forty entries."""
    monkeypatch.setattr(forecast, "build", None)
    suite = replace(suites.load(str(ZOO)), tier="full", images=10_000)
    found = [entry.forecast for entry in forecast.forecast_suite(suite, device="cpu", source=None, rate=5000.0)]
    dense = portfolio.expected_passes(wrap(net, dense=net), TIERS["full"], suite.threat(), images=10_000, classes=10)

    assert [entry.entry for entry in found] == [entry.name for entry in suite.entries]
    assert found[0].passes == dense
    assert found[1].passes > dense
    assert found[0].hours(gpus=8) == dense / 5000 / 8 / 3600


@pytest.mark.usefixtures("slim")
def test_a_rate_is_measured_with_random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each entry; the net is built once."""
    built: list[str] = []

    def watched(zoo_id: str, *, seed: int) -> nn.Module:
        built.append(zoo_id)
        return build(zoo_id, seed=seed)

    monkeypatch.setattr(forecast, "build", watched)
    monkeypatch.setattr(forecast, "MEASURED_SECONDS", 0.01)
    entries = [SuiteEntry(f"robustbench:{SMALL}", policy) for policy in (None, "sap:100")]
    suite = replace(suites.load("smoke"), images=1, entries=entries)
    found = forecast.forecast_suite(suite, device="cpu", source=None, rate=None)

    assert built == [SMALL]
    assert all(0 < entry.forecast.rate < 1e6 for entry in found)


def test_the_forecast_is_printed() -> None:
    """In hours of the device that is used, for all entries that are left."""
    text = io.StringIO()
    with bar(Console(file=text, width=200)) as watch:
        watch.forecast([forecast.Forecast("net", 64, 7200, 1.0), forecast.Forecast("other", 64, 3600, 2.0)])
        watch.note("a name \x1b[2J")

    assert "forecast: 2 entries, 10,800 passes: 2.50 h on this device" in text.getvalue()
    assert "note: a name \\x1b[2J\n" in text.getvalue()


def test_a_log_has_a_line_a_minute() -> None:
    """And one a stage; each says how far, how fast and how much longer."""
    text, now = io.StringIO(), [0.0]
    with bar(Console(file=text, width=200), clock=lambda: now[0]) as watch:
        watch.expect(18_000)
        watch.announce("net: noise")
        for _ in range(150):
            now[0] += 1
            watch.advance(60)

    lines = text.getvalue().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["  0 %     0 s", " 20 %    60 s", " 40 %   120 s"]
    assert lines[1:] == [
        " 20 %    60 s, 60 passes/s, 240 s left, net: noise",
        " 40 %   120 s, 60 passes/s, 180 s left, net: noise",
    ]


def test_a_forecast_of_an_entry_counts_its_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two forward passes of 4 images in 2 s are 4 a second; a backward pass takes twice as long as a forward one."""
    monkeypatch.setattr(forecast, "_timed", lambda work, device: 2.0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 10)).eval()
    model = wrap(net, dense=net)
    entry = Entry("net", model, 10, ModelInfo("", "", ""), DefenceInfo("", "", True, "", 1), lambda: model)
    found = forecast.forecast_entry(entry, torch.zeros(4, 3, 2, 2), passes=300)

    assert (found.images, found.passes) == (4, 300)
    assert found.rate == pytest.approx(2 / (1 / 4 + 2 / 4))
    assert found.hours(gpus=1) == pytest.approx(300 / found.rate / 3600)


@pytest.mark.usefixtures("slim")
def test_from_a_checkpoint_to_a_record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The file is read once for two entries; a forecast before the first attack, none when all is done."""
    path = tmp_path / "models" / "cifar10" / "Linf" / f"{SMALL}.pt"
    path.parent.mkdir(parents=True)
    torch.save(build(SMALL, seed=0).state_dict(), path)
    tiny = {"noise_points": 2, "draws": 1, "steps": 2, "selection_draws": 2, "report_draws": 4, "signal_draws": 2}
    monkeypatch.setitem(TIERS, "smoke", replace(TIERS["smoke"], **tiny))
    entries = [SuiteEntry(f"robustbench:{SMALL}", policy) for policy in (None, "sap:100")]
    suite = replace(suites.load("smoke"), images=1, entries=entries)
    loaded: list[str] = []
    load = models.robustbench.load_model
    monkeypatch.setattr(models.robustbench, "load_model", lambda zoo_id: loaded.append(zoo_id) or load(zoo_id))
    told: list[Any] = []
    watch = Watch(forecast=told.append, announce=told.append)
    records = run_suite(suite, output=tmp_path / "out", watch=watch)
    again: list[Any] = []
    run_suite(suite, output=tmp_path / "out", watch=Watch(forecast=again.append))

    assert [record.entry for record in records] == [f"robustbench-{SMALL}", f"robustbench-{SMALL}-sap-100"]
    assert {record.model.name for record in records} == {f"robustbench:{SMALL}"}
    assert Record.read(tmp_path / "out" / "records" / f"robustbench-{SMALL}-sap-100.json") == records[1]
    assert loaded == [SMALL, SMALL]  # once a run
    assert [entry.entry for entry in told[0]] == [record.entry for record in records]
    assert all(entry.passes > 0 and entry.rate > 0 for entry in told[0])
    assert isinstance(told[1], str)
    assert again == []


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """RobustBench's nets are small ones without a file, another for each ID; how many were there after each loading."""
    nets, counts = weakref.WeakSet[nn.Module](), list[int]()

    def load(zoo_id: str) -> nn.Module:
        net = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 10), nn.ReLU()).eval()
        generator = torch.Generator().manual_seed(int(zoo_id.encode().hex(), 16) % 2**63)
        for p in net.parameters():
            p.data = torch.randn(p.shape, generator=generator) / 7
        nets.add(net)
        counts.append(len(nets))
        return net

    tiny = {"noise_points": 2, "draws": 1, "steps": 2, "selection_draws": 2, "report_draws": 4, "signal_draws": 2}
    monkeypatch.setitem(TIERS, "smoke", replace(TIERS["smoke"], **tiny))
    monkeypatch.setattr(models.robustbench, "load_model", load)
    return counts


def of_many_nets(policies: tuple[str | None, ...]) -> Suite:
    nets = ["Standard", "Carmon2019Unlabeled", "Engstrom2019Robustness", "Rice2020Overfitting", "Wong2020Fast"]
    entries = [SuiteEntry(f"robustbench:{net}", policy) for net in nets for policy in policies]
    return replace(suites.load("smoke"), images=1, entries=entries)


def test_the_nets_of_a_suite_are_not_held_all_at_once(alive: list[int], tmp_path: Path) -> None:
    """Five could be too many for a GPU: there are the one in work and the one before it, each is read three times."""
    gc.collect()
    records = run_suite(of_many_nets((None, "sap:100")), output=tmp_path / "out")

    assert len({record.model.weights_sha256 for record in records}) == 5
    assert max(alive) <= 2
    assert len(alive) == 3 * 5  # to see that all is well, to measure it, to attack it


def test_weights_that_change_during_a_run(alive: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Are refused by name: what was computed with the first ones would be told of the others."""
    load = models.robustbench.load_model

    def changing(zoo_id: str) -> nn.Module:
        net = load(zoo_id)
        net[2].bias.data += len(alive)
        return net

    monkeypatch.setattr(models.robustbench, "load_model", changing)
    with pytest.raises(ValueError, match="the weights of robustbench:Standard have changed since the run began"):
        run_suite(of_many_nets((None,)), output=tmp_path / "out")
    assert not list((tmp_path / "out").glob("records/*.json"))


def test_without_the_checkpoint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Status 2 and one error that says where it belongs; nothing is written."""
    monkeypatch.setattr("sys.argv", ["sap-art", "bench", "--suite", str(ZOO), "--output", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as caught:
        main()

    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert f"no checkpoint of Standard at {Path('models/cifar10/Linf/Standard.pt')}" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("zoo_id", ["Standart", "SAP100_Standard", ""])
def test_an_id_that_is_not_in_the_zoo(zoo_id: str) -> None:
    """Refused at once; SAP is the entry's policy."""
    with pytest.raises(ValueError, match=f"unknown model '{zoo_id}'"):
        models.Loader()(f"robustbench:{zoo_id}")
