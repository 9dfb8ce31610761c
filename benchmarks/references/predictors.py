"""What AutoAttack says of one defended net under its two predictors: single draws, and the mean prediction of K.

    python benchmarks/references/predictors.py --policy sap:100 --images 8 --output benchmarks/references/results

``rand`` and ``standard`` run with AutoAttack's own settings, on the mean prediction as one model whose every look takes
K draws. Writes predictors-<model>.json and predictors-<model>.md: what each says, and what fresh draws of the predictor
that was attacked score on its points. ``rand`` on the mean takes 100 x 20 x K gradients an image and attack. Exit
status: 0 done, 2 bad input.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sap_art.process import prepare

if TYPE_CHECKING:
    from torch import Tensor

    from sap_art.entries import Entry

Version = Literal["rand", "standard"]
VERSIONS: tuple[Version, ...] = ("standard", "rand")
REPORT_GROUPS = 20
GRADIENT_DRAWS = {"rand": 20, "standard": 1}
SCHEMA = 1
SPEED = Path(__file__).parents[1] / "speed"


@dataclass(frozen=True)
class Row:
    """One run, accuracies in [0, 1]: clean, what AutoAttack said, what its points scored with its 95 % interval."""

    version: str
    draws: int
    clean: float
    said: float
    scored: float
    low: float
    high: float


def main() -> int:
    arguments = parse()
    prepare()  # before torch is loaded, as in the command line of sap-art
    sys.path.append(str(SPEED))  # machine and versions are described as there
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)  # now, not after minutes
        rows: list[Row] = []
        for row in measure(*load(arguments), draws=arguments.draws, seed=arguments.seed):
            rows.append(row)
            print(
                f"{row.version}, K = {row.draws}: said {_percent(row.said)}, its points score {_percent(row.scored)}",
                flush=True,
            )
        write(rows, arguments)
    except (ValueError, OSError, ImportError) as error:
        print(f"predictors: {error}", file=sys.stderr)
        return 2
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run AutoAttack on single draws and on the mean prediction.")
    parser.add_argument("--model", default="preact-resnet20", help="a net, as for sap-art bench; default: %(default)s")
    parser.add_argument("--policy", required=True, help="what makes it random, such as sap:100")
    parser.add_argument("--images", type=int, required=True, metavar="N", help="first N test images")
    parser.add_argument(
        "--draws", type=int, default=5, metavar="K", help="of the mean prediction; default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything; default: %(default)s")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    return parser.parse_args()


def load(arguments: argparse.Namespace) -> tuple[Entry, Tensor, Tensor]:
    """Net and policy, tried on one image, and the images."""
    import torch

    from sap_art import data
    from sap_art.entries import make_entry
    from sap_art.models import Loader

    x, y = data.load("cifar10", n=arguments.images)
    entry = make_entry(
        "predictors",
        arguments.model,
        arguments.policy,
        x=x,
        y=y,
        seed=arguments.seed,
        device=torch.device("cpu"),
        load=Loader(),
    )
    return entry, x, y


def measure(
    entry: Entry, x: Tensor, y: Tensor, *, draws: int, seed: int, steps: int = 100, queries: int = 5000
) -> Iterator[Row]:
    """Both versions on single draws and on the mean of ``draws``.

    Raises:
        ValueError: draws < 2, which is no mean.
        ImportError: pyautoattack is not installed.
    """
    from sap_art import AttackerView, ThreatModel, evaluate
    from sap_art.attacks.library import reported_autoattack
    from sap_art.randomness import derive_seed

    if draws < 2:
        raise ValueError(f"a mean prediction needs at least 2 draws, got {draws}")
    for k in (1, draws):
        for version in VERSIONS:
            run_seed = derive_seed(seed, version, k)
            found = reported_autoattack(
                AttackerView(entry.model, gradient=entry.model.estimators[0], draws=k),
                x,
                y,
                ThreatModel(),
                seed=run_seed,
                version=version,
                draws=GRADIENT_DRAWS[version],
                steps=steps,
                queries=queries,
            )
            clean, fresh = (
                evaluate(entry.model, points, y, draws=REPORT_GROUPS * k, seed=derive_seed(run_seed, name)).under(
                    "single" if k == 1 else "mean_prob", k
                )
                for name, points in (("clean", x), ("report", found.x_adv))
            )
            yield Row(version, k, clean.value, found.reported_accuracy, *fresh)


def write(rows: Sequence[Row], arguments: argparse.Namespace) -> None:
    """``predictors-<model>.json`` and ``.md``."""
    from importlib.metadata import version

    import torch
    from setting import origin

    from sap_art.record import write_json
    from sap_art.suites import SuiteEntry

    content = {
        "schema": SCHEMA,
        "environment": {
            **origin(torch.device("cpu"), torch.get_num_threads()),
            "pyautoattack": version("pyautoattack"),
        },
        "setting": {name: getattr(arguments, name) for name in ("images", "model", "policy", "draws", "seed")},
        "rows": [asdict(row) for row in rows],
    }
    path = arguments.output / f"predictors-{SuiteEntry(arguments.model).name}.json"
    write_json(content, path)
    path.with_suffix(".md").write_text(markdown(content), encoding="utf-8")


def markdown(content: dict[str, Any]) -> str:
    """The table, from the content of the JSON file."""
    facts, setting = content["environment"], content["setting"]
    head = [
        f"command: {facts['command']}",
        f"device: {facts['device']}, threads {facts['threads']}",
        f"versions: sap_art {facts['sap_art']}, torch {facts['torch']}, pyautoattack {facts['pyautoattack']}",
        f"{setting['model']} under {setting['policy']}, first {setting['images']} test images, Linf eps = 8/255, seed "
        f"{setting['seed']}; AutoAttack's own settings",
        f"K: draws of one prediction; points are scored on {REPORT_GROUPS} fresh predictions an image of the predictor "
        "that was attacked; accuracy in %",
    ]
    lines = ["# AutoAttack on single draws and on the mean prediction", "", *(f"- {line}" for line in head), ""]
    lines += ["| AutoAttack | K | clean | says | its points score |", "| --- |" + " ---: |" * 4]
    for row in (Row(**row) for row in content["rows"]):
        interval = f"{100 * row.scored:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"
        cells = [f"`{row.version}`", str(row.draws), f"{100 * row.clean:.1f}", f"{100 * row.said:.1f}", interval]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _percent(accuracy: float) -> str:
    return f"{100 * accuracy:.1f} %"


if __name__ == "__main__":
    sys.exit(main())
