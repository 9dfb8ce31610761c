"""RobustBench: what must be mended before its 1.1.1 can be used at all, mended only while we use it."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

_INSTALL = "pip install 'sap_art[robustbench]'"
_IMPORTING = threading.RLock()


@contextmanager
def repaired() -> Generator[ModuleType]:
    """Within, RobustBench works; gives the imported module, which goes on working afterwards.

    A repair is a no-op where the thing itself is installed; what it put into ``sys.modules`` is taken out on exit.

    Raises:
        ImportError: robustbench or pyautoattack is not installed.
    """
    if not _is_importable("robustbench"):
        raise ImportError(f"needs robustbench: {_INSTALL}")
    with ExitStack() as undo:
        with _IMPORTING:  # another thread's repair must not end while this one imports
            for repair in (_repair_pkg_resources, _repair_autoattack):
                undo.enter_context(repair())
            robustbench = importlib.import_module("robustbench")
        yield robustbench


# Repairs of the import.


@contextmanager
def _repair_pkg_resources() -> Generator[None]:
    """Setuptools 82 dropped pkg_resources. Can go when robustbench no longer imports it."""
    with _modules_added({} if _is_importable("pkg_resources") else {"pkg_resources": _pkg_resources()}):
        yield


@contextmanager
def _repair_autoattack() -> Generator[None]:
    """PyPI has autoattack only as pyautoattack. Can go when robustbench imports that name."""
    with _modules_added({} if _is_importable("autoattack") else _autoattack()):
        yield


def _pkg_resources() -> ModuleType:
    """The one function of pkg_resources that robustbench calls."""

    def resource_filename(module: str, path: str) -> str:
        return str(Path(importlib.import_module(module).__file__ or "").parent / path)

    return _module("pkg_resources", resource_filename=resource_filename)


def _autoattack() -> dict[str, ModuleType]:
    """The package pyautoattack under the name and with the signature of autoattack."""
    try:
        base = importlib.import_module("pyautoattack")
        state = importlib.import_module("pyautoattack.state")
    except ImportError as error:
        raise ImportError(f"robustbench needs pyautoattack: {_INSTALL}") from error
    package = _module("autoattack", AutoAttack=_old_signature(base.AutoAttack), state=state, __path__=[])
    return {"autoattack": package, "autoattack.state": state}


def _old_signature(new: type[Any]) -> type[Any]:
    """AutoAttack called the old way, on pyautoattack's. Can go when robustbench calls it the new way."""

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


# Tools for repairs.


def _is_importable(name: str) -> bool:
    return isinstance(sys.modules.get(name), ModuleType) or importlib.util.find_spec(name) is not None


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


def _module(name: str, **contents: object) -> ModuleType:
    module = ModuleType(name, "Stands in for the package of this name; made by sap_art.")
    module.__dict__.update(contents)
    return module


@contextmanager
def _modules_added(modules: dict[str, ModuleType]) -> Generator[None]:
    """Within, these are importable; afterwards their names are free again."""
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in modules.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
