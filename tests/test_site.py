"""The site: a pure function of the records, which it does not trust."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import site_records
from site_records import HOSTILE, synthetic
from test_cli import run
from test_robustbench_export import HEADER, Cells

from sap_art.record import Flag, Record
from sap_art.site import build, plots
from sap_art.site.checks import NAME_LENGTH
from sap_art.site.command import command_of
from sap_art.site.ranking import rank_entries
from sap_art.site.reading import CONTROLS, read_folder, read_record, slugs_of
from sap_art.site.rows import rows_of
from sap_art.site.svg import inline
from sap_art.suites import load as load_suite

COMMITTED = Path(__file__).parents[1] / "leaderboard" / "site"


class Text(HTMLParser):
    """The tags and attributes of a page, and the text between them."""

    def __init__(self, page: bytes | str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page.decode() if isinstance(page, bytes) else page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of two settings."""
    folder = tmp_path_factory.mktemp("site") / "records"
    site_records.gallery(folder)
    return folder


@pytest.fixture(scope="module")
def files(folder: Path) -> build.Files:
    """The site of the gallery."""
    return build.render(folder)


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    """Whatever the folder, and the order in which its files were written."""
    made = [(synthetic(name, tier="quick", images=8), name) for name in ("b", "a")]
    for folder, order in (("one", made), ("other", made[::-1])):
        for (record, found), _ in order:
            site_records.write(tmp_path / folder, record, found)

    assert build.render(tmp_path / "one") == build.render(tmp_path / "other")


def test_a_site_that_is_there_is_renewed_or_stale(tmp_path: Path, files: build.Files) -> None:
    """What an earlier build left goes, what is not ours stays, and nothing is written by looking."""
    site = tmp_path / "site"
    build.write(
        {**files, "entries/gone.html": b"", build.MANIFEST: json.dumps([*files, "entries/gone.html"]).encode()}, site
    )
    (site / "CNAME").write_text("example.org")
    assert build.stale(files, site) == ["entries/gone.html", build.MANIFEST]
    build.write(files, site)

    assert build.stale(files, site) == []
    assert {str(p.relative_to(site)) for p in site.rglob("*") if p.is_file()} == {*files, "CNAME"}
    (site / "index.html").write_text("")
    assert build.stale(files, site) == ["index.html"]


def test_a_folder_of_somebody_else_is_not_touched(tmp_path: Path, files: build.Files) -> None:
    """Nor are files outside that a manifest names."""
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty and holds no site of ours"):
        build.write(files, tmp_path)
    (tmp_path / build.MANIFEST).write_text('["../other.txt"]')
    with pytest.raises(ValueError, match="must list the site's files"):
        build.write(files, tmp_path)

    assert sorted(p.name for p in tmp_path.iterdir()) == [build.MANIFEST, "mine.txt"]


def test_nothing_is_remote(files: build.Files) -> None:
    """No address but the site's own, in any page; scripts and styles only those that the policy names."""
    for name, content in files.items():
        if not name.endswith(".html") or name.startswith("robustbench"):
            continue
        page = Text(content)
        links = [v or "" for k, v in page.attributes if k in ("href", "src", "action", "data", "poster")]

        assert all(re.match(r"(data:|#|(\.\./)?[\w.%-]+[\w./%-]*(#[\w-]+)?$)", link) for link in links), links
        assert not any(k.startswith("on") or k == "style" for k, _ in page.attributes)
        policy = next(v or "" for k, v in page.attributes if k == "content" and "default-src" in (v or ""))
        assert re.match(r"default-src 'none'; img-src data:; style-src 'sha256-[^ ]+'; script-src 'sha256-", policy)
        assert not re.search("unsafe|self|http|\\*", policy)
        for link in (link for link in links if not link.startswith(("data:", "#"))):
            target = (Path(name).parent / link.partition("#")[0]).as_posix()
            assert target.replace("entries/../", "") in files, (name, link)


