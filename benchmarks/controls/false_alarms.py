"""How often an honest model is called unreliable: linear models with Gaussian weights, many seeds, tier quick.

    python benchmarks/controls/false_alarms.py --output DIR [--runs 60]

From the repository's root. Each run has weights, images and seeds of its own; nothing of such a model is hidden from an
attack, so every flag of level R is a false alarm. Interrupted, the same command goes on. Writes false_alarms.md and
.json.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from sap_art.process import prepare

SETTINGS = ((0.25, 0.07), (0.3, 0.08), (0.6, 0.06))
"""Standard deviation of each weight, and eps; the share of right draws left lies between a third and two thirds."""
IMAGES, SHAPE = 64, (1, 4, 4)
MOST = 0.025
"""Share of evaluations that may be called unreliable by chance."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Count false alarms on honest random models.")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--runs", type=int, default=60, metavar="N", help="of each setting; default: %(default)s")
    arguments = parser.parse_args()
    if arguments.runs < 1:
        parser.error(f"--runs must be at least 1, got {arguments.runs}")
    prepare()  # before torch is loaded, as in the command line of sap-art
    return report(arguments.output, runs=arguments.runs)


def report(output: Path, *, runs: int) -> int:
    """Evaluate, count, print and write; 1 if the interval of the share lies above what chance may do."""
    from sap_art.metrics import proportion
    from sap_art.record import write_json

    raised: Counter[str] = Counter()
    alarms = 0
    for number, (sigma, eps) in enumerate(SETTINGS):
        for run in range(runs):
            codes = evaluate_one(output / "work" / f"{number}-{run}", sigma=sigma, eps=eps, seed=1000 * number + run)
            raised.update(codes)
            alarms += bool(codes)
            print(f"sigma {sigma}, eps {eps}, run {run + 1} of {runs}: {', '.join(codes) or 'none'}", flush=True)
    total = runs * len(SETTINGS)
    share = proportion(alarms, total)
    lines = [
        f"False alarms: {alarms} of {total} evaluations of honest linear models with Gaussian weights (tier quick, "
        f"{IMAGES} images each) were called unreliable, {share.value:.3f} [{share.low:.3f}, {share.high:.3f}]; "
        f"chance may do so in {MOST}.",
        "",
        *(f"- {code}: {count}" for code, count in raised.most_common()),
    ]
    print("\n".join(lines))
    (output / "false_alarms.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    found = {"alarms": alarms, "evaluations": total, "share": share._asdict(), "flags": dict(raised), "most": MOST}
    write_json({**found, "settings": [list(s) for s in SETTINGS], "images": IMAGES}, output / "false_alarms.json")
    return int(share.low > MOST)


def evaluate_one(folder: Path, *, sigma: float, eps: float, seed: int) -> list[str]:
    """Codes of level R that an evaluation raises; read if it was finished before."""
    import json

    from sap_art.record import write_json

    done = folder.with_suffix(".json")
    if not done.exists():
        write_json({"raised": _evaluate(folder, sigma=sigma, eps=eps, seed=seed)}, done)
    return json.loads(done.read_text(encoding="utf-8"))["raised"]


def _evaluate(folder: Path, *, sigma: float, eps: float, seed: int) -> list[str]:
    import torch

    from sap_art import ThreatModel, protocol, wrap
    from sap_art.entries import Entry
    from sap_art.protocol.job import Job
    from sap_art.randomness import make_generator
    from sap_art.record import DefenceInfo, ModelInfo
    from sap_art.store import Store
    from sap_art.tiers import TIERS

    class Linear(torch.nn.Module):
        """Logits (0, (w + sigma z).x + b), z standard normal for each image of each call."""

        def __init__(self, w: torch.Tensor, sigma: float) -> None:
            super().__init__()
            self.w, self.sigma, self.b = w, sigma, -0.5 * w.sum()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            flat = x.flatten(1)
            score = flat @ self.w + self.b
            if self.sigma:
                score = score + self.sigma * (torch.randn_like(flat) * flat).sum(1)
            return torch.stack([torch.zeros_like(score), score], 1)

    generator = make_generator("cpu", seed, "model")
    w = torch.randn(SHAPE[0] * SHAPE[1] * SHAPE[2], generator=generator)
    x = torch.rand(IMAGES, *SHAPE, generator=generator) * 0.8 + 0.1
    dense = Linear(w, 0.0)
    y = dense(x).argmax(1)
    model = wrap(Linear(w, sigma), dense=dense, seed=seed)
    info = ModelInfo("gaussian-weights", "Linear", weights_sha256="0" * 64)
    entry = Entry(
        "gaussian-weights", model, 2, info, DefenceInfo("foreign", "module", True, "single", 1), lambda: model
    )
    job = Job(entry, x, y, ThreatModel("Linf", eps), TIERS["quick"], seed=seed, store=Store(folder))
    return [flag.code for flag in protocol.run(job).flags if flag.state == "raised" and flag.level == "R"]


if __name__ == "__main__":
    sys.exit(main())
