"""Which attacks a tier of RDP-1 runs on a model, in what order, and what they cost."""

from sap_art.portfolio.plan import plan
from sap_art.portfolio.planned import PlannedAttack, Points
from sap_art.portfolio.refine import again, can_be_refined, refined
from sap_art.portfolio.short import along_the_curve, budgets, sanity
from sap_art.portfolio.stages import Stage, Work, expected_passes, stages
from sap_art.portfolio.storage import expected_bytes

__all__ = [
    "PlannedAttack",
    "Points",
    "Stage",
    "Work",
    "again",
    "along_the_curve",
    "budgets",
    "can_be_refined",
    "expected_bytes",
    "expected_passes",
    "plan",
    "refined",
    "sanity",
    "stages",
]
