"""How far a run is, read from its output folder alone, while it is going on or after it was killed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sap_art.files import PART, is_locked
from sap_art.protocol.job import PLANNED
from sap_art.results import PLAN, SEAL, others, read_object
from sap_art.store import RUN, SUFFIX, Store, read_manifest
from sap_art.untrusted import visible

SHOWN_FAILURES = 5


@dataclass(frozen=True)
class EntryStatus:
    """Units of an entry that are known so far, by state; ``left`` are not begun.

    Args:
        begun: whether its units have been asked for at all.
        seconds: that its finished units took, ``passes`` those that they made.
        known_passes: of units in work or left, at most.
        all_passes: of what is not done yet, at most: as if no image fell early.
        failures: what failed units died of.
    """

    entry: str
    finished: bool
    begun: bool
    done: int
    running: int
    failed: int
    left: int
    seconds: float
    passes: int
    known_passes: int
    all_passes: int
    failures: tuple[str, ...]

    def __str__(self) -> str:
        counts = f"{self.done} units done, {self.failed} failed"
        if self.finished:
            return f"{self.entry}: finished, {counts}"
        if not self.begun:
            return f"{self.entry}: not begun"
        return f"{self.entry}: {counts}, {self.running} running, {self.left} left of those known so far"


@dataclass(frozen=True)
class Status:
    """A run: whether a process is at work on it, with how many workers, its entries, and records of other entries."""

    folder: Path
    at_work: bool
    workers: int
    entries: tuple[EntryStatus, ...]
    others: tuple[str, ...]

    @property
    def rate(self) -> float | None:
        """Passes a second of one worker, over all units that are done; None if there is none."""
        seconds, passes = (sum(getattr(e, name) for e in self.entries) for name in ("seconds", "passes"))
        return passes / seconds if passes and seconds else None

    def __str__(self) -> str:
        state = f"a run is at work, {self.workers} processes" if self.at_work else "no run is at work"
        lines = [f"{self.folder}: {state}", *map(str, self.entries)]
        lines += [f"{name}: finished, but no entry of the last run" for name in self.others]
        failures = [failure for entry in self.entries for failure in entry.failures]
        lines += [f"failed: {failure}" for failure in failures[:SHOWN_FAILURES]]
        if failures:
            lines.append(f"{len(failures)} failed units stay so; the same command with --retry-failed tries them again")
        return visible("\n".join([*lines, self._time_left()]))

    def _time_left(self) -> str:
        known, whole = (sum(getattr(e, name) for e in self.entries) for name in ("known_passes", "all_passes"))
        if all(entry.finished for entry in self.entries):
            return "time left: none"
        if self.rate is None:
            return "time left: not known before a unit is done"
        known, whole = (_time(passes / self.rate / self.workers) for passes in (known, whole))
        return (
            f"time left: {known} for the units known so far, {whole} at most for all; how many there will be, and how "
            "long they take, depends on the images that still stand then"
        )


def read_status(folder: Path) -> Status:
    """How far the run in an output folder of ``sap-art bench`` is; nothing is written, a run at work is not disturbed.

    Raises:
        ValueError: no such folder, or one of something else, or damaged.
    """
    read_manifest(folder)
    store, at_work = Store(folder), is_locked(folder)
    plan = read_object(store.work / PLAN)
    if plan is None and not at_work:
        raise ValueError(f"{folder} is no output folder of sap-art bench: it has no work/{PLAN}")
    try:
        named = {
            str(name): (str(e["place"]), int(e["passes"])) for name, e in (plan or {"entries": {}})["entries"].items()
        }
        workers = max(1, int((plan or {}).get("workers", 1)))
        if odd := [place for place, _ in named.values() if Path(place).name != place]:
            raise ValueError(f"{odd[0]!r} is no name of a folder")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{store.work / PLAN} is damaged ({error!r}): the next run writes it anew") from error
    entries = tuple(_entry(store, name, *e, at_work=at_work) for name, e in named.items())
    return Status(folder, at_work, workers, entries, tuple(others(store, named)))


def _entry(store: Store, entry: str, place: str, passes: int, *, at_work: bool) -> EntryStatus:
    planned = read_object(store.path(place, PLANNED))
    known = {key: n for key, n in (planned or {}).items() if key.startswith(f"{place}/") and isinstance(n, int)}
    units = {key: n for key, n in known.items() if ".." not in key.split("/")}
    done = {key for key in units if store.has(key)}
    failures = {key: failure for key in units.keys() - done if (failure := store.failure(key))}
    parts = [path.name.partition(SUFFIX)[0] for path in (store.work / place).rglob(f"*{SUFFIX}.*{PART}")]
    running = {key for key in units.keys() - done if key.rpartition("/")[2] in parts} if at_work else set[str]()
    left = units.keys() - done - failures.keys()
    took = [run for key in sorted(done) if (run := read_object(store.path(key, RUN)))]
    made = sum(int(run.get("passes", 0)) for run in took)
    finished = store.path(place, f"/{SEAL}").exists() and store.finished(entry)
    return EntryStatus(
        entry=entry,
        finished=finished,
        begun=planned is not None,
        done=len(done),
        running=len(running),
        failed=len(failures),
        left=len(left - running),
        seconds=sum(float(run.get("seconds", 0)) for run in took),
        passes=made,
        known_passes=0 if finished else sum(units[key] for key in left),
        all_passes=0 if finished else max(passes - made, sum(units[key] for key in left)),
        failures=tuple(f"{key}: {kind}: {message}" for key, (kind, message) in sorted(failures.items())),
    )


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
