"""What is computed again and what is not: changed entries, damage, failed units, other code."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from small_suites import IMAGES, SMOKE, put, results, suite, units
from torch import Tensor

from sap_art import provenance
from sap_art.bench import EntryError, Watch, run_suite
from sap_art.blueprint import Blueprint
from sap_art.finishing import Run
from sap_art.models import Loader
from sap_art.protocol.job import Call, Job, UnitError
from sap_art.protocol.scoring import draw_block
from sap_art.record import Record
from sap_art.suites import Suite
from sap_art.tiers import TIERS


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little work, on the bundled images."""
    monkeypatch.setitem(TIERS, "smoke", SMOKE)
    monkeypatch.delenv("SAP_ART_DATA", raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's, with two entries evaluated in ``out``."""
    folder = put(tmp_path_factory.mktemp("user"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TIERS, "smoke", SMOKE)
        patch.delenv("SAP_ART_DATA", raising=False)
        run_suite(suite(folder, "one+sap:100", "two"), output=folder / "out")
    return folder


@pytest.fixture
def out(folder: Path, tmp_path: Path) -> Path:
    """A copy of that output."""
    (folder / "weights").write_text("2")
    return shutil.copytree(folder / "out", tmp_path / "out")


def run(chosen: Suite, output: Path, *, retry_failed: bool = False, source: Path | None = None) -> list[str]:
    """``run_suite``; what it notes."""
    notes: list[str] = []
    run_suite(
        chosen,
        output=output,
        source=None if source is None else str(source),
        retry_failed=retry_failed,
        watch=Watch(note=notes.append),
    )
    return notes


def test_a_changed_checkpoint_computes_its_entry_alone(folder: Path, out: Path) -> None:
    """The other is read; with the first weights again, the first record comes back from its units."""
    before, made = results(out), units(out)
    (folder / "weights").write_text("7")
    notes = run(suite(folder, "one+sap:100", "two"), out)
    after = results(out)
    new = units(out).keys() - made.keys()

    assert notes == ["nets.py-two: computed anew, for there are changes in: answers, model.weights_sha256"]
    assert {name for name in after if after[name] != before[name] and "two" not in name} == set()
    assert after["records/nets.py-two.json"] != before["records/nets.py-two.json"]
    assert {name.split("/")[1].rpartition("-")[0] for name in new} == {"nets.py-two"}
    assert made.items() <= units(out).items()

    (folder / "weights").write_text("2")
    now = units(out)
    notes = run(suite(folder, "one+sap:100", "two"), out)
    assert notes == ["nets.py-two: results are damaged, missing or of another run: rebuilt from its units"]
    assert results(out) == before
    assert units(out) == now


def test_entries_come_and_go(folder: Path, out: Path) -> None:
    """A new policy is a new entry, and alone computed; what is no entry any more stays, and is said."""
    before, made = results(out), units(out)
    notes = run(suite(folder, "one+sap:200", "two"), out)
    new = units(out).keys() - made.keys()

    assert notes == ["nets.py-one-sap-100: no entry of this suite, so left as it is"]
    assert before.items() <= results(out).items()
    assert made.items() <= units(out).items()
    assert {name.split("/")[1].rpartition("-")[0] for name in new} == {"nets.py-one-sap-200"}
    policies = [entry["policy"] for entry in json.loads((out / "suite.json").read_text())["entries"]]
    assert policies == ["sap:200", None, "sap:100"]


@pytest.mark.parametrize(
    ("change", "named"), [({"eps": "4/255"}, "eps"), ({"seed": 1}, "seed"), ({"images": 4}, "data, images")]
)
def test_what_all_entries_share_must_stay(folder: Path, out: Path, change: dict[str, str], named: str) -> None:
    """Refused before any work, with nothing written."""
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    with pytest.raises(ValueError, match=f"another run, which differs in: {named};"):
        run(replace(suite(folder, "one+sap:100", "two"), **change), out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def flip(path: Path) -> None:
    """One bit, in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut(path: Path) -> None:
    """A part of it."""
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
@pytest.mark.parametrize(
    "name",
    ["records/nets.py-two.json", "records/nets.py-two.images.safetensors", "model_info/*/*/nets.py-two.json",
     "work/nets.py-two-*/finished.json", "work/nets.py-two-*/entry.json", "work/nets.py-two-*/planned.json"],
)  # fmt: skip
def test_damaged_results_are_rebuilt_from_units(
    folder: Path, out: Path, name: str, damage: Callable[[Path], None]
) -> None:
    """To the byte; no unit is computed for it."""
    before, made = results(out), units(out)
    (path,) = out.glob(name)
    damage(path)
    notes = run(suite(folder, "one+sap:100", "two"), out)

    assert results(out) == before
    assert units(out) == made
    assert "work" in name or notes == [
        "nets.py-two: results are damaged, missing or of another run: rebuilt from its units"
    ]


def test_units_of_another_kind_of_device_are_told_of(folder: Path, out: Path) -> None:
    """As after a move to another machine, or on a cluster of several kinds; the sidecar names them, the record none."""
    (record,), (unit, *_) = out.glob("records/nets.py-two.json"), sorted(out.glob("work/nets.py-two-*/*/*.run.json"))
    before, here = results(out), json.loads(unit.read_text())["device"]
    assert json.loads(record.with_suffix(".run.json").read_text())["unit_devices"] == [here]

    unit.write_text(json.dumps({**json.loads(unit.read_text()), "device": "a quicker one"}))
    record.unlink()
    notes = run(suite(folder, "one+sap:100", "two"), out)
    said = f"nets.py-two: computed on {' and '.join(sorted([here, 'a quicker one']))}: "

    assert [note for note in notes if "computed on" in note] == [f"{said}as on one of them in law, not to the byte"]
    assert json.loads(record.with_suffix(".run.json").read_text())["unit_devices"] == sorted([here, "a quicker one"])
    assert results(out) == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"metrics": {}}, "metrics.clean is missing; metrics.T1 is missing"),
        ({"calibration": {}}, "calibration.clean is missing; calibration.adversarial is missing"),
        ({"entry": "nets.py-one"}, "entry must be nets.py-two, got 'nets.py-one'"),
        ({"flags": [{"code": "odd", "state": "raised", "level": "W", "evidence": "x"}]}, "flags[0].code is not known"),
    ],
)
def test_a_sealed_record_that_no_run_has_written_is_refused(
    folder: Path, out: Path, change: dict[str, object], named: str
) -> None:
    """By its name and field, before any work and with nothing changed; deleted as the message says, it comes back."""
    written = results(out)
    record, (sealed,) = out / "records" / "nets.py-two.json", out.glob("work/nets.py-two-*/finished.json")
    record.write_text(json.dumps({**json.loads(record.read_text()), **change}))
    said = json.loads(sealed.read_text())
    said["files"]["records/nets.py-two.json"] = hashlib.sha256(record.read_bytes()).hexdigest()
    sealed.write_text(json.dumps(said))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    with pytest.raises(ValueError, match=r"nets\.py-two\.json is not the record of a run") as caught:
        run(suite(folder, "one+sap:100", "two"), out)
    assert named in str(caught.value)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    record.unlink()
    run(suite(folder, "one+sap:100", "two"), out)
    assert results(out) == written


@pytest.mark.parametrize("damage", [flip, cut])
def test_a_damaged_unit_is_computed_again_alone(folder: Path, out: Path, damage: Callable[[Path], None]) -> None:
    """And said, in the sidecar too."""
    before, made = results(out), units(out)
    (path,) = out.glob("work/nets.py-two-*/noise/0000-*.safetensors")
    damage(path)
    next(out.glob("records/nets.py-two.json")).unlink()
    notes = run(suite(folder, "one+sap:100", "two"), out)
    sidecar = json.loads((out / "records" / "nets.py-two.run.json").read_text())

    assert results(out) == before
    assert {name for name, written in units(out).items() if made[name] != written} == {str(path.relative_to(out))}
    assert "was damaged (its content is not that of its SHA-256): computed again" in notes[-1]
    assert sidecar["notes"].endswith(notes[-1])


def test_other_code_is_other_work_and_the_same_seeds(folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All units are computed again, and a person can see which module has changed; the records are the same bytes."""
    before, made = results(out), units(out)
    real = provenance.code_of
    monkeypatch.setattr(
        provenance, "code_of", lambda module: {**real(module), "sap_art.attacks.square": "0123456789ab"}
    )
    notes = run(suite(folder, "one+sap:100", "two"), out)

    assert notes == [
        f"nets.py-{name}: computed anew, for there are changes in: code.sap_art.attacks.square"
        for name in ("one-sap-100", "two")
    ]
    assert len(units(out)) == 2 * len(made)
    assert results(out) == before


def test_an_entry_that_failed_does_not_hold_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error has no frames, in which the model is, nor has what the error came of."""
    (put(tmp_path) / "fail").touch()
    ends: list[Record | UnitError] = []
    finish_all = Run.finish_all
    monkeypatch.setattr(Run, "finish_all", lambda *given: ends.extend(finish_all(*given)) or ends)
    with pytest.raises(EntryError, match="OverflowError: too many images"):
        run_suite(suite(tmp_path, "no_draws", images=IMAGES), output=tmp_path / "out")
    (end,) = ends

    assert isinstance(end, UnitError)
    assert (end.__traceback__, end.__cause__, end.__context__) == (None, None, None)


def test_a_unit_is_keyed_by_what_it_is_given(tmp_path: Path) -> None:
    """By place, labels, function and arguments; the seeds by none of it."""
    chosen = suite(put(tmp_path), "one")
    plan = Blueprint(chosen, SMOKE, None, "cpu", tmp_path / "out")
    images = plan.images()
    job = replace(plan.job(plan.entry(chosen.entries[0], images, Loader()), images), place="place-0")
    other = replace(job, place="place-1")

    def call(made: Job, points: Tensor, draws: int, label: str = "a") -> Call:
        arguments = (points, 0, draws, ("report",))
        return made.call(label, "0000", name="n", function=draw_block, arguments=arguments, passes=1)

    calls = [call(job, images.x, 2), call(job, images.x, 3), call(job, 1 - images.x, 2), call(job, images.x, 2, "b")]
    calls += [call(other, images.x, 2)]
    assert len({one.key for one in calls}) == len(calls)
    assert call(job, images.x.clone(), 2).key == calls[0].key
    assert calls[0].key.startswith("place-0/a/0000-")
    assert calls[0].determinants["function"] == "sap_art.protocol.scoring:draw_block"
    assert job.seed_for("report", 0) == other.seed_for("report", 0)


def test_what_failed_stays_failed_until_it_is_retried(tmp_path: Path) -> None:
    """An attack that raises on one of two shards: the others are kept, the entry is not ranked, others go on."""
    chosen, data = suite(put(tmp_path), "net", "one", images=IMAGES), tmp_path / "images.npz"
    (tmp_path / "fail").touch()
    run(chosen, tmp_path / "out", source=data)
    (tmp_path / "fail").unlink()
    record = tmp_path / "out" / "records" / "nets.py-net.json"
    failed, made = record.read_bytes(), units(tmp_path / "out")
    (marker,) = tmp_path.glob("out/work/nets.py-net-*/pgd-dense/0001-*.failed.json")
    markers = list(tmp_path.glob("out/work/**/*.failed.json"))

    assert json.loads(marker.read_text()) == {"kind": "OverflowError", "message": "a bright image"}
    assert Record.read(record).verdict == "failed"
    errors = {a.id: a.error for a in Record.read(record).attacks}
    assert errors["pgd-dense"] == "OverflowError: a bright image"
    assert errors["noise"] is None
    assert Record.read(record.with_name("nets.py-one.json")).verdict != "failed"
    assert next(tmp_path.glob("out/work/nets.py-net-*/pgd-dense/0000-*.safetensors"))

    record.unlink()
    run(chosen, tmp_path / "out", source=data)
    assert record.read_bytes() == failed
    assert units(tmp_path / "out") == made

    notes = run(chosen, tmp_path / "out", source=data, retry_failed=True)
    after = units(tmp_path / "out")
    assert notes == [f"nets.py-net: {len(markers)} failed units are tried again"]
    assert made.items() <= after.items()
    assert not list(tmp_path.glob("out/work/**/*.failed.json"))
    run(chosen, tmp_path / "whole", source=data)
    assert results(tmp_path / "out") == results(tmp_path / "whole")
    assert run(chosen, tmp_path / "out", source=data, retry_failed=True) == []


def test_an_entry_without_a_record_does_not_keep_the_others_from_theirs(tmp_path: Path) -> None:
    """Of a model that cannot be scored nothing can be said: that is an error in the end, and it can be retried."""
    chosen, data = suite(put(tmp_path), "no_draws", "one", images=IMAGES), tmp_path / "images.npz"
    (tmp_path / "fail").touch()
    with pytest.raises(EntryError, match=r"no record.*--retry-failed tries again.*OverflowError: too many images"):
        run(chosen, tmp_path / "out", source=data)
    assert {path.name for path in tmp_path.glob("out/records/*.json")} >= {"nets.py-one.json"}
    assert not (tmp_path / "out" / "records" / "nets.py-no_draws.json").exists()
    (tmp_path / "fail").unlink()
    with pytest.raises(EntryError):
        run(chosen, tmp_path / "out", source=data)
    run(chosen, tmp_path / "out", source=data, retry_failed=True)

    assert (tmp_path / "out" / "records" / "nets.py-no_draws.json").exists()


def test_memory_that_is_short_is_noted(tmp_path: Path) -> None:
    """Passes are halved until they fit; the record is the same, the sidecar says what happened."""
    chosen = suite(put(tmp_path), "net", images=4)
    (tmp_path / "small").touch()
    run(chosen, tmp_path / "small-out")
    (tmp_path / "small").unlink()
    run(chosen, tmp_path / "out")
    small, plenty = (
        json.loads((tmp_path / name / "records" / "nets.py-net.run.json").read_text()) for name in ("small-out", "out")
    )

    assert small["least_rows"] == 8
    assert small["units_short_of_memory"] > 1
    assert small.keys() - plenty.keys() == {"least_rows", "units_short_of_memory"}
