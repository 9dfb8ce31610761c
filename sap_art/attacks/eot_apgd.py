"""APGD whose every decision rests on the mean over draws, never on one draw."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from sap_art.attacker import AttackerView
from sap_art.attacks.apgd import FIRST_STEP, climb
from sap_art.attacks.objective import Value, likeliest_wrong_classes, loss_and_gradient, paired_losses, prepare
from sap_art.attacks.stopping import standing
from sap_art.randomness import derive_seed, make_generator
from sap_art.threat import ThreatModel

CHECKS = 4
"""Calls of the view, each of k fresh draws, on which the ends of several climbs are compared."""


def eot_apgd(
    view: AttackerView,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    steps: int = 20,
    loss: str = "ce",
    restarts: int = 1,
    targets: int = 0,
    first_step: float = FIRST_STEP,
    stop_draws: int = 0,
) -> Tensor:
    """Auto-PGD (Croce & Hein 2020, arXiv:2003.01690) on the loss averaged over the view's draws.

    Random start; step size, best point and restarts from it are controlled by the loss over the k draws of each
    iterate, and no image stops on a lucky draw. Returns (B, ...) in [0, 1].

    A climb still ends at the iterate with the largest of ``steps`` noisy losses: the point may be one that was lucky
    rather than best, by about sqrt(2 ln(steps) / k) standard deviations of one draw's loss, and its loss is no
    estimate of anything. Ends of several climbs are compared by their mean margin (of the mean prediction, for a loss
    of it) on draws that no climb has seen, the same for all.

    Passes an image: ``steps`` * k forwards and backwards a climb, of which there are restarts * max(1, targets);
    4 k more forwards for each of several climbs, and k for the choice of targets.

    Args:
        steps: gradient evaluations a climb, each of ``view.draws`` draws.
        loss: a name of ``LOSSES``; with targets, of ``TARGETED``.
        restarts: climbs from starts of their own (towards each target).
        targets: 0 for untargeted, n to climb towards each of the n likeliest wrong classes of the clean image.
        first_step: size of the first step, of eps; halved as the climb stalls.
        stop_draws: an image at whose best point all of so many fresh draws are wrong, at a checkpoint of APGD, is
            climbed no further; 0 for never. At most so many forwards a checkpoint more.

    Raises:
        ValueError: bad images, labels or budget, unknown loss, more targets than wrong classes.
        FloatingPointError: a gradient with NaN or inf.
    """
    prepare(view, x, y, steps=steps, restarts=restarts)
    if targets < 0:
        raise ValueError(f"targets must be at least 0, got {targets}")
    if not first_step > 0:
        raise ValueError(f"first_step must be above 0, got {first_step}")
    generator = make_generator(x.device, seed, "start")

    def value(point: Tensor, images: Tensor, aim: Tensor | None) -> Value:
        return loss_and_gradient(view, point, y[images], loss=loss, target=None if aim is None else aim[images])

    stands = standing(view, y, draws=stop_draws, seed=derive_seed(seed, "stop"))
    with view.seeded(derive_seed(seed, "view")):
        aims = likeliest_wrong_classes(view, x, y, count=targets).unbind(1) if targets else (None,)
        ends = [
            climb(
                x,
                threat.random_start(x, generator),
                threat,
                steps=steps,
                value=partial(value, aim=aim),
                first_step=first_step,
                stands=stands,
            )
            for aim in aims
            for _ in range(restarts)
        ]
    return ends[0] if len(ends) == 1 else _worst(view, ends, y, loss=loss, seed=derive_seed(seed, "check"))


def _worst(view: AttackerView, ends: list[Tensor], y: Tensor, *, loss: str, seed: int) -> Tensor:
    """For each image the end with the largest mean margin over ``CHECKS`` calls."""
    judge = "margin-of-mean" if loss.endswith("-of-mean") else "margin"
    scores = paired_losses(view, ends, y, loss=judge, seed=seed, calls=CHECKS)
    return torch.stack(ends)[scores.argmax(0), torch.arange(len(y), device=y.device)]
