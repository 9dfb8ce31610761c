"""A gradient estimator against finite differences of the loss it claims to differentiate."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sap_art.attacker import AttackerView
from sap_art.attacks.objective import raw_loss_and_gradient
from sap_art.diagnostics.gradient_signal import cosine
from sap_art.randomness import derive_seed, make_generator
from sap_art.stochastic import StochasticModel

STEP = 1e-3


class FiniteDifference(NamedTuple):
    """Predicted against measured directional derivatives, all images and directions together.

    Attributes:
        cosine: between the two lists of numbers, in [-1, 1]; 1 is a gradient of the right direction.
        scale: root mean square of the predicted over that of the measured ones; 1 is a gradient of the right size.
    """

    cosine: float
    scale: float


def finite_differences(
    model: StochasticModel, x: Tensor, y: Tensor, *, draws: int, directions: int, seed: int
) -> dict[str, FiniteDifference]:
    """Each random estimator's gradient against central differences of the loss under common random numbers.

    The loss is the mean cross-entropy of ``draws`` draws whose uniforms are fixed while x moves by 1e-3 along random
    signs, so what a mask owes to x counts. Where masks jump, few draws measure little: the variance of a difference
    grows as 1 / (step * draws). Pixels are kept one step away from 0 and 1. Gradients that are not finite, or
    differences that are all zero, give a cosine of 0 and a scale of NaN.
    """
    generator = make_generator(x.device, seed, "directions")
    x = x.clamp(STEP, 1 - STEP)
    names = [name for name in model.estimators if name != "dense"]
    measured: list[Tensor] = []
    predicted: dict[str, list[Tensor]] = {name: [] for name in names}
    views = {name: AttackerView(model, gradient=name, draws=draws) for name in names}
    with model.seeded(derive_seed(seed, "finite differences")), model.fixed_noise():
        gradients = {name: raw_loss_and_gradient(view, x, y, loss="ce").gradient for name, view in views.items()}
        view = views[names[0]]
        for _ in range(directions):
            u = torch.randint(0, 2, x.shape, generator=generator, device=x.device).to(x.dtype) * 2 - 1
            ahead, behind = (raw_loss_and_gradient(view, x + s * STEP * u, y, loss="ce").loss for s in (1, -1))
            measured.append((ahead.double() - behind.double()) / (2 * STEP))
            for name, gradient in gradients.items():
                predicted[name].append((gradient * u).flatten(1).double().sum(1))
    truth = torch.cat(measured)
    return {name: _compare(torch.cat(values), truth) for name, values in predicted.items()}


def _compare(predicted: Tensor, measured: Tensor) -> FiniteDifference:
    scale = (predicted.norm() / measured.norm()).item() if measured.any() else float("nan")
    return FiniteDifference(cosine(predicted[None], measured[None]).item(), scale)
