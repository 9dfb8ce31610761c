"""Takes the entries of a run to their records, several at once where there is room."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sap_art import per_image, portfolio, protocol, provenance
from sap_art.attacks.cost import count_passes
from sap_art.blueprint import Blueprint, Images
from sap_art.distributed import OnRay
from sap_art.entries import Entry
from sap_art.forecast import Forecast
from sap_art.integrations.robustbench.export import export
from sap_art.protocol import Findings
from sap_art.protocol.assemble import to_record
from sap_art.protocol.job import Executor, InProcess, Job, UnitError
from sap_art.record import DataInfo, Record, write_json
from sap_art.results import PLAN, Place
from sap_art.store import Store
from sap_art.turns import Turns
from sap_art.workers import Workers

LONGEST_NOTE = 1000
"""Letters of a text in a sidecar, at most."""


@dataclass(frozen=True)
class Watch:
    """What a run tells: before it works what is left to do, then passes expected in all, done, and what it is doing.

    ``note`` hears what people should know: what was damaged, what has changed, what is tried again.
    """

    forecast: Callable[[list[Forecast]], None] = lambda left: None
    expect: Callable[[int], None] = lambda passes: None
    advance: Callable[[int], None] = lambda passes: None
    announce: Callable[[str], None] = lambda stage: None
    note: Callable[[str], None] = lambda text: None


@dataclass(frozen=True)
class Candidate:
    """An entry that was made ready, without its model: a suite may name more nets than memory holds.

    Args:
        determinants: all that its results depend on.
        passes: that it takes at most.
        wake: makes it ready again.
    """

    name: str
    determinants: dict[str, Any]
    passes: int
    wake: Callable[[], Entry]

    @classmethod
    def of(cls, entry: Entry, images: Images, plan: Blueprint, *, manifest: dict[str, Any]) -> Candidate:
        """The entry at rest."""
        tier, threat, classes = plan.tier, plan.suite.threat(), entry.classes
        passes = portfolio.expected_passes(entry.model, tier, threat, images=len(images.x), classes=classes)
        found = provenance.determinants(entry, manifest, tier, images.x)
        return cls(entry.name, found, passes, entry.at_rest())


@dataclass(frozen=True)
class Run:
    """One run of a suite: what it is made of, where its results go, who is told, how many units it computes at once."""

    plan: Blueprint
    images: Images
    info: DataInfo
    places: dict[str, Place]
    finished: dict[str, Record]
    watch: Watch
    workers: int = 1

    def announce(self, candidates: list[Candidate], left: list[Forecast]) -> None:
        """Tell what there is to do, and leave it for ``sap-art status``."""
        if left:
            self.watch.forecast(left)
        self.watch.expect(sum(c.passes for c in candidates))
        store = self.places[candidates[0].name].store
        planned = {c.name: {"place": self.places[c.name].name, "passes": c.passes} for c in candidates}
        write_json({"workers": self.workers, "entries": planned}, store.work / PLAN)

    def finish_all(
        self, candidates: list[Candidate], executor: InProcess | Workers | OnRay
    ) -> list[Record | UnitError]:
        """The records, or why there is none: one entry does not keep the others from theirs."""
        if isinstance(executor, InProcess) or len(candidates) == 1:
            return [self.finish(candidate, executor) for candidate in candidates]
        turns = Turns()
        works = [partial(self.finish, c, executor, turn=n, aside=turns.aside) for n, c in enumerate(candidates)]
        return turns.run(works, has_room=executor.has_room)

    def job(self, entry: Entry, tell: Callable[[str], None]) -> Job:
        """The work on an entry."""
        return replace(
            self.plan.job(entry, self.images),
            place=self.places[entry.name].name,
            store=Store(self.plan.output, tell=tell),
            announce=lambda stage: self.watch.announce(f"{entry.name}: {stage}"),
        )

    def finish(
        self,
        candidate: Candidate,
        executor: Executor,
        *,
        turn: int = 0,
        aside: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> Record | UnitError:
        """The record of one entry, read or computed and written; or the unit that failed and that it needs."""
        passes, name = candidate.passes, candidate.name
        if name in self.finished:
            self.watch.advance(passes)
            return self.finished[name]
        made, notes = [0], list[str]()

        def advance(more: int) -> None:
            made[0] += more
            self.watch.advance(more)

        def tell(text: str) -> None:
            notes.append(text)
            self.watch.note(text)

        self.places[name].begin()
        job = replace(self.job(candidate.wake(), tell), turn=turn, aside=aside, executor=executor, advance=advance)
        start = time.perf_counter()
        try:
            with count_passes(job.model, advance):
                found = protocol.run(job)
                record = to_record(job, found, self.info)
        except UnitError as error:
            return UnitError(error.key, error.kind, error.message)  # without the frames, which hold the model
        self.watch.advance(passes - made[0])
        self.write(job, found, record, seconds=time.perf_counter() - start, notes=notes)
        return record

    def write(self, job: Job, found: Findings, record: Record, *, seconds: float, notes: list[str]) -> None:
        """The record and what lies beside it."""
        place, folder, name = self.places[record.entry], job.store.records, record.entry
        took = place.took(job.planned)
        run = provenance.run_info(job.x.device, seconds=seconds, workers=self.workers) | took
        if len(kinds := took["unit_devices"]) > 1:
            job.store.tell(f"{name}: computed on {' and '.join(kinds)}: as on one of them in law, not to the byte")
        if notes:
            run["notes"] = "; ".join(notes)[:LONGEST_NOTE]
        write_json(run, folder / f"{name}.run.json")
        seen = per_image.collect(job.x, found.worst_points, clean=found.clean, worst=found.worst)
        images = seen.write(folder / f"{name}{per_image.SUFFIX}")
        place.seal([images, export(record, job.store.root), record.write(folder)])
