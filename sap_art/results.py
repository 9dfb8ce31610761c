"""What a finished entry leaves, and how a later run knows whether that is what it would compute."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sap_art.determinants import SHOWN, differing, digest
from sap_art.flags import LEVELS
from sap_art.protocol.job import PLANNED
from sap_art.record import Record, write_json
from sap_art.store import FAILED, RUN, Store
from sap_art.untrusted import read_json, shortened

PLAN = "plan.json"
"""In ``work``, how many processes the last run has, and by entry its place and the passes that it takes at most."""
DETERMINANTS, SEAL = "entry.json", "finished.json"
"""In the place of an entry, what it depends on, and once it is finished the SHA-256 of its results."""
MEASURED = {"metrics": ("clean", "T1"), "calibration": ("clean", "adversarial")}
"""What each run measures, and its table shows."""
MOST_SAID = 5


@dataclass(frozen=True)
class Place:
    """Where the units of an entry lie: ``work/<entry>-<hash>``, the hash that of all that they depend on.

    So an entry whose weights, policy, code or settings have changed finds nothing there, and the others find theirs.
    """

    store: Store
    entry: str
    determinants: Mapping[str, Any]

    @cached_property
    def name(self) -> str:
        """The folder's."""
        return f"{self.entry}-{digest(self.determinants)}"

    @property
    def folder(self) -> Path:
        """The folder in ``work``."""
        return self.store.work / self.name

    def begin(self) -> None:
        """Say there what its units depend on; those that are asked for are noted from now on."""
        write_json(dict(self.determinants), self.folder / DETERMINANTS)
        self.store.path(self.name, PLANNED).unlink(missing_ok=True)

    def seal(self, files: Sequence[Path]) -> None:
        """Say that the entry is finished, with these results, all of them written before."""
        found = {str(path.relative_to(self.store.root)): _sha256(path) for path in files}
        write_json({"files": found, "failed": self._failed()}, self.folder / SEAL)

    def record(self) -> Record | None:
        """The record, if it is finished and to the byte what was sealed, and no failed unit of it is to be retried.

        Raises:
            ValueError: it is what was sealed, and no record of this entry that a run writes: folders may be a
                stranger's. The message names file and fields.
        """
        sealed = read_object(self.folder / SEAL)
        if sealed is None or sealed.get("failed") != self._failed():
            return None
        path = self.store.records / f"{self.entry}.json"
        files = sealed.get("files")
        if not isinstance(files, Mapping) or str(path.relative_to(self.store.root)) not in files:
            return None
        if any(_sha256(self.store.root / name) != found for name, found in files.items()):
            self.store.tell(f"{self.entry}: results are damaged, missing or of another run: rebuilt from its units")
            return None
        record = Record.read(path)
        if wrong := list(_problems(record, self.entry)):
            said = "; ".join(wrong[:MOST_SAID])
            raise ValueError(f"{path} is not the record of a run: {said}; delete it to have it rebuilt from its units")
        return record

    def tell_changes(self) -> None:
        """Say what is not as it was when an entry of this name was last begun."""
        if self.folder.exists():
            return
        earlier = list(self.store.work.glob(f"{self.entry}-{'[0-9a-f]' * SHOWN}/{DETERMINANTS}"))
        last = read_object(max(earlier, key=lambda path: path.stat().st_mtime)) if earlier else None
        if last is not None:
            names = ", ".join(differing(last, json.loads(json.dumps(self.determinants))))
            self.store.tell(f"{self.entry}: computed anew, for there are changes in: {names}")

    def forget_failures(self) -> None:
        """Have failed units tried again."""
        if failed := self.store.forget_failures(self.name):
            self.store.tell(f"{self.entry}: {failed} failed units are tried again")

    def took(self, units: Iterable[str]) -> dict[str, Any]:
        """What these units took in all runs, for the sidecar of a record."""
        found = [run for key in units if (run := read_object(self.store.path(key, RUN)))]
        halved = [run["rows"] for run in found if run.get("rows")]
        short = {"least_rows": min(halved), "units_short_of_memory": len(halved)} if halved else {}
        seconds = round(sum(run.get("seconds", 0) for run in found), 1)
        devices = sorted({str(run["device"]) for run in found if "device" in run})
        return {"unit_seconds": seconds, "unit_devices": devices, **short}

    def _failed(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob(f"*{FAILED}"))


def others(store: Store, entries: Iterable[str]) -> list[str]:
    """Entries that have a record there and are not among these."""
    records = {path.stem for path in store.records.glob("*.json") if not path.name.endswith(RUN)}
    return sorted(records.difference(entries))


def _problems(record: Record, entry: str) -> Iterator[str]:
    """What is not as a run of this entry writes it and tells of it."""
    if record.entry != entry:
        yield f"entry must be {entry}, got '{shortened(record.entry)}'"
    for part, names in MEASURED.items():
        yield from (f"{part}.{name} is missing" for name in names if name not in getattr(record, part))
    for number, flag in enumerate(record.flags):
        if flag.code not in LEVELS:
            yield f"flags[{number}].code is not known: '{shortened(flag.code)}'"


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def read_object(path: Path) -> dict[str, Any] | None:
    """A JSON object; None if it is not there or damaged."""
    try:
        found = read_json(path, what="of a run")
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None
