"""The schema number of records, and what turns a record of an older number into one of today's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sap_art.untrusted import shortened

SCHEMA = 1
"""Goes up when a record of the number before would be refused, or mean something else; then ``UPGRADES`` grows too."""

UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""Schema number -> what makes of a record of that number, as JSON, one of the next; the number itself is seen to."""


def upgrade(found: Any) -> dict[str, Any]:
    """A record as JSON, of this schema or an older one, as one of this schema.

    Raises:
        ValueError: no schema number, one from a newer version, or an old one that has no upgrade.
    """
    number = found.get("schema") if isinstance(found, dict) else None
    if type(number) is not int:
        raise ValueError(f"schema must be a whole number up to {SCHEMA}, got {shortened(repr(number))}")
    if number > SCHEMA:
        raise ValueError(f"schema {number} is that of a newer version, this one reads up to {SCHEMA}: update sap-art")
    for step in range(number, SCHEMA):
        if step not in UPGRADES:
            raise ValueError(
                f"schema {number} is too old, there is no upgrade from {step} to {step + 1}: evaluate again"
            )
        found = {**UPGRADES[step](found), "schema": step + 1}
    return found
