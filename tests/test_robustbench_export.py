"""Our records beside twenty of RobustBench's in RobustBench's own readers."""

from __future__ import annotations

import html
import importlib
import io
import json
import re
from contextlib import redirect_stdout
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from test_record import LEADERBOARD, small_record
from upstream_records import upstream_records, write_upstream

from sap_art.integrations.robustbench import REPAIRS, export, generate_leaderboard, repaired
from sap_art.integrations.robustbench.export import model_info
from sap_art.integrations.robustbench.repairs import TEMPLATE
from sap_art.record import AttackResult, Record, Value

HOSTILE = "<script>alert('x')<!--&\"sap\"-100"
HEADER = ("Rank", "Method", "Standard accuracy", "AutoAttack robust accuracy", "Best known robust accuracy",
          "Evaluation potentially unreliable", "Extra data", "Architecture", "Venue")  # fmt: skip


class Cells(HTMLParser):
    """The texts of a table, row by row, and its tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += f" {data.strip()}" if self.rows[-1][-1] else data.strip()


@pytest.fixture
def record() -> Record:
    """One of ours, with a flag raised and an attack that crashed."""
    return small_record()


def ours(record: Record) -> dict[str, Record]:
    """Entries of ours with worst cases among upstream's numbers, one of them unreliable, one with AutoAttack."""

    def made(entry: str, worst: float, **changes: Any) -> Record:
        return replace(record, entry=entry, metrics={**record.metrics, "T1": Value(worst, 0.0, 1.0)}, **changes)

    standard = AttackResult("autoattack-standard", "dense", "standard", 1, 100, 1, reported=0.5125)
    undefended = replace(record.defence, spec="none")
    calm: dict[str, Any] = {"verdict": "incomplete", "flags": [], "attacks": []}
    return {
        "net-sap-100": made("net-sap-100", 0.05),
        "net-sap-200": made("net-sap-200", 0.7, **calm),
        HOSTILE: made(HOSTILE, 0.6, **calm),
        "net": made("net", 0.5, **{**calm, "attacks": [standard]}, defence=undefended),
    }


