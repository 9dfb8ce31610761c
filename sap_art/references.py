"""Nets made by a user's own code: PACKAGE.MODULE:FUNCTION or FILE.py:FUNCTION."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from torch import nn

USERS = "sap_art_user_"
"""How the names of modules begin that were read from users' files."""
ROBUSTBENCH = "robustbench:"
"""Before the id of a net of RobustBench's: no code of a user's, for all its colon."""


def call_reference(reference: str) -> nn.Module:
    """Import what is before the colon and call what is behind it, without arguments.

    The net is returned as it is, mode included. FILE.py may import its neighbours while it is read and called.
    Raises FileNotFoundError for no such file, ValueError for all else, chained to what the user's code raised.
    """
    place, _, attribute = reference.rpartition(":")
    if not place or not attribute:
        raise ValueError(f"cannot read {reference!r}; use PACKAGE.MODULE:FUNCTION or FILE.py:FUNCTION")
    if not place.endswith(".py"):
        return _call(reference, _import_module(place))
    path = Path(place).expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}; use PACKAGE.MODULE:FUNCTION or FILE.py:FUNCTION")
    with _neighbours_of(path):
        return _call(reference, _import_file(path))


@contextmanager
def _neighbours_of(path: Path) -> Generator[None, None, None]:
    """What ``python FILE.py`` does for imports, and undone afterwards."""
    folder = str(path.parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _import_file(path: Path) -> ModuleType:
    name = f"{USERS}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a module up by its name
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"running {path} failed: {type(error).__name__}: {error}") from error
    return module


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ValueError(
            f"importing {name} failed: {type(error).__name__}: {error}; a module must be installed or on PYTHONPATH, "
            "a file is given as FILE.py:FUNCTION"
        ) from error


def _call(reference: str, module: ModuleType) -> nn.Module:
    attribute = reference.rpartition(":")[2]
    functions = {key: value for key, value in vars(module).items() if callable(value) and not key.startswith("__")}
    if attribute not in functions:
        raise ValueError(f"{reference}: no function {attribute!r} there, only {', '.join(functions) or 'none at all'}")
    try:
        net = functions[attribute]()
    except Exception as error:
        raise ValueError(f"{reference} failed when called: {type(error).__name__}: {error}") from error
    if isinstance(net, nn.Module):
        return net
    raise ValueError(f"{reference} must return a torch.nn.Module, got {type(net).__name__}")


def is_code(reference: str) -> bool:
    """Whether a model is made by a user's own code; else it comes from a file, and the same each time."""
    return ":" in reference and not reference.startswith(ROBUSTBENCH)


def public_name(reference: str) -> str:
    """A model's reference without the folders of the machine it ran on: ``some/folder/net.py:f`` -> ``net.py:f``."""
    return re.split(r"[/\\]", reference)[-1]
