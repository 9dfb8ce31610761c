"""Fuzz the readers of files that may be a stranger's: ``python benchmarks/fuzz/run.py --seconds 100 --output DIR``.

Needs ``pip install atheris`` (coverage-guided, libFuzzer). One process a reader, one after the other. What did harm is
written to ``DIR/<reader>/``, one file for each kind of harm; ``DIR/results.json`` says what was run. Every file found
belongs into ``tests/corpus``, where the tests have it read again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LIMITS = ["-timeout=120", "-rss_limit_mb=4096", "-verbosity=0"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=int, default=100, help="for each reader")
    parser.add_argument("--only", action="append", help="a reader; repeatable")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        fuzz(given.one, given.output, seconds=given.seconds)
    else:
        every(given.only, given.output, seconds=given.seconds)


def every(only: list[str] | None, output: Path, *, seconds: int) -> None:
    """Each reader in a process of its own, for libFuzzer ends the one that it runs in."""
    from readers import READERS

    results: dict[str, Any] = {}
    for name in only or READERS:
        folder = output / name
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, __file__, "--one", name, "--seconds", str(seconds), "--output", str(folder)]
        before = _cpu_seconds()
        status = subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode
        state = json.loads((folder / "state.json").read_text())
        results[name] = {**state, "cpu_seconds": round(_cpu_seconds() - before, 1), "status": status}
        print(name, results[name], flush=True)
        (output / "results.json").write_text(json.dumps(results, indent=2) + "\n")


def _cpu_seconds() -> float:
    """Of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def fuzz(name: str, folder: Path, *, seconds: int) -> None:
    """Never comes back: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["sap_art", "json", "tomllib", "zipfile", "numpy.lib", "pickle"]):
        import readers

    found: dict[str, str] = {}
    state = {"executions": 0, "harm": found}
    kept = folder / "state.json"

    def one(content: bytes) -> None:
        state["executions"] = runs = state["executions"] + 1
        harm = readers.check(name, content)
        kind = "" if harm is None else re.sub(rf"[0-9]+|{re.escape(tempfile.gettempdir())}/\S+", "", harm.error)[:80]
        if harm is not None and kind not in found.values():
            file = hashlib.sha256(content).hexdigest()[:12]
            (folder / file).write_bytes(content)
            found[file] = kind
        if harm is not None or runs % 500 == 1:
            kept.write_text(json.dumps(state, indent=2))

    with tempfile.TemporaryDirectory() as seeds:
        good = list(readers.READERS[name].seeds())
        for number, seed in enumerate(good):
            (Path(seeds) / str(number)).write_bytes(seed)
        words = folder / "words"
        words.write_text("".join(f"{_quoted(word)}\n" for word in readers.READERS[name].words))
        options = [f"-max_total_time={seconds}", f"-artifact_prefix={folder}/", f"-dict={words}", *LIMITS]
        atheris.Setup([sys.argv[0], *options, f"-max_len={2 * max(map(len, good))}", seeds], one)
        atheris.Fuzz()


def _quoted(word: str) -> str:
    return '"' + "".join(c if c.isalnum() or c in " _" else f"\\x{ord(c):02x}" for c in word) + '"'


if __name__ == "__main__":
    main()