def test_ranks_are_shared_where_the_interval_contains_0(folder: Path) -> None:
    """Each setting by itself; who cannot be trusted or compared has none, and does not count."""
    entries = read_folder(folder)
    ranking = rank_entries(entries)

    assert ranking.rank == {
        "robust": 1,
        "robust-sap-100": 1,
        "robust-rna-0.1": 3,
        "net": 4,
        "net-sap-100": 4,
        "quick-sap-100": 1,
    }
    assert "cannot be trusted" in ranking.unranked["models.py-coin"]
    assert "not kept image by image" in ranking.unranked["old-sap-100"]
    rows = rows_of(entries, ranking)
    assert [row["slug"] for row in rows][-3:] == ["models.py-coin", "quick-sap-100", "old-sap-100"]


def test_a_rank_does_not_depend_on_who_else_is_there(folder: Path) -> None:
    """But for how many are better."""
    entries = read_folder(folder)
    some = rank_entries([e for e in entries if e.slug in ("robust", "net")])
    pairs = {pair: found for setting in some.pairs.values() for pair, found in setting.items()}
    every = {pair: found for setting in rank_entries(entries).pairs.values() for pair, found in setting.items()}

    assert some.rank == {"robust": 1, "net": 2}
    assert pairs == {("net", "robust"): every["net", "robust"]}


def test_the_table_shows_what_the_records_say(folder: Path, files: build.Files) -> None:
    """Percent with interval; what was not measured is a dash."""
    text = " ".join(Text(files["index.html"]).text.split())
    record = Record.read(folder / "robust.json")
    t1 = record.metrics["T1"]

    assert f"{100 * t1.value:.1f}[{100 * t1.low:.1f}, {100 * t1.high:.1f}]" in text
    assert "cifar10, first 64 images, Linf eps = 8/255, tier full" in text
    assert "Not ranked: its evaluation cannot be trusted" in files["index.html"].decode()
    assert all(code in text for code in ("large-eps-survives", "Unreliable", "estimator-spread"))


def test_an_entry_s_page_has_the_whole_record(folder: Path, files: build.Files) -> None:
    """Every text and every number that the record holds is there to be read, or in what can be downloaded."""
    page = " ".join(Text(files["entries/robust-sap-100.html"]).text.split())
    record = Record.read(folder / "robust-sap-100.json")

    assert all(attack.id in page for attack in record.attacks)
    assert all(flag.code in page for flag in record.flags)
    assert all(name in page for name in record.metrics)
    assert all(f"{float(point.value):g}" in page for points in (record.convergence or {}).values() for point in points)
    assert record.model.weights_sha256 in page
    assert "sap-art bench --model robust --policy sap:100 --tier full --images 64 --eps 8/255" in page
    assert "2026-11-20T10:00:00+00:00" in page
    assert "Seen: seen in robust-sap-100." in page
    assert files["records/robust-sap-100.json"] == (folder / "robust-sap-100.json").read_bytes()


def test_each_curve_is_of_its_own_numbers(folder: Path) -> None:
    """Eps on the axis of eps, steps on that of steps; every plot says in words what it shows."""
    entry = next(e for e in read_folder(folder) if e.slug == "robust")
    drawn = {plot.name: inline(plot, salt="x") for plot in plots.plots_of(entry.record, entry.images)}

    curves, parts = ("eps", "steps", "draws", "restarts"), ("attacks", "gradient-signal", "reliability-clean")

    assert list(drawn)[:7] == [*(f"accuracy-{name}" for name in curves), *parts]
    assert list(drawn)[7:] == ["reliability-adversarial", "ece-draws", "images"]
    assert ">0.5<" in drawn["accuracy-eps"]
    assert ">200<" not in drawn["accuracy-eps"]
    assert ">200<" in drawn["accuracy-steps"]
    assert all(" style=" not in svg and "<style" not in svg for svg in drawn.values())
    for plot in plots.plots_of(entry.record, entry.images):
        assert len(plot.says) > 40
        assert all(len(row) == len(plot.header) for row in plot.rows)


def test_plots_are_files_too(tmp_path: Path, folder: Path) -> None:
    """PNG and SVG, the same bytes each time, texts as texts."""
    record = read_record(folder / "old-sap-100.json")
    first = {path.name: path.read_bytes() for path in plots.write(record, None, tmp_path)}

    assert {path.name: path.read_bytes() for path in plots.write(record, None, tmp_path)} == first
    assert {"attacks.png", "attacks.svg", "accuracy-eps.png"} <= set(first)
    assert b"EOT-APGD bpda" in first["attacks.svg"]


