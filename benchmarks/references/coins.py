"""What AutoAttack says of models whose robust accuracy is known, single draws and the mean prediction of 5.

    python benchmarks/references/coins.py --output benchmarks/references/results

A coin is wrong with probability p whatever is done to an image; the other model is wrong with probability p on a clean
image, and always on one that was attacked. ``rand`` and ``standard`` run with AutoAttack's own settings. Writes
coins.json and coins.md: what each says, what fresh draws on its points give, the truth, and the closed forms of
``coin_law.py``. Minutes on a CPU. Exit status: 0 done, 2 bad input.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import coin_law

from sap_art.process import prepare

if TYPE_CHECKING:
    from torch import nn

ERRORS = (0.05, 0.1, 0.2)
DRAWS = (1, 5)
REPORT_DRAWS = 100
ROWS = 4096
SCHEMA = 1
SPEED = Path(__file__).parents[1] / "speed"
TITLES = {
    "coin": "A coin: no attack changes anything",
    "breakable": "A model that every attack breaks",
}


@dataclass(frozen=True)
class Budget:
    """AutoAttack's steps, draws a gradient (of ``rand``) and queries of Square."""

    steps: int = 100
    draws: int = 20
    queries: int = 5000


@dataclass(frozen=True)
class Row:
    """One run, accuracies in [0, 1]: what AutoAttack said, what its points scored, the closed forms and the truth."""

    model: str
    error: float
    draws: int
    version: str
    said: float
    must_say: float
    scored: float
    must_score: float
    truth: float


def main() -> int:
    arguments = parse()
    prepare()  # before torch is loaded, as in the command line of sap-art
    sys.path.append(str(SPEED))  # machine and versions are described as there
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)  # now, not after minutes
        rows: list[Row] = []
        for row in measure(arguments.images, seed=arguments.seed, budget=Budget()):
            rows.append(row)
            print(f"{_title(row)}: said {_percent(row.said)}, its points score {_percent(row.scored)}", flush=True)
        write(rows, arguments)
    except (ValueError, OSError, ImportError) as error:
        print(f"coins: {error}", file=sys.stderr)
        return 2
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run AutoAttack on models whose robust accuracy is known.")
    parser.add_argument("--images", type=int, default=2000, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of everything; default: %(default)s")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    return parser.parse_args()


def measure(
    images: int, *, seed: int, budget: Budget, errors: Sequence[float] = ERRORS, draws: Sequence[int] = DRAWS
) -> Iterator[Row]:
    """Both models with each error, single draws and means, both versions.

    Raises:
        ValueError: no images, an even number of draws.
        ImportError: pyautoattack is not installed.
    """
    if images < 1:
        raise ValueError(f"images must be at least 1, got {images}")
    for model in TITLES:
        for error in errors:
            for k in draws:
                for version in coin_law.ATTACKS:
                    yield run(model, error, k, version=version, images=images, seed=seed, budget=budget)


def run(model: str, error: float, draws: int, *, version: str, images: int, seed: int, budget: Budget) -> Row:
    """AutoAttack on ``images`` images, as its users run it: on the mean prediction of ``draws`` draws as one model."""
    import coin_models

    from sap_art import AttackerView, ThreatModel, evaluate, wrap
    from sap_art.attacks.library import reported_autoattack
    from sap_art.randomness import derive_seed

    law = getattr(coin_law, model)(coin_law.prediction_error(error, draws), version)
    net: nn.Module = {"coin": coin_models.Coin, "breakable": coin_models.Breakable}[model](error)
    x, y = coin_models.images(images)
    seed = derive_seed(seed, model, error, draws, version)
    found = reported_autoattack(
        AttackerView(wrap(net), gradient="autograd", draws=draws, max_batch=ROWS * draws),
        x,
        y,
        ThreatModel(eps=coin_models.EPS),
        seed=seed,
        version=cast(Literal["rand", "standard"], version),
        draws=budget.draws if version == "rand" else 1,
        steps=budget.steps,
        queries=budget.queries,
    )
    fresh = evaluate(net, found.x_adv, y, draws=REPORT_DRAWS, seed=derive_seed(seed, "report"), batch_size=ROWS)
    scored = fresh.under("single" if draws == 1 else "mean_prob", draws).value
    return Row(model, error, draws, version, found.reported_accuracy, law.says, scored, law.worth, law.truth)


def write(rows: Sequence[Row], arguments: argparse.Namespace) -> None:
    """``coins.json`` and ``coins.md``."""
    from importlib.metadata import version

    import torch
    from setting import origin

    from sap_art.record import write_json

    content = {
        "schema": SCHEMA,
        "environment": {
            **origin(torch.device("cpu"), torch.get_num_threads()),
            "pyautoattack": version("pyautoattack"),
        },
        "setting": {"images": arguments.images, "seed": arguments.seed, "report_draws": REPORT_DRAWS},
        "budget": asdict(Budget()),
        "rows": [asdict(row) for row in rows],
    }
    write_json(content, arguments.output / "coins.json")
    (arguments.output / "coins.md").write_text(markdown(content), encoding="utf-8")


def markdown(content: dict[str, Any]) -> str:
    """The tables, from the content of ``coins.json``."""
    facts, setting, budget = content["environment"], content["setting"], content["budget"]
    head = [
        f"command: {facts['command']}",
        f"versions: sap_art {facts['sap_art']}, torch {facts['torch']}, pyautoattack {facts['pyautoattack']}",
        f"{setting['images']} images, Linf eps = 8/255, seed {setting['seed']}; its points are scored on "
        f"{setting['report_draws']} fresh draws",
        f"AutoAttack: {budget['steps']} steps, {budget['draws']} draws a gradient in rand, {budget['queries']} queries",
        "p: error of one draw; K: draws of one prediction (mean softmax); all else is accuracy in %, in brackets what "
        "must come out by `coin_law.py`, where the last two attacks of `standard` are taken to break what they attack",
    ]
    lines = ["# AutoAttack on models whose robust accuracy is known", "", *(f"- {line}" for line in head)]
    rows = [Row(**row) for row in content["rows"]]
    for model, title in TITLES.items():
        lines += ["", f"## {title}", "", *_table([row for row in rows if row.model == model])]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Row]) -> list[str]:
    versions = list(coin_law.ATTACKS)
    header = ["p", "K", "true", *(f"`{v}` {what}" for v in versions for what in ("says", "points worth"))]
    lines = ["| " + " | ".join(header) + " |", "|" + " ---: |" * len(header)]
    for error, draws in dict.fromkeys((row.error, row.draws) for row in rows):
        of = {row.version: row for row in rows if (row.error, row.draws) == (error, draws)}
        cells = [f"{error:g}", str(draws), f"{100 * of[versions[0]].truth:.1f}"]
        for row in (of[version] for version in versions):
            cells += [_both(row.said, row.must_say), _both(row.scored, row.must_score)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _both(found: float, expected: float) -> str:
    return f"{100 * found:.1f} ({100 * expected:.1f})"


def _percent(accuracy: float) -> str:
    return f"{100 * accuracy:.1f} %"


def _title(row: Row) -> str:
    return f"{row.model}, p = {row.error:g}, K = {row.draws}, {row.version}"


if __name__ == "__main__":
    sys.exit(main())
