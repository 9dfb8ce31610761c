"""kill -9 at random moments, then the same command again: what is lost, and are the records the same to the byte?

    python benchmarks/faults/kill.py --output DIR [--kills 50] [--seed 0]

Every fifth run has two worker processes, the others none; every second time the whole group is killed, else the driver
alone, whose workers have to end by themselves. Writes kill.md and kill.json; status 1 if anything but units in work was
lost, or if a record differs.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from sap_art import process as settings

HERE = Path(__file__).parent
PATIENCE = 300
"""Seconds after which a run that does not begin or end is given up."""


@dataclass(frozen=True)
class Whole:
    """A run that was left alone: seconds from its first unit to its end, its units, SHA-256 of its records."""

    seconds: float
    units: int
    records: dict[str, str]


@dataclass(frozen=True)
class Trial:
    """A run that was killed ``moment`` seconds after so many units, ``after``, were finished, and resumed.

    Args:
        finished: units that were finished when it was killed; ``lost`` those in work, which are to be computed again.
        computed_again: finished units that were; there must be none.
        same: whether the records are those of the run that was left alone.
    """

    after: int
    moment: float
    workers: int
    group: bool
    finished: int
    lost: int
    computed_again: int
    same: bool

    @property
    def right(self) -> bool:
        """Whether no more was lost than may be."""
        return self.same and self.computed_again == 0 and self.lost <= self.workers


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill runs at random moments and resume them.")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the moments; default: %(default)s")
    arguments = parser.parse_args()
    if arguments.kills < 1:
        parser.error(f"--kills must be at least 1, got {arguments.kills}")
    settings.prepare()  # before torch is loaded, as in the command line of sap-art
    for module in ("sap_art.bench", "sap_art.kernels.compiled"):  # slow to import, and used by every run
        with suppress(ImportError):
            importlib.import_module(module)
    with tempfile.TemporaryDirectory() as folder:
        whole = leave_alone(Path(folder) / "whole")
        trials = kill(whole, Path(folder), kills=arguments.kills, seed=arguments.seed)
    write(whole, trials, arguments.output, seed=arguments.seed)
    return int(not all(trial.right for trial in trials))


def leave_alone(output: Path) -> Whole:
    """Run the suite from beginning to end."""
    process = begun(output, workers=1)
    start = time.monotonic()
    end(process)
    return Whole(time.monotonic() - start, len(units(output)), digests(output))


def kill(whole: Whole, folder: Path, *, kills: int, seed: int) -> list[Trial]:
    """One trial after the other, each in a folder of its own."""
    chance = random.Random(seed)
    trials: list[Trial] = []
    for number in range(kills):
        after, moment = chance.randrange(whole.units), chance.uniform(0, 2 * whole.seconds / whole.units)
        workers, group = (2 if number % 5 == 4 else 1), number % 2 == 1
        trials.append(kill_once(folder / f"{number}", after, moment, workers=workers, group=group, whole=whole))
        print(f"kill {number + 1} of {kills}: {trials[-1]}", flush=True)
    return trials


def kill_once(output: Path, after: int, moment: float, *, workers: int, group: bool, whole: Whole) -> Trial:
    """Kill a run so many seconds after so many units, resume it, and see what that took."""
    process = begun(output, workers=workers)
    while process.is_alive() and len(units(output)) < after:
        time.sleep(0.005)
    process.join(moment)
    if process.is_alive() and group:
        os.killpg(process.ident or 0, signal.SIGKILL)
    process.kill()
    process.join()
    finished, lost = units(output), parts(output)
    end(begun(output, workers=workers))
    there = units(output)
    again = sum(there.get(name) != written for name, written in finished.items())
    same = digests(output) == whole.records and len(there) == whole.units and not parts(output)
    shutil.rmtree(output)
    return Trial(after, round(moment, 3), workers, group, len(finished), lost, again, same)


def begun(output: Path, *, workers: int) -> BaseProcess:
    """``sap-art bench`` in a process group of its own that is at a unit, or has read all of them."""
    for part in output.glob("work/**/*.part"):
        part.unlink()
    process = multiprocessing.get_context("fork").Process(target=bench, args=(output, workers))
    process.start()
    latest = time.monotonic() + PATIENCE
    while process.exitcode is None and not parts(output):
        if time.monotonic() > latest:
            process.kill()
            raise ChildProcessError(f"the run in {output} did not begin")
        time.sleep(0.002)
    return process


def bench(output: Path, workers: int) -> None:
    """What the forked process does; that it need not import torch once more is all that it saves."""
    from sap_art.cli import main

    os.setsid()
    os.chdir(HERE)
    options = ["--suite", "suite.toml", "--trust-code", "--workers", str(workers), "--output", str(output)]
    sys.argv = ["sap-art", "bench", *options]
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        main()


def end(process: BaseProcess) -> None:
    """Wait for a run that must succeed."""
    process.join(PATIENCE)
    if process.exitcode != 0:
        process.kill()
        raise ChildProcessError(f"a run that nobody killed ended with status {process.exitcode}")


def units(output: Path) -> dict[str, int]:
    """Finished units, with the time at which each was written."""
    return {str(p.relative_to(output)): p.stat().st_mtime_ns for p in output.glob("work/**/*.safetensors")}


def parts(output: Path) -> int:
    """How many units are in work, or were when the run was killed."""
    return len(list(output.glob("work/**/*.safetensors.*.part")))


def digests(output: Path) -> dict[str, str]:
    """SHA-256 of the records, with all that is beside them but what says when and where."""
    paths = [p for p in sorted((output / "records").iterdir()) if not p.name.endswith(".run.json")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def write(whole: Whole, trials: list[Trial], output: Path, *, seed: int) -> None:
    """kill.json and kill.md."""
    from sap_art.record import write_json, write_text

    found = {"seed": seed, "whole": asdict(whole), "trials": [asdict(trial) for trial in trials]}
    write_json(found, output / "kill.json")
    right, most = sum(trial.right for trial in trials), max(trial.lost for trial in trials)
    again = sum(trial.computed_again for trial in trials)
    lines = [
        f"{len(trials)} runs of `benchmarks/faults/suite.toml` ({whole.units} units), each killed by SIGKILL at a "
        f"random moment of its work (seed {seed}) and resumed by the same command. {right} of {len(trials)} lost "
        "nothing but units in work, at most one a process, and left the records of a run that was left alone, to the "
        f"byte. Units lost by one kill: {most} at most; finished ones computed again: {again}.",
        "",
        "| after units | and s | processes | killed | units finished | units lost | computed again | same records |",
        "| ---: | ---: | ---: | --- | ---: | ---: | ---: | --- |",
    ]
    for t in trials:
        cells = (t.after, f"{t.moment:.3f}", t.workers, "all" if t.group else "the driver", t.finished, t.lost)
        lines.append(f"| {' | '.join(map(str, cells))} | {t.computed_again} | {'yes' if t.same else 'NO'} |")
    lines += ["", "SHA-256 of the records, the same after every kill:", ""]
    lines += [f"- `{name}`: {digest}" for name, digest in whole.records.items()]
    write_text("\n".join(lines) + "\n", output / "kill.md")


if __name__ == "__main__":
    sys.exit(main())
