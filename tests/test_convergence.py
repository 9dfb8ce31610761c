"""Flags on what more of the same would have done, each right at the edge of its condition."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from sap_art import Evaluation
from sap_art.diagnostics.convergence import MORE, not_converged, not_monotone

DRAWS = 200


def counted(correct: list[int] | Tensor, draws: int = DRAWS, *, per_example: bool = True) -> Evaluation:
    """An evaluation in which image i is right in exactly ``correct[i]`` draws."""
    right = torch.arange(draws)[:, None] < torch.as_tensor(correct)
    return of(right, per_example=per_example)


def of(right: Tensor, *, per_example: bool = True) -> Evaluation:
    """An evaluation with those right draws (m, B)."""
    log_probabilities = torch.stack([right.float(), 1 - right.float()], -1).log_softmax(-1)
    return Evaluation(log_probabilities, torch.zeros(right.shape[1]).long(), per_example)


def turned(ups: int, downs: int, *, images: int = 64) -> Evaluation:
    """Half of the draws right on each image, but always on ``ups`` and never on ``downs`` of them."""
    return counted([DRAWS] * ups + [0] * downs + [DRAWS // 2] * (images - ups - downs))


HALF = turned(0, 0)


@pytest.mark.parametrize("code", MORE)
def test_a_drop_of_more_than_a_point_is_seen(code: str) -> None:
    """Without spread between images the point decides: .5 % is allowed, 1.5 % is not; a rise is no drop."""
    for correct, state in [(99, "clear"), (97, "raised"), (103, "clear"), (100, "clear")]:
        found = not_converged(code, HALF, counted([correct] * 64), seed=1)

        assert (found.code, found.state) == (code, state)
        assert found.value == pytest.approx(0.5 - correct / DRAWS)
        assert found.threshold == 0.01


def test_a_drop_within_the_interval_is_none() -> None:
    """12 images down and 3 up is 2.4 standard errors: enough to warn; the 14 flags that condemn take 2.9, 18 and 3."""
    assert not_converged("restarts-not-converged", HALF, turned(3, 12), seed=1).state == "raised"
    assert not_converged("restarts-not-converged", HALF, turned(8, 13), seed=1).state == "clear"
    assert not_converged("draws-not-converged", HALF, turned(3, 18), seed=1).state == "raised"
    assert not_converged("draws-not-converged", HALF, turned(3, 12), seed=1).state == "clear"
    assert not_converged("draws-not-converged", HALF, turned(12, 3), seed=1).state == "clear"


def test_levels_and_what_is_missing() -> None:
    """The protocol's levels; nothing to compare is not clear; no such code."""
    levels = [not_converged(code, HALF, HALF, seed=1).level for code in MORE]

    assert levels == ["R", "R", "W", "W"]
    assert not_converged("steps-not-converged", None, HALF, seed=1).state == "not-checked"
    assert not_converged("steps-not-converged", HALF, None, seed=1).state == "not-checked"
    with pytest.raises(ValueError, match="unknown code 'seed-gap'; known: steps-not-converged"):
        not_converged("seed-gap", HALF, HALF, seed=1)


def test_noise_shared_by_all_images_widens_the_interval() -> None:
    """64 images that are right together in 5 of 8 draws, then in 3 of 8: one image's worth of evidence."""
    base, more = counted([5] * 64, 8, per_example=False), counted([3] * 64, 8, per_example=False)
    independent = counted([5] * 64, 8), counted([3] * 64, 8)

    assert not_converged("steps-not-converged", *independent, seed=1).state == "raised"
    assert not_converged("steps-not-converged", base, more, seed=1).state == "clear"


def test_a_rise_with_eps_is_seen_in_any_pair() -> None:
    """Neighbours or not; a fall never is."""
    a, b, c = (counted([n] * 64) for n in (100, 90, 110))

    assert not_monotone({1 / 255: a, 2 / 255: b, 4 / 255: c}, seed=1).state == "raised"
    assert not_monotone({4 / 255: c, 1 / 255: a, 2 / 255: b}, seed=1).value == pytest.approx(0.1)
    assert not_monotone({1 / 255: c, 2 / 255: a, 4 / 255: b}, seed=1).state == "clear"
    assert not_monotone({1 / 255: a, 2 / 255: a}, seed=1).state == "clear"
    assert not_monotone({1 / 255: a}, seed=1).state == "not-checked"
    # Ten points from the first to the last, neither of which differs significantly from the second.
    scattered, higher = counted([DRAWS, 0] * 32), counted([120] * 64)
    assert not_monotone({1.0: HALF, 2.0: scattered, 4.0: higher}, seed=1).state == "raised"
    assert not_monotone({1.0: HALF, 2.0: scattered}, seed=1).state == "clear"
    assert not_monotone({2.0: scattered, 4.0: higher}, seed=1).state == "clear"


def test_a_rise_within_the_interval_is_none() -> None:
    """3.0 standard errors: beyond the 2.9 of one pair among 14 flags; not beyond that of six radii's fifteen pairs."""
    rise = turned(16, 3)
    flat = dict.fromkeys((0.5, 1, 2, 4, 8), HALF)

    assert not_monotone({8: HALF, 16: rise}, seed=1).state == "raised"
    assert not_monotone({8: HALF, 16: turned(13, 8)}, seed=1).state == "clear"
    assert not_monotone({**flat, 16: rise}, seed=1).state == "clear"
    assert not_monotone({**flat, 16: turned(24, 3)}, seed=1).state == "raised"


def test_a_flat_curve_is_rarely_called_rising() -> None:
    """A coin at six radii, 60 times: 2.5 % of evaluations, and as much again for a bootstrap of 64 images."""
    generator = torch.Generator().manual_seed(5)
    raised = 0
    for seed in range(60):
        curve = {eps: of(torch.rand(16, 64, generator=generator) < 0.7) for eps in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)}
        raised += not_monotone(curve, seed=seed).state == "raised"

    assert raised <= stats.binom.ppf(1 - 1e-4, 60, 0.05)
    assert math.isclose(HALF.accuracy, 0.5)
