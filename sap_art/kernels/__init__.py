"""How a draw is computed: by torch operations anywhere, compiled by numba for CPUs.

A kernel is a module with ``keep_set``, ``keep_scale`` and ``prune`` that take rows of weights (B, N), the number of
draws, a generator and the method, and follow the laws of ``sap_art.sampling``. They agree in law, not in their bits.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Protocol, cast

import torch
from torch import Tensor

KERNELS = ("auto", "torch", "numba")
"""Names for users; ``auto`` takes the fastest that is installed and fits."""


class Kernel(Protocol):
    """What a kernel module offers; rows with NaN or inf raise ValueError."""

    def keep_set(self, h: Tensor, draws: int, generator: torch.Generator, *, method: str) -> Tensor:
        """Which units are kept: (B, N) -> (B, N) bool."""
        ...

    def keep_scale(self, h: Tensor, draws: int, generator: torch.Generator, *, method: str) -> Tensor:
        """keep / q: (B, N) -> (B, N), float32 or wider."""
        ...

    def prune(self, h: Tensor, draws: int, generator: torch.Generator, *, method: str) -> Tensor:
        """h * keep / q: (B, N) -> (B, N), float32 or wider."""
        ...


def choose(h: Tensor, name: str = "auto") -> Kernel:
    """The kernel of that name for a tensor of this type and device.

    Raises:
        ValueError: unknown name, a kernel that is not installed, or one that cannot take this tensor.
    """
    check_kernel(name)
    fits = h.device.type == "cpu" and h.dtype != torch.float64
    if name == "auto":
        name = "numba" if fits and _installed("numba") else "torch"
    elif name == "numba" and not fits:
        raise ValueError(f"the numba kernel works on a CPU in float32 or less, got {h.dtype} on {h.device.type}")
    return _load(name)


def check_kernel(name: str) -> None:
    """Raise ValueError for a name that is not in ``KERNELS`` or whose library is not installed."""
    if name not in KERNELS:
        raise ValueError(f"unknown kernel {name!r}; known: {', '.join(KERNELS)}")
    if name == "numba" and not _installed("numba"):
        raise ValueError("the numba kernel needs numba: pip install 'sap-art[fast]', or choose the kernel 'torch'")


def describe() -> str:
    """What ``auto`` takes for float32 on a CPU, with its version: part of what makes a draw's bits."""
    return f"numba {version('numba')}" if _installed("numba") else f"torch {torch.__version__}"


@cache
def _installed(package: str) -> bool:
    return find_spec(package) is not None


@cache
def _load(name: str) -> Kernel:
    module = {"torch": "sap_art.kernels.plain", "numba": "sap_art.kernels.compiled"}[name]
    return cast(Kernel, import_module(module))
