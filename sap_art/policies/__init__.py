"""What is made random in a net, and how: SAP and the paper's other defences, and their names on the command line."""

from sap_art.policies.at_sites import AtSites
from sap_art.policies.athalye import AthalyeSAP
from sap_art.policies.base import ActivationPolicy, Affine, Policy, WeightPolicy, Where
from sap_art.policies.dropout import DRO
from sap_art.policies.noise import RNA, RSA
from sap_art.policies.sap import SAP
from sap_art.policies.spec import parse_policy
from sap_art.policies.weights import DWP, RNW, RSW, SWP

__all__ = [
    "DRO",
    "DWP",
    "RNA",
    "RNW",
    "RSA",
    "RSW",
    "SAP",
    "SWP",
    "ActivationPolicy",
    "Affine",
    "AtSites",
    "AthalyeSAP",
    "Policy",
    "WeightPolicy",
    "Where",
    "parse_policy",
]
