"""What a run and its entries depend on, for its folder, and what else is said of a run, beside its records."""

from __future__ import annotations

import datetime
import os
import platform
from dataclasses import asdict
from typing import Any

import numpy as np
import scipy
import torch
from torch import Tensor

from sap_art import __version__, kernels
from sap_art.determinants import code_of, described, sources_of
from sap_art.devices import describe
from sap_art.entries import Entry, fingerprint
from sap_art.record import DataInfo
from sap_art.suites import Suite
from sap_art.tiers import Tier


def manifest(suite: Suite, images: DataInfo, x: Tensor) -> dict[str, Any]:
    """What must be the same for finished work to be taken up again, but for the entries, which may come and go.

    Of torch and numpy too, and of the kernel: with others the bits are others, and no record is of two of them.
    """
    return {
        **asdict(suite),
        "data": asdict(images),
        "device": x.device.type,
        "threads": torch.get_num_threads(),
        "version": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "kernel": kernels.describe(x.device),
    }


def determinants(entry: Entry, shared: dict[str, Any], tier: Tier, x: Tensor) -> dict[str, Any]:
    """All that the results of an entry depend on; models by what they compute, not by their name."""
    return {
        "entry": entry.name,
        "model": asdict(entry.model_info),
        "defence": asdict(entry.defence),
        "answers": fingerprint(entry.model, x),
        "source": sources_of(entry.model),
        "settings": {name: value for name, value in shared.items() if name not in ("name", "entries")},
        "budget": described(tier),
        "code": {**code_of("sap_art.protocol.assemble"), **code_of("sap_art.per_image")},
    }


def run_info(device: torch.device, *, seconds: float, workers: int) -> dict[str, Any]:
    """What may differ between two runs of one computation."""
    return {
        "seconds": round(seconds, 1),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": describe(device),
        "threads": torch.get_num_threads(),
        "workers": workers,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "kernel": kernels.describe(device),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "sap_art": __version__,
    }
