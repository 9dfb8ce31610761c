"""How much sooner our worst case is at or below what AutoAttack-rand reports.

    python benchmarks/attacks/time_to_rand.py --output DIR

First AutoAttack-rand runs on the defended model, as its users run it; then the attacks of one of our tiers, cheapest
and strongest first, until the worst points so far, chosen on some draws and scored on others, are at or below the
number that it reports. Choosing and scoring are part of our time. Writes time_to_rand.md and time_to_rand.json.
Exit status: 0 our worst case got there, fast enough or not, 1 it never did, 2 bad input.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sap_art.process import prepare
from sap_art.tiers import TIERS

if TYPE_CHECKING:
    from contest import Case, Result, Step
    from setting import Facts

SPEED = Path(__file__).parents[1] / "speed"
SCHEMA = 1


def main() -> int:
    arguments = parse()
    prepare()  # before torch is loaded, as in the command line of sap-art
    sys.path.append(str(SPEED))  # machine and versions are described as there
    show_autoattack()
    try:
        result = run(arguments)
    except (ValueError, OSError, ImportError) as error:
        print(f"time_to_rand: {error}", file=sys.stderr)
        return 2
    return 0 if result.reached else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time AutoAttack-rand, and our evaluator until it is at its number.")
    parser.add_argument(
        "--images", type=count, default=64, metavar="N", help="first N test images; default: %(default)s"
    )
    parser.add_argument("--model", default="preact-resnet20", help="a net, as for sap-art bench; default: %(default)s")
    parser.add_argument("--policy", default="sap:100", help="what makes it random; default: %(default)s")
    parser.add_argument("--tier", choices=sorted(TIERS), default="quick", help="our budgets; default: %(default)s")
    parser.add_argument(
        "--steps", type=count, default=100, help="of rand's APGD; default: %(default)s, AutoAttack's own"
    )
    parser.add_argument(
        "--draws", type=count, default=20, help="a step of rand; default: %(default)s, AutoAttack's own"
    )
    parser.add_argument("--seed", type=int, default=1, help="of both sides; default: %(default)s")
    parser.add_argument("--device", default="cpu", help="default: %(default)s")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    return parser.parse_args()


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 1, got {text!r}")
    return int(text)


def show_autoattack() -> None:
    """Let AutoAttack say on stderr how far it is: it takes minutes."""
    logger, handler = logging.getLogger("auto-attack"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s AutoAttack: %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)


def run(arguments: argparse.Namespace) -> Result:
    """Time both, print and write."""
    from contest import Result, our_steps, time_rand, warm_up

    case = load(arguments)
    arguments.output.mkdir(parents=True, exist_ok=True)  # now, not after minutes
    print(
        f"warming up, then AutoAttack-rand: twice {arguments.steps} x {arguments.draws} gradients an image", flush=True
    )
    warm_up(case)
    rand = time_rand(case, steps=arguments.steps, draws=arguments.draws)
    print(f"AutoAttack-rand {rand.seconds:.1f} s: {percent(rand.reported)} reported", flush=True)
    steps: list[Step] = []
    for step in our_steps(case, until=rand.reported):
        steps.append(step)
        print(f"{step.attack} {step.seconds:.1f} s: {percent(step.accuracy)}", flush=True)
    result = Result(rand, tuple(steps))
    print(f"\n{summary(result)}")
    write(arguments, case, result)
    return result


def load(arguments: argparse.Namespace) -> Case:
    """Images, net and policy, tried on one image."""
    from contest import Case

    from sap_art import ThreatModel, data
    from sap_art.devices import require_device
    from sap_art.entries import make_entry

    device = require_device(arguments.device)
    x, y = (t.to(device) for t in data.load("cifar10", n=arguments.images))
    entry = make_entry("time-to-rand", arguments.model, arguments.policy, x=x, y=y, seed=arguments.seed, device=device)
    return Case(entry.model, x, y, ThreatModel(), TIERS[arguments.tier], arguments.seed)


def write(arguments: argparse.Namespace, case: Case, result: Result) -> None:
    """``time_to_rand.md`` and ``time_to_rand.json``."""
    from dataclasses import asdict
    from importlib.metadata import version

    import torch
    from contest import TARGET
    from setting import origin

    from sap_art.record import write_json

    facts = {**origin(case.x.device, torch.get_num_threads()), "pyautoattack": version("pyautoattack")}
    names = ("images", "model", "policy", "tier", "steps", "draws", "seed")
    content = {
        "schema": SCHEMA,
        "environment": facts,
        "setting": {name: getattr(arguments, name) for name in names} | asdict(case.threat),
        **asdict(result),
        "ratio": result.ratio,
        "target": TARGET,
        "met": result.met,
    }
    write_json(content, arguments.output / "time_to_rand.json")
    (arguments.output / "time_to_rand.md").write_text(markdown(arguments, case, facts, result), encoding="utf-8")


def markdown(arguments: argparse.Namespace, case: Case, facts: Facts, result: Result) -> str:
    """Where it was measured, a line an attack, the ratio."""
    from report import VERSIONS, origin

    tier, threat, rand = case.tier, case.threat, result.rand
    head = [
        *origin(facts, (*VERSIONS, "pyautoattack")),
        f"model: {arguments.model} under {arguments.policy}, first {len(case.x)} test images, {threat.norm} eps = "
        f"{threat.eps:.4g}, seed {arguments.seed}",
        f"rand: {arguments.steps} steps, {arguments.draws} draws a step; its points score {percent(rand.scored)} on "
        f"{tier.report_draws} fresh draws",
        f"ours: tier {tier.name}, {tier.selection_draws} selection and {tier.report_draws} report draws after each "
        "attack, within our time",
    ]
    rows = [
        f"| AutoAttack-rand | {rand.seconds:.1f} | {percent(rand.reported)} reported |",
        *(f"| {step.attack} | {step.seconds:.1f} | {percent(step.accuracy)} |" for step in result.steps),
    ]
    table = ["| attack | seconds so far | worst case so far |", "| --- | ---: | ---: |", *rows]
    lines = ["# Time to AutoAttack-rand's number", "", *(f"- {line}" for line in head), "", *table]
    return "\n".join([*lines, "", summary(result)]) + "\n"


def summary(result: Result) -> str:
    """The answer in a sentence."""
    from contest import TARGET

    number = percent(result.rand.reported)
    if result.ratio is None:
        return f"Our worst case never gets to the {number} that AutoAttack-rand reports (target ≥ {TARGET:g}: not met)."
    return (
        f"At or below the {number} that AutoAttack-rand reports {result.ratio:.1f} times sooner "
        f"(target ≥ {TARGET:g}: {'met' if result.met else 'not met'})."
    )


def percent(accuracy: float) -> str:
    return f"{100 * accuracy:.2f} %"


if __name__ == "__main__":
    sys.exit(main())
