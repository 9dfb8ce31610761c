"""Devices by name."""

from __future__ import annotations

import torch


def require_device(name: str) -> torch.device:
    """The device of that name; raises ValueError if this machine lacks it."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {name!r} is not available here: {error}") from error
    return device
