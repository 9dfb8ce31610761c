"""What a run is made with: device, threads, sizes, and the facts about the machine that go with its numbers."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch

from sap_art import __version__
from sap_art.devices import processor
from sap_art.randomness import make_generator

Facts = dict[str, str | int | bool | None]


@dataclass(frozen=True)
class Size:
    """How much is measured; shapes are (B, N), and r = N where nothing else is said.

    Against N, as many rows are drawn as keep B N near ``growth_elements``.
    """

    quick: bool
    rounds: int
    forward_rounds: int
    draw_shapes: tuple[tuple[int, int], ...]
    layer_shapes: tuple[tuple[int, int], ...]
    images: int
    eot_images: int
    eot_draws: tuple[int, ...]
    growth_elements: int
    growth_units: tuple[int, ...]
    growth_draws: tuple[int, ...]
    growth_rows: tuple[int, ...]


FULL = Size(
    quick=False,
    rounds=25,
    forward_rounds=9,
    draw_shapes=((64, 16384), (64, 4096)),
    layer_shapes=((256, 16384), (2048, 16384)),  # the second is larger than a GPU's caches
    images=256,
    eot_images=8,
    eot_draws=(1, 2, 5, 10, 20),
    growth_elements=2**20,
    growth_units=(10**3, 10**4, 10**5, 10**6, 10**7),
    growth_draws=(10, 10**2, 10**3, 10**4, 10**5, 10**6, 10**7),
    growth_rows=(1, 4, 16, 64, 256, 1024, 4096),
)
QUICK = Size(
    quick=True,
    rounds=3,
    forward_rounds=2,
    draw_shapes=((8, 4096),),
    layer_shapes=((16, 4096),),
    images=4,
    eot_images=2,
    eot_draws=(1, 2, 5),
    growth_elements=2**14,
    growth_units=(10**3, 10**4, 10**5),
    growth_draws=(10, 10**3, 10**5),
    growth_rows=(1, 16, 64),
)


@dataclass(frozen=True)
class Setting:
    """Where and with what the measurements are made; files go into ``output``."""

    device: torch.device
    threads: int
    size: Size
    output: Path

    @property
    def kernels(self) -> tuple[str, ...]:
        """Plain torch, and the compiled kernel of this device if there is one."""
        if self.device.type == "cuda":
            return ("torch", "auto")
        return ("torch", "numba") if find_spec("numba") else ("torch",)

    def generator(self, purpose: str) -> torch.Generator:
        """A new generator, the same for the same purpose: contestants do not share one."""
        return make_generator(self.device, 0, purpose)


def environment(setting: Setting) -> Facts:
    """Machine, versions and command line, for the head of the report."""
    return {**origin(setting.device, setting.threads), "quick": setting.size.quick}


def origin(device: torch.device, threads: int) -> Facts:
    """Where numbers come from: command line, machine, versions."""
    return {
        "command": shlex.join(["python", *sys.argv]),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "prepared": f"sap_art.process.prepare() before torch; GOMP_SPINCOUNT={os.environ.get('GOMP_SPINCOUNT')}",
        "sap_art": __version__,
        "torch": torch.__version__,
        "numba": version("numba") if find_spec("numba") else None,
        "triton": version("triton") if find_spec("triton") else None,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
