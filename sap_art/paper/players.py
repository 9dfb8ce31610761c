"""Who plays the game of section 3, as data: the policies a defender draws, the points an attacker sends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sap_art.paper.figures import (
    DENSE,
    DENSE_FGSM,
    DENSE_ITERATIVE,
    FGSM,
    ITERATIVE,
    NOISE,
    Attacker,
    Defender,
)
from sap_art.paper.work import WORST, name_of

DENSE_SPEC = "none"
SAPS = ("sap:50", "sap:100", "sap:200", "sap:400")
PER_LAYER = ("sap:100@0-6", "sap:100@7-12", "sap:100@13-18")
"""SAP at the activations of 16, of 32 and of 64 channels alone: the sites of ``nets.ARCHITECTURE``."""
BASELINES = ("dro:0.05", "rna:0.1", "rsa:0.3", "rnw:0.01", "rsw:0.1", "dwp:75", "swp:200")
"""The paper's others, each at the weaker or weakest of the figures' strengths."""
SAP_100 = Defender("sap:100", policy="sap:100")
DEFENDERS = (DENSE, *(Defender(spec, policy=spec) for spec in (*SAPS, *PER_LAYER, *BASELINES)))


@dataclass(frozen=True)
class Strategy:
    """What the attacker may send: the points that an attack finds against a defender."""

    attack: Attacker | Literal["rdp-1"]
    against: Defender

    @property
    def name(self) -> str:
        """As the payoffs have it: ``rdp-1 on sap:100``, ``noise``."""
        return NOISE.name if self.attack == NOISE else f"{name_of(self.attack)} on {spec_of(self.against)}"


STRATEGIES = (
    *(Strategy(WORST, defender) for defender in DEFENDERS),
    *(Strategy(attack, DENSE) for attack in (NOISE, DENSE_FGSM, DENSE_ITERATIVE)),
    *(Strategy(attack, SAP_100) for attack in (FGSM, ITERATIVE)),
)
"""The adaptive attack on each defender, which on the dense net is the dense transfer, and the paper's own attacks."""


def spec_of(defender: Defender) -> str:
    """The policy as payoffs name it."""
    return defender.policy or DENSE_SPEC
