"""Modules of ``benchmarks/``, which no package holds."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def script(path: str, *, name: str | None = None) -> ModuleType:
    """``benchmarks/{path}.py``, run anew; under its own name, by which its neighbours import it, or under ``name``."""
    file = BENCHMARKS / f"{path}.py"
    spec = importlib.util.spec_from_file_location(name or file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
