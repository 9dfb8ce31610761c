"""What must be mended before RobustBench 1.1.1 can be used at all, mended only while we use it."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import ModuleType
from typing import NamedTuple

import torch

from sap_art.integrations.robustbench import installed, mending

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
    if not installed.is_importable("robustbench"):
        raise ImportError(f"needs robustbench: {INSTALL}")
    if installed.autoattack_is_missing() and not installed.is_importable("pyautoattack"):
        raise ImportError(f"robustbench needs pyautoattack: {INSTALL}")


IMAGES = Repair(
    what="benchmark() downloads all of CIFAR-10 before it takes the first image",
    until="robustbench.benchmark() takes images",
    needed=lambda: installed.says("robustbench", "data.py", "_clean_dataset_loaders"),
    apply=mending.images_lent,
)
"""Applied by our ``benchmark`` only: its repair takes the images (N, 3, 32, 32) and labels (N,) to lend."""

TEMPLATE = Repair(
    what="generate_leaderboard() has no template: the wheel lacks leaderboard.html.j2",
    until="the wheel of robustbench holds leaderboard/leaderboard.html.j2",
    needed=lambda: (
        installed.says("robustbench", "leaderboard/template.py", "leaderboard.html.j2")
        and not installed.says("robustbench", "leaderboard/leaderboard.html.j2", "models")
    ),
    apply=mending.template_lent,
)
"""Applied by our ``generate_leaderboard`` only."""

REPAIRS = (
    Repair(
        what="robustbench imports pkg_resources, which setuptools 82 dropped",
        until="robustbench no longer imports pkg_resources",
        needed=lambda: (
            installed.says("robustbench", "loaders.py", "import pkg_resources")
            and not installed.is_importable("pkg_resources")
        ),
        apply=mending.pkg_resources_added,
    ),
    Repair(
        what="robustbench imports and calls autoattack, which PyPI has as pyautoattack with other calls",
        until="robustbench imports pyautoattack and calls it the new way",
        needed=installed.autoattack_is_missing,
        apply=mending.autoattack_added,
    ),
    Repair(
        what="AutoAttack's check for dynamic defences ends tracing (coverage, debuggers) and never resets its counters",
        until="check_dynamic of pyautoattack restores the trace function and counts from zero",
        needed=lambda: any(map(installed.loses_tracing, installed.AUTOATTACKS)),
        apply=mending.tracing_kept,
    ),
    Repair(
        what="zoo checkpoints hold numpy scalars and argparse.Namespace, and timm reads files with unsafe pickles on",
        until="robustbench names its safe types and timm's load_state_dict has weights_only=True",
        needed=lambda: not installed.says("robustbench", "utils.py", "safe_globals"),
        apply=mending.weights_only,
    ),
    Repair(
        what="19 zoo models use ctx.saved_variables, and robustbench imports timm by its old paths: warnings",
        until="robustbench uses ctx.saved_tensors and timm.layers",
        needed=lambda: installed.says("robustbench", "model_zoo/architectures/dm_rn.py", "saved_variables"),
        apply=mending.warnings_silenced,
    ),
    Repair(
        what="Bai2023Improving_edm moves constants to a GPU while it is built, and from there to where the images are",
        until="robustbench's bit_rn.py registers them as buffers",
        needed=lambda: (
            installed.says("robustbench", "model_zoo/architectures/bit_rn.py", ".cuda()")
            and not torch.cuda.is_available()
        ),
        apply=mending.cuda_ignored,
    ),
    IMAGES,
    TEMPLATE,
)
