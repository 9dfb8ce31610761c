"""Records: what is written is what is read, to the byte, and what is damaged is refused."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from sap_art import migrations, record_schema
from sap_art.integrations.robustbench.export import eps_text, export
from sap_art.record import (
    AttackResult,
    Bin,
    Calibration,
    DataInfo,
    DefenceInfo,
    Flag,
    ModelInfo,
    Precision,
    Record,
    Value,
)
from sap_art.table import markdown, rows

FOLDER = Path(__file__).parents[1] / "leaderboard"
LEADERBOARD = sorted(
    p
    for p in (*FOLDER.glob("records/*.json"), *FOLDER.glob("smoke/records/*.json"))
    if not p.name.endswith(".run.json")
)


def small_record() -> Record:
    """One with every field."""
    calibration = Calibration(16, 0.1, 0.5, 1.0, -0.1, [Bin(0.0, 0.5, 0), Bin(0.5, 1.0, 3, 0.9, 0.8)])
    return Record(
        entry="net-sap-100",
        tier="smoke",
        model=ModelInfo("net", "PreActResNet", "0" * 64, "PreActResNet"),
        defence=DefenceInfo("sap:100", "activation", True, "single", 1),
        data=DataInfo("cifar10", 64, "1" * 64),
        norm="Linf",
        eps=8 / 255,
        seeds={"base": 0},
        metrics={"clean": Value(0.8, 0.7, 0.9), "T1": Value(0.05, 0.0, 0.1), "noise": Value(0.7, 0.6, 0.8)},
        attacks=[
            AttackResult("eot-apgd-ce-bpda", "bpda", "ce", 4, 20, 1, Value(0.05, 0.0, 0.1), 80.0, 80.0, 60),
            AttackResult("noise", "bpda", "margin", 1, 100, 1, error="RuntimeError: out of luck"),
        ],
        gradient={},
        calibration={"clean": calibration, "adversarial": calibration},
        flags=[Flag("large-eps-survives", "raised", "R", "accuracy at eps .5 is .7", 0.7, 0.1)],
        verdict="failed",
        precision=Precision(0.05, 16, 64),
        adversarial_sha256="2" * 64,
        counts_sha256="3" * 64,
    )


@pytest.fixture
def record() -> Record:
    """A small record with every field."""
    return small_record()


def test_record_round_trip(tmp_path: Path, record: Record) -> None:
    """What is written is what is read, and the same bytes every time."""
    path = record.write(tmp_path)
    first = path.read_bytes()

    assert Record.read(path) == record
    assert record.write(tmp_path).read_bytes() == first
    assert "error" not in json.loads(first)["attacks"][0]
    assert [p.name for p in tmp_path.iterdir()] == ["net-sap-100.json"]


def test_nan_is_never_written(tmp_path: Path, record: Record) -> None:
    """And a record that is there stays as it was."""
    before = record.write(tmp_path).read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace(record, eps=float("nan")).write(tmp_path)

    assert (tmp_path / "net-sap-100.json").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": "8/255"}, "eps"),
        ({"surprise": 1}, "surprise"),
        ({"verdict": "robust"}, "verdict"),
        ({"metrics": {"clean": {"value": 0.5}}}, "low"),
        ({"schema": 99}, "schema 99 is that of a newer version, this one reads up to 1"),
        ({"schema": 0}, "schema 0 is too old"),
        ({"schema": "1"}, "schema must be a whole number up to 1, got '1'"),
        ({"schema": True}, "schema must be a whole number up to 1, got True"),
    ],
)
def test_invalid_records_are_refused(tmp_path: Path, record: Record, change: dict[str, object], message: str) -> None:
    """The message names file and field."""
    path = record.write(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    with pytest.raises(ValueError, match=message) as caught:
        Record.read(path)
    assert str(path) in str(caught.value)


def test_truncated_records_are_refused(tmp_path: Path, record: Record) -> None:
    """Half a file is no record."""
    path = record.write(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(ValueError, match="is not a valid record"):
        Record.read(path)


@pytest.mark.parametrize("text", ["[]", "1", "null", "{}"])
def test_what_has_no_schema_number_is_refused(tmp_path: Path, text: str) -> None:
    """Whatever else it is."""
    (tmp_path / "r.json").write_text(text)

    with pytest.raises(ValueError, match=r"r\.json is not a valid record: schema must be .* got None"):
        Record.read(tmp_path / "r.json")


def test_older_records_are_upgraded_step_by_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Record
) -> None:
    """Each upgrade gets what the one before left; one of today's is not touched; the file stays as it is."""
    path = record.write(tmp_path)
    today = json.loads(path.read_text())
    path.write_text(json.dumps({**{k: v for k, v in today.items() if k != "eps"}, "radius": 8}))
    before = path.read_bytes()

    def named(found: dict[str, Any]) -> dict[str, Any]:
        assert found["schema"] == 1
        return {**{k: v for k, v in found.items() if k != "radius"}, "eps": found["radius"]}

    def scaled(found: dict[str, Any]) -> dict[str, Any]:
        assert found["schema"] == 2
        return {**found, "eps": found["eps"] / 255}

    monkeypatch.setattr(migrations, "SCHEMA", 3)
    monkeypatch.setattr(migrations, "UPGRADES", {2: scaled, 1: named})

    assert Record.read(path) == replace(record, schema=3)
    assert path.read_bytes() == before
    path.write_text(json.dumps({**today, "schema": 3}))
    assert Record.read(path) == replace(record, schema=3)


