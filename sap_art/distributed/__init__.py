"""Units computed on more than one device or machine: on Ray, an extra; ``RayCluster`` says where.

Ray pickles whatever goes from the driver to the nodes and back, models and their code included, and asks nobody who
they are: whoever reaches the ports of a cluster can run code on it. That is within the trust of a cluster that the
user has started, in a network of the user's own; nothing here reads a pickle from anywhere else.
"""

from __future__ import annotations

from sap_art.distributed.cluster import RayCluster, chosen_cluster, require_shippable
from sap_art.distributed.executor import OnRay

__all__ = ["OnRay", "RayCluster", "chosen_cluster", "require_shippable"]
