"""What a run is made of, in words: every process that works on it builds the same images, entries and jobs from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sap_art import data
from sap_art.devices import require_device
from sap_art.entries import Entry, make_entry
from sap_art.protocol.job import Job
from sap_art.store import Store
from sap_art.suites import Suite, SuiteEntry
from sap_art.tiers import Tier


class Images(NamedTuple):
    """x (B, 3, H, W) float32 in [0, 1] and y (B,), on the run's device."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Blueprint:
    """A suite, the budgets of its tier, where its images come from, where it is computed and where its work is kept."""

    suite: Suite
    tier: Tier
    source: str | None
    device: str
    output: Path

    @property
    def where(self) -> torch.device:
        """The device; raises ValueError if this machine lacks it."""
        return require_device(self.device)

    def images(self) -> Images:
        """The suite's images; raises ValueError if their shape is not that of its data set, or as ``data.load``."""
        dataset = self.suite.dataset
        x, y = data.load(dataset, n=self.suite.images, source=self.source)
        if tuple(x.shape[1:]) != data.IMAGE_SHAPES[dataset]:
            raise ValueError(f"images must have shape {data.IMAGE_SHAPES[dataset]}, got {tuple(x.shape[1:])}")
        return Images(x.to(self.where), y.to(self.where))

    def entry(self, chosen: SuiteEntry, images: Images, load: Callable[[str], nn.Module]) -> Entry:
        """One entry of the suite; raises as ``make_entry``."""
        seed, where = self.suite.seed, self.where
        return make_entry(
            chosen.name, chosen.model, chosen.policy, x=images.x, y=images.y, seed=seed, device=where, load=load
        )

    def job(self, entry: Entry, images: Images) -> Job:
        """The work on an entry, in this process and in silence."""
        return Job(
            entry=entry,
            x=images.x,
            y=images.y,
            threat=self.suite.threat(),
            tier=self.tier,
            seed=self.suite.seed,
            store=Store(self.output),
        )
