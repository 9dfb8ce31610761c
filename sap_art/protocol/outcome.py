"""What one attack left."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sap_art.portfolio import PlannedAttack


@dataclass
class Outcome:
    """What one attack left: points (B, ...), which of them it computed (B,), its passes, or why it crashed.

    ``reported_right``: how many images a library's attack counts as still right.
    """

    planned: PlannedAttack
    points: Tensor
    done: Tensor
    forwards: int = 0
    backwards: int = 0
    reported_right: int | None = None
    error: str | None = None

    @property
    def reported(self) -> float | None:
        """The accuracy that a library's attack would print."""
        return None if self.reported_right is None else self.reported_right / int(self.done.sum())
