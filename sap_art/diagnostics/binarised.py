"""A random model whose last linear layer is replaced by a readout of two classes; all else stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sap_art.stochastic import StochasticModel, default_max_batch, draw_logits


class Binarised(StochasticModel):
    """``model`` with its last linear layer replaced by a readout: (B, ...) -> (B, 2) logits (0, score).

    It has the noise, the estimators and, where that runs the same layer, the dense counterpart of ``model``.

    Args:
        head: the layer inside ``model``, as ``last_linear`` finds it.
        weight, bias: (D,) and a number; the score is w.f + b of the layer's features f.
    """

    def __init__(self, model: StochasticModel, head: nn.Linear, *, weight: Tensor, bias: float) -> None:
        super().__init__(seed=0, per_example=model.per_example)
        self.noise = model.noise
        self.model, self.head, self.weight, self.bias = model, head, weight, bias

    @property
    def dense(self) -> nn.Module | None:
        dense = self.model.dense
        return None if dense is None or self.head not in dense.modules() else _Dense(self, dense)

    @property
    def deterministic(self) -> bool:
        return self.model.deterministic

    @property
    def estimators(self) -> tuple[str, ...]:
        return tuple(name for name in self.model.estimators if name != "dense" or self.dense is not None)

    def single(self, x: Tensor, *, gradient: str | None = None) -> Tensor:
        with self.replaced():
            return self.model.single(x, gradient=gradient)

    def forward(self, x: Tensor) -> Tensor:
        return self.single(x)

    @contextmanager
    def replaced(self) -> Generator[None]:
        """Within, the layer answers with the readout's logits."""

        def answer(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor:
            score = F.linear(inputs[0], self.weight.to(inputs[0])[None]) + self.bias
            return torch.cat([torch.zeros_like(score), score], 1)

        with _hook(self.head, answer):
            yield


class _Dense(nn.Module):
    """The dense net under the same readout."""

    def __init__(self, binarised: Binarised, dense: nn.Module) -> None:
        super().__init__()
        self.binarised, self.dense = binarised, dense

    def forward(self, x: Tensor) -> Tensor:
        with self.binarised.replaced():
            return cast(Tensor, self.dense(x))


@torch.no_grad()
def last_linear(model: StochasticModel, x: Tensor) -> nn.Linear:
    """The linear layer that runs last when ``model`` is called on images ``x`` (B, ...).

    Raises:
        ValueError: no linear layer ran on (B, D) features.
    """
    called: list[nn.Linear] = []

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if inputs[0].ndim == 2 and len(inputs[0]) == len(x):
            called.append(cast(nn.Linear, module))

    handles = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, nn.Linear)]
    try:
        model.single(x)
    finally:
        for handle in handles:
            handle.remove()
    if not called:
        raise ValueError("planting needs a net that ends in torch.nn.Linear on (B, D) features; none was called")
    return called[-1]


@torch.no_grad()
def draw_features(model: StochasticModel, head: nn.Linear, x: Tensor, *, draws: int) -> Tensor:
    """What ``head`` is given in each of ``draws`` draws: (B, ...) -> (draws, B, D) float64."""
    seen: list[Tensor] = []
    parts: list[Tensor] = []
    for part in x.split(default_max_batch(x.device)):
        seen.clear()
        with _hook(head, lambda module, inputs, output: seen.append(inputs[0].double())):
            draw_logits(model, part, draws)
        parts.append(torch.cat(seen).view(draws, len(part), -1))
    return torch.cat(parts, 1)


@contextmanager
def _hook(module: nn.Module, function: Callable[..., Tensor | None]) -> Generator[None]:
    handle = module.register_forward_hook(function)
    try:
        yield
    finally:
        handle.remove()
