"""What a deterministic model is worth on the images at hand: its own numbers, clean and under APGD."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from sap_art import metrics
from sap_art.attacker import AttackerView
from sap_art.attacks.eot_apgd import eot_apgd
from sap_art.evaluation import evaluate
from sap_art.foreign import wrap
from sap_art.integrations.robustbench.export import metric
from sap_art.metrics import Estimate
from sap_art.randomness import derive_seed
from sap_art.record import Record
from sap_art.threat import ThreatModel

STEPS, TARGETS, BLOCK = 100, 9, 64
ATTACKS = (("apgd-ce", "ce", 0), ("apgd-t", "dlr", TARGETS))
"""Name, loss and targets of the climbs; the second attacks what the first has left."""
METHOD = f"APGD-CE, then APGD-T (DLR, {TARGETS} targets) on what it left, {STEPS} steps each, one random start"


@dataclass(frozen=True)
class Worth:
    """Accuracy on clean images and under the attacks that ``method`` names, in [0, 1] with 95 % intervals."""

    clean: Estimate
    robust: Estimate
    method: str


def measure(net: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Worth:
    """Clean accuracy of a deterministic ``net`` on x (B, ...) in [0, 1], labels y (B,), and under ``METHOD``.

    Raises:
        ValueError: bad images or labels.
        FloatingPointError: a gradient with NaN or inf.
    """
    model = wrap(net, dense=net, seed=derive_seed(seed, "model"))
    view = AttackerView(model, gradient="autograd")

    def right(points: Tensor, labels: Tensor) -> Tensor:
        return evaluate(model, points, labels, draws=1, seed=derive_seed(seed, "score")).right[0]

    clean = right(x, y)
    standing = clean.clone()
    for name, loss, targets in ATTACKS:
        left = standing.nonzero()[:, 0]
        for first in range(0, len(left), BLOCK):
            index = left[first : first + BLOCK]
            images, labels, own = x[index], y[index], derive_seed(seed, name, first)
            x_adv = eot_apgd(view, images, labels, threat, seed=own, steps=STEPS, loss=loss, targets=targets)
            threat.require(images, x_adv)
            standing[index] = right(x_adv, labels)
    return Worth(_accuracy(clean), _accuracy(standing), METHOD)


def recorded(record: Record) -> Worth:
    """What a record says of its entry: clean accuracy and worst case T1."""
    clean, robust = (Estimate(**asdict(metric(record, name))) for name in ("clean", "T1"))
    return Worth(clean, robust, f"the worst of all attacks of {record.protocol}, tier {record.tier}")


def _accuracy(right: Tensor) -> Estimate:
    return metrics.accuracy(right.to(torch.long), 1)