@pytest.fixture
def model_infos(tmp_path: Path, record: Record, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """By id, all records as written below the working directory."""
    monkeypatch.chdir(tmp_path)
    found = write_upstream(tmp_path)
    for entry, one in ours(record).items():
        found[entry] = json.loads(export(one, tmp_path).read_text())
    return found


def accuracy(info: dict[str, Any]) -> float:
    """What RobustBench ranks by."""
    return float(info.get("external", info.get("autoattack_acc")))


def test_types_are_upstream_s(record: Record) -> None:
    """Each key of ours but the one block is a key of upstream's, with its type; what upstream always has is there."""
    upstream = list(upstream_records().values())
    types = {key: type(value) for one in upstream for key, value in one.items()}
    always = set.intersection(*(set(one) for one in upstream)) - {"autoattack_acc"}
    for one in ours(record).values():
        found = model_info(one)
        assert isinstance(found.pop("sap_art"), dict)
        assert {key: type(value) for key, value in found.items()} == {key: types[key] for key in found}
        assert always | {"external", "unreliable", "footnote"} <= set(found)


def test_a_record_without_its_metrics_is_no_entry(record: Record) -> None:
    """Each run measures them."""
    for name in ("clean", "T1"):
        left = {key: value for key, value in record.metrics.items() if key != name}
        with pytest.raises(ValueError, match=f"has no metric {name}"):
            model_info(replace(record, metrics=left))


def test_percents_are_written_as_upstream_s(record: Record) -> None:
    """Two decimals, no sign; eps as a fraction."""
    for one in ours(record).values():
        found = model_info(one)
        for key in ("clean_acc", "reported", "external"):
            assert re.fullmatch(r"\d{1,3}\.\d\d", found[key])
        assert found["eps"] == "8/255"


@pytest.mark.parametrize(
    ("attack", "spec", "expected"),
    [
        ({"reported": 0.5125}, "none", "51.25"),
        ({"reported": 0.0}, "none", "0.00"),
        ({"reported": 0.5125}, "sap:100", None),
        ({"reported": 0.5125}, "foreign", None),
        ({"reported": None}, "none", None),
        ({"reported": 0.5125, "error": "RuntimeError: out of luck"}, "none", None),
        ({"reported": 0.5125, "id": "autoattack-rand"}, "none", None),
    ],
)
def test_only_a_real_autoattack_standard_is_called_one(
    record: Record,
    attack: dict[str, Any],
    spec: str,
    expected: str | None,
) -> None:
    """Which ran to its end, on a net without randomness; its images are counted."""
    given = replace(AttackResult("autoattack-standard", "dense", "standard", 1, 100, 1), **attack)
    changed = replace(
        record, attacks=[given], defence=replace(record.defence, spec=spec), data=replace(record.data, n=256)
    )
    found = model_info(changed)

    assert found.get("autoattack_acc") == expected
    assert found["sap_art"].get("autoattack_images") == (None if expected is None else 64)
    assert ("AutoAttack on the first 64" in found["footnote"]) == (expected is not None)


def test_images_that_are_a_user_s_own_have_no_autoattack_number(record: Record) -> None:
    """Their classes may be too few for the whole of it."""
    given = AttackResult("autoattack-standard", "dense", "standard", 1, 100, 1, reported=0.5)
    undefended = replace(record.defence, spec="none")
    changed = replace(record, attacks=[given], defence=undefended, data=replace(record.data, set="custom"))

    assert "autoattack_acc" not in model_info(changed)


def test_an_unreliable_entry_says_why(record: Record) -> None:
    """Flags of level R and crashes, not warnings; a reliable one says nothing of the kind."""
    found = model_info(record)
    calm = model_info(replace(record, verdict="warning"))

    assert (found["unreliable"], calm["unreliable"]) == (True, False)
    assert "Evaluation unreliable: large-eps-survives, noise crashed." in found["footnote"]
    assert "unreliable" not in calm["footnote"]


def test_list_available_models_ranks_ours_among_theirs(
    model_infos: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once they are in its table of models, which is all that it lists; by external, else by AutoAttack."""
    with repaired():
        utils = importlib.import_module("robustbench.utils")
        enums = importlib.import_module("robustbench.model_zoo.enums")
        zoo = utils.all_models[enums.BenchmarkDataset.cifar_10]
        monkeypatch.setitem(zoo, enums.ThreatModel.Linf, dict.fromkeys(model_infos))
        text = io.StringIO()
        with redirect_stdout(text):
            utils.list_available_models("cifar10", "Linf")
    lines = [
        re.findall("<sub>(?:<sup>)?[*]*(.*?)[*]*(?:</sup>)?</sub>", line) for line in text.getvalue().split("\n")[2:-1]
    ]

    assert [line[0] for line in lines] == [str(i + 1) for i in range(24)]
    assert [line[1] for line in lines] == sorted(model_infos, key=lambda name: -accuracy(model_infos[name]))
    assert [line[4] for line in lines] == [f"{accuracy(model_infos[line[1]]):.2f}%" for line in lines]
    assert [line[3] for line in lines] == [f"{float(model_infos[line[1]]['clean_acc']):.2f}%" for line in lines]


def test_generate_leaderboard_ranks_ours_among_theirs(
    model_infos: dict[str, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """With accuracies, who is unreliable, and a dash where AutoAttack was not run; nothing is printed."""
    table = Cells(generate_leaderboard("model_info"))
    ranked = sorted(model_infos.values(), key=lambda info: -accuracy(info))

    assert table.rows[0] == list(HEADER)
    assert [row[0] for row in table.rows[1:]] == [str(i + 1) for i in range(24)]
    for row, info in zip(table.rows[1:], ranked, strict=True):
        assert row[1].startswith(html.unescape(info["name"]))
        assert row[2] == f"{info['clean_acc']} %"
        assert row[3] == (f"{info['autoattack_acc']} %" if "autoattack_acc" in info else "–")
        assert row[4] == f"{accuracy(info):.2f} %" or float(row[4][:-2]) == accuracy(info)
        assert row[5] == ("yes" if info.get("unreliable") else "no")
        assert row[6] == ("yes" if info["additional_data"] else "no")
    assert [html.unescape(i["name"]) for i in ranked if i.get("unreliable")] == [
        upstream_records()["Kang2021Stable"]["name"],
        "net-sap-100",
    ]
    assert capsys.readouterr().out == ""


def test_a_hostile_name_is_text(model_infos: dict[str, dict[str, Any]]) -> None:
    """In the table it is what it was, and no element."""
    assert HOSTILE in model_infos
    table = Cells(generate_leaderboard("model_info"))

    assert "script" not in table.tags
    assert [row[1].split(" RDP-1")[0] for row in table.rows if 'sap"-100' in " ".join(row)] == [HOSTILE]


def test_no_records_no_table(tmp_path: Path) -> None:
    """Rather than an empty one."""
    with pytest.raises(FileNotFoundError, match="no records"):
        generate_leaderboard(tmp_path)


def test_the_template_is_lent_only_meanwhile(model_infos: dict[str, dict[str, Any]]) -> None:
    """And is one of the repairs that are told of."""
    with repaired():
        template = importlib.import_module("robustbench.leaderboard.template")
    before = template.PackageLoader
    generate_leaderboard("model_info")

    assert TEMPLATE in REPAIRS
    assert TEMPLATE.needed()
    assert template.PackageLoader is before


@pytest.mark.parametrize("change", ["../../elsewhere", "a/b", "", ".."])
def test_an_export_stays_in_its_folder(tmp_path: Path, record: Record, change: str) -> None:
    """Whatever a record calls its entry and its data."""
    for changed in (
        *([replace(record, entry=change)] if "/" in change else []),
        replace(record, data=replace(record.data, set=change)),
        replace(record, norm=change),
    ):
        with pytest.raises(ValueError, match="name of a file"):
            export(changed, tmp_path / "in" / "root")
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("path", LEADERBOARD, ids=lambda path: path.stem)
def test_the_leaderboard_s_exports_are_those_of_its_records(tmp_path: Path, path: Path) -> None:
    """To the byte: what an export says has changed only if the committed files have."""
    written = export(Record.read(path), tmp_path)

    assert written.read_bytes() == (path.parents[1] / written.relative_to(tmp_path)).read_bytes()
