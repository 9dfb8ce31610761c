"""Imports go one way (ROOMS), and what a machine may lack is imported in the function that needs it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import sap_art

PACKAGE = Path(sap_art.__file__).parent

# Lowest first. A module imports from its own room or a lower one, never in a circle. A room is a module or a folder.
ROOMS = (
    "augmentation calibration cifar devices files flags mapping metrics migrations networks process randomness record "
    "record_parts record_schema references schedule threat tiers turns untrusted",
    "data determinants recipes store zoo",
    "kernels",
    "sampling",
    "policies",
    "gradients",
    "sites stochastic",
    "defended foreign",
    "attacker entries evaluation training",
    "attacks checkpoints game",
    "diagnostics per_image portfolio selection suites",
    "corruptions",
    "protocol",
    "integrations",
    "forecast models",
    "blueprint",
    "provenance results waiting worker",
    "workers",
    "distributed",
    "finishing",
    "bench",
    "doctor explain paper progress status table",
    "site",
    "commands",
    "cli",
)
RANK = {room: rank for rank, rooms in enumerate(ROOMS) for room in rooms.split()}

# Runs wherever torch does; everything else that a room may import has its name here.
CORE = {"numpy", "safetensors", "scipy", "torch"}
FIELD = {"art", "autoattack", "pkg_resources", "pyautoattack", "robustbench", "timm", "torchvision"}
BEYOND_CORE = {
    "attacks.hopskipjump": FIELD,
    "attacks.library": FIELD,
    "cifar": {"torchvision"},
    "cli": {"typer"},
    "commands": {"rich", "typer"},
    "distributed": {"ray"},
    "doctor": {"packaging"},
    "game": {"pydantic"},
    "integrations": FIELD,
    "kernels": {"llvmlite", "numba", "triton"},
    "paper": {"matplotlib", "rich"},
    "progress": {"rich"},
    "record_schema": {"pydantic"},
    "site": {"jinja2", "markupsafe", "matplotlib"},
    "table": {"rich"},
    "untrusted": {"pydantic"},
}
ONLY_IN_FUNCTIONS = FIELD | {"pydantic", "ray"}  # slow, or absent where only the numeric core runs
AT_ONCE = {"integrations.art": {"art"}}  # classes made from ART's: whoever imports this room wants ART


class Import(NamedTuple):
    """``deferred``: inside a function, or for the type checker only."""

    name: str
    deferred: bool


def read_imports(source: str) -> set[Import]:
    """All imports of a module, ``import_module("name")`` included; ``from a import b`` gives ``a.b``."""
    return set(_walk(ast.parse(source), deferred=False))


def _walk(node: ast.AST, *, deferred: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, deferred) for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        yield from (Import(f"{'.' * node.level}{node.module or ''}.{alias.name}", deferred) for alias in node.names)
    if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
        yield from (Import(a.value, deferred) for a in node.args[:1] if isinstance(a, ast.Constant))
    inside = deferred or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in ast.iter_child_nodes(node):
        for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and child in node.body
        yield from _walk(child, deferred=inside or for_types)


def module_name(path: Path) -> str:
    """``policies.sap`` for .../sap_art/policies/sap.py, ``policies`` for its ``__init__``, "" for the package."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


IMPORTS = {module_name(path): read_imports(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}
MODULES = pytest.mark.parametrize("module", sorted(name for name in IMPORTS if name))


def inner(module: str) -> set[str]:
    """The modules of the package that ``module`` imports; "" is the package's own ``__init__``."""
    names = {i.name.removeprefix("sap_art").removeprefix(".") for i in IMPORTS[module] if _top(i) == "sap_art"}
    return {name if name in IMPORTS else name.rpartition(".")[0] for name in names - {"__version__"}}


def outer(module: str) -> set[Import]:
    """What ``module`` imports from elsewhere, as top-level names, the standard library left out."""
    found = {Import(_top(i), i.deferred) for i in IMPORTS[module]}
    return {i for i in found if i.name != "sap_art" and i.name not in sys.stdlib_module_names}


def _top(found: Import) -> str:
    return found.name.partition(".")[0]


def _rank(module: str) -> int:
    room = module.partition(".")[0]
    assert room in RANK, f"sap_art.{module} has no place in ROOMS: say what it may import"
    return RANK[room]


@MODULES
def test_imports_run_downwards(module: str) -> None:
    """No module imports from a room above its own, nor what the package's ``__init__`` offers to users."""
    own = _rank(module)

    assert {name for name in inner(module) if not name or _rank(name) > own} == set()


def test_imports_form_no_circle() -> None:
    """Nor do the modules of one room wait for each other, not even inside functions."""
    try:
        TopologicalSorter({module: inner(module) - {module} for module in IMPORTS}).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@MODULES
def test_only_what_the_room_may_import(module: str) -> None:
    """The numeric core needs torch, numpy, scipy and safetensors; the rest has its room."""
    allowed = {name for room, names in BEYOND_CORE.items() if f"{module}.".startswith(f"{room}.") for name in names}

    assert {i.name for i in outer(module)} - CORE - allowed == set()


@MODULES
def test_slow_and_optional_packages_wait_for_their_function(module: str) -> None:
    """A module can be imported where ART, RobustBench, AutoAttack or pydantic are missing."""
    allowed = {name for room, names in AT_ONCE.items() if f"{module}.".startswith(f"{room}.") for name in names}

    assert {i.name for i in outer(module) if not i.deferred} & ONLY_IN_FUNCTIONS - allowed == set()


def test_nothing_outside_imports_what_imports_art() -> None:
    """So that only its users wait for ART."""
    users = {module for module in IMPORTS if {name for name in inner(module) if name.startswith("integrations.art")}}

    assert {module for module in users if not module.startswith("integrations.art")} == set()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import art.utils as u", Import("art.utils", deferred=False)),
        ("from sap_art import cli", Import("sap_art.cli", deferred=False)),
        ("from . import cli", Import("..cli", deferred=False)),
        ("class A:\n    import art", Import("art", deferred=False)),
        ("def f():\n    import art", Import("art", deferred=True)),
        ("if TYPE_CHECKING:\n    import art", Import("art", deferred=True)),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    import art", Import("art", deferred=False)),
        ("def f():\n    importlib.import_module('art')", Import("art", deferred=True)),
        ("x = __import__('art')", Import("art", deferred=False)),
    ],
)
def test_reader_finds_the_import(source: str, expected: Import) -> None:
    """These tests see what they are about."""
    assert read_imports(source) == {expected}
