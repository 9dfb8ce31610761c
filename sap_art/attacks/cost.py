"""Forward and backward passes, counted at the net itself: what an attack really spent."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sap_art.defended import DefendedModel
from sap_art.foreign import ForeignModel
from sap_art.stochastic import StochasticModel


@dataclass
class Passes:
    """Images put through the net forwards and backwards so far; one draw of one image counts one."""

    forwards: int = 0
    backwards: int = 0


@contextmanager
def count_passes(model: StochasticModel, report: Callable[[int], None] = lambda rows: None) -> Generator[Passes]:
    """Within, count the passes through the net inside ``model`` and its dense counterpart; ``report`` hears each."""
    passes = Passes()

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        rows = len(output)
        passes.forwards += rows
        report(rows)
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(lambda gradient: backward(rows))

    def backward(rows: int) -> None:
        passes.backwards += rows
        report(rows)

    handles = [net.register_forward_hook(after) for net in _nets(model)]
    try:
        yield passes
    finally:
        for handle in handles:
            handle.remove()


def _nets(model: StochasticModel) -> list[nn.Module]:
    """The modules whose calls are passes, each once."""
    inner: list[nn.Module | None] = [model.dense]
    if isinstance(model, DefendedModel):
        inner.append(model.net)
    elif isinstance(model, ForeignModel):
        inner.append(model.module)
    return list({id(net): net for net in inner if net is not None}.values())
