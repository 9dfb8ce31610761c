"""Stochastic Activation Pruning as a plugin, and an evaluator of randomised defences that does not flatter.

The public names are imported on first use, so that ``sap-art --help`` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sap_art.attacker import AttackerView
    from sap_art.defended import DefendedModel
    from sap_art.evaluation import Evaluation, evaluate
    from sap_art.foreign import wrap
    from sap_art.policies import SAP
    from sap_art.threat import ThreatModel

__version__ = "0.1.0"
__all__ = ["SAP", "AttackerView", "DefendedModel", "Evaluation", "ThreatModel", "evaluate", "wrap"]

_HOMES = {
    "SAP": "policies",
    "AttackerView": "attacker",
    "DefendedModel": "defended",
    "Evaluation": "evaluation",
    "ThreatModel": "threat",
    "evaluate": "evaluation",
    "wrap": "foreign",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
