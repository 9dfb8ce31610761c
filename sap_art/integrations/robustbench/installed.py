"""What of RobustBench and AutoAttack is installed, and how it is broken; nothing is imported to find out."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

AUTOATTACKS = ("autoattack", "pyautoattack")


def autoattack_is_missing() -> bool:
    """Whether robustbench imports ``autoattack`` and there is none."""
    return says("robustbench", "eval.py", "from autoattack import") and not is_importable("autoattack")


def loses_tracing(package: str) -> bool:
    """Whether that package's check for dynamic defences ends tracing."""
    return says(package, "checks.py", "sys.settrace(None)")


def is_importable(name: str) -> bool:
    """Whether it is imported, or could be."""
    return isinstance(sys.modules.get(name), ModuleType) or importlib.util.find_spec(name) is not None


def says(package: str, file: str, text: str) -> bool:
    """Whether that file of an installed package has the text."""
    module = sys.modules.get(package)
    spec = importlib.util.find_spec(package) if module is None else None
    origin = spec.origin if spec else getattr(module, "__file__", None)
    path = Path(origin).parent / file if origin else None
    return path is not None and path.is_file() and text in path.read_text(encoding="utf-8")
