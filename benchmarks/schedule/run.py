"""How long the whole zoo takes on 1 to 256 GPUs, and how much of their time they work: a simulated schedule.

    python benchmarks/schedule/run.py --output benchmarks/schedule/results

76 nets x 4 policies in the tier ``full``, with the waits of their stages, begun as ``sap-art bench`` begins them.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from sap_art import DefendedModel, ThreatModel, wrap
from sap_art.forecast import BACKWARD, steps_of
from sap_art.integrations.robustbench import zoo_models
from sap_art.policies import parse_policy
from sap_art.portfolio import Stage, Work, expected_bytes, stages
from sap_art.schedule import Step, at_once, list_schedule
from sap_art.tiers import TIERS

POLICIES = (None, "sap:100", "sap:200", "sap:400")
GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PIXELS, CLASSES = 3 * 32 * 32, 10
COMMAND = "python benchmarks/schedule/run.py --output benchmarks/schedule/results"


@dataclass(frozen=True)
class Assumptions:
    """What is not measured.

    Args:
        images: test images of each entry.
        tflops: 1e12 operations a second that one GPU sustains in a net's passes.
        sap: time of a pass under SAP, in passes of the net alone.
        unit_seconds: of each unit, beside its passes: its task, its files.
        sigma: of the logarithm of a unit's time, which is lognormal; its mean is as without it.
        repeats: simulated runs with such times.
        seed: of those times.
    """

    images: int = 1000
    tflops: float = 40.0
    sap: float = 1.25
    unit_seconds: float = 0.5
    sigma: float = 0.5
    repeats: int = 3
    seed: int = 0


@dataclass(frozen=True)
class Entry:
    """Stages of one entry, in seconds of one GPU."""

    name: str
    steps: list[Step]
    bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    for name, value in asdict(Assumptions()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    given = vars(parser.parse_args())
    output: Path = given.pop("output")
    found = simulate(Assumptions(**given), GPUS)
    output.mkdir(parents=True, exist_ok=True)
    (output / "schedule.json").write_text(json.dumps(found, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (output / "schedule.md").write_text(page(found), encoding="utf-8")
    plot(found, output / "schedule.svg")


def simulate(assumed: Assumptions, gpus: Sequence[int]) -> dict[str, Any]:
    """Hours and efficiency by number of GPUs: if no image falls, and if those fall that AutoAttack breaks."""
    rng = np.random.default_rng(assumed.seed)
    cases: dict[str, Any] = {}
    for case, falls in (("no image falls", False), ("images fall", True)):
        entries = zoo_entries(assumed, falls=falls)
        late = [[stragglers(e, assumed.sigma, rng) for e in entries] for _ in range(assumed.repeats)]
        cases[case] = {
            "units": sum(len(step.units) for e in entries for step in e.steps),
            "storage_gb": sum(e.bytes for e in entries) / 1e9,
            "gpu_hours": one_by_one(entries, 1),
            "rows": [row(entries, late, machines) for machines in gpus],
        }
    return {"assumptions": asdict(assumed), "entries": len(zoo_models()) * len(POLICIES), "cases": cases}


def row(entries: list[Entry], late: list[list[Entry]], machines: int) -> dict[str, Any]:
    """Hours with even times, with stragglers, and with stragglers if entries waited for each other."""
    work = one_by_one(entries, 1)
    hours = {
        "even": [together(entries, machines)],
        "stragglers": [together(run, machines) for run in late],
        "one by one": [one_by_one(run, machines) for run in late],
    }
    mean = {name: math.fsum(values) / len(values) for name, values in hours.items()}
    efficiency = {name: work / machines / value for name, value in mean.items()}
    return {"gpus": machines, "hours": mean, "efficiency": efficiency}


def one_by_one(entries: Sequence[Entry], machines: int) -> float:
    """Hours, the next entry being begun when the one before is done."""
    return math.fsum(list_schedule(e.steps, machines=machines).end for e in entries) / 3600


def together(entries: Sequence[Entry], machines: int) -> float:
    """Hours, later entries filling what earlier ones leave idle."""
    return list_schedule(at_once(entry.steps for entry in entries), machines=machines).end / 3600


def stragglers(entry: Entry, sigma: float, rng: np.random.Generator) -> Entry:
    """The entry with times that scatter: lognormal with mean 1."""

    def scatter(units: Sequence[float]) -> list[float]:
        factors = np.exp(sigma * rng.standard_normal(len(units)) - sigma**2 / 2)
        return [seconds * float(factor) for seconds, factor in zip(units, factors, strict=True)]

    return replace(entry, steps=[step._replace(units=scatter(step.units)) for step in entry.steps])


def zoo_entries(assumed: Assumptions, *, falls: bool) -> list[Entry]:
    """76 nets x 4 policies; where images fall, each net keeps the share that it keeps under AutoAttack."""
    flops = read_flops()
    found: list[Entry] = []
    for net in zoo_models().values():
        for policy in POLICIES:
            left = net.autoattack if falls else 1.0
            work = planned(policy, assumed.images, left)
            passes = 1e12 * assumed.tflops / (flops[net.id] * (1 + BACKWARD) / 2)
            steps = steps_of(whole_stages(work), rate=passes / (assumed.sap if policy else 1))
            steps = [s._replace(units=[seconds + assumed.unit_seconds for seconds in s.units]) for s in steps]
            found.append(Entry(f"{net.id} {policy or 'dense'}", steps, expected_bytes(work, pixels=PIXELS)))
    return found


@cache
def planned(policy: str | None, images: int, left: float) -> Work:
    net = nn.Identity()
    model = wrap(net, dense=net) if policy is None else DefendedModel(net, parse_policy(policy), seed=0)
    return Work(model, TIERS["full"], ThreatModel(), images, CLASSES, left=left, standing=left)


def whole_stages(work: Work) -> list[Stage]:
    """Without units of no image."""
    return [replace(stage, units=tuple(unit for unit in stage.units if unit)) for stage in stages(work)]


def read_flops() -> dict[str, int]:
    with Path(__file__).with_name("flops.csv").open(encoding="utf-8", newline="") as file:
        return {found["id"]: int(found["flops"]) for found in csv.DictReader(file)}


def page(found: dict[str, Any]) -> str:
    a = found["assumptions"]
    lines = [
        "# The zoo on 1 to 256 GPUs, simulated",
        "",
        f"76 nets of RobustBench's CIFAR-10 Linf zoo x 4 policies (dense, SAP-100, 200, 400) = {found['entries']} "
        f"entries in the tier `full` on {a['images']:,} images. Nothing here was run on a GPU: units are those of the "
        "protocol, their times are assumed, and the schedule is greedy, as that of the executors.",
        "",
        f"    {COMMAND}",
        "",
        "Assumed: "
        f"a GPU sustains {a['tflops']:g} TFLOP/s (a twelfth of what the data sheet of an H100 has for dense TF32); a "
        "pass is the mean of a forward one (`flops.csv`) and a backward one, twice as long; "
        f"under SAP it takes {a['sap']:g} times as long; each unit {a['unit_seconds']:g} s beside its passes. "
        f"Stragglers: a unit's time is lognormal with mean 1 and sigma {a['sigma']:g} ({a['repeats']} runs, seed "
        f"{a['seed']}). A lost node, the loading of models and the network are left out.",
        "",
        "![Efficiency by number of GPUs](schedule.svg)",
        "",
    ]
    for case in TITLES:
        of = found["cases"][case]
        lines += [
            f"## {TITLES[case]}",
            "",
            f"{of['units']:,} units, {of['gpu_hours']:,.0f} GPU hours, {of['storage_gb']:.0f} GB of storage at most.",
            "",
            "| GPUs | hours, even times | hours, stragglers | efficiency, even | efficiency, stragglers | "
            "efficiency, one by one |",
            "| ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for r in of["rows"]:
            hours, share = r["hours"], {name: f"{100 * value:.1f} %" for name, value in r["efficiency"].items()}
            lines.append(
                f"| {r['gpus']} | {hours['even']:,.1f} | {hours['stragglers']:,.1f} | {share['even']} | "
                f"{share['stragglers']} | {share['one by one']} |"
            )
        lines.append("")
    return "\n".join([*lines, *READING])


TITLES = {
    "no image falls": "If no image falls: at most",
    "images fall": "If each net keeps the images that it keeps under AutoAttack",
}
READING = (
    "Efficiency is the work of one GPU with even times over GPUs x hours. `sap-art bench` has units of later entries "
    "fill what earlier ones leave idle; *one by one*: with stragglers, if each entry were finished before the next. "
    "What the driver itself does for an entry, on its own device, is left out: with hundreds of GPUs it may not keep "
    "up, and several runs, each with a part of the entries, share that too.",
    "",
)


def plot(found: dict[str, Any], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    with mpl.rc_context({"svg.hashsalt": "schedule", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
        for case, style in (("no image falls", "-"), ("images fall", "--")):
            rows = found["cases"][case]["rows"]
            for name, colour in (("stragglers", "tab:blue"), ("one by one", "tab:orange")):
                share = [100 * r["efficiency"][name] for r in rows]
                axes.plot([r["gpus"] for r in rows], share, style, color=colour, label=f"{name}, {case}")
        axes.set(xscale="log", xlabel="GPUs", ylabel="efficiency, %", ylim=(0, 105), xticks=GPUS)
        axes.set_xticks(GPUS, [str(n) for n in GPUS])
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize=8)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
