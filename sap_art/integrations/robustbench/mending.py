"""The repairs themselves: within each, one break of RobustBench is mended; afterwards everything is as it was."""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sap_art.integrations.robustbench.installed import AUTOATTACKS, loses_tracing
from sap_art.integrations.robustbench.old_autoattack import stand_in, stand_ins

_DEPRECATED = (
    "'saved_variables' is deprecated",
    r"Importing from timm\.models\.",
    r"`torch\.jit\.interface` is deprecated",
)


@contextmanager
def replaced(owner: object, name: str, value: object) -> Generator[None]:
    """Within, ``owner.name`` is ``value``."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def pkg_resources_added() -> Generator[None]:
    """``pkg_resources`` can be imported, with the one function that robustbench takes from it."""

    def resource_filename(module: str, path: str) -> str:
        return str(Path(importlib.import_module(module).__file__ or "").parent / path)

    with _modules_added({"pkg_resources": stand_in("pkg_resources", resource_filename=resource_filename)}):
        yield


@contextmanager
def autoattack_added() -> Generator[None]:
    """``autoattack`` can be imported: pyautoattack with the old calls."""
    with _modules_added(stand_ins()):
        yield


@contextmanager
def tracing_kept() -> Generator[None]:
    """AutoAttack's check for dynamic defences leaves the trace function as it was, and counts from zero."""
    with ExitStack() as undo:
        for package in filter(loses_tracing, AUTOATTACKS):
            checks = importlib.import_module(f"{package}.checks")
            undo.enter_context(replaced(checks, "check_dynamic", _polite(checks.check_dynamic, checks.funcs)))
        yield


def _polite(check_dynamic: Callable[..., Any], calls: dict[str, int]) -> Callable[..., Any]:
    """The check for dynamic defences, which counts ``calls`` by a trace function, of this model alone."""

    def check(*args: Any, **kwargs: Any) -> Any:
        before = sys.gettrace()
        calls.update(dict.fromkeys(calls, 0))
        try:
            return check_dynamic(*args, **kwargs)
        finally:
            sys.settrace(before)
            calls.update(dict.fromkeys(calls, 0))

    return check


@contextmanager
def weights_only() -> Generator[None]:
    """Checkpoints are read without running code, with the harmless types that those of the zoo hold."""
    load, allowed = torch.load, torch.serialization.get_safe_globals()
    added = [kind for kind in _safe_types() if kind not in allowed]  # the others stay when we leave

    def load_weights(*args: Any, **kwargs: Any) -> Any:
        return load(*args, **{**kwargs, "weights_only": True})

    with torch.serialization.safe_globals(added), replaced(torch, "load", load_weights):
        yield


def _safe_types() -> list[Any]:
    """What zoo checkpoints hold beside tensors, none of which can run code: numpy's numbers, settings of a run."""
    scalar: Any = np.float64(0).__reduce__()[0]
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]  # of numpy 1 and 2
    kinds = [type(np.dtype(code)) for code in ("f4", "f8", "i4", "i8", "?")]
    return [*names, np.dtype, *kinds, argparse.Namespace]


@contextmanager
def warnings_silenced() -> Generator[None]:
    """Nothing is heard of robustbench's own old ways."""
    with warnings.catch_warnings():
        for message in _DEPRECATED:
            for category in (DeprecationWarning, FutureWarning):
                warnings.filterwarnings("ignore", message, category)
        yield


@contextmanager
def cuda_ignored() -> Generator[None]:
    """``Tensor.cuda`` leaves a tensor where it is."""
    with replaced(Tensor, "cuda", lambda tensor, *_, **__: tensor):
        yield


@contextmanager
def images_lent(x: Tensor, y: Tensor) -> Generator[None]:
    """RobustBench takes the images (N, 3, 32, 32) and labels (N,) for the test set of CIFAR-10."""
    data = importlib.import_module("robustbench.data")
    loaders: dict[Any, Any] = data._clean_dataset_loaders
    cifar10 = data.BenchmarkDataset("cifar10")
    before = loaders[cifar10]
    loaders[cifar10] = lambda n, *_: (x[:n], y[:n])
    try:
        yield
    finally:
        loaders[cifar10] = before


@contextmanager
def template_lent() -> Generator[None]:
    """RobustBench finds the template of its leaderboard here."""
    template = importlib.import_module("robustbench.leaderboard.template")
    ours = template.PackageLoader(__name__.rpartition(".")[0], "")
    with replaced(template, "PackageLoader", lambda *_: ours):
        yield


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
