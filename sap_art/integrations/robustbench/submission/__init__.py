"""Handing results in, along the paths that are honest: ``sap-art submit``."""

from sap_art.integrations.robustbench.submission.bundle import Submission, find_record, submit
from sap_art.integrations.robustbench.submission.fixed_mask import FixedMask, fix_mask
from sap_art.integrations.robustbench.submission.rules import PATHS, Refused
from sap_art.integrations.robustbench.submission.standalone import load_standalone, write_standalone

__all__ = [
    "PATHS",
    "FixedMask",
    "Refused",
    "Submission",
    "find_record",
    "fix_mask",
    "load_standalone",
    "submit",
    "write_standalone",
]
