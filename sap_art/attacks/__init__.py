"""Attacks: pure functions ``attack(view, x, y, threat, *, seed, ...) -> x_adv``, one file each.

``view`` is an AttackerView, x (B, ...) in [0, 1], y (B,) labels. The result has the shape of x and lies inside the
threat model. All randomness, the view's noise included, comes from ``seed``; the model's own noise is left where it
was. A gradient that is not finite raises FloatingPointError: an attack that stands still is not evidence.
"""

from sap_art.attacks.eot_apgd import eot_apgd
from sap_art.attacks.hopskipjump import hopskipjump
from sap_art.attacks.known_seed import evaluate_known_seed, known_seed
from sap_art.attacks.library import art_pgd, autoattack_rand, autoattack_standard
from sap_art.attacks.long_apgd import long_apgd
from sap_art.attacks.noise import noise
from sap_art.attacks.paper import paper_fgsm, paper_iterative
from sap_art.attacks.selective import em_apgd, maximin_apgd
from sap_art.attacks.square import square
from sap_art.attacks.transfer import fgsm, pgd

__all__ = [
    "art_pgd",
    "autoattack_rand",
    "autoattack_standard",
    "em_apgd",
    "eot_apgd",
    "evaluate_known_seed",
    "fgsm",
    "hopskipjump",
    "known_seed",
    "long_apgd",
    "maximin_apgd",
    "noise",
    "paper_fgsm",
    "paper_iterative",
    "pgd",
    "square",
]
