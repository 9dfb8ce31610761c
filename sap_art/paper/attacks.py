"""The paper's attacks at all radii in one go, without any change of their points, and the worst case of RDP-1.

FGSM's gradient is that of the clean image whatever the radius, and the iterative attack at a small radius is the
beginning of the one at a large radius: its steps are of one pixel value, so that only the last one can leave the ball.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from sap_art.attacker import AttackerView
from sap_art.attacks import eot_apgd, long_apgd
from sap_art.attacks.objective import loss_and_gradient, prepare
from sap_art.attacks.paper import PIXEL
from sap_art.evaluation import evaluate
from sap_art.paper.figures import Attacker
from sap_art.randomness import derive_seed, make_generator
from sap_art.selection import choose_worst
from sap_art.stochastic import StochasticModel
from sap_art.threat import ThreatModel
from sap_art.tiers import Tier

CALL = 100
"""Draws of a gradient that are in memory together, at most; the mean over more is one of several calls."""

FEW = 2
"""Draws in which most images that stand show it already; the others need all of the tier's."""


def radius(lam: int) -> ThreatModel:
    """The Linf ball of lambda / 255, lambda at least 1."""
    return ThreatModel("Linf", lam / 255)


def points(
    model: StochasticModel, x: Tensor, y: Tensor, attacker: Attacker, *, lambdas: Sequence[int], seed: int
) -> dict[int, Tensor]:
    """What an attacker finds at each radius: (B, ...), (B,) -> lambda -> (B, ...) in [0, 1]; x itself for 0.

    What ``paper_fgsm`` and ``paper_iterative`` find with that seed, bit by bit, where images have noise of their own
    and the gradient is one of at most 100 draws.
    """
    if attacker.kind == "iterative":
        found = _iterates(model, x, y, attacker, steps=max(lambdas), seed=seed)
        return {lam: found[lam] for lam in lambdas}
    if attacker.kind == "noise":
        direction = torch.randn(x.shape, generator=make_generator(x.device, seed, "noise"), device=x.device)
    else:
        direction = mean_gradient(view_of(model, attacker), x, y, draws=attacker.draws, seed=seed)
    return {lam: _stepped(x, direction, lam) for lam in lambdas}


def view_of(model: StochasticModel, attacker: Attacker) -> AttackerView:
    """What the attacker differentiates: the defence with its masks held constant, as the authors do, or the net."""
    dense = attacker.source == "dense" or model.deterministic
    together = CALL if dense or model.per_example else 1  # drawn weights serve one draw a pass, for many images
    return AttackerView(model, gradient="dense" if dense else "frozen", draws=min(attacker.draws, together))


def mean_gradient(view: AttackerView, x: Tensor, y: Tensor, *, draws: int, seed: int) -> Tensor:
    """Gradient of the cross-entropy, mean over ``draws`` draws, by as many calls of the view: (B, ...).

    Raises:
        ValueError: draws that are no multiple of the view's.
    """
    prepare(view, x, y, draws=draws)
    with view.seeded(derive_seed(seed, "view")):
        return _mean(view, x, y, draws)


def _mean(view: AttackerView, x: Tensor, y: Tensor, draws: int) -> Tensor:
    calls, left = divmod(draws, view.draws)
    if left:
        raise ValueError(f"draws must be a multiple of the view's {view.draws}, got {draws}")
    total = loss_and_gradient(view, x, y, loss="ce").gradient
    for _ in range(calls - 1):
        total = total + loss_and_gradient(view, x, y, loss="ce").gradient
    return total / calls


def _stepped(x: Tensor, direction: Tensor, lam: int) -> Tensor:
    if lam == 0:
        return x
    threat = radius(lam)
    return threat.project(x, x + threat.eps * threat.ascent_direction(direction))


