"""Accuracy on corrupted images (Hendrycks & Dietterich 2019, arXiv:1903.12261), on fresh draws.

``files`` reads CIFAR-10-C, ``closed_forms`` makes a few of its corruptions for a check without the files, ``scoring``
has the definitions, ``inputs`` and ``run`` are what ``sap-art corruptions`` does.
"""

from __future__ import annotations

from sap_art.corruptions.closed_forms import CLOSED_FORMS, closed_forms
from sap_art.corruptions.files import CORRUPTIONS, cifar10_c
from sap_art.corruptions.inputs import Inputs, prepare
from sap_art.corruptions.record import CorruptionRecord
from sap_art.corruptions.run import run_corruptions
from sap_art.corruptions.scoring import SEVERITIES, CorruptedImages, CorruptionAccuracy, corruption_accuracy

__all__ = [
    "CLOSED_FORMS",
    "CORRUPTIONS",
    "SEVERITIES",
    "CorruptedImages",
    "CorruptionAccuracy",
    "CorruptionRecord",
    "Inputs",
    "cifar10_c",
    "closed_forms",
    "corruption_accuracy",
    "prepare",
    "run_corruptions",
]
