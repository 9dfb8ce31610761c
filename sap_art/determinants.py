"""What a result depends on, as data that people can read and hashes that name it: settings, weights, code."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sap_art.store import Stored, tensor_sha256

PACKAGE = "sap_art"
SHOWN = 12
"""Hexadecimal digits of a hash where people read it: by chance two differ in 1 - 2^-48 of all cases."""


def described(value: object) -> Any:
    """A value as JSON: tensors by dtype, shape and SHA-256, functions by name, dataclasses by their fields.

    A unit by its key, in which there is all that it depends on.

    Raises:
        TypeError: something else, of which nobody knows what it depends on.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)} sha256 {tensor_sha256(value)}"
    if isinstance(value, Stored):
        return value.key
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: described(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [described(item) for item in value]
    if isinstance(value, Callable) and hasattr(value, "__qualname__"):
        return f"{value.__module__}:{value.__qualname__}"
    raise TypeError(f"cannot say what a {type(value).__name__} depends on: give numbers, text, tensors or dataclasses")


def digest(value: object) -> str:
    """SHA-256 of what ``described`` says of it, shortened for names of files."""
    return hashlib.sha256(json.dumps(described(value), sort_keys=True).encode()).hexdigest()[:SHOWN]


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Where two descriptions differ, as ``model.weights_sha256``."""
    names: list[str] = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            names += [f"{key}.{name}" for name in differing(old, new)]
        elif old != new:
            names.append(key)
    return names


@cache
def code_of(module: str) -> Mapping[str, str]:
    """SHA-256 of the source of a module of the package, and of all modules of it that it imports, by name.

    A package counts with all that lies in it, for kernels are imported by name. So does a change that changes nothing,
    in a comment: then work is done again that need not be, but no result of other code is ever taken for one of this.
    """
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            path = _path_of(name)
            source = path.read_bytes()
            found[name] = hashlib.sha256(source).hexdigest()[:SHOWN]
            waiting += _imported_by(source)
            if path.name == "__init__.py" and name != PACKAGE:
                waiting += [f"{name}.{beside.stem}" for beside in path.parent.glob("*.py") if beside != path]
    return dict(sorted(found.items()))


def sources_of(net: nn.Module) -> Mapping[str, str]:
    """SHA-256 of the files that a user's net is made of, by file name; without those of torch and of this package."""
    names = {type(part).__module__ for part in net.modules()}
    theirs = [sys.modules[name] for name in names if name.partition(".")[0] not in ("torch", PACKAGE)]
    paths = sorted({Path(module.__file__) for module in theirs if module.__file__ is not None})
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:SHOWN] for path in paths}


def _imported_by(source: bytes) -> list[str]:
    """The modules of the package that a source imports, in functions too, and the packages that they lie in."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names.update([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
    ours = [name.split(".") for name in names if name.partition(".")[0] == PACKAGE]
    above = {".".join(parts[:depth]) for parts in ours for depth in range(1, len(parts) + 1)}
    return [name for name in sorted(above) if _path_of(name).is_file()]


def _path_of(module: str) -> Path:
    path = Path(__file__).parent.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