def test_the_strip_has_a_square_for_each_image() -> None:
    """In the level that its share of right draws has; above 1,000 images neighbours share one."""
    from sap_art.site import drawing

    assert [drawing.level_of(share) for share in (0.0, 0.01, 0.24, 0.25, 0.5, 0.99, 1.0)] == [0, 1, 1, 2, 3, 4, 5]
    assert drawing._grouped([0.0, 1.0] * 700) == [0.5] * 700
    assert drawing._grouped([0.0, 1.0]) == [0.0, 1.0]


def test_a_worst_point_too_far_from_its_image_is_there_itself(tmp_path: Path) -> None:
    """Where what is added to a pixel has more than eight bits; else the page holds what is added."""
    record, found = synthetic("far", tier="quick", images=8)
    site_records.write(tmp_path / "near", record, found)
    far = replace(found, examples=replace(found.examples, worst=255 - found.examples.clean))
    site_records.write(tmp_path / "far", record, far)
    near, page = (build.render(tmp_path / name)["entries/far.html"].decode() for name in ("near", "far"))

    assert near.count('id="change-') == near.count("url(#add)") == near.count("url(#grow-1)") == 8
    assert page.count('id="worst-') == page.count("url(#subtract-1)") > 0
    assert page.count('id="worst-') + page.count('id="change-') == 8


# Exports


def test_the_csv_file_reads_back(files: build.Files, folder: Path) -> None:
    """Fractions, empty where absent."""
    rows = list(csv.DictReader(io.StringIO(files["leaderboard.csv"].decode(), newline="")))
    by_entry = {row["entry"]: row for row in rows}
    t1 = Record.read(folder / "robust.json").metrics["T1"]

    assert len(rows) == 8
    assert float(by_entry["robust"]["worst_case"]) == pytest.approx(t1.value, abs=1e-6)
    assert float(by_entry["robust"]["worst_case_low"]) == pytest.approx(t1.low, abs=1e-6)
    assert by_entry["models.py-coin"]["rank"] == ""
    assert by_entry["models.py-coin"]["flags"] == "large-eps-survives low-gradient-signal"
    assert json.loads(files["leaderboard.json"])[0]["rank"] == 1


def test_the_time_is_that_of_the_units(tmp_path: Path, folder: Path) -> None:
    """Not what the clock said, in which other entries went on too; that is better than nothing."""
    shutil.copytree(folder, tmp_path / "records")
    path = tmp_path / "records" / "robust.run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "unit_seconds": 33.5}))
    found = build.render(tmp_path / "records")["leaderboard.csv"].decode()
    by_entry = {row["entry"]: row for row in csv.DictReader(io.StringIO(found, newline=""))}

    assert by_entry["robust"]["seconds"] == "33.5"
    assert by_entry["net"]["seconds"] == "61.5"


def test_robustbench_s_table_has_its_columns_and_our_rows(files: build.Files, folder: Path) -> None:
    """Highest worst case first, whatever it is worth; the footnote says what it is."""
    cells = Cells(files["robustbench-cifar10-Linf-8-255.html"].decode())
    best = max(
        (Record.read(p) for p in folder.glob("*.json") if ".run" not in p.name), key=lambda r: r.metrics["T1"].value
    )

    assert tuple(cells.rows[0]) == HEADER
    assert len(cells.rows) == 9
    assert cells.rows[1][1].startswith("models.py-coin")
    assert cells.rows[1][4] == f"{100 * best.metrics['T1'].value:.2f} %"
    assert cells.rows[1][5] == "yes"


def test_bibtex_says_what_was_measured(files: build.Files) -> None:
    """A year where the run has one; keys are the entries' names."""
    text = files["leaderboard.bib"].decode()

    assert text.count("@misc{") == 8
    assert "@misc{robust-sap-100,\n" in text
    assert r"8/255; worst-case accuracy" in text
    assert "year = {2026}" in text
    assert "dhillon2018stochastic" in text
    assert text.count("{") == text.count("}")


# Controls


@pytest.fixture
def with_controls(folder: Path, tmp_path: Path) -> Path:
    """The gallery, its coin and one that would share the first rank being controls."""
    made = shutil.copytree(folder, tmp_path / "records")
    (made / CONTROLS).write_text('"models.py-coin" = "<b>A coin."\nrobust = "Known."\n', encoding="utf-8")
    return made


