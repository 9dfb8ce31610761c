"""The work of a figure cut into units: one defender, one attack, one block of images, all radii above 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from sap_art.attacks.cost import count_passes
from sap_art.bench import Watch
from sap_art.defended import DefendedModel
from sap_art.forecast import Forecast, measure_rate
from sap_art.foreign import wrap
from sap_art.paper.attacks import points, worst_passes, worst_points
from sap_art.paper.budgets import Budget
from sap_art.paper.figures import Attacker, Curve, Defender
from sap_art.paper.nets import Net
from sap_art.paper.scores import Scores, draw_scores, joined, to_unit
from sap_art.policies import DWP, parse_policy
from sap_art.randomness import derive_seed
from sap_art.stochastic import StochasticModel
from sap_art.store import Store, Unit
from sap_art.tiers import TIERS

BLOCK = 64
"""Images of a unit: what an interruption can cost at most."""

WORST, CLEAN = "rdp-1", "clean"
Attack = Attacker | Literal["rdp-1", "clean"]
"""One of the paper's attacks, the worst case of RDP-1, or none: the clean images."""


@dataclass(frozen=True)
class Task:
    """A unit of the store: its key, whose model it runs, and the passes that it takes if no image falls early."""

    key: str
    defender: Defender
    passes: int


@dataclass
class Work:
    """Scores on x (B, 3, H, W) in [0, 1], y (B,), by the nets of ``nets``, whatever is finished read from ``store``.

    A unit's key names weights, policy, attack and block, so that figures share what they have in common, and all
    randomness comes from ``seed`` and the key: neither the order of the units nor what was there before matters.
    """

    nets: dict[str, Net]
    x: Tensor
    y: Tensor
    budget: Budget
    seed: int
    store: Store
    watch: Watch
    _models: dict[Defender, StochasticModel] = field(default_factory=dict[Defender, StochasticModel])
    _scores: dict[tuple[Defender, Attack], Scores] = field(default_factory=dict[tuple[Defender, Attack], Scores])

    def model(self, defender: Defender) -> StochasticModel:
        """The defender as a random model; a net that nothing makes random, DWP's pruned one too, as it is."""
        if defender not in self._models:
            net, seed = self.nets[defender.role].module, derive_seed(self.seed, self.place(defender))
            self._models[defender] = model_of(net, defender.policy, seed=seed)
        return self._models[defender]

    def scores(self, defender: Defender, attack: Attack) -> Scores:
        """Scores at all radii of the attack, computed block by block where they are not there yet."""
        asked = (defender, attack)
        if asked not in self._scores:
            units = [self._unit(defender, attack, block) for block in self.blocks(attack)]
            found = joined(units, self.y, per_example=self.model(defender).per_example)
            self._scores[asked] = found if attack == CLEAN else found.with_clean(self.scores(defender, CLEAN))
        return self._scores[asked]

    def announce_all(self, curves: list[Curve]) -> None:
        """Tell the watch how much there is to do for these curves and their worst cases, and how much of it is left."""
        pairs: dict[tuple[Defender, Attack], None] = {}
        for curve in curves:
            pairs |= {(curve.defender, CLEAN): None, (curve.defender, curve.attacker): None}
            pairs |= {(curve.defender, WORST): None}
        self.announce([self._task(*pair, block) for pair in pairs for block in self.blocks(pair[1])])

    def announce(self, tasks: Sequence[Task]) -> None:
        """The same for these units."""
        left: dict[Defender, int] = {}
        for task in tasks:
            if not self.store.has(task.key):
                left[task.defender] = left.get(task.defender, 0) + task.passes
        self.watch.expect(sum(task.passes for task in tasks))
        if left:
            x, y = self.x[:BLOCK], self.y[:BLOCK]
            self.watch.forecast(
                [Forecast(d.name, len(self.x), n, measure_rate(self.model(d), x, y)) for d, n in left.items()]
            )

    def blocks(self, attack: Attack) -> tuple[Tensor, ...]:
        """The numbers of the images that the attack is run on, block by block."""
        images = self.budget.images_of(attack, len(self.x)) if isinstance(attack, Attacker) else len(self.x)
        return torch.arange(images).split(BLOCK)

    def unit(self, task: Task, what: str, compute: Callable[[], Unit]) -> Unit:
        """The unit, read or computed, and the watch told of it."""
        self.watch.announce(f"{task.defender.name}, {what}")
        with count_passes(self.model(task.defender), self.watch.advance) as spent:
            unit = self.store.unit(task.key, compute)
        self.watch.advance(task.passes - spent.forwards - spent.backwards)
        return unit

    def find(
        self, defender: Defender, attack: Attack, block: Tensor, *, lambdas: Sequence[int], seed: int
    ) -> dict[int, Tensor]:
        """By radius, the points of an attack on a block of images; x itself for ``clean``."""
        x, y, model = self.x[block], self.y[block], self.model(defender)
        if attack == CLEAN:
            return {0: x}
        if isinstance(attack, Attacker):
            return points(model, x, y, attack, lambdas=lambdas, seed=seed)
        return worst_points(model, x, y, lambdas=lambdas, tier=TIERS[self.budget.tier], seed=seed)

    def passes(self, defender: Defender, attack: Attack, lambdas: Sequence[int]) -> int:
        """Forwards and backwards an image of ``find``, if it does not fall early."""
        random = not self.model(defender).deterministic
        if attack == CLEAN:
            return 0
        if isinstance(attack, Attacker):
            gradients = {"noise": 0, "fgsm": 1, "iterative": max(lambdas)}[attack.kind]
            return 2 * gradients * (attack.draws if random else 1)
        return len(lambdas) * worst_passes(TIERS[self.budget.tier], random=random)

    def report_draws(self, defender: Defender) -> int:
        """Fresh draws that are made of each score: one of what is not random."""
        return 1 if self.model(defender).deterministic else self.budget.report_draws

    def place(self, defender: Defender) -> str:
        """Where units of a defender lie: by the weights of its net and its policy."""
        policy = (defender.policy or "none").replace(":", "-")
        return f"{self.nets[defender.role].sha256[:12]}/{policy}"

    def _unit(self, defender: Defender, attack: Attack, block: Tensor) -> Unit:
        what = f"{name_of(attack)}, images {int(block[0])} to {int(block[-1])}"
        return self.unit(self._task(defender, attack, block), what, lambda: self._compute(defender, attack, block))

    def _compute(self, defender: Defender, attack: Attack, block: Tensor) -> Unit:
        key, model, y = self._key(defender, attack, block), self.model(defender), self.y[block]
        lambdas, seed = self._lambdas(attack), derive_seed(self.seed, key, "attack")
        found = self.find(defender, attack, block, lambdas=lambdas, seed=seed)
        return to_unit(
            {
                lam: draw_scores(
                    model, x, y, draws=self.budget.report_draws, seed=derive_seed(self.seed, key, lam, "report")
                )
                for lam, x in found.items()
            }
        )

    def _lambdas(self, attack: Attack) -> tuple[int, ...]:
        """Above 0, where there is nothing to attack."""
        found = self.budget.lambdas_of(attack) if isinstance(attack, Attacker) else self.budget.lambdas
        return tuple(lam for lam in found if lam)

    def _key(self, defender: Defender, attack: Attack, block: Tensor) -> str:
        return f"{self.place(defender)}/{name_of(attack)}/{int(block[0]) // BLOCK:04d}"

    def _task(self, defender: Defender, attack: Attack, block: Tensor) -> Task:
        lambdas = self._lambdas(attack)
        scores = 1 if attack == CLEAN else len(lambdas)
        passes = scores * self.report_draws(defender) + self.passes(defender, attack, lambdas)
        return Task(self._key(defender, attack, block), defender, len(block) * passes)


def model_of(net: nn.Module, policy: str | None, *, seed: int) -> StochasticModel:
    """The net under a policy (``parse_policy``); where that draws nothing, the net that comes of it, deterministic."""
    parsed = None if policy is None else parse_policy(policy)
    if parsed is None or isinstance(parsed, DWP):
        fixed = net if parsed is None else parsed.prune(net)
        return wrap(fixed, dense=fixed, seed=seed)
    return DefendedModel(net, parsed, seed=seed)


def name_of(attack: Attack) -> str:
    """As keys and pages have it."""
    return attack.name if isinstance(attack, Attacker) else attack
