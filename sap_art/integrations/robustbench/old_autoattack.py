"""The package autoattack, which robustbench 1.1.1 imports, made of pyautoattack, which PyPI has."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn


def stand_ins() -> dict[str, ModuleType]:
    """What ``sys.modules`` needs for ``import autoattack``; raises ImportError without pyautoattack."""
    base = importlib.import_module("pyautoattack")
    state = importlib.import_module("pyautoattack.state")
    package = stand_in("autoattack", AutoAttack=_old_signature(base.AutoAttack), state=state, __path__=[])
    return {"autoattack": package, "autoattack.state": state}


def stand_in(name: str, **contents: object) -> ModuleType:
    """A module made here, with these contents."""
    module = ModuleType(name, "Stands in for the package of this name; made by sap_art.")
    module.__dict__.update(contents)
    return module


def _old_signature(new: type[Any]) -> type[Any]:
    """AutoAttack called the old way, on pyautoattack's."""

    class AutoAttack(new):
        def __init__(
            self,
            model: nn.Module | Callable[[Tensor], Tensor],
            norm: str = "Linf",
            eps: float = 0.3,
            seed: int | None = None,
            verbose: bool = True,
            attacks_to_run: Sequence[str] = (),
            version: str = "standard",
            *,
            device: torch.device | str = "cpu",
            log_path: str | Path | None = None,
        ) -> None:
            attacks = list(attacks_to_run) or None
            super().__init__(model, attacks=attacks, device=device, eps=eps, norm=norm, seed=seed, version=version)
            self.verbose = verbose
            self.log_path = log_path

        def run_standard_evaluation(
            self,
            x_orig: Tensor,
            y_orig: Tensor,
            bs: int = 250,
            return_labels: bool = False,
            state_path: Path | None = None,
            *,
            batch_size: int | None = None,
        ) -> Any:
            """The new way of calling it, with ``batch_size``, is how pyautoattack calls itself."""
            if state_path is not None:
                raise ValueError("pyautoattack loses its state file after the last attack; leave state_path at None")
            with _logged_to(self.log_path):
                both = super().run_standard_evaluation(x_orig, y_orig, batch_size=batch_size or bs)
            return both if return_labels or batch_size else both[0]

        def run_standard_evaluation_individual(
            self, x_orig: Tensor, y_orig: Tensor, bs: int = 250, return_labels: bool = False
        ) -> dict[str, Any]:
            both = super().run_standard_evaluation_individual(x_orig, y_orig, batch_size=bs)
            return both if return_labels else {attack: x_adv for attack, (x_adv, _) in both.items()}

    return AutoAttack


@contextmanager
def _logged_to(path: str | Path | None) -> Generator[None]:
    """Within, what pyautoattack reports is appended to the file."""
    if path is None:
        yield
        return
    logger = logging.getLogger("auto-attack")
    level, handler = logger.level, logging.FileHandler(path)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()