def test_a_control_is_no_submission(with_controls: Path) -> None:
    """It has no rank and takes none, stands in a group of its own below, and says so wherever its name is."""
    entries = read_folder(with_controls)
    ranking = rank_entries(entries)
    files = build.render(with_controls)
    rows = {row["slug"]: row for row in json.loads(files["leaderboard.json"])}
    index, page = (files[name].decode() for name in ("index.html", "entries/robust.html"))

    assert ranking.rank == {"robust-sap-100": 1, "robust-rna-0.1": 2, "net": 3, "net-sap-100": 3, "quick-sap-100": 1}
    assert [row for row in rows if rows[row]["kind"] == "control"] == ["models.py-coin", "robust"]
    assert list(rows)[4:6] == ["models.py-coin", "robust"]
    assert all("competes with nobody" in rows[slug]["not_ranked"] for slug in ("models.py-coin", "robust"))
    assert rows["models.py-coin"]["name"] == "models.py:coin, a control"
    assert "6 entries and 2 controls in 2 settings" in index
    assert index.count('<tr class="setting">') == 3
    assert index.count('<span class="kind" title="Not ranked: a control') == 2
    assert "Controls, whose answer is known beforehand: they test the evaluation and have no rank: cifar10" in index
    assert "A control, not a submission." in page
    assert "Known." in page
    assert "&lt;b&gt;A coin." in files["entries/models.py-coin.html"].decode()
    assert "A control" not in files["entries/net.html"].decode()
    assert [r["kind"] for r in csv.DictReader(io.StringIO(files["leaderboard.csv"].decode()))].count("control") == 2
    assert files["leaderboard.bib"].decode().count("Control, no submission: ") == 2
    cells = Cells(files["robustbench-cifar10-Linf-8-255.html"].decode())
    assert {row[1].split()[0] for row in cells.rows[1:]}.isdisjoint({"models.py-coin", "robust"})
    assert len(cells.rows) == 7
    assert '"models.py-coin"' in files["compare.html"].decode()


def test_controls_come_after_whoever_has_no_rank(folder: Path, tmp_path: Path) -> None:
    """In one setting, whatever their worst cases: the control's is the better one, and its name the earlier."""
    made = shutil.copytree(folder, tmp_path / "records")
    record, found = synthetic("a-robust", net="a-robust", clean=0.8, worst=0.6, outcome="no-known-failure")
    site_records.write(made, record, found)
    record, _ = synthetic("unkept", net="unkept", clean=0.8, worst=0.1, outcome="no-known-failure")
    site_records.write(made, record)
    (made / CONTROLS).write_text('a-robust = "Known."\n', encoding="utf-8")
    entries = read_folder(made)
    rows = rows_of(entries, rank_entries(entries))
    first = [row for row in rows if row["setting"] == rows[0]["setting"]]

    assert [row["slug"] for row in first[-3:]] == ["models.py-coin", "unkept", "a-robust"]
    assert [row["rank"] for row in first[-3:]] == [None] * 3
    assert first[-2]["worst_case"]["value"] < first[-1]["worst_case"]["value"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("robust", "is not valid TOML"),
        ('nobody = "x"', "no record of the entry 'nobody'"),
        ("robust = 1", "'robust' must have a text"),
        ('robust = " "', "'robust' must have a text"),
        ('robust = "a\\u0000b"', "'robust' must have a text"),
        (f'robust = "{"x" * 10_001}"', "'robust' must have a text"),
        ('[robust]\na = "x"', "'robust' must have a text"),
    ],
)
def test_what_is_said_of_controls_is_checked(with_controls: Path, content: str, message: str) -> None:
    """The error names the file."""
    (with_controls / CONTROLS).write_text(content, encoding="utf-8")

    with pytest.raises(ValueError, match=message) as caught:
        read_folder(with_controls)
    assert CONTROLS in str(caught.value)


# The command that made it


