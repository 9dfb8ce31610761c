"""At one price in gradients: EOT-APGD, which averages several draws a step, and the long climb of single draws.

    python benchmarks/attacks/single_draws.py --output benchmarks/attacks/results

On random nets whose gradients hold little signal and much. Each point is scored by single draws that no attack has
seen. Writes single_draws.md and single_draws.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from sap_art import AttackerView, ThreatModel, data, evaluate, zoo
from sap_art.attacks import eot_apgd, long_apgd
from sap_art.paper.work import model_of
from sap_art.portfolio.plan import random_estimators
from sap_art.randomness import derive_seed
from sap_art.stochastic import StochasticModel

CASES = (("dro:0.3", 4), ("rna:0.3", 8), ("sap:100", 1), ("swp:100", 1), ("athalye:200", 1))
"""Policies on the dense net, and radii in 1/255 at which neither everything nor nothing is left."""
BUDGETS = ((20, 4), (40, 5))
"""Steps and draws a step of EOT-APGD: those of the tiers smoke and quick; the long climb takes their product."""
LOSSES = ("ce", "margin")
REPORT_DRAWS = 100


@dataclass(frozen=True)
class Row:
    """Accuracy in [0, 1] of single draws that is left by one attack at one price."""

    policy: str
    lam: int
    attack: str
    loss: str
    gradients: int
    accuracy: float
    low: float
    high: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=48, help="first test images; default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    args = parser.parse_args()
    net = zoo.load("preact-resnet20")
    x, y = data.load("cifar10", n=args.images)
    rows: list[Row] = []
    for policy, lam in CASES:
        model = model_of(net, policy, seed=derive_seed(args.seed, policy))
        for row in compare(model, x, y, policy=policy, lam=lam, seed=args.seed):
            rows.append(row)
            print(row, flush=True)
    write(rows, args.output, images=args.images, seed=args.seed)


def compare(model: StochasticModel, x: Tensor, y: Tensor, *, policy: str, lam: int, seed: int) -> Iterator[Row]:
    """Both attacks with each budget and loss, on x (B, ...) in [0, 1] with labels y (B,)."""
    threat, estimator = ThreatModel("Linf", lam / 255), random_estimators(model)[0]
    for steps, draws in BUDGETS:
        for loss in LOSSES:
            own = derive_seed(seed, policy, steps, loss)
            few = AttackerView(model, gradient=estimator, draws=draws)
            one = AttackerView(model, gradient=estimator, draws=1)
            found = {
                f"EOT-APGD, {draws} draws a step": eot_apgd(few, x, y, threat, seed=own, steps=steps, loss=loss),
                "single draws": long_apgd(one, x, y, threat, seed=own, steps=steps * draws, loss=loss),
            }
            for name, points in found.items():
                scored = evaluate(model, points, y, draws=REPORT_DRAWS, seed=derive_seed(own, "report", name))
                yield Row(policy, lam, name, loss, steps * draws, scored.accuracy, *scored.interval)


def write(rows: Sequence[Row], folder: Path, *, images: int, seed: int) -> None:
    """The table in Markdown and its numbers in JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {"images": images, "seed": seed, "report_draws": REPORT_DRAWS, "rows": [asdict(row) for row in rows]}
    (folder / "single_draws.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (folder / "single_draws.md").write_text(table(rows, images=images, seed=seed), encoding="utf-8")


def table(rows: Sequence[Row], *, images: int, seed: int) -> str:
    """Markdown: a line for each policy, price and loss, both attacks side by side."""
    lines = [
        "# Draws spent on one point or along the way",
        "",
        f"Accuracy of single draws in percent with its 95 % interval, on {images} images, over {REPORT_DRAWS} draws "
        f"that no attack has seen; preact-resnet20, seed {seed}. *Gradients* are what either attack pays "
        "for an image. By `python benchmarks/attacks/single_draws.py --output benchmarks/attacks/results`.",
        "",
        "| policy | lambda | gradients | loss | EOT-APGD | single draws |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for several, single in zip(rows[::2], rows[1::2], strict=True):
        cells = (several.policy, several.lam, several.gradients, several.loss, _cell(several), _cell(single))
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def _cell(row: Row) -> str:
    return f"{100 * row.accuracy:.1f} ({100 * row.low:.1f} to {100 * row.high:.1f})"


if __name__ == "__main__":
    main()
