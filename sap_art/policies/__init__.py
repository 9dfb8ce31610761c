"""What is made random in a net, and how: policies, and their names on the command line."""

from sap_art.policies.base import Affine, Policy, Where
from sap_art.policies.sap import SAP
from sap_art.policies.spec import parse_policy

__all__ = ["SAP", "Affine", "Policy", "Where", "parse_policy"]