def test_the_command_of_a_suite_s_entry_is_the_suite_s(folder: Path) -> None:
    """Same net, policy, tier, images and radius; the name of the entry follows from them."""
    entry = load_suite("quick").entries[1]
    record, _ = synthetic(entry.name, net=entry.model, spec=entry.policy or "", tier="quick", images=32)
    line = "sap-art bench --model preact-resnet20 --policy sap:100 --tier quick --images 32 --eps 8/255 --output DIR"

    assert command_of(record) == (line, None)
    assert "--policy" not in command_of(replace(record, entry="preact-resnet20")).line
    assert command_of(replace(record, eps=0.1234567891)).line.count("--eps 0.1234567891") == 1


def test_other_seeds_and_norms_need_a_suite(tmp_path: Path) -> None:
    """Which can be read as it is printed; texts of the record stay texts."""
    record, _ = synthetic('net"[x]-sap-100', net='net"[x]', tier="quick", images=32)
    line, suite = command_of(replace(record, norm="L2", eps=0.5, seeds={"base": 7}))
    (tmp_path / "suite.toml").write_text(suite or "")
    found = load_suite(str(tmp_path / "suite.toml"))

    assert line == "sap-art bench --suite suite.toml --output DIR"
    assert (found.norm, found.eps, found.seed, found.images, found.tier) == ("L2", "0.5", 7, 32, "quick")
    assert found.entries[0].model == 'net"[x]'
    lines = replace(record, norm="L2", model=replace(record.model, name='net"\n[x]'))
    assert tomllib.loads(command_of(lines).suite or "")["entries"][0]["model"] == 'net"\n[x]'


# Hostile records


def test_scripts_in_any_text_are_text(tmp_path: Path) -> None:
    """In every string of a record that may be anything: the pages have no tag that they would not have without."""
    record, found = synthetic(HOSTILE, net=HOSTILE, spec=HOSTILE, outcome="warning", tier="quick", images=8)
    hostile = replace(
        record,
        model=replace(record.model, architecture=HOSTILE, dense=HOSTILE, weights_sha256=HOSTILE),
        defence=replace(record.defence, where=HOSTILE, predictor=HOSTILE),
        attacks=[replace(a, id=f"{HOSTILE}{i}", estimator=HOSTILE, loss=HOSTILE) for i, a in enumerate(record.attacks)],
        flags=[replace(flag, evidence=HOSTILE) for flag in record.flags],
        gradient={HOSTILE: record.gradient["bpda"]},
        metrics={**record.metrics, HOSTILE: record.metrics["T1"]},
        convergence={HOSTILE: (record.convergence or {})["steps"]},
        seeds={"base": 0, HOSTILE: 1},
        notes=[HOSTILE],
    )
    tame, _ = synthetic("tame", tier="quick", images=8)
    site_records.write(tmp_path / "hostile", hostile, found, name="hostile")
    site_records.write(
        tmp_path / "tame", replace(tame, convergence={"x": (tame.convergence or {})["steps"]}, notes=["x"]), found
    )
    (tmp_path / "hostile" / "hostile.run.json").write_text(json.dumps({HOSTILE: HOSTILE}))
    files = build.render(tmp_path / "hostile")
    pages = {name: Text(content) for name, content in files.items() if name.endswith(".html")}
    calm = {name: Text(content) for name, content in build.render(tmp_path / "tame").items() if name.endswith(".html")}

    assert all(name.isprintable() and "<" not in name and "/" not in name.removeprefix("entries/") for name in pages)
    entry = next(name for name in pages if name.startswith("entries/"))
    for name, other in ((entry, "entries/tame.html"), ("index.html", "index.html"), ("compare.html", "compare.html")):
        assert pages[name].tags.count("script") == calm[other].tags.count("script") == 3
        assert b"<script>alert" not in files[name]
    assert pages[entry].text.count(HOSTILE) > 10
    assert "'=1+1" not in files["leaderboard.csv"].decode()


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t1"])
def test_a_spreadsheet_takes_no_name_for_a_formula(tmp_path: Path, text: str) -> None:
    """They begin with an apostrophe then."""
    record, _ = synthetic("plain", net=text, tier="quick", images=8)
    site_records.write(tmp_path, record)
    rows = list(csv.DictReader(io.StringIO(build.render(tmp_path)["leaderboard.csv"].decode())))

    assert rows[0]["net"] == f"'{text}"


