"""Files that a stranger may have written: read, or refused by an error that names the file; nothing else happens."""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import hostile
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FUZZ = Path(__file__).parents[1] / "benchmarks" / "fuzz"
CORPUS = Path(__file__).parent / "corpus"
EXAMPLES = 60
CALM = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
SECONDS = 5.0
"""For one small file; good ones take milliseconds."""
JSON = ("manifest", "record", "sidecar", "card", "payoff")
CHANGES: dict[str, Callable[[bytes], st.SearchStrategy[bytes]]] = {
    **dict.fromkeys(JSON, lambda seed: hostile.changed_json(json.loads(seed))),
    "suite": lambda seed: hostile.changed_toml(seed.decode()),
    "images": hostile.changed_safetensors,
    "safetensors": hostile.changed_safetensors,
    "torch": hostile.changed_zip,
    "npz": hostile.changed_zip,
    "npy": hostile.changed_bytes,
    "torch-legacy": hostile.changed_bytes,
}


def _readers() -> ModuleType:
    sys.path.insert(0, str(FUZZ))
    try:
        return importlib.import_module("readers")
    finally:
        sys.path.remove(str(FUZZ))


readers = _readers()


def test_every_reader_is_tried() -> None:
    """By changes that know its format, and its good files are read."""
    assert set(CHANGES) == set(readers.READERS)


@pytest.mark.parametrize("name", CHANGES)
def test_good_files_are_read(name: str, tmp_path: Path) -> None:
    """Or what follows would test nothing; a suite that names code is good where that is trusted."""
    reader = readers.READERS[name]
    seeds = list(reader.seeds())
    for seed in seeds:
        path = tmp_path / f"file{reader.suffix}"
        path.write_bytes(seed)
        if b"models.py:" not in seed:
            reader.read(path)
    assert seeds


@pytest.mark.parametrize("name", CHANGES)
def test_changed_files_do_no_harm(name: str) -> None:
    """A value or a clear error that names the file, in time, and nothing written."""
    seeds = list(readers.READERS[name].seeds())
    any_change = st.one_of([CHANGES[name](seed) for seed in seeds] + [hostile.changed_bytes(seeds[0])])

    @settings(CALM, max_examples=EXAMPLES)
    @given(any_change)
    def check(content: bytes) -> None:
        start = time.process_time()
        assert readers.check(name, content) is None
        assert time.process_time() - start < SECONDS

    check()


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_did_harm_once_does_none_again(path: Path) -> None:
    """The folder says which reader."""
    assert readers.check(path.parent.name, path.read_bytes()) is None