def test_an_upgrade_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Record) -> None:
    """The first step that cannot be made."""
    path = record.write(tmp_path)
    monkeypatch.setattr(migrations, "SCHEMA", 3)
    monkeypatch.setattr(migrations, "UPGRADES", {1: dict[str, Any]})

    with pytest.raises(ValueError, match="schema 1 is too old, there is no upgrade from 2 to 3"):
        Record.read(path)


def test_the_shipped_json_schema_is_that_of_the_record() -> None:
    """A changed ``Record`` comes with a changed file."""
    shipped = json.loads(record_schema.PATH.read_text(encoding="utf-8"))

    assert shipped == record_schema.json_schema(), "the record has changed: run python -m sap_art.record_schema"


def test_the_json_schema_asks_for_what_a_record_holds(tmp_path: Path, record: Record) -> None:
    """Draft, today's number, all fields known and those that are always written required."""
    schema = record_schema.json_schema()
    written = json.loads(record.write(tmp_path).read_text())
    optional = {f.name for f in fields(Record) if f.default is None or f.name == "notes"}

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["properties"]["schema"]["const"] == written["schema"] == migrations.SCHEMA
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Value"]["description"] == Value.__doc__
    assert set(schema["properties"]) == {f.name for f in fields(Record)} >= set(written)
    assert set(schema["required"]) == {f.name for f in fields(Record)} - optional <= set(written)


@pytest.mark.parametrize("path", LEADERBOARD, ids=lambda path: path.stem)
def test_the_leaderboard_s_records_can_be_read(tmp_path: Path, path: Path) -> None:
    """And hold nothing that writing them again would change."""
    assert Record.read(path).write(tmp_path).read_bytes() == path.read_bytes()


def test_the_table_shows_each_attack_and_never_hides_a_crash(record: Record) -> None:
    """Percent with intervals; a crashed attack is an error in its column and in the verdict."""
    header, cells = rows([record])

    assert header == ["entry", "clean", "noise", "EOT-APGD bpda", "worst case", "ECE clean", "ECE attacked", "verdict"]
    assert cells == [
        ["net-sap-100", "80.0", "error", "5.0", "5.0 [0.0, 10.0]", "10.0", "10.0",
         "FAILED: an attack crashed: large-eps-survives"],
    ]  # fmt: skip
    assert "| net-sap-100 | 80.0 | error |" in markdown([record])
    assert "eps = 8/255, 16 fresh draws" in markdown([record])


def test_the_robustbench_export(tmp_path: Path, record: Record) -> None:
    """Upstream's types and keys; no AutoAttack number that was not measured; text is escaped."""
    path = export(replace(record, entry="a&b"), tmp_path)
    found = json.loads(path.read_text())

    assert path == tmp_path / "model_info" / "cifar10" / "Linf" / "a&b.json"
    assert found["name"] == "a&amp;b"
    assert (found["clean_acc"], found["external"], found["eps"]) == ("80.00", "5.00", "8/255")
    assert found["unreliable"] is True
    assert found["additional_data"] is False
    assert "autoattack_acc" not in found
    assert "not eligible" in found["footnote"]
    undefended = replace(record, defence=replace(record.defence, spec="none"))
    assert "not eligible" not in json.loads(export(undefended, tmp_path).read_text())["footnote"]
    assert {"name", "authors", "venue", "architecture", "link", "dataset", "footnote", "reported"} <= set(found)


@pytest.mark.parametrize(("eps", "text"), [(8 / 255, "8/255"), (0.5 / 255, "0.5/255"), (0.5, "0.5"), (0.031, "0.031")])
def test_eps_as_text(eps: float, text: str) -> None:
    """As RobustBench writes it."""
    assert eps_text(eps) == text
