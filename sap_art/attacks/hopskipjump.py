"""HopSkipJump on random models: a decision is the majority of several draws, and their number is bounded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sap_art.attacker import AttackerView
from sap_art.attacks.isolation import isolated
from sap_art.attacks.objective import prepare
from sap_art.randomness import derive_seed, make_generator
from sap_art.stochastic import halving, in_blocks
from sap_art.threat import ThreatModel

RANDOM_STARTS = 20
GRADIENT_QUERIES = 100
FEWEST_QUERIES = 10


def hopskipjump(
    view: AttackerView, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int, queries: int = 1000
) -> Tensor:
    """HopSkipJump (Chen et al. 2020, arXiv:1904.02144), ART's implementation, on majority labels over k draws.

    It walks along the boundary towards the clean image, from random noise or else from an image of another label, and
    minimises the distance, so its point may lie outside the ball or on the boundary inside. What is returned lies on
    the line from the clean image through that point, where it leaves the ball, or is the point's projection into the
    ball: of the two the one with fewer right votes in fresh draws. An image whose majority label is wrong already, or
    for which no start is found, comes back unchanged.

    Args:
        queries: majority decisions an image, at least 10; each is k = ``view.draws`` forward passes, so that an image
            takes at most k ``queries`` of them. ART takes images one by one.

    Raises:
        ValueError: fewer than 10 queries.
        FloatingPointError: the model answers with NaN or inf.
    """
    prepare(view, x, y)
    if queries < FEWEST_QUERIES:
        raise ValueError(f"queries must be at least {FEWEST_QUERIES}, got {queries}")
    points: list[Tensor] = []
    for index in range(len(x)):
        own = derive_seed(seed, "image", index)
        starts = _starts(x, y, index, make_generator(x.device, own, "starts"))
        with isolated(view, seed=own):
            points.append(_search(view, x[index : index + 1], y[index : index + 1], threat, starts, queries))
    return torch.cat(points) if points else x.clone()


def _starts(x: Tensor, y: Tensor, index: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Images (1, ...) that the model may well take for something else: uniform noise, then other labels' images."""
    for _ in range(RANDOM_STARTS):
        yield torch.rand(x[:1].shape, generator=generator, dtype=x.dtype, device=x.device)
    for other in x[y != y[index]]:
        yield other[None]


def _search(
    view: AttackerView, x: Tensor, y: Tensor, threat: ThreatModel, starts: Iterator[Tensor], queries: int
) -> Tensor:
    """One image (1, ...)."""
    decisions = _Decisions(view, x, y, queries=queries - 2)
    with suppress(_Spent):
        if decisions.right(x):
            for start in starts:
                if not decisions.right(start):
                    decisions.walk(start, threat)
                    break
    if decisions.found is None:
        return x
    step = decisions.found - x
    length = threat.distance(x, decisions.found).to(x.dtype).clamp(min=1e-12).view(-1, *[1] * (x.ndim - 1))
    candidates = torch.cat([threat.project(x, x + step * (threat.eps / length)), threat.project(x, decisions.found)])
    return candidates[_lead(view, candidates, y.expand(2)).argmin()][None]


class _Spent(Exception):  # noqa: N818  not an error: it ends ART's search, which knows no budget
    """No query is left."""


class _Decisions:
    """Majority decisions on one image's label, and the last point that one alone was asked about and got wrong."""

    def __init__(self, view: AttackerView, x: Tensor, y: Tensor, *, queries: int) -> None:
        self._view, self._x, self._y, self._left = view, x, y, queries
        self.found: Tensor | None = None

    def right(self, point: Tensor) -> bool:
        """Whether the label has most votes at a point (1, ...); a tie is wrong."""
        right = bool(self._ask(point)[0])
        if not right and not torch.equal(point, self._x):
            self.found = point
        return right

    def walk(self, start: Tensor, threat: ThreatModel) -> None:
        """ART's HopSkipJump from a wrong point, until no query is left."""
        from art.attacks.evasion import HopSkipJump
        from art.estimators.classification import BlackBoxClassifier

        known = iter([True, False])  # ART asks about the clean image and the start again, one draw of which may differ

        def predict(samples: NDArray[Any]) -> NDArray[Any]:
            points = torch.from_numpy(samples).to(self._x)  # float32 or, since numpy 2, float64; always on the CPU
            if not torch.isfinite(points).all():
                raise _Spent  # ART has divided by zero on the boundary
            if (answer := next(known, None)) is not None:
                right = np.array([answer])
            elif len(points) == 1:
                right = np.array([self.right(points)])
            else:
                right = self._ask(points).cpu().numpy()
            return np.stack([right, ~right], 1).astype(np.float32)

        estimator = BlackBoxClassifier(predict, tuple(self._x.shape[1:]), 2, clip_values=(0.0, 1.0))
        attack = HopSkipJump(
            estimator,
            norm="inf" if threat.norm == "Linf" else 2,
            batch_size=self._left + 2,
            max_iter=self._left + 2,
            init_eval=max(2, min(GRADIENT_QUERIES, self._left // 10)),
            verbose=False,
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            clean, first = (image.cpu().numpy() for image in (self._x, start))
            attack.generate(clean, np.array([[1.0, 0.0]]), x_adv_init=first)

    def _ask(self, points: Tensor) -> Tensor:
        """(B, ...) -> (B,) bool."""
        if len(points) > self._left:
            raise _Spent
        self._left -= len(points)
        return _lead(self._view, points, self._y.expand(len(points))) > 0


@torch.no_grad()
def _lead(view: AttackerView, x: Tensor, y: Tensor) -> Tensor:
    """Votes for the label less those for the strongest other one, over the view's draws: (B, ...), (B,) -> (B,)."""

    def block(part: slice) -> Tensor:
        logits = view.logits(x[part])
        if not torch.isfinite(logits).all():
            raise FloatingPointError("the logits are NaN or inf: the attack cannot proceed")
        votes = F.one_hot(logits.argmax(-1), logits.shape[-1]).sum(0)
        label = y[part].long()[:, None]
        return votes.gather(1, label)[:, 0] - votes.scatter(1, label, -1).amax(1)

    def work(rows: int) -> Tensor:
        return torch.cat(in_blocks(view.model, len(x), rows, block))

    with view.model.noise.call():
        return halving(min(view.images_per_pass(x.device), max(1, len(x))), work)
