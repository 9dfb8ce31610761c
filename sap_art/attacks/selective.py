"""Attacks that do not treat all draws alike: where the draws' optima lie far apart, their mean may have none."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from sap_art.attacker import AttackerView
from sap_art.attacks.apgd import climb
from sap_art.attacks.objective import Loss, Value, loss_and_gradient, margins, prepare
from sap_art.attacks.stopping import standing
from sap_art.randomness import derive_seed, make_generator
from sap_art.threat import ThreatModel


def em_apgd(
    view: AttackerView,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    steps: int = 20,
    temperature: float = 0.25,
    stop_draws: int = 0,
) -> Tensor:
    """APGD that commits to one mode of the randomness: draws count by how likely they are to err already.

    It climbs T log mean_k P_k^(1 / T) with P_k the probability that draw k gives to the wrong classes. The gradient
    is that of expectation-maximisation: log P_k weighted by softmax_k(log P_k / T). At T = 1 this is the mean
    probability of an error; the smaller T, the more the draws that err least are given up. A draw that errs for sure
    has log P_k = 0 and no gradient. Step size and best point follow the same quantity over the k draws of an iterate,
    lucky maximum included (see ``eot_apgd``).

    Passes an image: ``steps`` * k forwards and backwards. Returns (B, ...) in [0, 1].

    Args:
        temperature: T in (0, 1].
        stop_draws: as of ``eot_apgd``.

    Raises:
        ValueError: bad images, labels or budget, a view of a single draw, T outside (0, 1].
        FloatingPointError: a gradient with NaN or inf.
    """
    if not 0 < temperature <= 1:
        raise ValueError(f"temperature must lie in (0, 1], got {temperature}")
    loss = partial(_soft_maximum, temperature=temperature)
    return _apgd(view, x, y, threat, seed=seed, steps=steps, stop_draws=stop_draws, loss=loss)


def maximin_apgd(
    view: AttackerView, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int, steps: int = 20, stop_draws: int = 0
) -> Tensor:
    """APGD that climbs the smallest margin over the draws: for a point on which every draw errs.

    Where some draws err by far, their mean margin hides those that are still right. Step size and best point follow
    the smallest margin over the k draws of an iterate, a noisier quantity than their mean.

    Passes an image: ``steps`` * k forwards and backwards. Returns (B, ...) in [0, 1].

    Args:
        stop_draws: as of ``eot_apgd``.

    Raises:
        ValueError: bad images, labels or budget, a view of a single draw.
        FloatingPointError: a gradient with NaN or inf.
    """
    return _apgd(view, x, y, threat, seed=seed, steps=steps, stop_draws=stop_draws, loss=_smallest_margin)


def _apgd(
    view: AttackerView,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    steps: int,
    stop_draws: int,
    loss: Loss,
) -> Tensor:
    prepare(view, x, y, steps=steps)
    if view.draws < 2:
        raise ValueError(f"an attack that chooses among draws needs a view of at least 2, got {view.draws}")
    start = threat.random_start(x, make_generator(x.device, seed, "start"))

    def value(point: Tensor, images: Tensor) -> Value:
        return loss_and_gradient(view, point, y[images], loss=loss)

    stands = standing(view, y, draws=stop_draws, seed=derive_seed(seed, "stop"))
    with view.seeded(derive_seed(seed, "view")):
        return climb(x, start, threat, steps=steps, value=value, stands=stands)


def _soft_maximum(logits: Tensor, y: Tensor, *, temperature: float) -> Tensor:
    wrong = logits.scatter(-1, y.expand(len(logits), -1)[..., None], -torch.inf)
    log_wrong = wrong.logsumexp(-1) - logits.logsumexp(-1)
    return temperature * ((log_wrong / temperature).logsumexp(0) - math.log(len(logits)))


def _smallest_margin(logits: Tensor, y: Tensor) -> Tensor:
    return margins(logits, y).amin(0)
