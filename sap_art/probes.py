"""Probes of the model itself: shared noise, coupling to the attack's seed, tricks in the forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sap_art.attacker import AttackerView
from sap_art.attacks.objective import raw_loss_and_gradient
from sap_art.evaluation import evaluate
from sap_art.flags import flag, raised_if
from sap_art.randomness import derive_seed
from sap_art.record import Flag, GradientInfo
from sap_art.stochastic import StochasticModel

COPIES, CALLS = 8, 32
ZERO_SHARE = 0.01


@torch.no_grad()
def batch_shared_noise(model: StochasticModel, x: Tensor, *, seed: int) -> Flag:
    """Raised if copies of one image in one batch agree although calls differ and noise per example is declared."""
    code = "batch-shared-noise"
    with model.seeded(derive_seed(seed, code)):
        calls = torch.stack([model.single(x[:1].repeat(COPIES, *[1] * (x.ndim - 1))) for _ in range(CALLS)])
    between = (calls.amax(0) - calls.amin(0)).max().item()
    within = (calls.amax(1) - calls.amin(1)).max().item()
    # Rows of one batch can differ in the last bits by the order of sums, so "equal" is relative to the calls.
    shared = between > 1e-4 and within < 1e-2 * between
    evidence = f"{COPIES} copies in a batch differ by {within:.3g}, {CALLS} calls by {between:.3g} (largest logit)"
    return raised_if(shared and model.per_example, code, evidence, value=within, threshold=1e-2 * between)


def coupled_generator(model: StochasticModel, x: Tensor, y: Tensor, *, seed: int) -> Flag:
    """Raised if the scoring draws depend on the seed of an attack that ran before."""
    code = "coupled-generator"
    view = AttackerView(model, gradient=model.estimators[0])

    def score() -> Tensor:
        return evaluate(model, x, y, draws=2, seed=derive_seed(seed, code)).draw_log_probabilities

    if not torch.equal(score(), score()):
        return flag(code, "not-checked", "the model does not repeat its draws under one seed, so it cannot be told")
    scores: list[Tensor] = []
    for attack_seed in (1, 2):
        with view.seeded(attack_seed):  # what every attack does; the gradient itself may well be NaN
            raw_loss_and_gradient(view, x, y, loss="ce")
        scores.append(score())
    return raised_if(
        not torch.equal(scores[0], scores[1]), code, "scoring draws repeated after attacks with two different seeds"
    )


def test_time_optimisation(model: StochasticModel, x: Tensor, *, seed: int) -> Flag:
    """Raised if the forward pass computes gradients of its own."""
    with torch.no_grad(), model.seeded(derive_seed(seed, "optimisation")), _GradientCalls() as calls:
        model.single(x[:1])
    return raised_if(calls.count > 0, "test-time-optimisation", f"{calls.count} gradient calls within a forward pass")


@torch.no_grad()
def softmax_output(model: StochasticModel, x: Tensor, *, seed: int) -> Flag:
    """Raised if the outputs are probabilities, on which losses of logits have vanishing gradients."""
    with model.seeded(derive_seed(seed, "softmax")):
        out = model.single(x)
    simplex = bool((out >= 0).all() and ((out.sum(1) - 1).abs() < 1e-3).all())
    lowest, total = out.min().item(), out.sum(1).mean().item()
    return raised_if(simplex, "softmax-output", f"smallest output {lowest:.3g}, mean sum of a row {total:.3g}")


def gradient_shares(model: StochasticModel, x: Tensor, y: Tensor, *, draws: int, seed: int) -> dict[str, GradientInfo]:
    """For each estimator the share of images with a gradient of exactly zero, or with NaN or inf."""
    found: dict[str, GradientInfo] = {}
    for estimator in (e for e in model.estimators if e != "dense"):
        view = AttackerView(model, gradient=estimator, draws=draws)
        with view.seeded(derive_seed(seed, "gradient", estimator)):
            gradient = raw_loss_and_gradient(view, x, y, loss="ce").gradient.flatten(1)
        finite = torch.isfinite(gradient).all(1)
        found[estimator] = GradientInfo(
            zero=(gradient == 0).all(1).double().mean().item(), non_finite=(~finite).double().mean().item()
        )
    return found


def zero_or_non_finite(shares: dict[str, GradientInfo]) -> Flag:
    """Raised if some estimator's gradient is zero or not finite on more than 1 % of the images."""
    worst = max(shares, key=lambda name: max(shares[name].zero, shares[name].non_finite))
    value = max(shares[worst].zero, shares[worst].non_finite)
    evidence = "; ".join(f"{name}: {s.zero:.1%} zero, {s.non_finite:.1%} not finite" for name, s in shares.items())
    return raised_if(value > ZERO_SHARE, "zero-or-non-finite-gradient", evidence, value=value, threshold=ZERO_SHARE)


class _GradientCalls(TorchFunctionMode):
    """Counts calls of ``backward`` and ``torch.autograd.grad`` made within."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.Tensor.backward, torch.autograd.grad, torch.autograd.backward):
            self.count += 1
        return func(*args, **(kwargs or {}))
