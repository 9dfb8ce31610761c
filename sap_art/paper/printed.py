"""The numbers that the paper prints on images, and where: accuracies and their differences, as fractions."""

from __future__ import annotations

from dataclasses import dataclass

from sap_art.paper.figures import DENSE_FGSM, DENSE_ITERATIVE, FGSM, ITERATIVE, Attacker

PRINTED_NETS = {"dense": ("dense", 0.898, 150), "adv": ("ADV", 0.750, 100)}
"""By role: the paper's name of a net, its clean accuracy on all test images, the epochs of its training."""

_FGSM_TEXT = "text, single-step attack"
_TABLE = "table, iterative attack"
_ADV_TEXT = "text, adversarial training"


@dataclass(frozen=True)
class Printed:
    """A printed accuracy in [0, 1] of ``defender`` at ``lam`` / 255; with ``minus``, what it has more than that one."""

    defender: str
    attacker: Attacker
    lam: int
    value: float
    where: str
    minus: str | None = None


def _row(defender: str, attacker: Attacker, where: str, percents: dict[int, float]) -> tuple[Printed, ...]:
    return tuple(Printed(defender, attacker, lam, round(p / 100, 3), where) for lam, p in percents.items())


def _more(defender: str, minus: str, where: str, points: dict[int, float]) -> tuple[Printed, ...]:
    return tuple(Printed(defender, FGSM, lam, round(p / 100, 3), where, minus) for lam, p in points.items())


PRINTED = (
    *_row("dense", DENSE_FGSM, _FGSM_TEXT, {0: 89.8, 1: 66.3, 2: 56.4}),
    *_more("SAP-100", "dense", _FGSM_TEXT, {0: -6.5, 1: 12.2, 2: 16.3, 4: 12.8, 16: -5.2}),
    *_row("dense", DENSE_ITERATIVE, _TABLE, {0: 89.8, 1: 66.3, 2: 50.1, 4: 31.0}),
    *_row("SAP-100", ITERATIVE, _TABLE, {0: 83.3, 1: 82.0, 2: 80.2, 4: 76.7}),
    *_row("SAP-100", DENSE_ITERATIVE, _TABLE, {0: 83.3, 1: 75.2, 2: 67.0, 4: 50.8}),
    *_row("ADV", DENSE_FGSM, _ADV_TEXT, {0: 75.0, 1: 72.9, 2: 70.9, 4: 67.5}),
    *_row("ADV+SAP-100", FGSM, _ADV_TEXT, {0: 74.1}),
    *_more("ADV+SAP-100", "ADV", _ADV_TEXT, {16: 7.8, 32: 7.9}),
)


def printed(defender: str, attacker: Attacker, lam: int, *, minus: str | None = None) -> Printed | None:
    """What the paper prints there, None where it prints nothing.

    >>> found = printed("SAP-100", ITERATIVE, 4)
    >>> found.value if found else None
    0.767
    """
    same = [p for p in PRINTED if (p.defender, p.attacker, p.lam, p.minus) == (defender, attacker, lam, minus)]
    return same[0] if same else None
