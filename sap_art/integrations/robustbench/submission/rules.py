"""What may be handed in where: RobustBench's rules, and our own about evaluations that cannot be trusted."""

from __future__ import annotations

from sap_art.integrations.robustbench.export import eps_text, is_unreliable, raised, unreliable_because
from sap_art.record import Record

TABLE, NEW_MODEL, FIXED_MASK, EXTERNAL = "table", "new-model", "fixed-mask", "external"
PATHS = (TABLE, NEW_MODEL, FIXED_MASK, EXTERNAL)
"""Into our own table; RobustBench's main table; the same by a deterministic relative; as an external evaluation."""
TEST_IMAGES = {"cifar10": 10_000}
"""Images of the test sets that RobustBench ranks on, of those that we have."""
RANKED_EPS = {"Linf": 8 / 255, "L2": 0.5}
RULES = "RobustBench lists models with non-zero gradients, a fully deterministic forward pass and no optimisation loop"

BREAKS_THE_RULES = ("zero-or-non-finite-gradient", "test-time-optimisation")
"""Flags of what those rules name besides randomness."""


class Refused(Exception):  # noqa: N818  an answer, not a fault
    """This may not be handed in; the message says why, and what may."""


def allowed_paths(record: Record) -> list[str]:
    """The honest paths for an entry; there is always ``table``."""
    return [path for path in PATHS if reason_against(path, record) is None]


def reason_against(path: str, record: Record) -> str | None:
    """Why an entry cannot take this path; None if it can."""
    spec, ranked = record.defence.spec, RANKED_EPS.get(record.norm)
    if path == TABLE:
        return None
    if record.data.set not in TEST_IMAGES:
        return f"RobustBench ranks on the test sets {', '.join(TEST_IMAGES)}, the images are {record.data.set!r}"
    if ranked is None or abs(record.eps - ranked) > 1e-9:
        return f"RobustBench does not rank {record.norm} at {eps_text(record.eps)} on {record.data.set}"
    if path == NEW_MODEL and spec != "none":
        return f"{RULES}; {record.entry} is random ({spec})"
    if path == FIXED_MASK and (not spec.startswith("sap:") or "@" in spec):
        return f"there is no mask of SAP's to fix in {record.entry} ({spec})"
    broken = [code for code in raised(record) if code in BREAKS_THE_RULES]
    if path in (NEW_MODEL, FIXED_MASK) and broken:
        return f"{RULES}; {record.entry} has raised {', '.join(broken)}"
    return None


def require_reliable(record: Record, *, force: bool) -> None:
    """Raise Refused for an evaluation that cannot be trusted, unless it is forced."""
    if is_unreliable(record) and not force:
        raise Refused(
            f"the evaluation of {record.entry} is {record.verdict} ({unreliable_because(record)}): its numbers are no "
            "claim; see sap-art bench --explain for what to mend, or use --force, which adds a footnote"
        )


def require_allowed(path: str, record: Record) -> None:
    """Raise Refused for a path that is not honest, and say which ones are."""
    reason = reason_against(path, record)
    if reason is not None:
        raise Refused(f"{path} is refused: {reason}; honest paths: {', '.join(allowed_paths(record))}")


def forced_footnote(record: Record) -> str:
    """What is added to whatever is handed in by force; nothing for an evaluation that can be trusted."""
    if not is_unreliable(record):
        return ""
    return f"Handed in by force although the evaluation is {record.verdict}: {unreliable_because(record)}."
