"""The module inside our estimators: what attacks that rebuild a classifier from ``.model`` still attack."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from sap_art.attacker import AttackerView
from sap_art.defended import DefendedModel
from sap_art.foreign import ForeignModel
from sap_art.stochastic import StochasticModel, require_eval


class EstimatorModule(nn.Module):
    """A random model, or an attacker's view of it, for inputs of any number type: (B, ...) -> (B, C).

    ART makes float64 of images on its way; they are cast to the type of the weights here, where no attack can lose it.

    Args:
        inner: the random model or the view.
        probabilities: of a view, the mean softmax p itself, without a gradient (that of a loss of logits would be next
            to none), for attacks that ask for nothing else. Otherwise a view gives the logits log p + log C + 1 / C:
            NewtonFool (Jang et al. 2017, ACSAC) takes whatever it is given for
            probabilities and seeks the point where that is 1 / C. Of these it is where p is 1 / C; of log p, which is
            never positive, it would climb.

    Raises:
        ValueError: in ``forward`` of a random model, if batch normalisation is in training mode, so that images would
            see each other; or if a gradient is asked of what has none (the predictor ``vote``, probabilities).
    """

    def __init__(self, inner: StochasticModel | AttackerView, *, probabilities: bool = False) -> None:
        super().__init__()
        self.inner = inner
        self.probabilities = probabilities
        self._undefended = False

    @property
    def stochastic(self) -> StochasticModel:
        """The random model."""
        return self.inner.model if isinstance(self.inner, AttackerView) else self.inner

    @property
    def net(self) -> nn.Module:
        """The module whose layers have names: the net without the defence, or somebody else's random module."""
        model = self.stochastic
        if isinstance(model, DefendedModel):
            return model.net
        return model.module if isinstance(model, ForeignModel) else model

    def forward(self, x: Tensor) -> Tensor:
        inputs = self._cast(x)
        if self._undefended:
            return cast(Tensor, (self.stochastic.dense or self.stochastic)(inputs))
        if not self.stochastic.deterministic:
            require_eval(self)
        out = self._scores(cast(Tensor, self.inner(inputs)))
        if inputs.requires_grad and torch.is_grad_enabled() and not out.requires_grad:
            raise ValueError("votes and probabilities have no gradient: attack .attack_view() instead, of logits")
        return out

    def single(self, x: Tensor) -> Tensor:
        """One draw of the random model: (B, ...) -> (B, C), what the net gives."""
        return self.stochastic.single(self._cast(x))

    def _cast(self, x: Tensor) -> Tensor:
        return x.to(next((p.dtype for p in self.parameters() if p.is_floating_point()), torch.float32))

    def _scores(self, out: Tensor) -> Tensor:
        if not isinstance(self.inner, AttackerView):
            return out
        classes = out.shape[-1]
        return out.softmax(-1).detach() if self.probabilities else out + (math.log(classes) + 1 / classes)

    @contextmanager
    def undefended(self) -> Generator[None]:
        """Within, the net runs without the defence, where there is such a net; in the mode it is in."""
        before, self._undefended = self._undefended, True
        try:
            yield
        finally:
            self._undefended = before

    def activations(self, x: Tensor, layer: str) -> Tensor:
        """Output of the named layer, as the layers after it see it: (B, ...) -> (B, ...), mean over draws.

        Of a layer that is called more than once, the last call.

        Raises:
            ValueError: the layer is not called, or does not return a tensor.
        """
        with _recorded(self.net, self.net.get_submodule(layer)) as passes:
            self(x)
        if not passes or not all(isinstance(out, Tensor) for out in passes):
            raise ValueError(f"the layer {layer!r} is not called in every pass, or returns no tensor")
        rows = torch.cat(cast("list[Tensor]", passes))
        return rows.unflatten(0, (-1, len(x))).mean(0)


@contextmanager
def _recorded(net: nn.Module, layer: nn.Module) -> Generator[list[Any]]:
    """Within, the last output of ``layer`` in each pass of ``net`` is noted.

    The hook on the layer is put there when the pass has begun, so that it comes after those of the defence.
    """
    passes: list[Any] = []
    hooks: list[Any] = []

    def note(module: nn.Module, inputs: Any, out: Any) -> None:
        passes[-1] = out

    def begin(module: nn.Module, inputs: Any) -> None:
        passes.append(None)
        while len(hooks) > 1:
            hooks.pop().remove()
        hooks.append(layer.register_forward_hook(note))

    hooks.append(net.register_forward_pre_hook(begin))
    try:
        yield passes
    finally:
        for hook in hooks:
            hook.remove()
