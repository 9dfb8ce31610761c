"""One climb of Auto-PGD (Croce & Hein 2020, arXiv:2003.01690), whatever it climbs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from sap_art.attacks.objective import Value
from sap_art.attacks.stopping import Remaining, Stands
from sap_art.threat import ThreatModel

MOMENTUM = 0.75
ENOUGH_INCREASES = 0.75


FIRST_STEP = 2.0
"""Size of the first step, of eps."""


def climb(
    x: Tensor,
    start: Tensor,
    threat: ThreatModel,
    *,
    steps: int,
    value: Callable[[Tensor, Tensor], Value],
    first_step: float = FIRST_STEP,
    stands: Stands | None = None,
) -> Tensor:
    """The point with the largest loss met in ``steps`` evaluations from ``start``: (B, ...) in [0, 1].

    Steps of the threat model's norm, ``first_step`` times eps at first and halved, with a return to the best point so
    far, at the checkpoints of the paper's section 3 where the loss rose in less than 75 % of the steps or its best
    stood still.

    Args:
        value: loss (b,) and gradient (b, ...) at the points of the images with these numbers (b,); called ``steps``
            times.
        stands: asked at the checkpoints about the best points so far; who does not stand is climbed no further.
    """
    state = _State.start(x, start, step_size=first_step * threat.eps)
    windows = checkpoints(steps)
    remaining = Remaining(start, stands)
    for step in range(steps):
        state.observe(*value(state.point, remaining.images))
        if step in windows:
            state.adapt(window=windows[step])
            state = state.of(remaining.look(state.best, step))
            if len(remaining) == 0:
                return remaining.ends
        state.move(threat, momentum=MOMENTUM if step else 1.0)
    remaining.hold(state.best)
    return remaining.ends


@dataclass
class _State:
    """The search of B images side by side; every (B,) tensor is a decision of its own image."""

    x: Tensor
    point: Tensor
    previous: Tensor
    gradient: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    last_loss: Tensor
    increases: Tensor
    step_size: Tensor
    marked_loss: Tensor
    just_halved: Tensor

    @classmethod
    def start(cls, x: Tensor, point: Tensor, *, step_size: float) -> _State:
        nothing = torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)  # below every loss
        return cls(
            x=x, point=point, previous=point, gradient=torch.zeros_like(x), best=point,
            best_gradient=torch.zeros_like(x), best_loss=nothing, last_loss=-nothing,
            increases=torch.zeros_like(nothing), step_size=torch.full_like(nothing, step_size),
            marked_loss=nothing, just_halved=torch.ones_like(nothing, dtype=torch.bool),
        )  # fmt: skip

    def of(self, kept: Tensor) -> _State:
        """The search of the images in the mask ``kept`` (B,) alone."""
        return _State(**{field.name: getattr(self, field.name)[kept] for field in fields(self)})

    def observe(self, loss: Tensor, gradient: Tensor) -> None:
        """Take in the mean loss and gradient of the current point."""
        better = loss > self.best_loss
        self.gradient = gradient
        self.best = torch.where(_wide(better, self.x), self.point, self.best)
        self.best_gradient = torch.where(_wide(better, self.x), gradient, self.best_gradient)
        self.best_loss = torch.where(better, loss, self.best_loss)
        self.increases = self.increases + (loss > self.last_loss)
        self.last_loss = loss

    def adapt(self, *, window: int) -> None:
        """At a checkpoint: halve the step and go back to the best point where the climb has stalled."""
        slow = self.increases < ENOUGH_INCREASES * window
        stuck = ~self.just_halved & (self.best_loss <= self.marked_loss)
        halve = slow | stuck
        self.step_size = torch.where(halve, self.step_size / 2, self.step_size)
        self.point = torch.where(_wide(halve, self.x), self.best, self.point)
        self.gradient = torch.where(_wide(halve, self.x), self.best_gradient, self.gradient)
        self.just_halved, self.marked_loss = halve, self.best_loss
        self.increases = torch.zeros_like(self.increases)

    def move(self, threat: ThreatModel, *, momentum: float) -> None:
        """One step along the gradient with momentum from the last move."""
        ahead = self.point + _wide(self.step_size, self.x) * threat.ascent_direction(self.gradient)
        ahead = threat.project(self.x, ahead)
        inertia = self.point - self.previous
        mixed = self.point + momentum * (ahead - self.point) + (1 - momentum) * inertia
        self.previous, self.point = self.point, threat.project(self.x, mixed)


def checkpoints(steps: int) -> dict[int, int]:
    """Steps at which the step size is reconsidered -> steps since the one before.

    The first window is 22 % of ``steps``; the next ones shrink by 3 % each, down to 6 %.
    """
    window = max(1, int(0.22 * steps))
    mark, windows = window, dict[int, int]()
    while mark < steps:
        windows[mark] = window
        window = max(window - max(1, int(0.03 * steps)), max(1, int(0.06 * steps)))
        mark += window
    return windows


def _wide(per_image: Tensor, x: Tensor) -> Tensor:
    return per_image.view(-1, *[1] * (x.ndim - 1))
