"""What must be mended before RobustBench 1.1.1 can be used at all, mended only while we use it."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import threading
import warnings
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sap_art.integrations.robustbench.old_autoattack import stand_in, stand_ins

INSTALL = "pip install 'sap_art[robustbench]'"
_USING = threading.RLock()  # what is mended is global: two threads take turns


class Repair(NamedTuple):
    """One break and its repair, which is not applied where it is not ``needed``."""

    what: str
    until: str
    """When the repair can go."""
    needed: Callable[[], bool]
    """Decided by what is installed; imports nothing."""
    apply: Callable[..., AbstractContextManager[None]]
    """Within, it is mended; afterwards everything is as it was."""


@contextmanager
def repaired() -> Generator[ModuleType]:
    """Within, RobustBench works; gives the imported module, which can be imported by its own name from then on.

    All of ``REPAIRS`` but ``IMAGES`` and ``TEMPLATE`` hold within and none afterwards. One thread at a time.

    Raises:
        ImportError: robustbench, pyautoattack or something that they need is not installed.
    """
    require_installed()
    with _USING, ExitStack() as undo:
        for repair in REPAIRS:
            if repair not in (IMAGES, TEMPLATE) and repair.needed():
                undo.enter_context(repair.apply())
        try:
            robustbench = importlib.import_module("robustbench")
        except ImportError as error:
            raise ImportError(f"robustbench cannot be imported ({error}): {INSTALL}") from error
        yield robustbench


def require_installed() -> None:
    """Raise ImportError if robustbench or pyautoattack is missing; nothing is imported."""
    if not _is_importable("robustbench"):
        raise ImportError(f"needs robustbench: {INSTALL}")
    if _autoattack_is_missing() and not _is_importable("pyautoattack"):
        raise ImportError(f"robustbench needs pyautoattack: {INSTALL}")


@contextmanager
def replaced(owner: object, name: str, value: object) -> Generator[None]:
    """Within, ``owner.name`` is ``value``."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


# The repairs, in the order in which they are applied.


@contextmanager
def _repair_pkg_resources() -> Generator[None]:
    def resource_filename(module: str, path: str) -> str:
        return str(Path(importlib.import_module(module).__file__ or "").parent / path)

    with _modules_added({"pkg_resources": stand_in("pkg_resources", resource_filename=resource_filename)}):
        yield


@contextmanager
def _repair_autoattack() -> Generator[None]:
    with _modules_added(stand_ins()):
        yield


@contextmanager
def _repair_tracing() -> Generator[None]:
    with ExitStack() as undo:
        for package in filter(_loses_tracing, _AUTOATTACKS):
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
def _repair_checkpoints() -> Generator[None]:
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
def _repair_warnings() -> Generator[None]:
    with warnings.catch_warnings():
        for message in _DEPRECATED:
            for category in (DeprecationWarning, FutureWarning):
                warnings.filterwarnings("ignore", message, category)
        yield


@contextmanager
def _repair_cuda() -> Generator[None]:
    with replaced(Tensor, "cuda", lambda tensor, *_, **__: tensor):
        yield


@contextmanager
def _lend_images(x: Tensor, y: Tensor) -> Generator[None]:
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
def _lend_template() -> Generator[None]:
    template = importlib.import_module("robustbench.leaderboard.template")
    ours = template.PackageLoader(__name__.rpartition(".")[0], "")
    with replaced(template, "PackageLoader", lambda *_: ours):
        yield


# Whether they are needed.

_AUTOATTACKS = ("autoattack", "pyautoattack")
_DEPRECATED = (
    "'saved_variables' is deprecated",
    r"Importing from timm\.models\.",
    r"`torch\.jit\.interface` is deprecated",
)


def _autoattack_is_missing() -> bool:
    return _says("robustbench", "eval.py", "from autoattack import") and not _is_importable("autoattack")


def _loses_tracing(package: str) -> bool:
    return _says(package, "checks.py", "sys.settrace(None)")


def _is_importable(name: str) -> bool:
    return isinstance(sys.modules.get(name), ModuleType) or importlib.util.find_spec(name) is not None


def _says(package: str, file: str, text: str) -> bool:
    """Whether that file of an installed package has the text."""
    module = sys.modules.get(package)
    spec = importlib.util.find_spec(package) if module is None else None
    origin = spec.origin if spec else getattr(module, "__file__", None)
    path = Path(origin).parent / file if origin else None
    return path is not None and path.is_file() and text in path.read_text(encoding="utf-8")


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


IMAGES = Repair(
    what="benchmark() downloads all of CIFAR-10 before it takes the first image",
    until="robustbench.benchmark() takes images",
    needed=lambda: _says("robustbench", "data.py", "_clean_dataset_loaders"),
    apply=_lend_images,
)
"""Applied by our ``benchmark`` only: its repair takes the images (N, 3, 32, 32) and labels (N,) to lend."""

TEMPLATE = Repair(
    what="generate_leaderboard() has no template: the wheel lacks leaderboard.html.j2",
    until="the wheel of robustbench holds leaderboard/leaderboard.html.j2",
    needed=lambda: (
        _says("robustbench", "leaderboard/template.py", "leaderboard.html.j2")
        and not _says("robustbench", "leaderboard/leaderboard.html.j2", "models")
    ),
    apply=_lend_template,
)
"""Applied by our ``generate_leaderboard`` only."""

REPAIRS = (
    Repair(
        what="robustbench imports pkg_resources, which setuptools 82 dropped",
        until="robustbench no longer imports pkg_resources",
        needed=lambda: (
            _says("robustbench", "loaders.py", "import pkg_resources") and not _is_importable("pkg_resources")
        ),
        apply=_repair_pkg_resources,
    ),
    Repair(
        what="robustbench imports and calls autoattack, which PyPI has as pyautoattack with other calls",
        until="robustbench imports pyautoattack and calls it the new way",
        needed=_autoattack_is_missing,
        apply=_repair_autoattack,
    ),
    Repair(
        what="AutoAttack's check for dynamic defences ends tracing (coverage, debuggers) and never resets its counters",
        until="check_dynamic of pyautoattack restores the trace function and counts from zero",
        needed=lambda: any(map(_loses_tracing, _AUTOATTACKS)),
        apply=_repair_tracing,
    ),
    Repair(
        what="zoo checkpoints hold numpy scalars and argparse.Namespace, and timm reads files with unsafe pickles on",
        until="robustbench names its safe types and timm's load_state_dict has weights_only=True",
        needed=lambda: not _says("robustbench", "utils.py", "safe_globals"),
        apply=_repair_checkpoints,
    ),
    Repair(
        what="19 zoo models use ctx.saved_variables, and robustbench imports timm by its old paths: warnings",
        until="robustbench uses ctx.saved_tensors and timm.layers",
        needed=lambda: _says("robustbench", "model_zoo/architectures/dm_rn.py", "saved_variables"),
        apply=_repair_warnings,
    ),
    Repair(
        what="Bai2023Improving_edm moves constants to a GPU while it is built, and from there to where the images are",
        until="robustbench's bit_rn.py registers them as buffers",
        needed=lambda: (
            _says("robustbench", "model_zoo/architectures/bit_rn.py", ".cuda()") and not torch.cuda.is_available()
        ),
        apply=_repair_cuda,
    ),
    IMAGES,
    TEMPLATE,
)
