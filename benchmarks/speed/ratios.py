"""What a section reports: times or sizes, ratios to named peers, and whether a ratio meets its target."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Case = Mapping[str, int | str]


@dataclass(frozen=True)
class Spread:
    """Median and range over the rounds."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Against:
    """A column of ratios to one contestant, with the targets of the others by name.

    Args:
        peer: the contestant that the others are compared with.
        faster: the ratio is the peer's time over one's own, and a target is the least it should be; otherwise one's
            own over the peer's, and a target is the most.
        targets: the limit for each contestant that has one.
    """

    peer: str
    faster: bool
    targets: Mapping[str, float] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"times faster than {self.peer}" if self.faster else f"times the cost of {self.peer}"


@dataclass(frozen=True)
class Ratio:
    """One contestant beside a peer; ``met`` is None where there is no target."""

    title: str
    faster: bool
    value: Spread
    target: float | None
    met: bool | None


@dataclass(frozen=True)
class Row:
    """One contestant in one case, its ``value`` in the section's unit."""

    case: Case
    name: str
    value: Spread
    ratios: tuple[Ratio, ...]


@dataclass(frozen=True)
class Section:
    """One table; ``note`` says what a reader has to know of it."""

    name: str
    title: str
    unit: str
    rows: tuple[Row, ...]
    note: str


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def compare(case: Case, values: Mapping[str, Sequence[float]], columns: Sequence[Against]) -> list[Row]:
    """A row a contestant, from its value in each round; a ratio is the median of the rounds' ratios."""
    return [
        Row(case, name, spread(own), tuple(_ratio(name, values, column) for column in columns if column.peer in values))
        for name, own in values.items()
    ]


def _ratio(name: str, values: Mapping[str, Sequence[float]], column: Against) -> Ratio:
    rounds = zip(values[name], values[column.peer], strict=True)
    value = spread([peer / own if column.faster else own / peer for own, peer in rounds])
    target = column.targets.get(name)
    met = None if target is None else value.median >= target if column.faster else value.median <= target
    return Ratio(column.title, column.faster, value, target, met)
