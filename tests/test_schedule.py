"""Schedules: closed forms, a slow reference and Graham's bound; the stages of an entry, and what they leave on disk."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scripts import script
from torch import nn

from sap_art import SAP, DefendedModel, ThreatModel, suites, wrap
from sap_art.bench import run_suite
from sap_art.cli import main
from sap_art.forecast import forecast_suite, steps_of, summary
from sap_art.portfolio import Work, expected_bytes, expected_passes, plan, stages
from sap_art.schedule import Schedule, Step, at_once, list_schedule, longest_chain
from sap_art.suites import Suite, SuiteEntry
from sap_art.tiers import TIERS

ROOT = Path(__file__).parents[1]


def work(tier: str, *, images: int, left: float = 1.0, random: bool = True) -> Work:
    """Of a net that does nothing; what is planned does not depend on it."""
    net = nn.Identity()
    model = DefendedModel(net, SAP(percent=100), seed=0) if random else wrap(net, dense=net)
    return Work(model, TIERS[tier], ThreatModel(), images, 10, left=left, standing=left)


def random_steps(rng: np.random.Generator) -> list[Step]:
    """A few steps that wait for some of those before them; one or the other has no units."""
    steps: list[Step] = []
    for number in range(int(rng.integers(1, 12))):
        units = rng.integers(1, 9, size=int(rng.integers(0, 8))).tolist()
        after = [before for before in range(number) if rng.random() < 0.4]
        steps.append(Step(units, after, int(rng.integers(0, 3))))
    return steps


def slow_schedule(steps: list[Step], machines: int) -> float:
    """Second by second, without a heap."""
    waiting = {n: sorted(step.units) for n, step in enumerate(steps)}
    running: list[list[float]] = []
    now = 0

    def done(number: int) -> bool:
        busy = waiting[number] or any(n == number for n, _ in running)
        return not busy and all(map(done, steps[number].after))

    while any(waiting.values()) or running:
        running = [[n, left] for n, left in running if left > 0]
        ready = [n for n in waiting if waiting[n] and all(map(done, steps[n].after))]
        while ready and len(running) < machines:
            first = min(ready, key=lambda n: (steps[n].turn, -n))
            running.append([first, waiting[first].pop()])
            running = [[n, left] for n, left in running if left > 0]
            ready = [n for n in waiting if waiting[n] and all(map(done, steps[n].after))]
        if running:
            now += 1
            running = [[n, left - 1] for n, left in running]
    return now


@pytest.mark.parametrize(("units", "machines", "end"), [(12, 4, 9.0), (13, 4, 12.0), (1, 8, 3.0), (12, 1, 36.0)])
def test_equal_units_that_wait_for_nothing(units: int, machines: int, end: float) -> None:
    """Units of 3 s: as many rounds as it takes."""
    assert list_schedule([Step([3.0] * units)], machines=machines) == Schedule(end, 3.0 * units)


def test_one_chain_takes_its_length_on_any_machines() -> None:
    """And a barrier waits for the longest unit before it."""
    chain = [Step([2.0], [n - 1] if n else []) for n in range(7)]
    barrier = [Step([1.0, 5.0]), Step([]), Step([1.0, 1.0, 1.0], [0, 1])]

    assert {list_schedule(chain, machines=m).end for m in (1, 2, 50)} == {14.0}
    assert longest_chain(chain) == 14.0
    assert [list_schedule(barrier, machines=m).end for m in (1, 2, 3)] == [9.0, 7.0, 6.0]


def test_what_came_last_is_begun_first_the_longest_of_it_before_the_others() -> None:
    """The executors' order: a long filler that is left to the end costs what it costs there; turns go before."""
    filler, probe, awaited = Step([4.0]), Step([1.0]), Step([3.0, 2.0, 2.0], [1])

    assert list_schedule([filler, probe, awaited], machines=1).end == 12.0
    assert list_schedule([Step([]), Step([3.0, 3.0, 2.0, 2.0, 2.0], [0])], machines=2).end == 7.0
    last_first = [Step([1.0] * 4), Step([4.0])]
    assert list_schedule(last_first, machines=2).end == 4.0
    assert list_schedule([last_first[0], last_first[1]._replace(turn=1)], machines=2).end == 6.0


def test_random_schedules_are_those_of_a_slow_reference_and_within_grahams_bound() -> None:
    """Work / machines + (1 - 1 / machines) x longest chain, and never less than either."""
    rng = np.random.default_rng(3)
    for _ in range(300):
        steps, machines = random_steps(rng), int(rng.integers(1, 6))
        found, chain = list_schedule(steps, machines=machines), longest_chain(steps)

        assert found.end == slow_schedule(steps, machines)
        assert found.work == sum(sum(step.units) for step in steps)
        assert max(found.work / machines, chain) <= found.end + 1e-9
        assert found.end <= found.work / machines + (1 - 1 / machines) * chain + 1e-9


