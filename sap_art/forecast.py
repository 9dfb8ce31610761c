"""How long a suite will take: passes by its tier's plan, and their rate, measured or given."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from sap_art import data, portfolio
from sap_art.attacker import AttackerView
from sap_art.attacks.cost import count_passes
from sap_art.attacks.objective import loss_and_gradient
from sap_art.defended import DefendedModel
from sap_art.devices import require_device
from sap_art.entries import Entry, make_entry
from sap_art.foreign import wrap
from sap_art.integrations.robustbench import build
from sap_art.integrations.robustbench.facts import CLASSES
from sap_art.models import robustbench_id
from sap_art.policies import parse_policy
from sap_art.portfolio import Stage, Work
from sap_art.schedule import Step, at_once, list_schedule
from sap_art.stochastic import StochasticModel
from sap_art.suites import Suite
from sap_art.tiers import TIERS

MEASURED_SECONDS = 1.0
MEASURED_ROWS_CPU, MEASURED_ROWS_GPU = 8, 64
MEASURED_FORWARDS = 2
BACKWARD = 2.0
"""Forward passes that take as long as a backward pass, about."""


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


@dataclass(frozen=True)
class Staged:
    """A forecast with the stages of its work, which wait for each other, and the bytes that it leaves on disk."""

    forecast: Forecast
    stages: list[Stage]
    bytes: int

    def hours(self, *, gpus: int) -> float:
        """On so many devices, which stand idle where there are fewer units that may be begun."""
        return list_schedule(steps_of(self.stages, rate=self.forecast.rate), machines=gpus).end / 3600

    def line(self, *, gpus: int) -> str:
        """For people."""
        found = self.forecast
        return f"{found.entry}: {found.passes:,} passes at {found.rate:,.0f} a second: {self.hours(gpus=gpus):.2f} h"


def summary(found: Sequence[Staged], *, gpus: int, price: float | None) -> str:
    """Hours of all entries, as ``bench`` begins them, the share in which devices work, cost and storage, in words."""
    steps = at_once(steps_of(entry.stages, rate=entry.forecast.rate) for entry in found)
    hours = list_schedule(steps, machines=gpus).end / 3600
    work = sum(entry.forecast.hours(gpus=gpus) for entry in found)
    cost = "" if price is None else f", a cost of {hours * gpus * price:,.2f}"
    storage = sum(entry.bytes for entry in found) / 1e9
    return f"at most {hours:.2f} h, {100 * work / hours:.0f} % of them at work{cost}, {storage:.2f} GB of storage"


def steps_of(stages: Sequence[Stage], *, rate: float) -> list[Step]:
    """Stages as steps of a schedule, on devices that make ``rate`` passes a second."""
    number = {stage.name: n for n, stage in enumerate(stages)}
    return [Step([unit / rate for unit in s.units], [number[before] for before in s.after]) for s in stages]


def forecast_suite(suite: Suite, *, device: str, source: str | None, rate: float | None) -> list[Staged]:
    """What each entry of the suite takes; models of RobustBench's zoo need no checkpoint, random weights are as fast.

    Args:
        device: where the rate is measured, for about a second an entry.
        source: of the images, as for ``data.load``; a few are enough.
        rate: passes a second of another machine; None measures this one.

    Raises:
        ValueError: bad nets, policies, device or images; a rate that is not above 0.
        ImportError: the rate of models of RobustBench is to be measured, and it is not installed.
    """
    if rate is not None and not rate > 0:
        raise ValueError(f"the rate must be above 0 passes a second, got {rate}")
    where = require_device(device)
    x, y = (t.to(where) for t in data.load(suite.dataset, n=_rows(suite.images, where), source=source))
    zoo_net = cache(lambda zoo_id: nn.Identity() if rate else build(zoo_id, seed=suite.seed).to(where))
    found: list[Staged] = []
    for e in suite.entries:
        if (zoo_id := robustbench_id(e.model)) is not None:
            model, classes = _under_policy(zoo_net(zoo_id), e.policy), CLASSES
        else:
            entry = make_entry(e.name, e.model, e.policy, x=x, y=y, seed=suite.seed, device=where)
            model, classes = entry.model, entry.classes
        work = Work(model, TIERS[suite.tier], suite.threat(), suite.images, classes)
        stages = portfolio.stages(work)
        passes = round(sum(stage.passes for stage in stages))
        forecast = Forecast(e.name, suite.images, passes, rate or measure_rate(model, x, y))
        found.append(Staged(forecast, stages, portfolio.expected_bytes(work, pixels=x[0].numel())))
    return found


def forecast_entry(entry: Entry, x: Tensor, *, passes: int) -> Forecast:
    """What an entry that is about to be run on ``x`` (B, ...) takes, by a few of its forward passes.

    A crash in a backward pass must wait for the attacks, which report it: ``BACKWARD`` stands in for one.
    """
    rows = x[: _rows(len(x), x.device)]

    def work() -> None:
        for _ in range(MEASURED_FORWARDS):
            entry.model.single(rows)

    with torch.no_grad(), entry.model.seeded(0):
        work()
        seconds = _timed(work, x.device)
    return Forecast(entry.name, len(x), passes, 2 / (1 + BACKWARD) * MEASURED_FORWARDS * len(rows) / seconds)


def measure_rate(model: StochasticModel, x: Tensor, y: Tensor) -> float:
    """Passes a second, forward and backward in turn, through the whole of ``x`` (B, ...)."""
    view = AttackerView(model, gradient=model.estimators[0], draws=1)
    loss_and_gradient(view, x, y, loss="ce")  # whatever is compiled or allocated at first is not counted
    seconds = 0.0
    with count_passes(model) as passes:
        while seconds < MEASURED_SECONDS:
            seconds += _timed(lambda: loss_and_gradient(view, x, y, loss="ce"), x.device)
    return (passes.forwards + passes.backwards) / seconds


def _under_policy(net: nn.Module, policy: str | None) -> StochasticModel:
    return wrap(net, dense=net) if policy is None else DefendedModel(net, parse_policy(policy), seed=0)


def _rows(images: int, device: torch.device) -> int:
    """Few enough on a CPU for large nets, enough on a GPU to fill it."""
    return min(images, MEASURED_ROWS_CPU if device.type == "cpu" else MEASURED_ROWS_GPU)


def _timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that ``work`` takes on the device."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
