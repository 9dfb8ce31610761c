"""The flags of RDP-1: every known way in which an evaluation of a random defence can mislead, and the verdict."""

from __future__ import annotations

from collections.abc import Iterable

from sap_art.record import Flag, Level, State, Verdict

LEVELS: dict[str, Level] = {
    "transfer-beats-white-box": "R",
    "black-box-beats-white-box": "R",
    "large-eps-survives": "R",
    "not-monotone": "R",
    "steps-not-converged": "R",
    "draws-not-converged": "R",
    "restarts-not-converged": "W",
    "selection-not-converged": "W",
    "zero-or-non-finite-gradient": "R",
    "low-gradient-signal": "W",
    "estimator-spread": "W",
    "known-seed-attack-fails": "R",
    "seed-gap": "W",
    "single-step-beats-iterative": "R",
    "planted-example-missed": "R",
    "batch-shared-noise": "R",
    "state-between-calls": "R",
    "coupled-generator": "R",
    "test-time-optimisation": "R",
    "softmax-output": "W",
}
"""Codes in the order of the protocol; R makes an evaluation unreliable, W is a warning."""
TOGETHER = sum(level == "R" for level in LEVELS.values())
"""Intervals that may make an evaluation unreliable hold with 95 % all together (Bonferroni), so that an honest model
is called unreliable by chance in at most 2.5 % of evaluations."""
CRASHED = "the attack crashed: "
"""How the evidence of a flag begins that could not be checked for that reason."""


def flag(code: str, state: State, evidence: str, *, value: float | None = None, threshold: float | None = None) -> Flag:
    """A flag of a known code."""
    return Flag(code=code, state=state, level=LEVELS[code], evidence=evidence, value=value, threshold=threshold)


def raised_if(
    condition: bool, code: str, evidence: str, *, value: float | None = None, threshold: float | None = None
) -> Flag:
    """A checked flag: raised or clear."""
    return flag(code, "raised" if condition else "clear", evidence, value=value, threshold=threshold)


def complete(checked: Iterable[Flag], *, tier: str) -> list[Flag]:
    """All flags in the order of the protocol; those not in ``checked`` are ``not-checked``."""
    found = {f.code: f for f in checked}
    return [found.get(code, flag(code, "not-checked", f"the tier {tier} does not check this")) for code in LEVELS]


def verdict(flags: Iterable[Flag], *, attack_failed: bool) -> Verdict:
    """What the flags amount to; ``no-known-failure`` only when all were checked, and even that is not "robust"."""
    flags = list(flags)
    raised = {f.level for f in flags if f.state == "raised"}
    if attack_failed:
        return "failed"
    if "R" in raised:
        return "unreliable"
    if "W" in raised:
        return "warning"
    return "incomplete" if any(f.state == "not-checked" for f in flags) else "no-known-failure"
