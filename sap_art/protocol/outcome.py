"""What one attack left."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from sap_art.portfolio import PlannedAttack
from sap_art.protocol.job import BLOCK
from sap_art.store import Stored
from sap_art.tiers import STAND_ALONE


class Points(NamedTuple):
    """Points (b, ...) for the images of a block, and which of them an attack computed (b,)."""

    points: Tensor
    done: Tensor


@dataclass
class Outcome:
    """What one attack left: its units by block, how many images those are of, its passes, or why it crashed.

    ``reported_right``: how many images a library's attack counts as still right.
    """

    planned: PlannedAttack
    units: dict[int, Stored] = field(default_factory=dict[int, Stored])
    images: int = 0
    forwards: int = 0
    backwards: int = 0
    reported_right: int | None = None
    error: str | None = None

    @property
    def reported(self) -> float | None:
        """The accuracy that a library's attack would print."""
        return None if self.reported_right is None else self.reported_right / self.images

    def alone(self, x: Tensor) -> Tensor:
        """Its points for the stand-alone images among ``x`` (B, ...)."""
        return points_in(self.units.get(0), x[:STAND_ALONE], 0).points


def points_in(unit: Stored | None, x: Tensor, number: int) -> Points:
    """Those that an attack computed for the images ``x`` (b, ...) of block ``number``; elsewhere the images."""
    points, done = x.clone(), torch.zeros(len(x), dtype=torch.bool)
    if unit is not None:
        found = unit.read()
        place = found["index"] - number * BLOCK
        points[place] = found["x_adv"].to(x.device)
        done[place] = True
    return Points(points, done)
