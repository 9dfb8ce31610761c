"""What AutoAttack must say of the models of ``coin_models``, and what its points must be worth: closed forms.

AutoAttack looks at each clean image once, and after each attack once at what that attack returned; an image is robust
if all looks were right. Each attack first looks at the clean image by itself and leaves it as it is if that look is
wrong. A look is one prediction, wrong with probability e on a clean image.
"""

from __future__ import annotations

from math import comb
from typing import NamedTuple

ATTACKS = {"rand": 2, "standard": 4}


class Law(NamedTuple):
    """Expected accuracies in [0, 1]: what AutoAttack ``says``, what its points are ``worth``, and the ``truth``.

    ``spread`` is the variance between images of the accuracy of one of its points under infinitely many draws.
    """

    says: float
    worth: float
    truth: float
    spread: float


def prediction_error(error: float, draws: int) -> float:
    """P(the majority of K = ``draws`` draws is wrong), K odd: the error e of one prediction of the mean."""
    if draws % 2 == 0:
        raise ValueError(f"draws must be odd, or half of them could be wrong; got {draws}")
    return sum(comb(draws, k) * error**k * (1 - error) ** (draws - k) for k in range(draws // 2 + 1, draws + 1))


def coin(e: float, version: str) -> Law:
    """Of a coin: one look before, one after each attack, all of them right."""
    return Law(says=(1 - e) ** (1 + ATTACKS[version]), worth=1 - e, truth=1 - e, spread=0.0)


def breakable(e: float, version: str) -> Law:
    """Of a model that every attack breaks once it starts.

    Of the images still counted as robust an attack breaks the share 1 - e; it returns the others clean, of which the
    look afterwards takes e for a success and leaves 1 - e for the next attack. A clean point is worth 1 - e.

    Exact for ``rand``. For ``standard`` a lower bound of ``says``: FAB keeps the nearest point that one draw got wrong
    and Square ends at such a draw, so that they may return a point that is not broken.
    """
    robust, clean = 1 - e, e
    for _ in range(ATTACKS[version]):
        clean += robust * e * e
        robust *= e * (1 - e)
    share = clean + robust
    return Law(says=robust, worth=share * (1 - e), truth=0.0, spread=share * (1 - share) * (1 - e) ** 2)
