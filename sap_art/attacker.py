"""AttackerView: a gradient estimator and expectation over draws, as a plain module that any library can attack."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal, cast

import torch
from torch import Tensor, nn

from sap_art.foreign import as_stochastic
from sap_art.stochastic import default_max_batch, draw_logits, log_mean_prob

Reduce = Literal["log_mean_prob", "mean_log_prob"]


def _mean_log_prob(logits: Tensor) -> Tensor:
    return logits.log_softmax(-1).mean(0)


_REDUCE = {"log_mean_prob": log_mean_prob, "mean_log_prob": _mean_log_prob}


class AttackerView(nn.Module):
    """What an attacker differentiates: (B, ...) in [0, 1] -> (B, C) log-probabilities reduced over fresh draws.

    Expectation over transformation (Athalye et al. 2018, arXiv:1802.00420) happens inside ``forward``, so libraries
    attack this module with their own EOT switched off.

    Args:
        model: a DefendedModel, a wrapped foreign model, or any module (then only ``autograd`` is offered).
        gradient: ``bpda``, ``frozen``, ``autograd``, or ``dense`` (the deterministic counterpart is run instead).
        draws: k, independent single draws a call.
        reduce: ``log_mean_prob`` (log of the mean softmax) or ``mean_log_prob`` (mean of the log-softmax).
        max_batch: most rows a pass; None is ``default_max_batch``.

    Raises:
        ValueError: an estimator that the model does not offer, draws < 1, unknown reduction.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        gradient: str = "bpda",
        draws: int = 1,
        reduce: Reduce = "log_mean_prob",
        max_batch: int | None = None,
    ) -> None:
        super().__init__()
        self.model = as_stochastic(model)
        if gradient not in self.model.estimators:
            offered = ", ".join(self.model.estimators)
            raise ValueError(f"gradient {gradient!r} is not offered by {type(model).__name__}; offered: {offered}")
        if draws < 1 or (max_batch is not None and max_batch < 1):
            raise ValueError(f"draws and max_batch must be at least 1, got {draws} and {max_batch}")
        if reduce not in _REDUCE:
            raise ValueError(f"unknown reduction {reduce!r}; known: {', '.join(_REDUCE)}")
        self.gradient, self.draws, self.max_batch = gradient, draws, max_batch
        self.reduce: Reduce = reduce

    def logits(self, x: Tensor) -> Tensor:
        """Independent draws: (B, ...) -> (draws, B, C) logits; for ``dense`` the net runs once, all draws equal."""
        if self.gradient == "dense" and self.model.deterministic:
            # The model itself, in its own seeded scope: its backward pass may be random where its value is not.
            return draw_logits(self.model, x, 1).expand(self.draws, -1, -1)
        if self.gradient == "dense":
            return cast(Tensor, cast(nn.Module, self.model.dense)(x)).expand(self.draws, -1, -1)
        return draw_logits(self.model, x, self.draws, gradient=self.gradient, max_batch=self.max_batch)

    def images_per_pass(self, device: torch.device) -> int:
        """How many images fit into one pass with all their draws."""
        return max(1, (self.max_batch or default_max_batch(device)) // self.draws)

    def limit_images(self, images: int) -> None:
        """Put at most so many images into a pass from now on: what was found to fit."""
        self.max_batch = images * self.draws

    def forward(self, x: Tensor) -> Tensor:
        return _REDUCE[self.reduce](self.logits(x))

    @contextmanager
    def seeded(self, seed: int) -> Generator[None]:
        """Within, the model's noise runs from ``seed``; afterwards it goes on where it was."""
        with self.model.seeded(seed):
            yield

    def extra_repr(self) -> str:
        return f"gradient={self.gradient}, draws={self.draws}, reduce={self.reduce}"
