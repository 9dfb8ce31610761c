"""Policies as text, for suites and the command line: ``sap:100``, ``sap:50:bernoulli``, ``rna:0.1@0-9``."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sap_art.policies.at_sites import MARK, AtSites, parse_sites
from sap_art.policies.athalye import AthalyeSAP
from sap_art.policies.base import Policy
from sap_art.policies.dropout import DRO
from sap_art.policies.noise import RNA, RSA
from sap_art.policies.sap import SAP
from sap_art.policies.weights import DWP, RNW, RSW, SWP
from sap_art.untrusted import shortened


class _Form(NamedTuple):
    """What is written after a policy's name: a number, which is called ``value``, then ``options`` as they are."""

    make: Callable[..., Policy]
    value: str
    options: tuple[str, ...] = ()


_FORMS = {
    "athalye": _Form(AthalyeSAP, "PERCENT"),
    "dro": _Form(DRO, "RATE"),
    "dwp": _Form(DWP, "PERCENT"),
    "rna": _Form(RNA, "SD"),
    "rnw": _Form(RNW, "SD"),
    "rsa": _Form(RSA, "SD"),
    "rsw": _Form(RSW, "SD"),
    "sap": _Form(SAP, "PERCENT", ("SAMPLER", "KERNEL")),
    "swp": _Form(SWP, "PERCENT", ("SAMPLER", "KERNEL")),
}

NAMES = tuple(_FORMS)
"""Names of all policies, as specs begin."""


def parse_policy(spec: str) -> Policy:
    """The policy that ``spec`` names, written NAME:VALUE with options after further colons, at all sites or @SITES.

    >>> parse_policy("sap:50:bernoulli")
    SAP(percent=50.0, sampler='bernoulli', kernel='auto')
    >>> parse_policy("rna:0.1@0-2,5")
    AtSites(policy=RNA(sd=0.1), sites=(0, 1, 2, 5))

    Raises:
        ValueError: unknown name, a value that is not a number, or one that the policy refuses; sites that are none.
    """
    text, mark, sites = spec.partition(MARK)
    policy = _everywhere(text)
    if not mark:
        return policy
    try:
        return AtSites(policy, parse_sites(sites))
    except ValueError as error:
        raise ValueError(f"policy '{shortened(spec)}': {error}") from error


def _everywhere(spec: str) -> Policy:
    name, *arguments = spec.split(":")
    if name not in _FORMS:
        raise ValueError(f"unknown policy '{shortened(spec)}'; known: {', '.join(NAMES)} (for example sap:100)")
    form = _FORMS[name]
    if not 1 <= len(arguments) <= 1 + len(form.options):
        raise ValueError(f"policy '{shortened(spec)}' must be {_usage(name, form)}")
    try:
        value = float(arguments[0])
    except ValueError as error:
        raise ValueError(f"policy '{shortened(spec)}': '{shortened(arguments[0])}' is not a number") from error
    return form.make(value, *arguments[1:])


def _usage(name: str, form: _Form) -> str:
    forms = [":".join([name, form.value, *form.options[:n]]) for n in range(len(form.options) + 1)]
    return " or ".join(part for part in (", ".join(forms[:-1]), forms[-1]) if part)
