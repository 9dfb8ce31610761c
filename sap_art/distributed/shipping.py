"""What travels to the nodes: the run once, each entry once, models with their weights and the code of a user's file."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, cast

import numpy as np
import torch

from sap_art import __version__, kernels
from sap_art.blueprint import Blueprint, Images
from sap_art.entries import Entry, net_of
from sap_art.record import DefenceInfo, ModelInfo
from sap_art.references import USERS
from sap_art.stochastic import StochasticModel
from sap_art.store import weights_sha256


class Setting(NamedTuple):
    """What the bits of a unit depend on, besides the machine: the same in every process of a run."""

    sap_art: str
    torch: str
    numpy: str
    kernel: str

    @classmethod
    def here(cls, device: torch.device) -> Setting:
        """That of this process."""
        return cls(__version__, torch.__version__, np.__version__, kernels.describe(device))


@dataclass(frozen=True)
class Run:
    """What all units of a run share; the images are on the CPU while they travel."""

    blueprint: Blueprint
    images: Images
    setting: Setting
    threads: int


@dataclass(frozen=True)
class Shipment:
    """An entry whose model, as nobody has called it yet, is pickled on the CPU."""

    name: str
    model: bytes
    classes: int
    model_info: ModelInfo
    defence: DefenceInfo

    @classmethod
    def of(cls, entry: Entry) -> Shipment:
        """An entry to be shipped; raises ValueError if it cannot be pickled, or is another model each time."""
        model = deepcopy(entry.anew()).cpu()  # entries may share a net, and the others' stays where it is
        found = weights_sha256(net_of(model))
        if found != entry.model_info.weights_sha256:
            raise ValueError(
                f"{entry.model_info.name} is another model each time that it is made (weights "
                f"{entry.model_info.weights_sha256} first, {found} then): have it read its weights from a file, or "
                "give --executor local --workers 1"
            )
        return cls(entry.name, packed(model, entry.name), entry.classes, entry.model_info, entry.defence)

    def unpack(self, device: torch.device) -> Entry:
        """The entry on the node's device."""
        anew = partial(_unpacked, self.model, device)
        return Entry(self.name, anew(), self.classes, self.model_info, self.defence, anew)


def packed(model: StochasticModel, name: str) -> bytes:
    """The model pickled, with the code of a user's FILE.py and of the modules beside it; ValueError if it cannot be.

    What else it is made of must be installed on the nodes.
    """
    from ray import cloudpickle
    from ray.cloudpickle.cloudpickle import dumps

    with _by_value(cloudpickle):
        try:
            return dumps(model)
        except Exception as error:  # whatever an object of the user's raises when it is pickled
            raise ValueError(
                f"{name} cannot be sent to the nodes of a cluster ({type(error).__name__}: {error}): make it of what "
                "can be pickled, or give --executor local"
            ) from error


@contextmanager
def _by_value(cloudpickle: ModuleType) -> Generator[None]:
    """Within, the modules of users' files and those beside them are pickled whole, not by name."""
    folders = {path.parent for module, path in _loaded() if module.__name__.startswith(USERS)}
    with ExitStack() as stack:
        for module, path in _loaded():
            if path.parent in folders and module.__name__ != "__main__":
                cloudpickle.register_pickle_by_value(module)
                stack.callback(cloudpickle.unregister_pickle_by_value, module)
        yield


def _loaded() -> list[tuple[ModuleType, Path]]:
    found = [(module, getattr(module, "__file__", None)) for module in list(sys.modules.values())]
    return [(module, Path(file)) for module, file in found if isinstance(file, str)]


def _unpacked(model: bytes, device: torch.device) -> StochasticModel:
    from ray import cloudpickle

    return cast(StochasticModel, cloudpickle.loads(model)).to(device)
