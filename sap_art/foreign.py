"""Foreign random models: any module that draws from torch's global generator, run as a StochasticModel."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from sap_art.stochastic import StochasticModel


class ForeignModel(StochasticModel):
    """A module of somebody else's, run in a forked scope of torch's global generator; see ``wrap``."""

    def __init__(self, module: nn.Module, dense: nn.Module | None, *, per_example: bool, seed: int | None) -> None:
        super().__init__(seed=seed, per_example=per_example)
        self.module = module
        self._own_dense = None if dense is module else dense  # the module itself is not registered twice
        self._is_dense = dense is module

    @property
    def dense(self) -> nn.Module | None:
        return self.module if self._is_dense else self._own_dense

    @property
    def deterministic(self) -> bool:
        return self._is_dense

    @property
    def estimators(self) -> tuple[str, ...]:
        return ("autograd",) if self.dense is None else ("autograd", "dense")

    def single(self, x: Tensor, *, gradient: str | None = None) -> Tensor:
        if gradient not in (None, "autograd"):
            raise ValueError(f"gradient {gradient!r} is not offered by a wrapped module; offered: {self.estimators}")
        with self.noise.call(), self._forked(x):
            return cast(Tensor, self.module(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.single(x)

    @contextmanager
    def _forked(self, x: Tensor) -> Generator[None]:
        """Within, the global generators run from this model's noise; afterwards they are as they were."""
        cuda = [x.device] if x.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.set_rng_state(self.noise.stream(torch.device("cpu"), rows=len(x), batch=len(x)).get_state())
            for device in cuda:
                torch.cuda.set_rng_state(self.noise.stream(device, rows=len(x), batch=len(x)).get_state(), device)
            yield


def wrap(
    module: nn.Module, dense: nn.Module | None = None, *, per_example: bool = True, seed: int | None = None
) -> ForeignModel:
    """Run any ``nn.Module`` (B, ...) -> (B, C) logits as a stochastic model.

    It may draw from torch's global generator: each call runs in a forked scope of it with the model's own state, so
    calls are reproducible and nobody else's random numbers are touched. Randomness from numpy or the standard
    library is not controlled. The only random gradient estimator is ``autograd``; ``dense`` is offered if the
    deterministic counterpart is given (``wrap(net, dense=net)`` for a net without a defence). ``per_example``
    declares that each image of a batch has noise of its own.
    """
    return ForeignModel(module, dense, per_example=per_example, seed=seed)


def as_stochastic(model: nn.Module) -> StochasticModel:
    """``model`` itself if it is stochastic already, else ``wrap(model)`` (seeded by the caller before use)."""
    return model if isinstance(model, StochasticModel) else wrap(model)