@pytest.mark.parametrize(
    ("steps", "machines", "message"),
    [
        ([Step([1.0])], 0, "at least 1 machine, got 0"),
        ([Step([-1.0])], 1, "negative"),
        ([Step([1.0], [0])], 1, r"step 0 must wait for earlier ones, got \(0,\)"),
    ],
)
def test_schedules_that_cannot_be(steps: list[Step], machines: int, message: str) -> None:
    """Each says why."""
    with pytest.raises(ValueError, match=message):
        list_schedule(steps, machines=machines)


@pytest.mark.parametrize("tier", ["smoke", "quick", "full", "audit"])
def test_stages_wait_for_stages_before_them(tier: str) -> None:
    """Each name once; the first attacks one after the other; all of it is what the entry is expected to take."""
    whole = work(tier, images=200)
    found = stages(whole)
    names = [stage.name for stage in found]
    first = [a.id for a in plan(whole.model, whole.tier, whole.threat, classes=10) if a.first and not a.alone]

    assert len(set(names)) == len(names)
    assert all(names.index(before) < n for n, stage in enumerate(found) for before in stage.after)
    assert [stage.after[0] for stage in found if stage.name in first] == ["probes", *first[:-1]]
    assert all(len(stage.units) == 3 for stage in found if stage.name in first)
    expected = expected_passes(whole.model, whole.tier, whole.threat, images=200, classes=10)
    assert sum(stage.passes for stage in found) == expected


def test_passes_of_an_entry_by_hand() -> None:
    """Smoke on 64 images of a net without a defence: each unit written down."""
    found = {stage.name: stage.units for stage in stages(work("smoke", images=64, random=False)) if stage.units}
    once = 64 * 16

    assert found == {
        "probes": (1000,),
        "before": (once, 64 * (2 * 10) + once),
        "pgd-dense alone": (64 * 2 * 20,),
        "eot-apgd-ce-autograd alone": (64 * 2 * 4 * 20,),
        "alone": (64 * 100, 64 * 2),
        "columns": (once,) * 4,
        "signal": (64 * 2 * 4,),
        "choice": (64 * 5 * 8,),
        "worst": (once,),
        "as if new": (2 * 4 * 64,),
    }


def test_images_that_fall_leave_less_to_the_others() -> None:
    """All but the first of the first attacks beyond the stand-alone images, and the refinement."""
    whole, half = ({s.name: s.passes for s in stages(work("full", images=320, left=left))} for left in (1.0, 0.5))
    shares = {name: half[name] / whole[name] for name in whole}
    less = {name for name, share in shares.items() if share == 0.5}

    assert less == {"apgd-margin-dense", "apgd-t-dense", "eot-apgd-ce-bpda", "others", "refinement"}
    assert {share for name, share in shares.items() if name not in less} == {1.0}


