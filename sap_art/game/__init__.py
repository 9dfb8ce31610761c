"""The game of section 3 of the SAP paper: who draws which policy, who sends which points, and what that is worth.

The defender draws a policy for each prediction; the attacker, who does not see the draw, picks one of several fixed
sets of adversarial points. The payoff is the accuracy: the defender maximises it, the attacker minimises it (Dhillon
et al. 2018, arXiv:1803.01442, section 3, with lists of policies and points in place of all masks and perturbations).
"""

from sap_art.game.analysis import GameReport, analyse
from sap_art.game.cross import cross_evaluate
from sap_art.game.payoffs import Payoffs, read, write
from sap_art.game.solution import Exploitability, Solution, exploitability, solve
from sap_art.game.words import describe

__all__ = [
    "Exploitability",
    "GameReport",
    "Payoffs",
    "Solution",
    "analyse",
    "cross_evaluate",
    "describe",
    "exploitability",
    "read",
    "solve",
    "write",
]
