"""How a draw is computed: by torch operations anywhere, compiled by numba for CPUs and by Triton for GPUs.

A kernel is a module that takes rows of weights (B, N), the number of draws, a generator and the method, and follows the
laws of ``sap_art.sampling``. Kernels agree in law, not in their bits.
"""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Protocol, cast

import torch
from torch import Tensor

KERNELS = ("auto", "torch", "numba", "triton")
"""Names for users; ``auto`` takes the fastest that is installed and fits."""

_MODULES = {"torch": "plain", "numba": "compiled", "triton": "fused"}
_MISSING = {
    "numba": "the numba kernel needs numba: pip install 'sap-art[fast]'",
    "triton": "the triton kernel needs triton, which comes with torch for CUDA on Linux",
}


class Kernel(Protocol):
    """What a kernel module offers. Rows with NaN or inf raise ValueError; on a GPU they may come out as NaN instead."""

    def keep_set(self, h: Tensor, draws: int, generator: torch.Generator, *, method: str) -> Tensor:
        """Which units are kept: (B, N) -> (B, N) bool."""
        ...

    def prune(
        self, h: Tensor, draws: int, generator: torch.Generator, *, method: str, keep: Tensor | None = None
    ) -> Tensor:
        """h keep / q: (B, N) -> (B, N), float32 or wider; the keep-set into ``keep`` (B, N) bool, if given."""
        ...

    def prune_gradient(
        self, h: Tensor, keep: Tensor, gradient: Tensor, draws: int, *, method: str, held: bool
    ) -> Tensor:
        """The gradient by h of h keep / q from its own, the keep-set held, and 1 / q too if ``held``: all (B, N)."""
        ...


def choose(h: Tensor, name: str = "auto") -> Kernel:
    """The kernel of that name for a tensor of this type and device.

    Raises:
        ValueError: unknown name, a kernel that is not installed, or one that cannot take this tensor.
    """
    check_kernel(name)
    if name == "auto":
        return _load("torch" if h.dtype == torch.float64 else _automatic(h.device))
    if not _fits(h, name):
        where = "a CPU" if name == "numba" else "a GPU"
        raise ValueError(f"the {name} kernel works on {where} in float32 or less, got {h.dtype} on {h.device.type}")
    return _load(name)


def _fits(h: Tensor, name: str) -> bool:
    interpreted = name == "triton" and os.environ.get("TRITON_INTERPRET") == "1"
    device = {"numba": "cpu", "triton": h.device.type if interpreted else "cuda"}
    return name == "torch" or (h.device.type == device[name] and h.dtype != torch.float64)


def check_kernel(name: str) -> None:
    """Raise ValueError for a name that is not in ``KERNELS`` or whose library is not installed."""
    if name not in KERNELS:
        raise ValueError(f"unknown kernel {name!r}; known: {', '.join(KERNELS)}")
    if name not in ("auto", "torch") and not _installed(name):
        raise ValueError(f"{_MISSING[name]}, or choose the kernel 'torch'")


def describe(device: torch.device) -> str:
    """What ``auto`` takes for float32 on this device, with its version: part of what makes a draw's bits."""
    name = _automatic(device)
    return f"{name} {torch.__version__ if name == 'torch' else version(name)}"


def _automatic(device: torch.device) -> str:
    name = {"cpu": "numba", "cuda": "triton"}.get(device.type, "torch")
    return name if _installed(name) else "torch"


@cache
def _installed(package: str) -> bool:
    return find_spec(package) is not None


@cache
def _load(name: str) -> Kernel:
    return cast(Kernel, import_module(f"sap_art.kernels.{_MODULES[name]}"))
