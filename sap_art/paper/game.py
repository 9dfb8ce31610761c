"""The game of section 3 from real attacks: the points found against each defender, scored on every defender."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sap_art.bench import Watch
from sap_art.game import Payoffs, cross_evaluate, write
from sap_art.paper.attacks import radius
from sap_art.paper.budgets import Budget
from sap_art.paper.figures import DENSE, FIGURES, Defender
from sap_art.paper.nets import Absent, find_net, roles_of
from sap_art.paper.players import DEFENDERS, STRATEGIES, Strategy, spec_of
from sap_art.paper.run import net_info, open_work
from sap_art.paper.work import BLOCK, WORST, Task, Work, name_of
from sap_art.randomness import derive_seed
from sap_art.record import write_json
from sap_art.store import Unit


def run_game(
    lam: int,
    *,
    role: str,
    budget: Budget,
    seed: int,
    output: Path,
    device: str,
    source: str | None,
    checkpoints: Path | None = None,
    watch: Watch | None = None,
) -> Path:
    """Play every strategy against every defender at lambda / 255, and leave ``game/NAME/payoff.json`` in ``output``.

    NAME is ``lambda-1``, or ``adv-lambda-1`` for another net than the dense one; ``settings.json`` beside it says which
    net, images, budget and seed. A second call with the same arguments goes on where the first stopped. Report draws
    are fresh: no attack has seen them, and each defender draws anew for each attack and each half of the images. The
    iterative attack through SAP is left out at radii above the budget's ``iterative_lambda``.

    Args:
        lam: one of the budget's radii, not 0.
        role: of the net that all defenders have, as in the figures: ``dense``, ``adv``, ``dropout-0.1``.

    Returns:
        The payoffs' file, which ``game.read`` reads.

    Raises:
        ValueError: another radius, an unknown or missing net, fewer than two images, and what ``run_figures`` refuses;
            before any work.
        FileNotFoundError: no such folder of checkpoints.
    """
    known = roles_of(list(FIGURES.values()))
    if lam not in budget.lambdas[1:]:
        raise ValueError(f"the game's lambda must be one of {', '.join(map(str, budget.lambdas[1:]))}, got {lam}")
    if role not in known:
        raise ValueError(f"unknown net {role!r}; known: {', '.join(known)}")
    if budget.images is not None and budget.images < 2:
        raise ValueError(f"the game needs at least 2 images, got {budget.images}")
    net = find_net(role, checkpoints=checkpoints)
    if isinstance(net, Absent):
        raise ValueError(f"no checkpoint of {net.name}: {net.command}")
    with open_work(
        {role: net}, budget=budget, seed=seed, output=output, device=device, source=source, watch=watch or Watch()
    ) as (work, settings):
        game = Game(work, role, lam)
        work.announce(game.tasks())
        payoffs, folder = game.payoffs(), output / "game" / game.name
        said = {"net": asdict(net_info(role, net)), "settings": asdict(settings), "lam": lam}
        write_json(said, folder / "settings.json")
        return write(payoffs, radius(lam), folder)


class Game:
    """The units of a game: the points of a strategy on a block of images, a defender's scores on those of all."""

    def __init__(self, work: Work, role: str, lam: int) -> None:
        self._work, self._lam = work, lam
        self.name = f"lambda-{lam}" if role == DENSE.role else f"{role}-lambda-{lam}"
        self._defenders = [replace(defender, role=role) for defender in DEFENDERS]
        allowed = work.budget.lambdas_of
        self._strategies = [
            replace(s, against=replace(s.against, role=role))
            for s in STRATEGIES
            if s.attack == WORST or lam in allowed(s.attack)
        ]

    def tasks(self) -> list[Task]:
        """All of them."""
        points = (self._points_task(s, block) for s in self._strategies for block in self._work.blocks(s.attack))
        return [*points, *(self._score_task(s, d) for s in self._strategies for d in self._defenders)]

    def payoffs(self) -> Payoffs:
        """Read or computed, strategy by strategy."""
        columns = [self._column(strategy) for strategy in self._strategies]
        rows = list(zip(*columns, strict=True))
        shared = {
            spec_of(d): np.stack([unit["draw_correct"].numpy() for unit in row])
            for d, row in zip(self._defenders, rows, strict=True)
            if "draw_correct" in row[0]
        }
        return Payoffs(
            policies=tuple(map(spec_of, self._defenders)),
            attacks=tuple(strategy.name for strategy in self._strategies),
            draws=self._work.budget.report_draws,
            correct=np.stack([np.stack([unit["correct"].numpy() for unit in row]) for row in rows]),
            draw_correct=shared,
        )

    def _column(self, strategy: Strategy) -> list[Unit]:
        x = torch.cat([self._points(strategy, block) for block in self._work.blocks(strategy.attack)])
        return [self._scores(strategy, defender, x) for defender in self._defenders]

    def _points(self, strategy: Strategy, block: Tensor) -> Tensor:
        task, lam = self._points_task(strategy, block), self._lam

        def compute() -> Unit:
            seed = derive_seed(self._work.seed, task.key, "attack")
            return {"points": self._work.find(strategy.against, strategy.attack, block, lambdas=(lam,), seed=seed)[lam]}

        what = f"{name_of(strategy.attack)}, images {int(block[0])} to {int(block[-1])}"
        return self._work.unit(task, what, compute)["points"].to(self._work.x.device)

    def _scores(self, strategy: Strategy, defender: Defender, x: Tensor) -> Unit:
        """``correct`` (B,), and ``draw_correct`` (2, m) where images share the noise of a draw."""
        work, task, spec = self._work, self._score_task(strategy, defender), spec_of(defender)
        models, seed = {spec: work.model(defender)}, derive_seed(work.seed, "game", self.name, "report")

        def compute() -> Unit:
            found = cross_evaluate(models, {strategy.name: x}, work.y, draws=work.budget.report_draws, seed=seed)
            unit = {"correct": torch.from_numpy(found.correct[0, 0])}
            if spec in found.draw_correct:
                unit["draw_correct"] = torch.from_numpy(found.draw_correct[spec][0])
            return unit

        return work.unit(task, f"at the points of {strategy.name}", compute)

    def _points_task(self, strategy: Strategy, block: Tensor) -> Task:
        passes = self._work.passes(strategy.against, strategy.attack, (self._lam,))
        key = f"{self._folder(strategy)}/points/{int(block[0]) // BLOCK:04d}"
        return Task(key, strategy.against, len(block) * passes)

    def _score_task(self, strategy: Strategy, defender: Defender) -> Task:
        key = f"{self._folder(strategy)}/scores/{spec_of(defender).replace(':', '-')}"
        return Task(key, defender, len(self._work.x) * self._work.report_draws(defender))

    def _folder(self, strategy: Strategy) -> str:
        return f"game/lambda-{self._lam}/{self._work.place(strategy.against)}/{name_of(strategy.attack)}"
