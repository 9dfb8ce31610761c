"""When an image needs no more work: all of many fresh draws at the point found are wrong."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sap_art.attacker import AttackerView
from sap_art.evaluation import evaluate
from sap_art.randomness import derive_seed

LOOKS = 20
"""How often an attack without checkpoints of its own looks."""

Stands = Callable[[Tensor, Tensor, int], Tensor]
"""Points (b, ...), numbers (b,) of their images, the step at which they were found -> whether the model still stands
there (b,)."""


def standing(view: AttackerView, y: Tensor, *, draws: int, seed: int) -> Stands | None:
    """Who is right at least once in ``draws`` fresh single draws of the model, whatever the view's estimator.

    None of n draws right bounds the probability of being right by 1 - .05^(1/n) (Clopper & Pearson 1934), 59 draws by
    .05 and 299 by .01, at 95 % in one look. An attack looks several times, and each look is another chance of luck:
    in 20 looks at a point that is right in 5 % of the draws, one passes 59 draws in .63 of all cases, at 10 % in .04,
    at 15 % in .001. What is left to gain there is therefore a few per cent, not surely less than five; T1 is scored
    on other draws and shows it.

    Args:
        y: (B,) labels of all images.
        draws: 0 for None: nobody is ever left alone.

    Raises:
        ValueError: draws < 0.
    """
    if draws < 0:
        raise ValueError(f"stop_draws must be at least 0, got {draws}")
    if draws == 0:
        return None

    def stands(points: Tensor, images: Tensor, step: int) -> Tensor:
        return right_once(view, points, y[images], draws=draws, seed=derive_seed(seed, step))

    return stands


def right_once(view: AttackerView, x: Tensor, y: Tensor, *, draws: int, seed: int) -> Tensor:
    """Whether one of ``draws`` fresh draws is right: (B, ...), (B,) -> (B,) bool.

    Groups of draws double in size, and an image that was right once leaves: about 2 / p draws where p is large.
    """
    found = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    left, taken = torch.arange(len(x), device=x.device), 0
    while taken < draws and len(left):
        group = min(taken + 1, draws - taken)
        result = evaluate(view.model, x[left], y[left], draws=group, seed=derive_seed(seed, taken))
        right = (result.correct > 0).to(x.device)
        found[left[right]] = True
        left, taken = left[~right], taken + group
    return found


class Remaining:
    """Of B images those still under attack, and the points (B, ...) that all of them have got to: ``ends``."""

    def __init__(self, points: Tensor, stands: Stands | None) -> None:
        self.ends, self.images = points.clone(), torch.arange(len(points), device=points.device)
        self._stands = stands

    def __len__(self) -> int:
        return len(self.images)

    def hold(self, points: Tensor) -> None:
        """The remaining images have got to ``points`` (b, ...)."""
        self.ends[self.images] = points

    def look(self, points: Tensor, step: int) -> Tensor:
        """Hold ``points`` (b, ...), and go on with the images where the model stands there: a mask of them (b,)."""
        self.hold(points)
        if self._stands is None:
            return torch.ones_like(self.images, dtype=torch.bool)
        kept = self._stands(points, self.images, step)
        self.images = self.images[kept]
        return kept


def parts(steps: int, number: int) -> list[int]:
    """After how many of the steps each of ``number`` equal parts ends."""
    return [math.ceil(steps * (part + 1) / number) for part in range(number)]
