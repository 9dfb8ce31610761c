"""``sap-art status``: what is done, running, failed and left, from the folder alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_suites import IMAGES, SMOKE, put, suite, units

from sap_art.bench import Watch, run_suite
from sap_art.cli import main
from sap_art.status import Status, read_status
from sap_art.store import Store
from sap_art.tiers import TIERS


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little work, on the bundled images."""
    monkeypatch.setitem(TIERS, "smoke", SMOKE)
    monkeypatch.delenv("SAP_ART_DATA", raising=False)


def tree(folder: Path) -> dict[Path, int]:
    """All files, with the time at which each was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_while_it_is_at_work_after_it_was_killed_and_at_its_end(tmp_path: Path) -> None:
    """Counts are those of the folder; nothing is written; what is not known is not said."""
    chosen, out = suite(put(tmp_path), "one", "two"), tmp_path / "out"
    seen: list[Status] = []

    def look(stage: str) -> None:
        before = tree(out)
        seen.append(read_status(out))
        assert tree(out) == before
        assert seen[-1].entries[0].done == len([name for name in units(out) if "nets.py-one" in name])
        if "nets.py-two: choosing" in stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_suite(chosen, output=out, watch=Watch(announce=look))
    first, last, after = seen[0], seen[-1], read_status(out)
    run_suite(chosen, output=out)
    end = read_status(out)

    assert all(status.at_work for status in seen)
    one, two = first.entries
    assert (one.finished, one.begun, one.done, one.running, one.failed) == (False, True, 0, 1, 0)
    assert one.left > 0
    assert one.known_passes < one.all_passes
    assert (two.begun, two.left, two.known_passes) == (False, 0, 0)
    assert two.all_passes > 0
    assert "nets.py-two: not begun" in str(first)
    assert "time left: not known before a unit is done" in str(first)

    one, two = last.entries
    assert one.finished
    assert (one.left, one.all_passes) == (0, 0)
    assert (two.running, two.finished) == (1, False)
    assert two.done > 0
    assert "a run is at work, 1 processes" in str(last)
    assert "at most for all" in str(last)

    assert not after.at_work
    assert after.entries[1].running == 0
    assert after.entries[1].left == two.left + 1
    assert "no run is at work" in str(after)
    assert all(entry.finished and not entry.left for entry in end.entries)
    assert str(end).endswith("time left: none")


def test_the_time_left_is_passes_by_the_measured_rate(tmp_path: Path) -> None:
    """Shared by the workers of the last run."""
    out = tmp_path / "out"
    with Store.open(out, {}) as store:
        plan = {"workers": 2, "entries": {"e": {"place": "e-0", "passes": 1500}}}
        (out / "work" / "e-0").mkdir(parents=True)
        (out / "work" / "plan.json").write_text(json.dumps(plan))
        (out / "work" / "e-0" / "planned.json").write_text(json.dumps({"e-0/a": 100, "e-0/b/0": 400, "e-0/b/1": 200}))
        store.unit("e-0/a", dict)
        store.path("e-0/a", ".run.json").write_text(json.dumps({"seconds": 2.0, "passes": 100}))
        (out / "work" / "e-0" / "b").mkdir()
        store.path("e-0/b/0", ".safetensors.0123.part").touch()  # a unit in work, or after kill -9 one that was
        assert [(e.running, e.left) for e in read_status(out).entries] == [(1, 1)]
    status = read_status(out)
    (entry,) = status.entries
    assert (entry.running, entry.left) == (0, 2)

    assert status.rate == 50
    assert (entry.done, entry.left, entry.known_passes, entry.all_passes) == (1, 2, 600, 1400)
    assert "time left: 6 s for the units known so far, 14 s at most for all" in str(status)


def test_failed_units_are_named(tmp_path: Path) -> None:
    """With what they died of, and what tries them again; entries of an earlier suite too."""
    put(tmp_path)
    (tmp_path / "fail").touch()
    out, data = tmp_path / "out", str(tmp_path / "images.npz")
    run_suite(suite(tmp_path, "net", images=IMAGES), output=out, source=data)
    status = read_status(out)

    assert status.entries[0].failed == len(list(out.rglob("*.failed.json"))) > 0
    assert status.entries[0].finished
    assert "OverflowError: a bright image" in str(status)
    assert "--retry-failed tries them again" in str(status)
    next(out.rglob("*.failed.json")).write_text(json.dumps({"kind": "E", "message": "\x1b[2J"}))
    assert "E: \\x1b[2J" in str(read_status(out))  # no terminal obeys it
    assert "\x1b" not in str(read_status(out))
    run_suite(suite(tmp_path, "one", images=IMAGES), output=out, source=data)
    assert "nets.py-net: finished, but no entry of the last run" in str(read_status(out))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no suite.json"),
        ({"thesis.tex": "mine"}, "has no suite.json"),
        ({"suite.json": "{}"}, "has no work/plan.json"),
        ({"suite.json": "{"}, "suite.json is damaged"),
        ({"suite.json": "{}", "work/plan.json": '{"entries": {"e": 1}}'}, "plan.json is damaged"),
        ({"suite.json": "{}", "work/plan.json": '{"entries": {"e": {"place": "x"}}}'}, "plan.json is damaged"),
        (
            {"suite.json": "{}", "work/plan.json": '{"entries": {"e": {"place": "../x", "passes": 1}}}'},
            "'../x' is no name",
        ),
    ],
)
def test_a_folder_of_something_else(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, str],
    message: str,
) -> None:
    """Status 2 and one line; nothing is written."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = tree(tmp_path)
    monkeypatch.setattr("sys.argv", ["sap-art", "status", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        main()

    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert tree(tmp_path) == before
