"""The Adversarial Robustness Toolbox (ART): SAP, or any other random defence, in its pipelines.

``defend`` turns an ART classifier into a defended one, ``SAPClassifier.attack_view`` is what an attack is given, and
``evaluate_art`` scores what it leaves. Importing this package imports ART, which makes its folder ``~/.art``.

Raises:
    ImportError: ART is not installed.
"""

from importlib import import_module

try:
    import_module("art.estimators.classification")
except ImportError as error:
    raise ImportError(
        "sap_art.integrations.art needs ART: pip install 'adversarial-robustness-toolbox>=1.18,<2'"
    ) from error

from sap_art.integrations.art.classifier import SAPClassifier, defend
from sap_art.integrations.art.preprocessor import SAPPreprocessor
from sap_art.integrations.art.scoring import ArtEvaluation, SingleDrawWarning, evaluate_art
from sap_art.integrations.art.view import AttackView

__all__ = [
    "ArtEvaluation",
    "AttackView",
    "SAPClassifier",
    "SAPPreprocessor",
    "SingleDrawWarning",
    "defend",
    "evaluate_art",
]
