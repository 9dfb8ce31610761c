"""A linear model with Gaussian weights through the tier quick: its worst case is known, and it hides nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import reference
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from sap_art import ThreatModel, protocol, wrap
from sap_art.entries import Entry
from sap_art.flags import complete
from sap_art.protocol import Findings
from sap_art.protocol.job import Job
from sap_art.record import DefenceInfo, ModelInfo
from sap_art.store import Store
from sap_art.tiers import TIERS

IMAGES, PIXELS = 64, 16
SIGMA, EPS = 0.25, 0.07
FULL_ONLY = {
    "steps-not-converged",
    "draws-not-converged",
    "restarts-not-converged",
    "selection-not-converged",
    "planted-example-missed",
}


@cache
def case() -> tuple[reference.NoisyLinear, Tensor, Tensor]:
    """Logits (0, (w + sigma z).x + b), z standard normal for each image; images, and labels of the mean weights."""
    generator = torch.Generator().manual_seed(10)
    w = torch.randn(PIXELS, generator=generator)
    x = torch.rand(IMAGES, 1, 4, 4, generator=generator) * 0.8 + 0.1
    noisy = reference.NoisyLinear(w, -(0.5 * w.sum()).item(), SIGMA)
    return noisy, x, reference.Linear(w, noisy.b)(x).argmax(1)


def right_probability(points: Tensor) -> Tensor:
    """(B,) P(right) of a draw: Phi of the true margin's mean over its deviation, +-(w.x + b) / (sigma ||x||)."""
    noisy, _, y = case()
    flat = points.flatten(1).double()
    score = (flat @ noisy.w.detach().double() + noisy.b) / (SIGMA * flat.norm(dim=1))
    return torch.special.ndtr(torch.where(y == 1, score, -score))


@cache
def optimum() -> Tensor:
    """(B,) the smallest P(right) in the box around each image, to rounding.

    Let r be the smallest ratio margin / ||x||; it is attained where margin - r ||x|| is smallest, which is 0
    (Dinkelbach 1967). For r >= 0 that is a concave function, so a corner attains it, and all 2^16 are tried. Else it is
    convex, and a descent from a corner with a negative margin cannot miss it.
    """
    noisy, x, y = case()
    w = noisy.w.detach().double().numpy()
    bits = np.arange(2**PIXELS)[:, None] >> np.arange(PIXELS) & 1
    best: list[float] = []
    for image, sign in zip(x.flatten(1).double().numpy(), (2 * y - 1).tolist(), strict=True):
        low, high = (image - EPS).clip(0, 1), (image + EPS).clip(0, 1)
        corners = low + bits * (high - low)

        def ratio(point: NDArray[np.float64], sign: int = sign) -> tuple[float, NDArray[np.float64]]:
            length, margin = np.linalg.norm(point), sign * (w @ point + noisy.b)
            return float(margin / length), sign * w / length - margin * point / length**3

        start = corners[(sign * (corners @ w + noisy.b) / np.linalg.norm(corners, axis=1)).argmin()]
        bounds, tight = list(zip(low, high, strict=True)), {"ftol": 1e-15, "gtol": 1e-9}
        found = minimize(ratio, start, jac=True, bounds=bounds, method="L-BFGS-B", options=tight)
        best.append(float(found.fun))
    return torch.special.ndtr(torch.tensor(best, dtype=torch.double) / SIGMA)


TRIALS = {
    "beside its dense counterpart": (True, TIERS["quick"]),
    # Nothing but gradients of its own draws; with the tier's 16 selection draws luck alone costs about .003 here.
    "alone": (False, replace(TIERS["quick"], selection_draws=64)),
}


@pytest.fixture(scope="module", params=TRIALS)
def findings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """What the tier finds."""
    noisy, x, y = case()
    with_dense, tier = TRIALS[request.param]
    model = wrap(noisy, dense=reference.Linear(noisy.w.detach(), noisy.b) if with_dense else None, seed=1)
    info = ModelInfo("gaussian-weights", "NoisyLinear", weights_sha256="0" * 64)
    entry = Entry(
        "gaussian-weights", model, 2, info, DefenceInfo("foreign", "module", True, "single", 1), lambda: model
    )
    store = Store(tmp_path_factory.mktemp("gaussian"))
    return protocol.run(Job(entry, x, y, ThreatModel("Linf", EPS), tier, seed=1, store=store))


def test_there_is_something_to_find() -> None:
    """Neither everything nor nothing falls, and the best perturbation costs far more than what is asserted below."""
    _, x, _ = case()
    best = optimum()

    assert 0.3 < best.mean() < 0.6
    assert right_probability(x).mean() - best.mean() > 0.3
    assert ((best > 0.05) & (best < 0.95)).sum() > IMAGES / 3


def test_the_worst_case_is_within_half_a_point_of_the_optimum(findings: Findings) -> None:
    """By the closed form at the points that were chosen; no image is below its optimum beyond rounding."""
    excess = right_probability(findings.worst_points) - optimum()

    assert excess.min() > -1e-5
    assert excess.mean() < 0.005


def test_the_reported_accuracy_is_that_of_the_points(findings: Findings) -> None:
    """T1 and the clean accuracy lie within five exact standard errors of the closed form."""
    for evaluation, points in ((findings.worst, findings.worst_points), (findings.clean, case()[1])):
        p = right_probability(points)
        error = math.sqrt((p * (1 - p)).sum().item() / evaluation.draws) / IMAGES

        assert abs(evaluation.accuracy - p.mean().item()) < 5 * error


def test_no_flag_is_raised(findings: Findings) -> None:
    """Every check of the tier was made, but for FGSM on a dense counterpart that is not there, and found no failure."""
    flags = complete(findings.flags, tier="quick")
    open_ones = {flag.code for flag in flags if flag.state == "not-checked"}
    alone = "apgd-ce-dense" not in findings.columns

    assert {flag.code: flag.evidence for flag in flags if flag.state == "raised"} == {}
    assert open_ones == FULL_ONLY | ({"single-step-beats-iterative"} if alone else set())
    assert not findings.failed


def test_at_a_large_radius_nothing_is_left(findings: Findings) -> None:
    """Closed form at eps = .5: the margin's mean falls by about 6, its deviation is at most .25 sqrt(16) = 1."""
    noisy, x, y = case()
    direction = (2 * y - 1)[:, None, None, None] * noisy.w.detach().view(1, 1, 4, 4).sign()
    (flag,) = [flag for flag in findings.flags if flag.code == "large-eps-survives"]
    at_the_corner = right_probability((x - 0.5 * direction).clamp(0, 1)).mean().item()

    assert at_the_corner < 0.01
    assert flag.value is not None
    assert flag.value < 0.01
