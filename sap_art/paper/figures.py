"""What each figure of the paper compares, as data: defenders under attackers at radii lambda.

The source of our numbers does not say which percents, rates and strengths the figures show; those here are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LAMBDAS = (0, 1, 2, 4, 8, 16, 32, 64)
"""Radii in units of 1/255; 0 is the clean image."""

SAP_PERCENTS = (50, 100)
DROPOUT_RATES = (0.05, 0.1, 0.3)


@dataclass(frozen=True)
class Attacker:
    """One of the paper's attacks.

    Args:
        kind: ``noise`` (one random direction), ``fgsm`` (one step of lambda) or ``iterative`` (steps of 1/255).
        source: whose gradient: of the net without the defence (``dense``) or of the ``defended`` one, mask constant.
        draws: Monte-Carlo draws of a gradient; 1 where the gradient is not random.
    """

    kind: Literal["noise", "fgsm", "iterative"]
    source: Literal["dense", "defended"] = "dense"
    draws: int = 1

    @property
    def name(self) -> str:
        """As keys and pages have it: ``fgsm-defended-100``."""
        return self.kind if self.kind == "noise" else f"{self.kind}-{self.source}-{self.draws}"


NOISE = Attacker("noise")
DENSE_FGSM, DENSE_ITERATIVE = Attacker("fgsm"), Attacker("iterative")
FGSM, ITERATIVE = Attacker("fgsm", "defended", 100), Attacker("iterative", "defended", 10)
ONE_FGSM = Attacker("fgsm", "defended", 1)
"""For what is not random: one gradient is all there are."""


@dataclass(frozen=True)
class Defender:
    """A net by its role (``dense``, ``adv``, ``dropout-RATE``) and what is made random in it, if anything is."""

    name: str
    role: str = "dense"
    policy: str | None = None


@dataclass(frozen=True)
class Curve:
    """One line of a figure: accuracy of a defender under an attacker against lambda."""

    defender: Defender
    attacker: Attacker


@dataclass(frozen=True)
class Figure:
    """A figure: its name in the paper, what it is about, its lines, and whether it is about calibration."""

    name: str
    title: str
    curves: tuple[Curve, ...]
    calibration: bool = False


DENSE, ADV = Defender("dense"), Defender("ADV", "adv")
SAP_100 = Defender("SAP-100", policy="sap:100")
ADV_SAP_100 = Defender("ADV+SAP-100", "adv", "sap:100")
ATHALYE = Defender("Athalye's variant, not in the paper", policy="athalye:200")
"""What was attacked under SAP's name in 2018: pruned outputs of convolutions, r = 2 w h c."""


def _sap(percent: int) -> Defender:
    return Defender(f"SAP-{percent}", policy=f"sap:{percent}")


def _policies(*specs: str) -> tuple[Defender, ...]:
    return tuple(Defender(spec.replace(":", "-").upper(), policy=spec) for spec in specs)


def _trained(rate: float, *, dropped: bool) -> Defender:
    """A net that was trained with dropout, with or without it at test time too."""
    name = f"trained with {rate:g}" + (", tested with it" if dropped else "")
    return Defender(name, f"dropout-{rate:g}", f"dro:{rate:g}" if dropped else None)


_SAPS = tuple(_sap(percent) for percent in SAP_PERCENTS)
_FOUR = (
    Curve(DENSE, DENSE_FGSM),
    Curve(SAP_100, FGSM),
    Curve(ADV, DENSE_FGSM),
    Curve(ADV_SAP_100, FGSM),
)
_DROPOUT = (
    Curve(DENSE, DENSE_FGSM),
    *(Curve(defender, FGSM) for defender in _policies(*(f"dro:{rate:g}" for rate in DROPOUT_RATES))),
    *(Curve(_trained(rate, dropped=False), DENSE_FGSM) for rate in DROPOUT_RATES),
    *(Curve(_trained(rate, dropped=True), FGSM) for rate in DROPOUT_RATES),
)
_RANDOM_BASELINES = _policies(
    "rnw:0.01", "rnw:0.05", "rsw:0.1", "rsw:0.3", "swp:100", "swp:200", "rna:0.1", "rna:0.3", "rsa:0.3", "rsa:1"
)
_BASELINES = (
    Curve(DENSE, DENSE_FGSM),
    *(Curve(defender, FGSM) for defender in _RANDOM_BASELINES),
    *(Curve(defender, ONE_FGSM) for defender in _policies("dwp:50", "dwp:75")),
    Curve(ATHALYE, FGSM),
)
_DRAWS = (DENSE_FGSM, *(Attacker("fgsm", "defended", draws) for draws in (1, 10, 100, 1000)))

FIGURES = {
    figure.name: figure
    for figure in (
        Figure("1a", "SAP against a random perturbation", tuple(Curve(d, NOISE) for d in (DENSE, *_SAPS))),
        Figure("1b", "SAP against FGSM", (Curve(DENSE, DENSE_FGSM), *(Curve(d, FGSM) for d in _SAPS))),
        Figure(
            "1c",
            "SAP against the iterative attack",
            (
                Curve(DENSE, DENSE_ITERATIVE),
                Curve(SAP_100, ITERATIVE),
                Curve(SAP_100, DENSE_ITERATIVE),
                Curve(ATHALYE, ITERATIVE),
            ),
        ),
        Figure("2", "Dropout at test time and in training, against FGSM", _DROPOUT),
        Figure("3", "SAP and adversarial training, against FGSM", _FOUR),
        Figure("4", "Calibration under FGSM", _FOUR, calibration=True),
        Figure("5", "The other defences, against FGSM", _BASELINES),
        Figure(
            "6", "SAP-100 against FGSM by the number of draws of a gradient", tuple(Curve(SAP_100, a) for a in _DRAWS)
        ),
    )
}


def figure_named(name: str) -> Figure:
    """The figure of that name; raises ValueError for one that is not in ``FIGURES``."""
    if name not in FIGURES:
        raise ValueError(f"unknown figure {name!r}; known: {', '.join(FIGURES)}")
    return FIGURES[name]
