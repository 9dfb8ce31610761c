"""The suite of controls beside what is written about each: which there are, and which can be run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from expectations import Expectation

    from sap_art.suites import Suite

HERE = Path(__file__).parent
SUITE, EXPECTATIONS = HERE.parent / "suites" / "controls.toml", HERE / "expectations.toml"


def load(*, images: int | None, tier: str | None) -> tuple[Suite, dict[str, Expectation]]:
    """The suite with the controls whose net the zoo has, and what is written about all of them; None: the suite's own.

    Raises:
        ValueError: images < 1, no such tier, suite and expectations that name different controls.
    """
    from dataclasses import replace

    from expectations import read

    from sap_art import suites

    expected = read(EXPECTATIONS)
    suite = with_nets(suites.load(str(SUITE), trust_code=True), expected)
    images = suite.images if images is None else images
    return replace(suite, images=images, tier=suite.tier if tier is None else tier), expected


def with_nets(suite: Suite, expected: dict[str, Expectation]) -> Suite:
    """The suite without the controls whose net the zoo does not have yet; raises ValueError for one unexpected."""
    from dataclasses import replace

    from sap_art.zoo import list_nets

    names = [control(entry.model) for entry in suite.entries]
    if sorted(names) != sorted(expected):
        raise ValueError(f"{SUITE.name} and {EXPECTATIONS.name} differ in {sorted(set(names) ^ set(expected))}")
    present = {net.name for net in list_nets() if net.present} | {None}
    return replace(suite, entries=[e for e in suite.entries if expected[control(e.model)].needs in present])


def control(model: str) -> str:
    """``.../models.py:dropout`` -> ``dropout``."""
    return model.rpartition(":")[2]
