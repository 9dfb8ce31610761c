"""Models by reference, as suites and ``--model`` name them: those of ``zoo.load_model``, and RobustBench's."""

from __future__ import annotations

from functools import lru_cache

from torch import nn

from sap_art import zoo
from sap_art.integrations import robustbench
from sap_art.references import ROBUSTBENCH


class Loader:
    """Loads nets by reference: as ``zoo.load_model``, and ``robustbench:ID`` from RobustBench's CIFAR-10 Linf zoo.

    Of the latter the last one stays, for the entries of a suite that name it one after the other; their checkpoints are
    looked for, and downloaded to, where RobustBench has them: ``models/cifar10/Linf`` below the working directory.
    """

    def __init__(self) -> None:
        self._shared = lru_cache(maxsize=1)(robustbench.load_model)

    def __call__(self, reference: str) -> nn.Module:
        """The net; raises what ``zoo.load_model`` or ``robustbench.load_model`` raise, ValueError for an unknown ID."""
        zoo_id = robustbench_id(reference)
        return zoo.load_model(reference) if zoo_id is None else self._shared(zoo_id)


def robustbench_id(reference: str) -> str | None:
    """The ID in ``robustbench:ID``, None for any other reference; raises ValueError for one that is not in the zoo."""
    if not reference.startswith(ROBUSTBENCH):
        return None
    return robustbench.zoo_model(reference.removeprefix(ROBUSTBENCH)).id
