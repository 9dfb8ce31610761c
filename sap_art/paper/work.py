"""The work of a figure cut into units: one defender, one attack, one block of images, all radii."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sap_art.attacks.cost import count_passes
from sap_art.bench import Watch
from sap_art.defended import DefendedModel
from sap_art.forecast import Forecast, measure_rate
from sap_art.foreign import wrap
from sap_art.paper.attacks import points, worst_points
from sap_art.paper.budgets import Budget
from sap_art.paper.figures import Attacker, Curve, Defender
from sap_art.paper.nets import Net
from sap_art.paper.scores import Scores, draw_scores, joined, to_unit
from sap_art.policies import parse_policy
from sap_art.randomness import derive_seed
from sap_art.stochastic import StochasticModel
from sap_art.store import Store, Unit
from sap_art.tiers import TIERS

BLOCK = 64
"""Images of a unit: what an interruption can cost at most."""

WORST = "rdp-1"


@dataclass
class Work:
    """Scores on x (B, 3, H, W) in [0, 1], y (B,), by the nets of ``nets``, whatever is finished read from ``store``.

    ``attacker`` None stands for the worst case of RDP-1 everywhere. A unit's key names weights, policy, attack and
    block, so that figures share what they have in common, and all randomness comes from ``seed`` and the key.
    """

    nets: dict[str, Net]
    x: Tensor
    y: Tensor
    budget: Budget
    seed: int
    store: Store
    watch: Watch
    _models: dict[Defender, StochasticModel] = field(default_factory=dict[Defender, StochasticModel])
    _scores: dict[tuple[Defender, Attacker | None], Scores] = field(
        default_factory=dict[tuple[Defender, "Attacker | None"], Scores]
    )

    def model(self, defender: Defender) -> StochasticModel:
        """The defender as a random model; the net as it is without a policy."""
        if defender not in self._models:
            net, seed = self.nets[defender.role].module, derive_seed(self.seed, self._place(defender))
            policy = defender.policy
            self._models[defender] = (
                wrap(net, dense=net, seed=seed)
                if policy is None
                else DefendedModel(net, parse_policy(policy), seed=seed)
            )
        return self._models[defender]

    def scores(self, defender: Defender, attacker: Attacker | None) -> Scores:
        """Scores at all radii of the attack, computed block by block where they are not there yet."""
        asked = (defender, attacker)
        if asked not in self._scores:
            units = [self._unit(defender, attacker, block) for block in self._blocks(attacker)]
            self._scores[asked] = joined(units, self.y, per_example=self.model(defender).per_example)
        return self._scores[asked]

    def announce_all(self, curves: list[Curve]) -> None:
        """Tell the watch how much there is to do for these curves and their worst cases, and how much of it is left."""
        pairs = dict.fromkeys((c.defender, a) for c in curves for a in (c.attacker, None))
        left: dict[Defender, int] = {}
        total = 0
        for defender, attacker in pairs:
            for block in self._blocks(attacker):
                passes = self._passes(defender, attacker, len(block))
                total += passes
                if not self.store.has(self._key(defender, attacker, block)):
                    left[defender] = left.get(defender, 0) + passes
        self.watch.expect(total)
        if left:
            x, y = self.x[:BLOCK], self.y[:BLOCK]
            self.watch.forecast(
                [Forecast(d.name, len(self.x), n, measure_rate(self.model(d), x, y)) for d, n in left.items()]
            )

    def _blocks(self, attacker: Attacker | None) -> tuple[Tensor, ...]:
        images = len(self.x) if attacker is None else self.budget.images_of(attacker, len(self.x))
        return torch.arange(images).split(BLOCK)

    def _unit(self, defender: Defender, attacker: Attacker | None, block: Tensor) -> Unit:
        key, model = self._key(defender, attacker, block), self.model(defender)
        self.watch.announce(f"{defender.name}, {_name(attacker)}, images {int(block[0])} to {int(block[-1])}")
        with count_passes(model, self.watch.advance) as spent:
            unit = self.store.unit(key, lambda: self._compute(defender, attacker, block))
        self.watch.advance(self._passes(defender, attacker, len(block)) - spent.forwards - spent.backwards)
        return unit

    def _compute(self, defender: Defender, attacker: Attacker | None, block: Tensor) -> Unit:
        key, model = self._key(defender, attacker, block), self.model(defender)
        x, y, seed = self.x[block], self.y[block], derive_seed(self.seed, key, "attack")
        if attacker is None:
            lambdas, tier = self.budget.lambdas, TIERS[self.budget.tier]
            found = worst_points(model, x, y, lambdas=lambdas, tier=tier, seed=seed)
        else:
            found = points(model, x, y, attacker, lambdas=self.budget.lambdas_of(attacker), seed=seed)
        clean = self._key(defender, "clean", block)
        seeds = {lam: derive_seed(self.seed, key if lam else clean, lam, "report") for lam in found}
        draws = self.budget.report_draws
        return to_unit(
            {lam: draw_scores(model, x_adv, y, draws=draws, seed=seeds[lam]) for lam, x_adv in found.items()}
        )

    def _place(self, defender: Defender) -> str:
        policy = (defender.policy or "none").replace(":", "-")
        return f"{self.nets[defender.role].sha256[:12]}/{policy}"

    def _key(self, defender: Defender, attack: Attacker | str | None, block: Tensor) -> str:
        name = attack if isinstance(attack, str) else _name(attack)
        return f"{self._place(defender)}/{name}/{int(block[0]) // BLOCK:04d}"

    def _passes(self, defender: Defender, attacker: Attacker | None, images: int) -> int:
        """Forwards and backwards of a unit, if no image falls early."""
        random = not self.model(defender).deterministic
        draws = self.budget.report_draws if random else 1
        if attacker is None:
            lambdas = self.budget.lambdas
            return images * (draws * len(lambdas) + sum(lam > 0 for lam in lambdas) * self._passes_of_worst(random))
        lambdas = self.budget.lambdas_of(attacker)
        gradients = {"noise": 0, "fgsm": 1, "iterative": max(lambdas)}[attacker.kind]
        return images * (draws * len(lambdas) + 2 * gradients * (attacker.draws if random else 1))

    def _passes_of_worst(self, random: bool) -> int:
        tier = TIERS[self.budget.tier]
        tested = tier.drop_draws if random else 1
        choice = 2 * (tier.selection_draws if random else 1) + tested
        dense = max(1, len(tier.transfer_losses)) * (2 * tier.steps + choice)
        return tested + dense + random * len(tier.losses) * (2 * tier.draws * tier.steps + choice)


def _name(attacker: Attacker | None) -> str:
    return WORST if attacker is None else attacker.name