def _iterates(
    model: StochasticModel, x: Tensor, y: Tensor, attacker: Attacker, *, steps: int, seed: int
) -> list[Tensor]:
    """After 0, 1, ... ``steps`` steps, each in the ball that it can reach."""
    view, found, point = view_of(model, attacker), [x], x
    prepare(view, x, y)
    with view.seeded(derive_seed(seed, "view")):
        for step in range(1, steps + 1):
            ahead = point + PIXEL * _mean(view, point, y, attacker.draws).sign()
            found.append(radius(step).project(x, ahead))
            point = radius(steps).project(x, ahead)
    return found


def worst_points(
    model: StochasticModel, x: Tensor, y: Tensor, *, lambdas: Sequence[int], tier: Tier, seed: int
) -> dict[int, Tensor]:
    """The worst point of each image that an adaptive attacker finds, at each radius: lambda -> (B, ...) in [0, 1].

    From small radii to large ones, APGD on the dense net, then through the defence the long climb of single draws on
    the margin, with ``bpda``: at one price it leaves less than EOT-APGD, which noise leads astray. A new point
    replaces the one so far, that of the smaller radius included, where it is right less often in selection draws. An
    image at whose point all of as many draws as the tier drops by are wrong is left alone, its point being allowed at
    all larger radii too; it is tested anew at each of them, so that luck does not last.
    """
    best, found = x.clone(), {0: x}
    for lam in (lam for lam in sorted(lambdas) if lam):
        index = torch.arange(len(x), device=x.device)
        for name, view, climb in _adaptive(model, tier):
            own = derive_seed(seed, lam, name)
            index = index[_standing(model, best[index], y[index], tier, seed=derive_seed(own, "drop"))]
            if len(index) == 0:
                break
            new = climb(view, x[index], y[index], radius(lam), seed=own)
            both = torch.stack([best[index], new])
            valid = torch.ones(both.shape[:2], dtype=torch.bool)
            chosen = choose_worst(
                model, both, valid, y[index], draws=_times(model, tier.selection_draws), seed=derive_seed(own, "choice")
            )
            best[index] = chosen.points
        found[lam] = best.clone()
    return {lam: found[lam] for lam in lambdas}


def _adaptive(model: StochasticModel, tier: Tier) -> list[tuple[str, AttackerView, Callable[..., Tensor]]]:
    dense = AttackerView(model, gradient="dense")
    attacks: list[tuple[str, AttackerView, Callable[..., Tensor]]] = [
        (f"apgd-{loss}-dense", dense, partial(eot_apgd, steps=tier.steps, loss=loss))
        for loss in tier.transfer_losses or ("ce",)
    ]
    if not model.deterministic:
        view = AttackerView(model, gradient="bpda", draws=1)
        attacks.append(("long-apgd-bpda", view, partial(long_apgd, steps=tier.long_steps, loss="margin")))
    return attacks


def worst_passes(tier: Tier, *, random: bool) -> int:
    """Forwards and backwards an image of ``worst_points`` at one radius, if the image does not fall."""
    tested, chosen = (tier.drop_draws, tier.selection_draws) if random else (1, 1)
    climbs = [tier.steps] * max(1, len(tier.transfer_losses)) + random * [tier.long_steps]
    return sum(tested + 2 * steps + 2 * chosen for steps in climbs)


def _standing(model: StochasticModel, x: Tensor, y: Tensor, tier: Tier, *, seed: int) -> Tensor:
    """(B,) bool, on the device of x: any of the tier's drop draws is right; most show it in the first ``FEW``."""
    draws = _times(model, tier.drop_draws)
    few = min(FEW, draws)
    stands = _any_right(model, x, y, draws=few, seed=derive_seed(seed, "few"))
    rest = (~stands).nonzero()[:, 0]
    if few < draws and len(rest):
        stands[rest] = _any_right(model, x[rest], y[rest], draws=draws - few, seed=derive_seed(seed, "rest"))
    return stands


def _any_right(model: StochasticModel, x: Tensor, y: Tensor, *, draws: int, seed: int) -> Tensor:
    return (evaluate(model, x, y, draws=draws, seed=seed).correct > 0).to(x.device)


def _times(model: StochasticModel, draws: int) -> int:
    """One of what does not differ is enough."""
    return 1 if model.deterministic else draws