def test_storage_is_that_of_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Within a twentieth of the units of a run that drops no image."""
    monkeypatch.delenv("SAP_ART_DATA", raising=False)
    tier = replace(TIERS["smoke"], noise_points=2, draws=1, steps=2)
    monkeypatch.setitem(TIERS, "smoke", tier)
    (tmp_path / "nets.py").write_text(
        "from torch import nn\ndef flat():\n"
        "    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 10)).eval()\n"
    )
    suite = Suite("s", "smoke", [SuiteEntry(f"{tmp_path / 'nets.py'}:flat")], images=64)
    run_suite(suite, output=tmp_path / "out")
    written = sum(path.stat().st_size for path in (tmp_path / "out" / "work").rglob("*.safetensors"))
    expected = expected_bytes(work("smoke", images=64, random=False), pixels=3072)

    assert expected == pytest.approx(written, rel=0.05)
    more = expected_bytes(work("full", images=64), pixels=3072)
    assert more > 10 * expected


def test_a_forecast_counts_the_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """On one device none; on many never less than the longest chain; hours, cost and storage in words."""
    monkeypatch.delenv("SAP_ART_DATA", raising=False)
    suite = replace(suites.load("full"), images=200, entries=[SuiteEntry("preact-resnet20", "sap:100")])
    (found,) = forecast_suite(suite, device="cpu", source=None, rate=1000.0)
    chain = longest_chain(steps_of(found.stages, rate=1000.0)) / 3600

    assert found.hours(gpus=1) == pytest.approx(found.forecast.hours(gpus=1))
    assert found.forecast.hours(gpus=4) < found.hours(gpus=4) < found.hours(gpus=1)
    assert found.hours(gpus=10_000) == pytest.approx(chain)
    hours, share = found.hours(gpus=4), 100 * found.forecast.hours(gpus=4) / found.hours(gpus=4)
    assert summary([found], gpus=4, price=2.5) == (
        f"at most {hours:.2f} h, {share:.0f} % of them at work, a cost of {10 * hours:,.2f}, "
        f"{found.bytes / 1e9:.2f} GB of storage"
    )
    both = float(re.search(r"at most ([0-9.]+) h", summary([found, found], gpus=1000, price=None)).group(1))  # type: ignore[union-attr]
    assert both == pytest.approx(found.hours(gpus=1000), abs=0.006)  # where there is room, at once


def test_entries_at_once_fill_what_others_leave_idle() -> None:
    """By hand, on two machines: one long unit waits for two short ones, as does that of a second entry."""
    entry = [Step([1.0, 1.0]), Step([4.0], [0])]
    both = at_once([entry, entry])

    assert [(list(step.after), step.turn) for step in both] == [([], 0), ([0], 0), ([], 1), ([2], 1)]
    assert list_schedule(entry, machines=2).end == 5
    assert (
        list_schedule(both, machines=2).end == 7
    )  # the first pair until 1, the second one on one machine until 3, and 4 more


def test_the_command_says_the_cost(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Of so many devices at a price an hour."""
    monkeypatch.delenv("SAP_ART_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", ["sap-art", "forecast", "smoke", "--rate", "1000", "--gpus", "2", "--price", "3"])
    with pytest.raises(SystemExit) as left:
        main()
    lines = capsys.readouterr().out.splitlines()

    assert left.value.code == 0
    assert len(lines) == 4
    assert lines[-1].startswith("smoke, 64 images, on 2 of that rate: at most 0.0")
    assert "of them at work, a cost of 0." in lines[-1]
    assert "GB of storage" in lines[-1]


@pytest.fixture
def benchmark_script() -> ModuleType:
    """benchmarks/schedule/run.py."""
    return script("schedule/run", name="schedule_run")


def test_the_committed_schedule_is_what_its_command_gives(benchmark_script: ModuleType) -> None:
    """On eight GPUs with even times, where nothing is drawn; its page is made of its data."""
    results = ROOT / "benchmarks" / "schedule" / "results"
    committed = json.loads((results / "schedule.json").read_text())
    assumed = benchmark_script.Assumptions(**committed["assumptions"])
    of = committed["cases"]["no image falls"]
    entries = benchmark_script.zoo_entries(assumed, falls=False)
    row = next(row for row in of["rows"] if row["gpus"] == 8)

    assert len(entries) == committed["entries"] == 304
    assert benchmark_script.together(entries, 8) == pytest.approx(row["hours"]["even"], rel=1e-12)
    assert benchmark_script.one_by_one(entries, 1) == pytest.approx(of["gpu_hours"], rel=1e-12)
    assert row["efficiency"]["even"] == pytest.approx(of["gpu_hours"] / 8 / row["hours"]["even"], rel=1e-12)
    assert (results / "schedule.md").read_text() == benchmark_script.page(committed)


def test_stragglers_keep_the_mean(benchmark_script: ModuleType) -> None:
    """Lognormal times: mean 1 and variance exp(sigma^2) - 1 within five standard errors, the same for the same seed."""
    n, sigma = 40_000, 0.5
    entry = benchmark_script.Entry("e", [Step([2.0] * n)], 0)
    (found,), (again,) = (benchmark_script.stragglers(entry, sigma, np.random.default_rng(1)).steps for _ in range(2))
    factors = np.array(found.units) / 2
    q = np.exp(sigma**2)
    variance = q - 1
    fourth = variance**2 * (q**4 + 2 * q**3 + 3 * q**2 - 3)

    assert abs(factors.mean() - 1) < 5 * np.sqrt(variance / n)
    assert abs(factors.var() - variance) < 5 * np.sqrt((fourth - variance**2) / n)
    assert found == again


def test_stages_without_units_keep_nobody_waiting() -> None:
    """Nothing beyond the stand-alone images: no attack there, and all the others are done."""
    found = stages(work("full", images=64))
    schedule = list_schedule(steps_of(found, rate=1.0), machines=3)

    assert next(stage.name for stage in found if not stage.units) == "apgd-ce-dense"
    assert schedule.work == sum(stage.passes for stage in found)
    assert schedule.end > schedule.work / 3
