"""How long a suite will take: passes by its tier's plan, and their rate, measured or given."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from sap_art import data, portfolio
from sap_art.attacker import AttackerView
from sap_art.attacks.cost import count_passes
from sap_art.attacks.objective import loss_and_gradient
from sap_art.devices import require_device
from sap_art.entries import Entry, make_entry
from sap_art.stochastic import default_max_batch
from sap_art.suites import Suite
from sap_art.tiers import TIERS

MEASURED_SECONDS = 1.0


@dataclass(frozen=True)
class Forecast:
    """One entry: passes if no image is dropped, and how many a second one device makes."""

    entry: str
    images: int
    passes: int
    rate: float

    def hours(self, *, gpus: int) -> float:
        """On so many devices that share the images evenly."""
        return self.passes / self.rate / gpus / 3600


def forecast_suite(suite: Suite, *, device: str, source: str | None, rate: float | None) -> list[Forecast]:
    """What each entry of the suite takes.

    Args:
        device: where the rate is measured, for about a second an entry.
        source: of the images, as for ``data.load``; a few are enough.
        rate: passes a second of another machine; None measures this one.

    Raises:
        ValueError: bad nets, policies, device or images; a rate that is not above 0.
    """
    if rate is not None and not rate > 0:
        raise ValueError(f"the rate must be above 0 passes a second, got {rate}")
    where = require_device(device)
    rows = min(suite.images, default_max_batch(where), 64)
    x, y = (t.to(where) for t in data.load(suite.dataset, n=rows, source=source))
    found: list[Forecast] = []
    for e in suite.entries:
        entry = make_entry(e.name, e.model, e.policy, x=x, y=y, seed=suite.seed, device=where)
        passes = portfolio.expected_passes(
            entry.model, TIERS[suite.tier], suite.threat(), images=suite.images, classes=entry.classes
        )
        found.append(Forecast(entry.name, suite.images, passes, rate or measure_rate(entry, x, y)))
    return found


def measure_rate(entry: Entry, x: Tensor, y: Tensor) -> float:
    """Passes a second, forward and backward in turn, through the whole of ``x`` (B, ...)."""
    view = AttackerView(entry.model, gradient=entry.model.estimators[0], draws=1)
    loss_and_gradient(view, x, y, loss="ce")  # whatever is compiled or allocated at first is not counted
    with count_passes(entry.model) as passes:
        start = time.perf_counter()
        while time.perf_counter() - start < MEASURED_SECONDS:
            loss_and_gradient(view, x, y, loss="ce")
            if x.device.type == "cuda":
                torch.cuda.synchronize(x.device)
        seconds = time.perf_counter() - start
    return (passes.forwards + passes.backwards) / seconds
