"""The game in plain words."""

from __future__ import annotations

from collections.abc import Sequence

from sap_art.game.analysis import GameReport, best_single
from sap_art.game.payoffs import Payoffs
from sap_art.game.solution import Floats
from sap_art.metrics import Estimate
from sap_art.threat import ThreatModel

PLAYED = 0.001
"""A strategy's weights up to this are not printed."""


def describe(payoffs: Payoffs, threat: ThreatModel, report: GameReport) -> str:
    """Who should play what, what the game is worth, and what randomising buys; several lines without a colour."""
    parts = [
        [_caption(payoffs, threat)],
        ["The defender draws a policy for each prediction:", *_mixture(payoffs.policies, report.solution.defender)],
        [
            "The attacker, who does not see that draw, sends the points of:",
            *_mixture(payoffs.attacks, report.solution.attacker),
        ],
        [
            f"Value of the game: {_interval(report.value)} %. The defender can be sure of this accuracy against any "
            "mix of these attacks; no choice among these policies gets more out of the attacker's mix. A further "
            "attack can only lower it, a further policy only raise it.",
        ],
        _alone(payoffs, report),
        _bought(payoffs, report),
        _held_out(report),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts)


def _caption(payoffs: Payoffs, threat: ThreatModel) -> str:
    return (
        f"{len(payoffs.policies)} policies against {len(payoffs.attacks)} attacks, {payoffs.images} images, "
        f"{payoffs.draws} fresh draws an image, {threat.norm} eps = {threat.eps * 255:.4g}/255; accuracies in %, "
        "differences in points, 95 % intervals by bootstrap over images and draws in brackets."
    )


def _mixture(names: Sequence[str], strategy: Floats) -> list[str]:
    played = sorted((i for i, weight in enumerate(strategy) if weight > PLAYED), key=lambda i: -strategy[i])
    return [f"  {100 * strategy[i]:5.1f} %  {names[i]}" for i in played]


def _alone(payoffs: Payoffs, report: GameReport) -> list[str]:
    lines = ["Each policy alone, at its worst attack, and what it loses to the value of the game:"]
    width = max(map(len, payoffs.policies))
    for policy, row, loss in zip(payoffs.policies, payoffs.matrix, report.exploitability, strict=True):
        attack = payoffs.attacks[int(row.argmin())]
        lines.append(f"  {policy:{width}}  {100 * row.min():5.1f}  loses {_interval(loss)}  ({attack})")
    return lines


def _bought(payoffs: Payoffs, report: GameReport) -> list[str]:
    policies = range(len(payoffs.policies))
    single = payoffs.policies[best_single(payoffs.matrix, policies)]
    lines = [f"Randomising over policies buys {_interval(report.gain)} beyond the best of them alone, {single}."]
    saps = payoffs.sap_policies
    if report.gain_over_sap is not None:
        sap = payoffs.policies[best_single(payoffs.matrix, saps)]
        lines.append(f"Beyond SAP alone, {sap}, it buys {_interval(report.gain_over_sap)}.")
    return [
        *lines,
        "As measured this is never below 0, for the mix is the best one for these very images. The intervals are of "
        "mixes, policies and attacks chosen on one half of the images and judged on the other: only one that stays "
        "above 0.0 says that randomising buys anything.",
    ]


def _held_out(report: GameReport) -> list[str]:
    return [
        "Exploitability on images that a mix has not seen (chosen on one half, played on the other, both ways):",
        f"  the best attack takes {_at_most(report.held_out_defender)} from the defender's mix",
        f"  the best policy takes {_at_most(report.held_out_attacker)} from the attacker's mix",
        "The replies have seen those images, so both are rather too large.",
    ]


def _at_most(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f}, at most {100 * estimate.high:.1f},"


def _interval(estimate: Estimate) -> str:
    value, low, high = (f"{100 * number:.1f}" for number in estimate)
    return f"{value} [{low}, {high}]"
