"""Reference columns: attacks as other people run them. Their points are worth as much as any other attack's."""

from __future__ import annotations

from dataclasses import replace

from sap_art.attacks.library import ATTACKS, FEWEST_CLASSES, TARGETS, reported_art_pgd, reported_autoattack
from sap_art.attacks.paper import FGSM_DRAWS, ITERATIVE_DRAWS, iterations, paper_fgsm, paper_iterative
from sap_art.portfolio.planned import PlannedAttack
from sap_art.stochastic import StochasticModel
from sap_art.threat import ThreatModel

STEPS, RAND_DRAWS, ART_DRAWS, QUERIES = 100, 20, 10, 5000


def references(model: StochasticModel, best: str, threat: ThreatModel, *, classes: int) -> list[PlannedAttack]:
    """AutoAttack (``rand``, or ``standard`` on a deterministic model), ART's PGD with EOT, the paper's own attack."""
    paper = _paper(threat) if threat.norm == "Linf" and "frozen" in model.estimators else []
    found = [_autoattack("standard" if model.deterministic else "rand", best, classes=classes), _art(best), *paper]
    return [replace(attack, alone=True) for attack in found]


def _autoattack(version: str, best: str, *, classes: int) -> PlannedAttack:
    attacks = tuple(name for name in ATTACKS[version] if classes >= FEWEST_CLASSES.get(name, 2))
    draws = RAND_DRAWS if version == "rand" else 1
    options = {"version": version, "draws": draws, "attacks": attacks, "steps": STEPS, "queries": QUERIES}
    climbs = TARGETS if version == "standard" else 1  # of each of its attacks, at most
    passes = len(attacks) * (climbs * 4 * (STEPS + 2) * draws + 2) + (QUERIES if version == "standard" else 0)
    return PlannedAttack(
        f"autoattack-{version}",
        reported_autoattack,
        best,
        version,
        draws=1,  # of the view; AutoAttack's own are its options
        steps=STEPS,
        passes=passes,
        options=tuple(options.items()),
    )


def _art(best: str) -> PlannedAttack:
    options = (("steps", STEPS),)
    passes = 2 * ART_DRAWS * STEPS + 3 * ART_DRAWS + 1  # with two predictions of ART's and the count of classes
    return PlannedAttack("art-pgd", reported_art_pgd, best, "ce", ART_DRAWS, STEPS, passes, options)


def _paper(threat: ThreatModel) -> list[PlannedAttack]:
    steps = iterations(threat)
    return [
        PlannedAttack("paper-fgsm", paper_fgsm, "frozen", "ce", FGSM_DRAWS, 1, 2 * FGSM_DRAWS, ()),
        PlannedAttack(
            "paper-iterative", paper_iterative, "frozen", "ce", ITERATIVE_DRAWS, steps, 2 * ITERATIVE_DRAWS * steps, ()
        ),
    ]
