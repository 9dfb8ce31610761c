"""One run of the benchmark: the chosen sections in order, printed and written as each is done."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import draw
import eot
import forward
import growth
import layer
import memory
import report
import torch
from ratios import Section
from rich.console import Console
from setting import FULL, QUICK, Setting, environment

from sap_art.devices import require_device

MEASURES: dict[str, Callable[[Setting], Section]] = {
    "draw": draw.measure,
    "forward": forward.measure,
    "eot": eot.measure,
    "layer": layer.measure,
    "memory": memory.measure,
    "growth": growth.measure,
}
WIDTH = 160  # where the output is not a terminal


def run(names: Sequence[str], output: Path, *, device: str, threads: int | None, quick: bool) -> None:
    """Measure the named sections and write ``speed-<device>.md`` and ``.json`` into ``output``."""
    torch.set_num_threads(threads or torch.get_num_threads())
    output.mkdir(parents=True, exist_ok=True)
    setting = Setting(require_device(device), torch.get_num_threads(), QUICK if quick else FULL, output)
    facts = environment(setting)
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    console.print("\n".join(report.heading(facts)), markup=False)
    sections: list[Section] = []
    for name in names:
        sections.append(MEASURES[name](setting))
        console.print("", report.terminal(sections[-1]))
        report.write(output / f"speed-{device}", facts, sections)
