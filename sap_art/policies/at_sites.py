"""A policy at some sites of a net alone: per-layer SAP."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from sap_art.policies.base import Policy, Where
from sap_art.untrusted import shortened

MARK = "@"
MOST_SITES = 10_000
_RUN = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")


@dataclass(frozen=True)
class AtSites:
    """``policy`` at the sites of these numbers; what comes out of the others is left as it is, bit for bit.

    A site's number is its place in the order of the calls of what the policy acts on, from 0: of activations, of
    convolutions, of weight tensors the net's order; ``DefendedModel.sites`` lists them. A chosen site has the random
    numbers that it has where all are chosen.

    Args:
        policy: what is drawn there.
        sites: numbers from small to large, at least one.

    Raises:
        ValueError: sites that are none, below 0, or do not rise; a policy that has sites of its own.
    """

    policy: Policy
    sites: tuple[int, ...]

    def __post_init__(self) -> None:
        if isinstance(self.policy, AtSites):
            raise ValueError(f"sites are chosen once, but {self.policy.spec} has its own")
        if not self.sites or self.sites[0] < 0 or list(self.sites) != sorted(set(self.sites)):
            raise ValueError(
                f"sites must be numbers from 0 that rise, at least one, got {shortened(list(self.sites), 400)}; for "
                f"all sites, leave them out: {self.policy.spec}"
            )

    @property
    def where(self) -> Where:
        return self.policy.where

    @property
    def per_example(self) -> bool:
        return self.policy.per_example

    @property
    def spec(self) -> str:
        return f"{self.policy.spec}{MARK}{sites_as_text(self.sites)}"

    def __call__(self, h: Tensor, generator: torch.Generator, *, held: bool = False) -> Tensor:
        """One draw of the policy, at a chosen site; ``DefendedModel`` knows which are."""
        return self.policy(h, generator, held=held)

    def require_within(self, count: int, net: str) -> None:
        """Raise ValueError unless ``net`` has these sites, having ``count`` of them."""
        if self.sites[-1] >= count:
            raise ValueError(
                f"{self.spec} names site {self.sites[-1]}, but {net} has {count}, which are numbered 0 to {count - 1}"
            )


def sites_as_text(sites: tuple[int, ...]) -> str:
    """Numbers that rise, as specs have them.

    >>> sites_as_text((0, 1, 2, 5, 18))
    '0-2,5,18'
    """
    chosen = set(sites)
    starts = [s for s in sites if s - 1 not in chosen]
    ends = [s for s in sites if s + 1 not in chosen]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


def parse_sites(text: str) -> tuple[int, ...]:
    """The numbers that ``text`` names, in its order.

    >>> parse_sites("0-2,5,18")
    (0, 1, 2, 5, 18)

    Raises:
        ValueError: not numbers and ranges of up to four digits with commas between, or a range that names no site.
    """
    found: list[int] = []
    for part in text.split(","):
        run = _RUN.fullmatch(part)
        first, last = (int(run[1]), int(run[2] or run[1])) if run else (0, -1)
        if last < first or len(found) > MOST_SITES:
            raise ValueError(f"sites must be numbers and ranges from 0, such as 0-9 or 0,5,18, got '{shortened(text)}'")
        found += range(first, last + 1)
    return tuple(found)
