"""The README's claims: its table comes from committed records, its example runs, its numbers are the card's."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from sap_art import suites, table, zoo
from sap_art.cli import app
from sap_art.record import Record
from sap_art.site.ranking import rank_entries
from sap_art.site.reading import read_folder
from sap_art.store import weights_sha256

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RECORDS = ROOT / "leaderboard" / "smoke" / "records"
CONTROLS = ROOT / "benchmarks" / "controls"


def committed() -> list[Record]:
    """The committed records of the smoke suite, in its order."""
    return [Record.read(RECORDS / f"{entry.name}.json") for entry in suites.load("smoke").entries]


def test_the_table_is_that_of_the_committed_records() -> None:
    """Between its markers, to the letter."""
    shown = re.search(r"<!-- smoke table: begin -->\n(.*)<!-- smoke table: end -->", README, re.DOTALL)

    assert shown is not None
    assert shown[1] == table.markdown(committed())


def test_the_controls_table_is_that_of_the_committed_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """In README and in comparison.md, to the letter; as long as no records are committed there is none."""
    monkeypatch.syspath_prepend(CONTROLS)
    table = importlib.import_module("table")
    results = CONTROLS / "results"
    there = (results / "controls.json").exists() and (results / "references").is_dir()
    text = table.markdown(*table.read(results, results / "references")) if there else None
    shown = re.search(r"<!-- controls table: begin -->\n(.*)<!-- controls table: end -->", README, re.DOTALL)

    assert (shown and shown[1]) == text
    assert ((results / "comparison.md").read_text(encoding="utf-8") if there else None) == text


def test_the_false_alarms_are_those_of_the_committed_record() -> None:
    """How many of how many evaluations, with the interval."""
    found = json.loads((CONTROLS / "results" / "false_alarms.json").read_text(encoding="utf-8"))
    value, low, high = (100 * found["share"][name] for name in ("value", "low", "high"))
    said = f"Of {found['evaluations']} evaluations {found['alarms']} were, {value:.1f} % [{low:.1f}, {high:.1f}]."

    assert said in " ".join(README.split())


def test_the_time_to_rand_is_that_of_the_committed_record() -> None:
    """Seconds of both sides and their ratio, with the tiers smoke and quick."""
    results = ROOT / "benchmarks" / "attacks" / "results"
    quick, smoke = (
        json.loads((results / name / "time_to_rand.json").read_text(encoding="utf-8")) for name in (".", "smoke")
    )
    rand, ours = smoke["rand"]["seconds"], smoke["steps"][-1]["seconds"]
    text = " ".join(README.split())

    assert f"takes {rand:.0f} s to report {100 * smoke['rand']['reported']:.1f} % for SAP-100" in text
    assert f"is there after {ours:.1f} s, {smoke['ratio']:.0f} times sooner" in text
    assert f"the target is {smoke['target']:.0f}" in text
    assert f"it is there after {quick['steps'][-1]['seconds']:.1f} s, {quick['ratio']:.0f} times sooner" in text
    assert (quick["setting"]["tier"], smoke["setting"]["tier"]) == ("quick", "smoke")
    assert smoke["met"]
    assert quick["rand"]["reported"] == smoke["rand"]["reported"]


def test_what_the_tier_full_took_is_what_its_page_holds() -> None:
    """Minutes of one core, flags and worst cases of both entries."""
    folder = ROOT / "benchmarks" / "full" / "results"
    entries = json.loads((folder / "full.json").read_text(encoding="utf-8"))["entries"]
    minutes = {entry["policy"]: sum(entry["seconds"].values()) / 60 for entry in entries}
    records = [Record.read(folder / "records" / f"{entry['entry']}.json") for entry in entries]
    text = " ".join(README.split())

    said = f"takes {minutes['sap:100']:.0f} minutes of one core for SAP-100 and {minutes['none']:.0f} for its net alone"
    assert said in text
    assert {entry["images"] for entry in entries} == {32}
    assert {flag.state for record in records for flag in record.flags} == {"clear"}
    for record in records:
        t1 = record.metrics["T1"]
        assert f"worst case of both is {100 * t1.value:.1f} % [{100 * t1.low:.1f}, {100 * t1.high:.1f}]" in text


def test_the_leaderboard_s_numbers_are_those_of_its_records() -> None:
    """How many there are, who is at 0 %, and what is said of the two that are not."""
    found = read_folder(ROOT / "leaderboard" / "records")
    records = {entry.record.entry: entry.record for entry in found if entry.control is None}
    worst = {name: record.metrics["T1"] for name, record in records.items()}
    net, defended, zero = "preact-resnet20-fast", "preact-resnet20-fast-sap-100", worst["preact-resnet20"]
    (pairs,) = rank_entries(found).pairs.values()
    by = pairs[net, defended]  # what the net keeps minus what it keeps under SAP
    text = " ".join(README.split())

    assert f"{len(records)} entries and the {len(found) - len(records)} controls" in text
    assert {name for name, t1 in worst.items() if t1.value > 0} == {net, defended}
    assert f"ends at {100 * zero.value:.1f} % [{100 * zero.low:.1f}, {100 * zero.high:.1f}]" in text
    assert f"keeps {100 * worst[net].value:.1f} % alone and {100 * worst[defended].value:.1f} % under SAP-100" in text
    assert [flag.code for flag in records[defended].flags if flag.state == "raised"] == ["estimator-spread"]
    assert f"{-100 * by.value:.1f} points [{-100 * by.high:.1f}, {-100 * by.low:.1f}]" in text


def test_the_committed_records_are_of_the_shipped_net() -> None:
    """Weights, suite settings and images are those that the command would use."""
    digest = weights_sha256(zoo.load("preact-resnet20"))
    suite = suites.load("smoke")
    for record in committed():
        assert record.model.weights_sha256 == digest
        assert (record.data.n, record.eps, record.tier) == (suite.images, suite.threat().eps, suite.tier)


def test_the_example_runs() -> None:
    """As it stands."""
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)

    assert example is not None
    exec(compile(example[1], "README.md", "exec"), {})


def test_the_numbers_of_the_shipped_net_are_its_card_s() -> None:
    """Accuracy and epochs."""
    card = zoo.load_card("preact-resnet20")

    assert f"{100 * card.accuracy:.2f} %" in README
    assert f"{card.recipe['epochs']} epochs" in README


def test_the_commands_are_those_that_there_are() -> None:
    """Each has its line, with options of its own; nothing that is left out is there."""
    lines = re.findall(r"^\| `sap-art (\w+)( [^`]*)?` \|", README, re.MULTILINE)
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    for name, arguments in lines:
        known = {option for parameter in group.commands[name].params for option in parameter.opts}
        assert {word for word in arguments.split() if word.startswith("--")} <= known

    assert {name for name, _ in lines} == set(group.commands)
