"""The words of the note, what must hold for them to be true, and the numbers that go into them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from note_readings import Readings

from sap_art.game import Payoffs
from sap_art.game.analysis import best_single
from sap_art.game.words import PLAYED
from sap_art.paper.figures import (
    ADV,
    ADV_SAP_100,
    ATHALYE,
    DENSE,
    DENSE_FGSM,
    DENSE_ITERATIVE,
    FGSM,
    ITERATIVE,
    SAP_100,
    Attacker,
    Defender,
)
from sap_art.paper.page import percent
from sap_art.paper.printed import PRINTED_NETS, printed
from sap_art.paper.work import WORST
from sap_art.record_parts import Value

SHOWN = (0, 1, 2, 4)
ROBUST_SHOWN = (0, 4, 8, 16)
DRAWS = (1, 10, 100, 1000)
NOTHING = "–"

TEMPLATE = Path(__file__).with_name("note.template.md")


def claims(readings: Readings) -> Iterator[tuple[str, bool]]:
    """What the words say, and whether it is so."""
    own, transferred = (_means(readings, attacker) for attacker in (ITERATIVE, DENSE_ITERATIVE))
    worst = {lam: readings.worst(SAP_100.name, lam).mean.value for lam in (*SHOWN, 8)}
    for lam in (2, 4):
        yield f"transfer beats the own gradient at lambda {lam}", transferred[lam] < own[lam]
        yield f"the worst case is below the paper's own attack at lambda {lam}", worst[lam] < own[lam] - 0.1
        yield f"the worst case is not above transfer at lambda {lam}", worst[lam] <= transferred[lam]
    yield "next to nothing is left of SAP at lambda 8", worst[8] < 0.05
    adv, adv_sap = (readings.worst(defender.name, 8).mean for defender in (ADV, ADV_SAP_100))
    yield "ADV with SAP and without cannot be told apart at 8/255", adv.low <= adv_sap.high and adv_sap.low <= adv.high
    few, many = (readings.attacked("6", SAP_100.name, _own(draws), 4).mean.value for draws in (1, 100))
    yield "more draws of the gradient do more damage at lambda 4", many < few
    at_1 = readings.attacked("1c", SAP_100.name, ITERATIVE, 1)
    yield "the ways to score differ at lambda 1", at_1.every.value < min(at_1.single.value, at_1.mean.value)
    game = readings.game
    yield "randomising over policies buys nothing that can be told from none", game.gain.low == 0
    yield "nor does it beyond SAP alone", game.gain_over_sap is not None and game.gain_over_sap.low == 0
    yield "some policies are hurt most by points that were found on others", _borrowed(readings.payoffs) > 0


def fields(readings: Readings) -> dict[str, str]:
    """All that stands in braces in ``TEMPLATE``."""
    settings = readings.figures["1c"].settings
    dense = next(net for net in readings.figures["1c"].nets if net.role == DENSE.role)
    many = next(c for c in readings.figures["6"].curves if c.gradient_draws == DRAWS[-1])
    at_1 = readings.attacked("1c", SAP_100.name, ITERATIVE, 1)
    damage = [readings.attacked("6", SAP_100.name, _own(draws), 4).mean for draws in DRAWS]
    found = {
        "images": f"{settings.data.n:,}",
        "budget": str(settings.budget["name"]),
        "draws": str(settings.budget["report_draws"]),
        "seed": str(settings.seed),
        "dense_accuracy": f"{100 * dense.accuracy:.2f}",
        "dense_paper": f"{100 * PRINTED_NETS[DENSE.role][1]:.1f}",
        "dense_table": _dense_table(readings),
        "robust_table": _robust_table(readings),
        "iterative_draws": str(ITERATIVE.draws),
        "paper_own_4": _printed(SAP_100, ITERATIVE, 4),
        "paper_transferred_4": _printed(SAP_100, DENSE_ITERATIVE, 4),
        "draws_list": _listed([str(draws) for draws in DRAWS]),
        "draws_accuracies": _listed([percent(value) for value in damage]),
        "many_images": str(many.images),
        "variant_4": percent(readings.attacked("1c", ATHALYE.name, ITERATIVE, 4).mean),
        "variant_worst_2": percent(readings.worst(ATHALYE.name, 2).mean),
        "single_1": percent(at_1.single),
        "mean_1": percent(at_1.mean),
        "every_1": percent(at_1.every),
        **_game(readings),
    }
    for name, attacker in (("own", ITERATIVE), ("transferred", DENSE_ITERATIVE)):
        found |= {f"{name}_{lam}": percent(readings.attacked("1c", SAP_100.name, attacker, lam).mean) for lam in (2, 4)}
    for name, defender in (("worst", SAP_100), ("dense_worst", DENSE), ("adv", ADV), ("adv_sap", ADV_SAP_100)):
        found |= {f"{name}_{lam}": percent(readings.worst(defender.name, lam).mean) for lam in (1, 2, 4, 8)}
    return found


def _game(readings: Readings) -> dict[str, str]:
    payoffs, game = readings.payoffs, readings.game
    single = best_single(payoffs.matrix, range(len(payoffs.policies)))
    played = sorted(zip(game.solution.defender, payoffs.policies, strict=True), reverse=True)
    assert game.gain_over_sap is not None  # one of the claims
    return {
        "game_images": str(payoffs.images),
        "policies": str(len(payoffs.policies)),
        "attacks": str(len(payoffs.attacks)),
        "mix": ", ".join(f"{100 * weight:.0f} % `{policy}`" for weight, policy in played if weight > PLAYED),
        "game_value": percent(Value(*game.value)),
        "single": f"`{payoffs.policies[single]}`",
        "single_worst": f"{100 * payoffs.matrix[single].min():.1f}",
        "gain": percent(Value(*game.gain)),
        "gain_sap": percent(Value(*game.gain_over_sap)),
        "borrowed": str(_borrowed(payoffs)),
    }


def _borrowed(payoffs: Payoffs) -> int:
    """How many policies the adaptive attack on another one hurts more than that on themselves."""
    own = {policy: f"{WORST} on {policy}" for policy in payoffs.policies}
    columns = [payoffs.attacks.index(name) for name in own.values()]
    worst = payoffs.matrix[:, columns]
    return int((worst.min(1) < worst.diagonal()).sum())


def _dense_table(readings: Readings) -> str:
    rows = [("", *(f"lambda = {lam}" for lam in SHOWN)), ("---",) * (1 + len(SHOWN))]
    for text, defender, attacker in (
        ("dense, iterative attack", DENSE, DENSE_ITERATIVE),
        ("SAP-100, paper's own attack", SAP_100, ITERATIVE),
        ("SAP-100, from the dense net", SAP_100, DENSE_ITERATIVE),
    ):
        rows.append((f"{text}: printed", *(_printed(defender, attacker, lam) for lam in SHOWN)))
        here = (readings.attacked("1c", defender.name, attacker, lam).mean for lam in SHOWN)
        rows.append((f"{text}: here", *map(percent, here)))
    for defender in (DENSE, SAP_100):
        rows.append((f"{defender.name}, worst case", *_worst(readings, defender, SHOWN)))
    return _table(rows)


def _robust_table(readings: Readings) -> str:
    rows = [("", *(f"lambda = {lam}" for lam in ROBUST_SHOWN)), ("---",) * (1 + len(ROBUST_SHOWN))]
    for defender, attacker in ((ADV, DENSE_FGSM), (ADV_SAP_100, FGSM)):
        here = (readings.attacked("3", defender.name, attacker, lam).mean for lam in ROBUST_SHOWN)
        rows.append((f"{defender.name}, FGSM: printed", *(_printed(defender, attacker, lam) for lam in ROBUST_SHOWN)))
        rows.append((f"{defender.name}, FGSM: here", *map(percent, here)))
        rows.append((f"{defender.name}, worst case", *_worst(readings, defender, ROBUST_SHOWN)))
    return _table(rows)


def _worst(readings: Readings, defender: Defender, lambdas: tuple[int, ...]) -> list[str]:
    return [percent(readings.worst(defender.name, lam).mean) for lam in lambdas]


def _means(readings: Readings, attacker: Attacker) -> dict[int, float]:
    return {lam: readings.attacked("1c", SAP_100.name, attacker, lam).mean.value for lam in SHOWN}


def _own(draws: int) -> Attacker:
    return Attacker("fgsm", "defended", draws)


def _printed(defender: Defender, attacker: Attacker, lam: int) -> str:
    found = printed(defender.name, attacker, lam)
    return NOTHING if found is None else f"{100 * found.value:.1f}"


def _listed(items: list[str]) -> str:
    return f"{', '.join(items[:-1])} and {items[-1]}"


def _table(rows: list[tuple[str, ...]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
