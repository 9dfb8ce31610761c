"""Who is better than whom: ranks and paired differences among entries that met the same images and the same attacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sap_art import metrics
from sap_art.integrations.robustbench.export import eps_text, is_unreliable
from sap_art.metrics import Estimate
from sap_art.record import Record
from sap_art.site.reading import Entry
from sap_art.tiers import TIERS

SEED = 0
NOT_KEPT = "its right draws were not kept image by image, so it cannot be compared in pairs"
A_CONTROL = "a control, which tests the evaluation and competes with nobody"
NOT_TRUSTED = "its evaluation cannot be trusted"


class Setting(NamedTuple):
    """What must be equal for two worst cases to be compared."""

    tier: str
    dataset: str
    images: int
    norm: str
    eps: float
    ids_sha256: str

    @property
    def order(self) -> tuple[object, ...]:
        """Largest tier first."""
        return (-list(TIERS).index(self.tier), -self.images, *self[1:2], *self[3:])

    def __str__(self) -> str:
        return f"{self.dataset}, first {self.images:,} images, {self.norm} eps = {eps_text(self.eps)}, tier {self.tier}"


@dataclass(frozen=True)
class Ranking:
    """Entries by slug: ``rank`` of those that have one, ``unranked`` why not of the others, ``pairs`` by setting."""

    rank: dict[str, int]
    unranked: dict[str, str]
    pairs: dict[Setting, dict[tuple[str, str], Estimate]]


def setting_of(record: Record) -> Setting:
    """The setting of a record."""
    data = record.data
    return Setting(record.tier, data.set, data.n, record.norm, record.eps, data.ids_sha256)


def rank_entries(entries: Sequence[Entry]) -> Ranking:
    """Rank within each setting by the accuracy of a single draw at the worst points, paired image by image.

    Controls have none, and count for nobody's.
    """
    ranking = Ranking({}, {}, {})
    for setting in sorted({setting_of(entry.record) for entry in entries}, key=lambda s: s.order):
        group = [entry for entry in entries if setting_of(entry.record) == setting]
        right = {entry.slug: entry.images.worst for entry in group if entry.images is not None}
        shared = [entry.slug for entry in group if _shares_noise(entry.record)]
        ranking.pairs[setting] = metrics.paired_differences(right, seed=SEED, shared_noise=shared)
        for entry in group:
            if entry.control is not None:
                ranking.unranked[entry.slug] = A_CONTROL
            elif is_unreliable(entry.record):
                ranking.unranked[entry.slug] = NOT_TRUSTED
            elif entry.images is None:
                ranking.unranked[entry.slug] = NOT_KEPT
        ranked = [entry.slug for entry in group if entry.slug not in ranking.unranked]
        ranking.rank.update(metrics.ranks(ranked, ranking.pairs[setting]))
    return ranking


def _shares_noise(record: Record) -> bool:
    """Declared, or found out."""
    found = any(flag.code == "batch-shared-noise" and flag.state == "raised" for flag in record.flags)
    return found or not record.defence.per_example
