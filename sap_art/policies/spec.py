"""Policies as text, for suites and the command line: ``sap:100``, ``sap:50:bernoulli``."""

from __future__ import annotations

from collections.abc import Callable

from sap_art.policies.base import Policy
from sap_art.policies.sap import SAP


def parse_policy(spec: str) -> Policy:
    """The policy that ``spec`` names, written NAME:VALUE with options after further colons.

    >>> parse_policy("sap:50:bernoulli")
    SAP(percent=50.0, sampler='bernoulli', kernel='auto')

    Raises:
        ValueError: unknown name, a value that is not a number, or one that the policy refuses.
    """
    name, *arguments = spec.split(":")
    if name not in _PARSERS:
        raise ValueError(f"unknown policy {spec!r}; known: {', '.join(sorted(_PARSERS))} (for example sap:100)")
    return _PARSERS[name](spec, arguments)


def _parse_sap(spec: str, arguments: list[str]) -> Policy:
    if len(arguments) not in (1, 2, 3):
        raise ValueError(f"policy {spec!r} must be sap:PERCENT, sap:PERCENT:SAMPLER or sap:PERCENT:SAMPLER:KERNEL")
    try:
        percent = float(arguments[0])
    except ValueError as error:
        raise ValueError(f"policy {spec!r}: {arguments[0]!r} is not a number") from error
    return SAP(percent, *arguments[1:])


_PARSERS: dict[str, Callable[[str, list[str]], Policy]] = {"sap": _parse_sap}
