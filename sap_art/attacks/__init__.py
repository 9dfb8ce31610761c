"""Attacks: pure functions ``attack(view, x, y, threat, *, seed, ...) -> x_adv``, one file each.

``view`` is an AttackerView, x (B, ...) in [0, 1], y (B,) labels. The result has the shape of x and lies inside the
threat model. All randomness, the view's noise included, comes from ``seed``; the model's own noise is left where it
was. A gradient that is not finite raises FloatingPointError: an attack that stands still is not evidence.
"""

from sap_art.attacks.eot_apgd import eot_apgd
from sap_art.attacks.hopskipjump import hopskipjump
from sap_art.attacks.library import art_pgd, autoattack_rand, autoattack_standard
from sap_art.attacks.noise import noise
from sap_art.attacks.square import square
from sap_art.attacks.transfer import fgsm, pgd

__all__ = [
    "art_pgd",
    "autoattack_rand",
    "autoattack_standard",
    "eot_apgd",
    "fgsm",
    "hopskipjump",
    "noise",
    "pgd",
    "square",
]
