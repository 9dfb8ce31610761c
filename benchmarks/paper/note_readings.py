"""What the note needs of the figures of ``sap-art paper``, found by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sap_art.game import GameReport, Payoffs, analyse, read
from sap_art.paper.figures import ADV, ADV_SAP_100, ATHALYE, DENSE, DENSE_ITERATIVE, ITERATIVE, SAP_100, Attacker
from sap_art.paper.page import attacker_of
from sap_art.paper.printed import printed
from sap_art.paper.results import CurveResult, FigureResult, Score
from sap_art.record_parts import Value

FIGURES = ("1c", "3", "6")
GAME = Path("game") / "lambda-1"
NETS = (DENSE, SAP_100, ADV, ADV_SAP_100)
Line = dict[int, tuple[float, float, float]]


@dataclass(frozen=True)
class Readings:
    """The figures by name: scores by defender, attacker and lambda, all of them of one run; and a game, solved."""

    figures: dict[str, FigureResult]
    payoffs: Payoffs
    game: GameReport

    @classmethod
    def read(cls, results: Path) -> Readings:
        """From the output folder of ``sap-art paper``.

        Raises:
            FileNotFoundError: a figure or a game that is not there.
            ValueError: a file that is no figure or no game, one without a line that the note needs, or figures of
                several runs.
        """
        figures = {name: FigureResult.read(results / "figures" / f"{name}.json") for name in FIGURES}
        if len({str(figure.settings) for figure in figures.values()}) > 1:
            raise ValueError(f"{results} holds figures of runs with different settings; compute them together")
        missing = [f"{curve.defender} ({curve.command})" for figure in figures.values() for curve in figure.missing]
        if missing:
            raise ValueError(f"the note needs all lines of the figures {', '.join(FIGURES)}; missing: {missing[0]}")
        payoffs, _ = read(results / GAME)
        return cls(figures, payoffs, analyse(payoffs, seed=0))

    def attacked(self, figure: str, defender: str, attacker: Attacker, lam: int) -> Score:
        """Under one of the paper's attacks."""
        curve = self._curve(figure, defender, attacker)
        return next(point.attacked for point in curve.points if point.lam == lam)

    def worst(self, defender: str, lam: int) -> Score:
        """At the worst points of RDP-1, on all images."""
        return self._worst(defender)[lam]

    def attack_lines(self) -> dict[str, Line]:
        """SAP-100 under the paper's iterative attacks, as printed and here, and at worst: mean predictions."""
        name = SAP_100.name
        lines: dict[str, Line] = {}
        for text, attacker in (("own gradient", ITERATIVE), ("gradient of the dense net", DENSE_ITERATIVE)):
            points = self._curve("1c", name, attacker).points
            found = {p.lam: printed(name, attacker, p.lam) for p in points}
            lines[f"paper, {text}"] = {
                lam: _percents(Value(p.value, p.value, p.value)) for lam, p in found.items() if p
            }
            lines[f"here, {text}"] = {p.lam: _percents(p.attacked.mean) for p in points}
        return {**lines, "here, worst case": {lam: _percents(s.mean) for lam, s in self._worst(name).items()}}

    def net_lines(self) -> dict[str, Line]:
        """Worst cases of the four of figure 3: mean predictions."""
        return {d.name: {lam: _percents(s.mean) for lam, s in self._worst(d.name).items()} for d in NETS}

    def _worst(self, defender: str) -> dict[int, Score]:
        figure = "1c" if defender == ATHALYE.name else "3"
        curve = next(curve for curve in self.figures[figure].curves if curve.defender == defender)
        return {point.lam: point.worst for point in curve.points}

    def _curve(self, figure: str, defender: str, attacker: Attacker) -> CurveResult:
        for curve in self.figures[figure].curves:
            if (curve.defender, attacker_of(curve)) == (defender, attacker):
                return curve
        raise ValueError(f"figure {figure} has no {defender} under {attacker.name}; compute it again")


def _percents(value: Value) -> tuple[float, float, float]:
    return (100 * value.value, 100 * value.low, 100 * value.high)
