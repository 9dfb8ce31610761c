"""Many cheap steps: where a gradient is mostly noise, draws are better spent along the way than on one point."""

from __future__ import annotations

import torch
from torch import Tensor

from sap_art.attacker import AttackerView
from sap_art.attacks.objective import loss_and_gradient, prepare
from sap_art.attacks.stopping import LOOKS, Remaining, parts, standing
from sap_art.randomness import derive_seed, make_generator
from sap_art.threat import ThreatModel

FIRST_STEP = 0.25
"""Size of the first step, of eps."""
MEMORY = 0.5
"""About how many of the last steps count in the averaged gradient, of all steps, ..."""
SETTLING = 2.0
"""... and at most, of the steps that are left."""


def long_apgd(
    view: AttackerView,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    steps: int = 2000,
    loss: str = "ce",
    stop_draws: int = 0,
) -> Tensor:
    """Projected ascent along an exponential average of the gradient, with steps that shrink linearly to nothing.

    For a view of one draw: expectation over draws is taken along the path, while the point hardly moves, by
    m <- a m + (1 - a) g / mean|g| with a = 1 - 1 / min(steps / 2, 2 * steps left). A memory of half the climb makes
    use of all draws, however small the gradient is beside its noise, where a fixed one leaves such a model standing;
    in the last quarter it shrinks, or the point would swing about its optimum to the end. The division (as in
    MI-FGSM, Dong et al. 2018, arXiv:1710.06081) lets a draw that is still right count as much as one that errs
    already, whose cross-entropy is steep. Neither step size nor result look at a noisy loss, so nothing is lucky.
    Returns the last iterate, (B, ...) in [0, 1].

    Passes an image: ``steps`` * k forwards and backwards.

    Args:
        steps: gradient evaluations an image, each of ``view.draws`` draws.
        loss: a name of ``LOSSES``.
        stop_draws: an image at whose point all of so many fresh draws are wrong, in one of 20 looks, is left with that
            point; 0 for never. At most so many forwards a look more.

    Raises:
        ValueError: bad images, labels or budget, unknown loss.
        FloatingPointError: a gradient with NaN or inf.
    """
    prepare(view, x, y, steps=steps)
    point = threat.random_start(x, make_generator(x.device, seed, "start"))
    average, looks = torch.zeros_like(x), parts(steps, LOOKS)
    remaining = Remaining(point, standing(view, y, draws=stop_draws, seed=derive_seed(seed, "stop")))
    with view.seeded(derive_seed(seed, "view")):
        for step in range(steps):
            gradient = loss_and_gradient(view, point, y[remaining.images], loss=loss).gradient
            share = 1 - 1 / max(1.0, min(MEMORY * steps, SETTLING * (steps - step)))
            average = share * average + (1 - share) * _of_size_one(gradient)
            size = FIRST_STEP * threat.eps * (1 - step / steps)
            point = threat.project(x[remaining.images], point + size * threat.ascent_direction(average))
            if step + 1 in looks:
                kept = remaining.look(point, step)
                point, average = point[kept], average[kept]
                if len(remaining) == 0:
                    break
    return remaining.ends


def _of_size_one(gradient: Tensor) -> Tensor:
    size = gradient.flatten(1).abs().mean(1).view(-1, *[1] * (gradient.ndim - 1))
    return gradient / torch.where(size > 0, size, 1)
