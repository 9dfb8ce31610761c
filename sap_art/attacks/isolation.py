"""Running other libraries' attacks: whatever they reseed, draw, count or write to goes back to where it was."""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sap_art.attacker import AttackerView
from sap_art.randomness import derive_seed, make_generator
from sap_art.stochastic import StochasticModel


@contextmanager
def isolated(view: AttackerView | StochasticModel, *, seed: int) -> Generator[None]:
    """Within, the noise of a view or model and the generators of torch, numpy and ``random`` run from ``seed``.

    Afterwards they are as they were, and so are the parameters' gradients and the thread's trace function. Other
    threads should not draw from the global generators meanwhile.
    """
    with view.seeded(derive_seed(seed, "view")), seeded_generators(seed), _parameter_gradients(view), _trace_function():
        yield


class Guarded(nn.Module):
    """The view, or any model, as a library sees it: (B, ...) of its float type -> (B, C) of the same type.

    NaN or inf raises FloatingPointError, in logits and in gradients: libraries replace them by zeros, stand still and
    count that as robust. The view is not a child, because libraries switch the mode of a model and zero its gradients.
    """

    def __init__(self, view: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self._hidden = (view,)
        self._dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            x = x.view_as(x)  # a tensor of this call, so that each gradient is looked at once
            x.register_hook(_require_finite)
        logits: Tensor = self._hidden[0](x.to(self._dtype))
        if not torch.isfinite(logits).all():
            raise FloatingPointError("the logits are NaN or inf: the attack cannot proceed")
        return logits.to(x.dtype)


def _require_finite(gradient: Tensor) -> None:
    if not torch.isfinite(gradient).all():
        raise FloatingPointError("the gradient is NaN or inf: the attack cannot proceed")


@contextmanager
def without_last_resort(name: str) -> Generator[None]:
    """Within, what the named logger says reaches handlers that somebody set up, and never stderr by default."""
    logger, handler = logging.getLogger(name), logging.NullHandler()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def seeded_generators(seed: int) -> Generator[None]:
    """Within, the global generators of torch, numpy and ``random`` run from ``seed``; afterwards they are as before."""
    cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002  it is these that are kept
    with torch.random.fork_rng(devices=cuda):
        torch.set_rng_state(make_generator("cpu", seed, "torch").get_state())
        for device in cuda:
            torch.cuda.set_rng_state(make_generator(f"cuda:{device}", seed, "torch").get_state(), device)
        bits: Any = np.random.MT19937(derive_seed(seed, "numpy")).state
        np.random.set_state(bits)  # noqa: NPY002
        random.setstate(random.Random(derive_seed(seed, "random")).getstate())
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)


@contextmanager
def _parameter_gradients(module: nn.Module) -> Generator[None]:
    parameters = list(module.parameters())
    before = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in zip(parameters, before, strict=True):
            parameter.grad = gradient


@contextmanager
def _trace_function() -> Generator[None]:
    before = sys.gettrace()
    try:
        yield
    finally:
        sys.settrace(before)
