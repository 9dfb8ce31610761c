"""One draw of the keep-set: ours beside drawing one by one, a Bernoulli layer written from the formula, and dropout."""

from __future__ import annotations

from functools import partial

import torch
from peers import bernoulli, multinomial
from ratios import Against, Row, Section, compare
from setting import Setting
from timing import Work, race, using_threads
from torch import Tensor
from torch.nn import functional as F

from sap_art.sampling import keep_set

NAIVE, PEER, DROPOUT = "torch.multinomial + scatter", "Bernoulli from the formula", "dropout"
METHODS = ("multinomial", "bernoulli")
TARGETS = {"torch": 10.0, "numba": 40.0}
"""How many times faster than ``NAIVE``, by kernel, on one thread of a CPU."""


def measure(setting: Setting) -> Section:
    rows: list[Row] = []
    for shape in setting.size.draw_shapes:
        weights = relu_of_normals(shape, setting)
        for threads in _threads(setting):
            rows += _rows(weights, setting, threads)
    note = "Targets are for one thread of a CPU. A draw is a mask of bool; dropout also multiplies."
    return Section("draw", "One draw of the keep-set", "ms", tuple(rows), note)


def relu_of_normals(shape: tuple[int, int], setting: Setting) -> Tensor:
    """Weights (B, N) of which about half are zero."""
    return torch.randn(shape, generator=setting.generator("weights"), device=setting.device).relu_()


def _threads(setting: Setting) -> list[int]:
    return [setting.threads] if setting.device.type == "cuda" else sorted({1, setting.threads})


def _rows(weights: Tensor, setting: Setting, threads: int) -> list[Row]:
    rows, units = weights.shape
    case = {"B": rows, "N": units, "r": units, "threads": threads}
    with using_threads(threads):
        times = race(_contestants(weights, setting), rounds=setting.size.rounds, device=setting.device)
    targeted = threads == 1 and setting.device.type == "cpu"
    targets = {_name(method, kernel): TARGETS[kernel] for method in METHODS for kernel in setting.kernels if targeted}
    return compare(case, times, [Against(NAIVE, faster=True, targets=targets), Against(PEER, faster=True)])


def _contestants(weights: Tensor, setting: Setting) -> dict[str, Work]:
    draws, new = weights.shape[1], partial(setting.generator, "draws")
    ours: dict[str, Work] = {
        _name(method, kernel): partial(keep_set, weights, draws, new(), method=method, kernel=kernel)
        for method in METHODS
        for kernel in setting.kernels
    }
    return {
        NAIVE: partial(multinomial, weights, draws, new()),
        PEER: partial(bernoulli, weights, draws, new()),
        DROPOUT: partial(F.dropout, weights),
        **ours,
    }


def _name(method: str, kernel: str) -> str:
    return f"sap_art {method}, {kernel}"
