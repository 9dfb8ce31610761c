"""Devices by name."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path

import torch


def require_device(name: str) -> torch.device:
    """The device of that name; raises ValueError if this machine lacks it."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {name!r} is not available here: {error}") from error
    return device


def same_each_time() -> AbstractContextManager[None]:
    """Within, cuDNN takes algorithms that give the same bits each time."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)


def describe(device: torch.device) -> str:
    """The kind of GPU, or of processor with the instructions that torch uses of it: ``AMD EPYC, AVX2``.

    The bits of a result depend on it, its law does not.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {torch.backends.cpu.get_cpu_capability()}"


@cache
def processor() -> str:
    """The kind of this machine's processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
