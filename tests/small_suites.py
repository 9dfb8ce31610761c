"""Suites that take a second: linear nets in a user's file, whose misbehaviour is switched on by files beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from sap_art.suites import Suite, SuiteEntry
from sap_art.tiers import TIERS

NETS = """
from pathlib import Path
import torch
from torch import nn

HERE = Path(__file__).parent

def linear(seed):
    net = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 10))
    generator = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator) / p.shape[-1] ** 0.5
    return net.eval()

def one():
    return linear(1)

def two():
    return linear(int((HERE / "weights").read_text()))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = linear(3)

    def forward(self, x):
        attacked = x.requires_grad and ((x * 255 - (x * 255).round()).abs() > 1e-3).any()
        if (HERE / "fail").exists() and attacked and (x.flatten(1).mean(1) > 0.9).any():
            raise OverflowError("a bright image")
        if (HERE / "small").exists() and len(x) > 13:
            raise torch.OutOfMemoryError(f"no memory for {len(x)} images")
        return self.net(x)

def net():
    return Net().eval()

class NoDraws(Net):
    def forward(self, x):
        if (HERE / "fail").exists() and not x.requires_grad and len(x) > 60:
            raise OverflowError("too many images")
        return self.net(x)

def no_draws():
    return NoDraws().eval()
"""
SMOKE = replace(TIERS["smoke"], noise_points=2, draws=2, steps=2, report_draws=10)
IMAGES = 66
"""Two blocks of them, the second one bright."""


def put(folder: Path) -> Path:
    """The user's files: ``nets.py``, its weights, and images; returns the folder."""
    (folder / "nets.py").write_text(NETS)
    (folder / "weights").write_text("2")
    images = np.random.default_rng(0).random((IMAGES, 3, 32, 32), dtype=np.float32) * 0.8
    images[64:] = 0.95
    np.savez(folder / "images.npz", images=images, labels=np.arange(IMAGES) % 10)
    return folder


def suite(folder: Path, *names: str, images: int = 3, **settings: str | int) -> Suite:
    """A suite of these functions; ``one+sap:100`` is one under a policy."""
    entries = [
        SuiteEntry(f"{folder / 'nets.py'}:{name}", policy or None)
        for name, _, policy in (n.partition("+") for n in names)
    ]
    return Suite("small", "smoke", entries, images=images, **settings)  # type: ignore[arg-type]


def results(folder: Path) -> dict[str, bytes]:
    """Records and what is beside them, but what says when and where."""
    files = [*folder.glob("records/*"), *folder.glob("model_info/**/*.json")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files if not p.name.endswith(".run.json")}


def units(folder: Path) -> dict[str, int]:
    """Finished units, with the time at which each was written."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.glob("work/**/*.safetensors")}