def rewritten(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A record in a folder of its own, changed as JSON."""
    record, found = synthetic("bad", tier="quick", images=8)
    path = site_records.write(folder, record, found)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("metrics"), "metrics"),
        (lambda r: r["metrics"].pop("T1"), "metrics.T1 is missing"),
        (lambda r: r["metrics"].pop("clean"), "metrics.clean is missing"),
        (lambda r: r["metrics"]["T1"].update(value=float("nan")), "metrics.T1.value"),
        (lambda r: r["metrics"]["T1"].update(value=1.5, high=2.0), "metrics.T1 must be fractions"),
        (lambda r: r["attacks"][2]["accuracy"].update(low=0.9, high=0.1), r"attacks\[2\].accuracy must be fractions"),
        (lambda r: r.update(schema=99), "schema 99 is that of a newer version"),
        (lambda r: r.update(protocol="RDP-9"), "protocol must be RDP-1"),
        (lambda r: r.update(tier="huge"), "tier must be one of"),
        (lambda r: r.update(norm="L7"), "norm must be one of"),
        (lambda r: r.update(eps=-1.0), "eps must be above 0"),
        (lambda r: r["data"].update(n=0), "data.n must be at least 1"),
        (lambda r: r.update(entry=" "), "entry is empty"),
        (lambda r: r.update(entry="x" * (NAME_LENGTH + 1)), "entry has 201 characters, at most 200"),
        (lambda r: r["flags"][0].update(evidence="x" * 10_001), r"flags\[0\].evidence has 10,001 characters"),
        (lambda r: r["attacks"][0].update(id="x" * 10**6), r"attacks\[0\].id has 1,000,000 characters"),
        (lambda r: r["gradient"].update({"y" * 300: r["gradient"]["bpda"]}), "a key of gradient has 300 characters"),
        (lambda r: r["model"].update(name="a\x00b"), r"model.name holds the unprintable character U\+0000"),
        (lambda r: r["flags"][0].update(code="made-up"), r"flags\[0\].code is not known: 'made-up'"),
        (lambda r: r["flags"].append(dict(r["flags"][0])), r"flags\[20\].code transfer-beats-white-box is there twice"),
        (lambda r: r["flags"][0].update(state="raised"), "verdict is warning, but transfer-beats-white-box is raised"),
        (lambda r: r["flags"][0].update(state="raised", level="W"), r"flags\[0\].level of .* must be R, got W"),
        (lambda r: r["attacks"][0].update(error="boom"), "verdict is warning, but noise crashed"),
    ],
)
def test_what_no_evaluation_writes_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    """The error names file and field, and is short."""
    path = rewritten(tmp_path, change)

    with pytest.raises(ValueError, match=message) as caught:
        read_folder(tmp_path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"schema": 1}', b'{"a": "\\ud800"}'])
def test_what_is_no_record_is_refused(tmp_path: Path, content: bytes) -> None:
    """Empty, cut, not text, nested without end."""
    (tmp_path / "x.json").write_bytes(content)

    with pytest.raises(ValueError, match=r"x\.json is not a valid record"):
        read_folder(tmp_path)


def test_no_records_are_no_site(tmp_path: Path) -> None:
    """The message says where they may be."""
    (tmp_path / "records").mkdir()
    with pytest.raises(ValueError, match=r"did you mean .*records"):
        read_folder(tmp_path)
    with pytest.raises(ValueError, match=r"sap-art bench writes them"):
        read_folder(tmp_path / "nowhere")


def test_two_records_of_one_entry_are_refused(tmp_path: Path) -> None:
    """Both files are named."""
    record, _ = synthetic("same", tier="quick", images=8)
    first = site_records.write(tmp_path, record)
    second = site_records.write(tmp_path, record, name="zzz")

    with pytest.raises(ValueError, match="entry 'same' is that of") as caught:
        read_folder(tmp_path)
    assert str(first) in str(caught.value)
    assert str(second) in str(caught.value)


def test_results_of_another_run_are_not_shown_with_a_record(tmp_path: Path) -> None:
    """Draws whose counts are not those that the record vouches for."""
    record, _ = synthetic("one", tier="quick", images=8)
    _, other = synthetic("two", tier="quick", images=8, seed=5)
    site_records.write(tmp_path, record, other)

    with pytest.raises(ValueError, match="worst_right is that of another record"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"a": {}}',
        '{"a": [["b"]]}',
        '{"a": NaN}',
        '{"a": "\\u0000"}',
        '{"a": ["b", "\\u0000"]}',
        "{",
        json.dumps({"a": "x" * 1001}),
        json.dumps({"a": ["x"] * 1001}),
    ],
)
def test_a_sidecar_is_checked_too(tmp_path: Path, content: str) -> None:
    """Texts, numbers and lists of these only."""
    record, _ = synthetic("one", tier="quick", images=8)
    site_records.write(tmp_path, record)
    (tmp_path / "one.run.json").write_text(content)

    with pytest.raises(ValueError, match=r"one\.run\.json is not a sidecar"):
        read_folder(tmp_path)


def test_slugs_are_file_names_and_distinct() -> None:
    """The entry's own name where that is plain, also where files do not mind case."""
    names = ["net-sap-100", "Net-sap-100", "../../etc/passwd", "a b", "a/b", "日本", ".hidden", "x" * 150, HOSTILE]
    slugs = slugs_of(names)

    assert slugs["net-sap-100"] == "net-sap-100" or slugs["Net-sap-100"] == "Net-sap-100"
    assert len({slug.casefold() for slug in slugs.values()}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", slug) and len(slug) <= 100 for slug in slugs.values())


def test_a_record_with_the_least_is_shown(tmp_path: Path) -> None:
    """No attacks, gradients, calibration, flags: dashes, and no plot without numbers."""
    record, _ = synthetic("bare", tier="smoke", images=8, outcome="incomplete")
    needed = {name: record.metrics[name] for name in ("clean", "T1")}
    bare = replace(record, metrics=needed, attacks=[], gradient={}, calibration={}, eps_curve=None, convergence=None,
                   flags=[Flag("seed-gap", "not-checked", "W", "no")], precision=None, counts_sha256=None)  # fmt: skip
    site_records.write(tmp_path, bare)
    (tmp_path / "bare.run.json").unlink()
    page = Text(build.render(tmp_path)["entries/bare.html"]).text

    assert "not measured" in page
    assert "Accuracy against eps is measured from the tier quick on" in page


# On the command line


def test_the_command_builds_checks_and_says_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 0 while it is what the records say, 1 when it is stale, 2 for a bad record, whose file is named."""
    record, found = synthetic("one", tier="quick", images=8)
    path = site_records.write(tmp_path / "records", record, found)
    arguments = ["site", "--records", str(tmp_path / "records"), "--output", str(tmp_path / "site")]

    assert run(monkeypatch, *arguments, "--check") == 1
    assert "site is stale: compare.html, entries/one.html" in capsys.readouterr().err
    assert not (tmp_path / "site").exists()
    assert run(monkeypatch, *arguments) == 0
    assert run(monkeypatch, *arguments, "--check") == 0
    site_records.write(tmp_path / "records", replace(record, notes=["changed"]), found)
    assert run(monkeypatch, *arguments, "--check") == 1
    assert "site is stale: entries/one.html, records/one.json\n" in capsys.readouterr().err
    path.write_text("{}")
    assert run(monkeypatch, *arguments) == 2
    assert f"{path} is not a valid record" in capsys.readouterr().err


def test_the_command_plots_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each file is named; what lies beside the record is drawn too."""
    record, found = synthetic("one", tier="quick", images=8)
    path = site_records.write(tmp_path, replace(record, convergence=None, eps_curve=None, calibration={}), found)

    assert run(monkeypatch, "plot", str(path), "--output", str(tmp_path / "plots")) == 0
    assert {p.name for p in (tmp_path / "plots").iterdir()} == {
        f"{name}.{kind}" for name in ("attacks", "gradient-signal", "images") for kind in ("png", "svg")
    }
    assert str(tmp_path / "plots" / "images.svg") in capsys.readouterr().out


@pytest.mark.skipif(not COMMITTED.is_dir(), reason="only the repository has the committed site")
def test_the_committed_site_is_small() -> None:
    """Under 6 MB in all."""
    assert sum(p.stat().st_size for p in COMMITTED.rglob("*") if p.is_file()) < 6e6
