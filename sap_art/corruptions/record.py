"""What one evaluation on corrupted images found, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from sap_art.corruptions import files
from sap_art.record import DefenceInfo, ModelInfo, Value, write_json
from sap_art.record_parts import STRICT
from sap_art.untrusted import file_name, read_json, validated

SCHEMA = 1


@dataclass(frozen=True)
class CorruptionRecord:
    """Accuracy of one entry on corrupted images; fractions in [0, 1], each with its 95 % interval.

    Attributes:
        source: ``CIFAR-10-C``, or ``closed forms`` for the check without its files, which is no ``corruptions_acc``.
        images, draws, seed: images a cell, fresh draws an image, seed of the draws.
        clean, clean_images: on the first so many test images as they are.
        mean: over all corruptions and severities.
        cells: by corruption, severities 1 to 5 in order.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    entry: str
    model: ModelInfo
    defence: DefenceInfo
    source: str
    images: int
    draws: int
    seed: int
    clean: Value
    clean_images: int
    mean: Value
    cells: dict[str, list[Value]]
    schema: int = SCHEMA

    @property
    def published(self) -> bool:
        """Whether ``mean`` is ``corruptions_acc``: over the published images, all 15 corruptions."""
        return self.source == files.SOURCE and set(self.cells) == set(files.CORRUPTIONS)

    def __str__(self) -> str:
        text = f"mean {_interval(self.mean)}, clean {_interval(self.clean)} on {self.clean_images} images, in %"
        what = f"{self.entry}, {self.source}, {self.images} images, {self.draws} draws an image: {text}"
        return what if self.published else f"{what}; a check that all runs, no corruptions_acc"

    def write(self, folder: Path) -> Path:
        """Write ``folder/<entry>.json`` by rename; raises ValueError for an entry that is no name of a file."""
        return write_json(asdict(self), folder / file_name(self.entry, ".json"))

    @classmethod
    def read(cls, path: Path) -> CorruptionRecord:
        """Read and validate one record; raises ValueError with file and fields."""
        found = read_json(path, what="a valid record of corruptions")
        try:
            return validated(cls, found)
        except ValueError as error:
            raise ValueError(f"{path} is not a valid record of corruptions: {error}") from error


def published_mean(record: CorruptionRecord) -> Value:
    """``corruptions_acc`` in [0, 1] with its interval; raises ValueError for a check without the published files."""
    if not record.published:
        raise ValueError(
            f"{record.entry}: {record.source} of {', '.join(record.cells)} only check that all runs; corruptions_acc "
            "is the mean over the 15 corruptions of CIFAR-10-C: give its folder with --data"
        )
    return record.mean


def _interval(value: Value) -> str:
    return f"{100 * value.value:.2f} [{100 * value.low:.2f}, {100 * value.high:.2f}]"
