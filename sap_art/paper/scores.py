"""Scores of a defender's fresh draws at several radii, image by image, as units of a store have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sap_art import metrics
from sap_art.evaluation import Evaluation, evaluate
from sap_art.metrics import Estimate
from sap_art.paper.results import Score
from sap_art.protocol.confidence import calibration_of
from sap_art.record_parts import Calibration, Value
from sap_art.stochastic import StochasticModel
from sap_art.store import Unit


@dataclass(frozen=True)
class Scores:
    """By radius: ``right`` (m, B) bool of the draws and ``log_mean`` (B, C), the logarithm of their mean softmax."""

    right: Mapping[int, Tensor]
    log_mean: Mapping[int, Tensor]
    labels: Tensor
    per_example: bool

    def with_clean(self, clean: Scores) -> Scores:
        """These radii after those of ``clean``, on the images that both have."""
        clean = clean.first(len(self.labels))
        return replace(self, right={**clean.right, **self.right}, log_mean={**clean.log_mean, **self.log_mean})

    def first(self, images: int) -> Scores:
        """The same on the first images alone."""
        return replace(
            self,
            right={lam: right[:, :images] for lam, right in self.right.items()},
            log_mean={lam: log_mean[:images] for lam, log_mean in self.log_mean.items()},
            labels=self.labels[:images],
        )

    def mean_right(self, lam: int) -> Tensor:
        """(B,) bool: whether the mean prediction is right."""
        return self.log_mean[lam].argmax(-1) == self.labels

    def score(self, lam: int, *, seed: int) -> Score:
        """Accuracies at a radius. ``seed`` is of the bootstrap over draws that images share.

        The intervals of ``mean`` and ``every`` are over images: of the m draws together there is one set.
        """
        right = self.right[lam]
        single = (
            metrics.accuracy(right.sum(0), len(right))
            if self.per_example
            else metrics.shared_noise_accuracy(right, seed=seed)
        )
        mean, every = (metrics.accuracy(kept.long(), 1) for kept in (self.mean_right(lam), right.all(0)))
        return Score(value_of(single), value_of(mean), value_of(every))

    def calibration(self, lam: int, *, seed: int) -> Calibration:
        """Calibration of the mean prediction, with its reliability bins."""
        found = calibration_of(
            Evaluation(self.log_mean[lam][None], self.labels, self.per_example), seed=seed, fit_on=None
        )
        return replace(found, draws=len(self.right[lam]))


def more(first: Scores, second: Scores, lam: int, *, seed: int) -> Value:
    """Accuracy of first minus accuracy of second, of their mean predictions on the images that both have."""
    shares = [side.mean_right(lam).double().numpy() for side in (first, second)]
    images = min(map(len, shares))
    return value_of(metrics.paired_difference(shares[0][:images], shares[1][:images], seed=seed))


def draw_scores(model: StochasticModel, points: Tensor, y: Tensor, *, draws: int, seed: int) -> tuple[Tensor, Tensor]:
    """Of fresh draws: right (m, B) bool, log of the mean softmax (B, C) float64; m = 1 if nothing is random."""
    found = evaluate(model, points, y, draws=1 if model.deterministic else draws, seed=seed)
    return found.right, found.log_probabilities


def to_unit(scored: Mapping[int, tuple[Tensor, Tensor]]) -> Unit:
    """As a store keeps it: radii in order, right (L, m, B), log_mean (L, B, C)."""
    return {
        "lambdas": torch.tensor(list(scored)),
        "right": torch.stack([right for right, _ in scored.values()]),
        "log_mean": torch.stack([log_mean for _, log_mean in scored.values()]),
    }


def joined(units: Sequence[Unit], y: Tensor, *, per_example: bool) -> Scores:
    """Units of successive blocks of images as one."""
    lambdas = [int(lam) for lam in units[0]["lambdas"]]
    right, log_mean = torch.cat([u["right"] for u in units], 2), torch.cat([u["log_mean"] for u in units], 1)
    return Scores(
        dict(zip(lambdas, right, strict=True)),
        dict(zip(lambdas, log_mean, strict=True)),
        y[: right.shape[2]].cpu(),
        per_example,
    )


def value_of(estimate: Estimate) -> Value:
    """As results have it."""
    return Value(estimate.value, estimate.low, estimate.high)
