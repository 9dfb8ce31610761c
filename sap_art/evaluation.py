"""Scoring: fresh single draws of a model on fixed images, kept image by image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from sap_art import metrics
from sap_art.foreign import as_stochastic
from sap_art.metrics import Estimate
from sap_art.stochastic import default_max_batch, draw_logits, halving, in_blocks, log_mean_prob, require_eval
from sap_art.threat import require_images, require_labels

PIECE = 1024
"""Images whose draws are averaged at a time, in twice the precision that they are kept in."""


@dataclass(frozen=True)
class Evaluation:
    """m fresh draws on B images: ``draw_log_probabilities`` (m, B, C) float32 and ``labels`` (B,), both on the CPU.

    ``per_example``: whether images have noise of their own; otherwise intervals allow for noise that they share.
    """

    draw_log_probabilities: Tensor
    labels: Tensor
    per_example: bool = True

    @property
    def draws(self) -> int:
        """m, the draws an image."""
        return len(self.draw_log_probabilities)

    @cached_property
    def right(self) -> Tensor:
        """(m, B) bool: whether each draw predicts the label."""
        return self.draw_log_probabilities.argmax(-1) == self.labels

    @property
    def correct(self) -> Tensor:
        """(B,) int: how many of the m draws are right."""
        return self.right.sum(0)

    @cached_property
    def log_probabilities(self) -> Tensor:
        """(B, C) float64: log of the mean softmax over the m draws."""
        return torch.cat([log_mean_prob(part.double()) for part in self.draw_log_probabilities.split(PIECE, 1)])

    @property
    def probabilities(self) -> Tensor:
        """(B, C) float64 in [0, 1]: mean softmax over the m draws."""
        return self.log_probabilities.exp()

    @property
    def estimate(self) -> Estimate:
        """Accuracy of a single draw with its 95 % interval."""
        if self.per_example:
            return metrics.accuracy(self.correct, self.draws)
        return metrics.shared_noise_accuracy(self.right, seed=self.draws)

    @property
    def accuracy(self) -> float:
        """Mean over images of the share of right draws, in [0, 1]."""
        return self.estimate.value

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of ``accuracy``."""
        return self.estimate.low, self.estimate.high

    def first(self, images: int) -> Evaluation:
        """The same draws on the first ``images`` images alone."""
        return Evaluation(self.draw_log_probabilities[:, :images], self.labels[:images], self.per_example)

    def under(self, predictor: Literal["single", "mean_prob", "vote"], draws: int) -> Estimate:
        """Accuracy of a predictor over disjoint groups of K = ``draws`` draws; a tied vote is wrong.

        Raises:
            ValueError: unknown predictor, K < 1 or K > m, K other than 1 for ``single``.
        """
        if predictor == "single" and draws == 1:
            return self.estimate
        if predictor not in _GROUP_RIGHT or not 1 <= draws <= self.draws:
            raise ValueError(
                f"predictor must be single (K = 1), mean_prob or vote with 1 <= K <= {self.draws}, "
                f"got {predictor!r} with K = {draws}"
            )
        groups = self.draws // draws
        grouped = self.draw_log_probabilities[: groups * draws].unflatten(0, (groups, draws))
        right = torch.stack([_GROUP_RIGHT[predictor](group, self.labels) for group in grouped])
        if not self.per_example:
            return metrics.shared_noise_accuracy(right, seed=groups)
        return metrics.accuracy(right.sum(0), groups)

    def persistent(self, submissions: int) -> Estimate:
        """P(right in all of M submissions of the image), unbiased; M <= m."""
        return metrics.persistent(self.correct, self.draws, submissions)


def accuracy_difference(first: Evaluation, second: Evaluation, *, seed: int, comparisons: int = 1) -> Estimate:
    """Accuracy of first minus accuracy of second on the same images, paired; see ``metrics.accuracy_gap``."""
    per_example = first.per_example and second.per_example
    return metrics.accuracy_gap(first.right, second.right, per_example=per_example, seed=seed, comparisons=comparisons)


def evaluate(
    model: nn.Module, x: Tensor, y: Tensor, *, draws: int, seed: int, batch_size: int | None = None
) -> Evaluation:
    """Score single draws of ``model`` on ``x`` (B, ...) in [0, 1] with labels ``y`` (B,).

    The draws come from ``seed`` alone, whatever was computed before, and leave the model's own noise where it was.

    Args:
        model: a stochastic model; any other module is run as ``wrap(model)``.
        draws: m, fresh draws an image.
        seed: of these draws; never one that an attack or a selection has used.
        batch_size: most rows a forward pass; None is ``default_max_batch``. Halved if memory is short. With
            a kernel that numbers its random numbers (on a CPU all, on a GPU triton) it changes rounding only.

    Raises:
        ValueError: images outside [0, 1] or not finite, labels that do not fit, no draws, a model that returns NaN,
            wrong shapes, or has batch statistics on.
    """
    require_images(x)
    require_labels(y, len(x))
    if draws < 1 or (batch_size is not None and batch_size < 1):
        raise ValueError(f"draws and batch_size must be at least 1, got {draws} and {batch_size}")
    require_eval(model)
    stochastic = as_stochastic(model)

    def score(rows: int) -> Tensor:
        def block(part: slice) -> Tensor:
            return _log_probabilities(draw_logits(stochastic, x[part], draws, max_batch=rows))

        with torch.no_grad(), stochastic.seeded(seed):
            return torch.cat(in_blocks(stochastic, len(x), rows, block), 1)

    log_probabilities = halving(batch_size or default_max_batch(x.device), score)
    require_labels(y, len(x), classes=log_probabilities.shape[-1])
    return Evaluation(log_probabilities, y.cpu(), stochastic.per_example)


def _log_probabilities(logits: Tensor) -> Tensor:
    if not torch.isfinite(logits).all():
        raise ValueError("the model returned NaN or inf logits")
    return logits.float().log_softmax(-1).cpu()


def _mean_right(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    return log_mean_prob(log_probabilities.double()).argmax(-1) == labels


def _vote_right(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    classes = log_probabilities.shape[-1]
    votes = nn.functional.one_hot(log_probabilities.argmax(-1), classes).sum(0)
    mine = votes.gather(1, labels.long()[:, None])[:, 0]
    best_other = votes.scatter(1, labels.long()[:, None], -1).amax(1)
    return mine > best_other


_GROUP_RIGHT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mean_prob": _mean_right, "vote": _vote_right}
