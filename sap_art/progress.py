"""Progress on the terminal: how far, how fast, how much longer."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from sap_art.bench import Watch
from sap_art.forecast import Forecast
from sap_art.training import Progress as Step
from sap_art.untrusted import visible

A_LINE_EVERY = 60.0
"""Seconds, in a log."""


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s")


@contextmanager
def bar(console: Console, *, clock: Callable[[], float] = time.monotonic) -> Generator[Watch]:
    """A bar over forward and backward passes; on a terminal it moves, a log has a line a stage and one a minute.

    ``clock``: seconds.
    """
    with _bar(console, "passes", clock) as progress:
        task = progress.add_task("loading", total=None)
        said = [clock()]

        def say() -> None:
            said[0] = clock()
            if not console.is_terminal:
                console.print(_line(progress.tasks[task]), highlight=False, markup=False)

        def forecast(left: list[Forecast]) -> None:
            hours, passes = sum(entry.hours(gpus=1) for entry in left), sum(entry.passes for entry in left)
            text = f"{len(left)} entries, {passes:,} passes: {hours:.2f} h on this device, less where images fall early"
            console.print(f"forecast: {text}", highlight=False)

        def announce(stage: str) -> None:
            progress.update(task, description=stage)
            say()

        def advance(passes: int) -> None:
            progress.advance(task, passes)
            if clock() - said[0] >= A_LINE_EVERY:
                say()

        yield Watch(
            forecast=forecast,
            expect=lambda passes: progress.update(task, total=passes),
            advance=advance,
            announce=announce,
            note=lambda text: console.print(f"note: {visible(text)}", highlight=False, markup=False),
        )


@contextmanager
def training_bar(console: Console) -> Generator[Callable[[Step], None]]:
    """A bar over training steps; in a log one line an epoch."""
    with _bar(console, "steps", time.monotonic) as progress:
        task = progress.add_task("loading", total=None)
        seen = [0]

        def report(step: Step) -> None:
            text = f"epoch {step.epoch}, loss {step.loss:.3f}, accuracy {step.accuracy:.3f}"
            progress.update(task, total=step.steps, completed=step.step, description=text)
            if step.epoch > seen[0] and not console.is_terminal:
                seen[0] = step.epoch
                left = progress.tasks[task].time_remaining
                console.print(f"{text}, {'?' if left is None else f'{left:.0f}'} s left", highlight=False)

        yield report


def _line(task: Task) -> str:
    """How far, after how long, how fast, how much longer."""
    rate = "" if task.speed is None else f" {task.speed:,.0f} passes/s,"
    left = "" if task.time_remaining is None else f" {task.time_remaining:,.0f} s left,"
    return f"{task.percentage:3.0f} % {task.elapsed or 0:5.0f} s,{rate}{left} {task.description}"


def _bar(console: Console, unit: str, clock: Callable[[], float]) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        _Rate(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        get_time=clock,
    )
