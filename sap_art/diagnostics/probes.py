"""Probes of the model itself: shared noise, coupling to the attack's seed, tricks in the forward pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sap_art.attacker import AttackerView
from sap_art.attacks.objective import raw_loss_and_gradient
from sap_art.calibration import output_kind
from sap_art.diagnostics.same_law import independent_groups, same_law
from sap_art.evaluation import Evaluation, evaluate
from sap_art.flags import flag, raised_if
from sap_art.randomness import derive_seed
from sap_art.record import Flag, GradientInfo
from sap_art.stochastic import StochasticModel, one_draw

COPIES, CALLS = 8, 32
HALF = 1000
P_VALUE = 1e-3
ZERO_SHARE = 0.01
NOTICEABLE = 0.05
"""A difference between probabilities that no rounding makes."""


@torch.no_grad()
def batch_shared_noise(model: StochasticModel, x: Tensor, *, seed: int) -> Flag:
    """Raised if noise per example is declared, but copies of an image in one batch are alike, or unlike single ones.

    Two exact tests on the first image's largest logit against the rest, each at p < 1e-3: whether draws of one batch
    are more alike than draws of different batches (permutations), and whether draws made in batches and one by one
    have one law (Kolmogorov-Smirnov). Either way batched and looped expectations over draws would disagree.
    """
    code = "batch-shared-noise"
    with model.seeded(derive_seed(seed, code)):
        batched = torch.stack([model.single(x[:1].repeat(COPIES, *[1] * (x.ndim - 1))) for _ in range(CALLS)])
        looped = torch.stack([model.single(x[:1]) for _ in range(CALLS * COPIES // 2)])
    if not (batched.isfinite().all() and looped.isfinite().all()):
        return flag(code, "not-checked", "the model returned NaN or inf logits")
    label = int(looped.mean((0, 1)).argmax())
    together, alone = (_log_odds(logits, label) for logits in (batched, looped))
    tolerance = _tolerance(looped)
    alike = independent_groups(together, seed=derive_seed(seed, code)) if np.ptp(together) > tolerance else 1.0
    unlike = same_law(together[:, : COPIES // 2].ravel(), alone.ravel(), tolerance=tolerance)
    evidence = (
        f"{CALLS} batches of {COPIES} copies: p = {alike:.2g} that draws of a batch are independent, "
        f"p = {unlike:.2g} that they have the law of {alone.size} single ones"
    )
    value = min(alike, unlike)
    return raised_if(value < P_VALUE and model.per_example, code, evidence, value=value, threshold=P_VALUE)


def state_between_calls(model: StochasticModel, x: Tensor, y: Tensor, *, seed: int) -> Flag:
    """``law_moves`` of ``successive_calls``. A state that moves sooner than these are made is not seen."""
    return law_moves(successive_calls(model, x, seed=seed), int(y[0]))


@torch.no_grad()
def successive_calls(model: StochasticModel, x: Tensor, *, seed: int) -> Tensor:
    """Logits (2000, C) of as many calls with the first image of ``x`` alone."""
    with model.seeded(derive_seed(seed, "state-between-calls")):
        return torch.cat([model.single(x[:1]) for _ in range(2 * HALF)])


def law_moves(logits: Tensor, label: int) -> Flag:
    """Raised if the law of a draw moves with the number of calls: the first 1,000 of 2,000 against the last 1,000.

    What is compared are the log-odds of the label, which do not saturate as probabilities do. Two-sample
    Kolmogorov-Smirnov test, p < 1e-3: exact for continuous numbers, conservative for discrete ones, and blind to
    rounding. A state that moves within the first 80 calls is not seen.
    """
    code = "state-between-calls"
    if not logits.isfinite().all():
        return flag(code, "not-checked", "the model returned NaN or inf logits")
    odds = _log_odds(logits, label)
    first, last = odds[:HALF], odds[HALF:]
    p = same_law(first, last, tolerance=_tolerance(logits))
    evidence = (
        f"log-odds of the label {first.mean():.3g} (sd {first.std():.3g}) in the first {HALF} calls, "
        f"{last.mean():.3g} (sd {last.std():.3g}) in the last; p = {p:.2g} that they have one law"
    )
    return raised_if(p < P_VALUE, code, evidence, value=p, threshold=P_VALUE)


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
    same = torch.equal(scores[0], scores[1])
    evidence = f"scoring draws {'repeated' if same else 'changed'} after attacks with two different seeds"
    return raised_if(not same, code, evidence)


def test_time_optimisation(model: StochasticModel, x: Tensor, *, seed: int) -> Flag:
    """Raised if the forward pass computes gradients of its own."""
    with torch.no_grad(), model.seeded(derive_seed(seed, "optimisation")), _GradientCalls() as calls:
        model.single(x[:1])
    return raised_if(calls.count > 0, "test-time-optimisation", f"{calls.count} gradient calls within a forward pass")


@torch.no_grad()
def softmax_output(model: StochasticModel, x: Tensor, *, seed: int) -> Flag:
    """Raised if the outputs are probabilities, on which losses of logits have vanishing gradients."""
    with model.seeded(derive_seed(seed, "softmax")):
        out = one_draw(model, x)
    simplex = output_kind(out) == "softmax-output"
    lowest, total = out.min().item(), out.sum(1).mean().item()
    return raised_if(simplex, "softmax-output", f"smallest output {lowest:.3g}, mean sum of a row {total:.3g}")


@torch.no_grad()
def repeats_its_draws(model: StochasticModel, x: Tensor, *, seed: int) -> bool:
    """Whether one seed gives one draw: not so where random numbers come from elsewhere than torch."""
    answers: list[Tensor] = []
    for _ in range(2):
        with model.seeded(derive_seed(seed, "repeats")):
            answers.append(model.single(x[:8]))
    return torch.equal(answers[0], answers[1])


@torch.no_grad()
def is_restless(model: StochasticModel, x: Tensor, *, seed: int) -> bool:
    """Whether draws at the first image of ``x`` differ at all, and are numbers."""
    with model.seeded(derive_seed(seed, "restless")):
        draws = torch.stack([model.single(x[:1]) for _ in range(1 + CALLS)])
    return bool(draws.isfinite().all() and (draws != draws[:1]).any())


def largest_change(evaluation: Evaluation) -> float:
    """The largest difference, between two draws at one image, of the probability of a class: in [0, 1]."""
    p = evaluation.draw_log_probabilities.exp()
    return float((p.amax(0) - p.amin(0)).max())


def zero_or_non_finite(shares: dict[str, GradientInfo]) -> Flag:
    """Raised if some estimator's gradient is zero or not finite on more than 1 % of the images."""
    worst = max(shares, key=lambda name: max(shares[name].zero, shares[name].non_finite))
    value = max(shares[worst].zero, shares[worst].non_finite)
    evidence = "; ".join(f"{name}: {s.zero:.1%} zero, {s.non_finite:.1%} not finite" for name, s in shares.items())
    return raised_if(value > ZERO_SHARE, "zero-or-non-finite-gradient", evidence, value=value, threshold=ZERO_SHARE)


def _log_odds(logits: Tensor, label: int) -> NDArray[np.float64]:
    """Log of p / (1 - p) for the class ``label``: (..., C) -> (...)."""
    others = torch.arange(logits.shape[-1], device=logits.device) != label
    odds = logits.double()[..., label] - logits.double()[..., others].logsumexp(-1)
    return odds.cpu().numpy()


def _tolerance(logits: Tensor) -> float:
    """What rounding may do to log-odds."""
    return 1e-4 * max(1e-12, logits.abs().max().item())


class _GradientCalls(TorchFunctionMode):
    """Counts calls of ``backward`` and ``torch.autograd.grad`` made within."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.Tensor.backward, torch.autograd.grad, torch.autograd.backward):
            self.count += 1
        return func(*args, **(kwargs or {}))
