"""The command that fills the committed leaderboard: what runs hold of its suites, controls marked as such."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import site_records
from site_records import synthetic

from sap_art.integrations.robustbench import export
from sap_art.site import build
from sap_art.site.reading import read_folder

COLLECT = Path(__file__).parents[1] / "benchmarks" / "leaderboard"


@pytest.fixture
def collect(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(COLLECT)
    monkeypatch.syspath_prepend(COLLECT.parent / "controls")
    return importlib.import_module("collect")


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """A run of the suite with an entry that is not of it, and one of the controls."""
    made = (
        ("suite", "preact-resnet20", "none", "preact-resnet20"),
        ("suite", "preact-resnet20-sap-100", "sap:100", "preact-resnet20"),
        ("suite", "mine-sap-7", "sap:7", "mine"),
        ("controls", "models.py-coin", "foreign", "models.py:coin"),
    )
    for run, name, spec, net in made:
        record, found = synthetic(name, spec=spec, net=net, tier="quick", images=8)
        site_records.write(tmp_path / run / "records", record, found)
    return [tmp_path / "suite", tmp_path / "controls"]


def test_runs_become_the_leaderboard(collect: ModuleType, runs: list[Path], tmp_path: Path) -> None:
    """Bytes as the runs left them; what was there before is gone; the site is not stale."""
    to = tmp_path / "leaderboard"
    old, found = synthetic("preact-resnet20-sap-400", images=8)
    site_records.write(to / "records", old, found)
    export(old, to)
    (to / "smoke").mkdir()
    missing = collect.collect(runs, to=to)
    entries = {entry.record.entry: entry for entry in read_folder(to / "records")}

    assert set(entries) == {"preact-resnet20", "preact-resnet20-sap-100", "models.py-coin"}
    assert "preact-resnet20-sap-400" in missing
    assert "models.py-dropout" in missing
    assert len(missing) == 16 + 16 - 3
    assert [name for name, entry in entries.items() if entry.control] == ["models.py-coin"]
    assert (entries["models.py-coin"].control or "").startswith("No attack moves a coin")
    for run, name in ((runs[0], "preact-resnet20"), (runs[1], "models.py-coin")):
        for path in (run / "records").glob(f"{name}.*"):
            assert (to / "records" / path.name).read_bytes() == path.read_bytes()
    assert len(list(to.rglob("model_info/cifar10/Linf/*.json"))) == 3
    assert build.stale(build.render(to / "records"), to / "site") == []
    assert sorted(p.name for p in to.iterdir()) == ["model_info", "records", "site", "smoke"]
    assert collect.collect(runs, to=to) == missing


def test_what_cannot_be_taken_changes_nothing(collect: ModuleType, runs: list[Path], tmp_path: Path) -> None:
    """A lower tier, one entry twice, a run without records, or with none of the suites."""
    to = tmp_path / "leaderboard"
    collect.collect(runs, to=to)
    before = {p: p.read_bytes() for p in to.rglob("*") if p.is_file()}
    record, _ = synthetic("preact-resnet20-sap-200", tier="smoke", images=8, outcome="incomplete")
    site_records.write(tmp_path / "low" / "records", record)
    record, _ = synthetic("mine", tier="quick", images=8)
    site_records.write(tmp_path / "mine" / "records", record)
    for given, message in (
        ([tmp_path / "low"], "is of the tier smoke; the leaderboard needs at least quick"),
        ([*runs, runs[0]], r"is a record of preact-resnet20(-sap-100)? too"),
        ([tmp_path / "nowhere"], "no records in"),
        ([tmp_path / "mine"], "no run holds an entry"),
    ):
        with pytest.raises(ValueError, match=message):
            collect.collect(given, to=to)

    assert {p: p.read_bytes() for p in to.rglob("*") if p.is_file()} == before
