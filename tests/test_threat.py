"""The threat model: distances, projection, and refusal of anything outside."""

from __future__ import annotations

import pytest
import torch

from sap_art import ThreatModel
from sap_art.threat import require_images, require_labels

X = torch.rand(20, 3, 5, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_projection_and_random_start_are_allowed(norm: str, generator: torch.Generator) -> None:
    """Inside the ball and inside [0, 1]; a point inside stays where it is."""
    threat = ThreatModel(norm, 0.3)
    far = X + torch.randn(X.shape, generator=generator)
    start = threat.random_start(X, generator)

    for point in (threat.project(X, far), start):
        threat.require(X, point)
    torch.testing.assert_close(threat.project(X, start), start)
    assert threat.distance(X, threat.project(X, far)).max() > 0.25


def test_distances() -> None:
    """Largest difference, and Euclidean length over all axes."""
    x, y = torch.zeros(1, 2, 2), torch.tensor([[[0.3, 0.0], [0.0, 0.4]]])

    assert ThreatModel("Linf", 1.0).distance(x, y).item() == pytest.approx(0.4)
    assert ThreatModel("L2", 1.0).distance(x, y).item() == pytest.approx(0.5)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_beyond_eps_raises_and_never_clips(norm: str) -> None:
    """1e-6 is forgiven, more is not."""
    x = torch.full((1, 3, 2, 2), 0.5)
    eps = 0.1
    step = torch.zeros_like(x)
    step[0, 0, 0, 0] = eps
    threat = ThreatModel(norm, eps)

    threat.require(x, x + step * (1 + 5e-6))
    with pytest.raises(ValueError, match=f"is 0.1001 from x in {norm}, allowed 0.1"):
        threat.require(x, x + step * 1.001)


def test_outside_the_pixel_range_raises() -> None:
    """Even within eps."""
    with pytest.raises(ValueError, match=r"x_adv must lie in \[0, 1\]"):
        ThreatModel().require(torch.ones(1, 3, 2, 2), torch.full((1, 3, 2, 2), 1.01))
    with pytest.raises(ValueError, match="one shape"):
        ThreatModel().require(torch.ones(1, 3, 2, 2), torch.ones(1, 3, 2, 3))


def test_the_l2_start_is_uniform_in_the_ball(generator: torch.Generator) -> None:
    """In d dimensions the radius over eps has mean d / (d + 1)."""
    x = torch.full((4000, 1, 1, 3), 0.5)
    radius = ThreatModel("L2", 0.4).distance(x, ThreatModel("L2", 0.4).random_start(x, generator)) / 0.4
    sd = (3 / 5 - (3 / 4) ** 2) ** 0.5

    assert abs(radius.mean().item() - 3 / 4) < 5 * sd / 4000**0.5


def test_ascent_directions_have_unit_size_and_zero_stays_zero() -> None:
    """Sign, or the normalised gradient."""
    g = torch.tensor([[[3.0, -4.0]], [[0.0, 0.0]]])

    assert ThreatModel("Linf").ascent_direction(g).tolist() == [[[1.0, -1.0]], [[0.0, 0.0]]]
    torch.testing.assert_close(ThreatModel("L2").ascent_direction(g), torch.tensor([[[0.6, -0.8]], [[0.0, 0.0]]]))


@pytest.mark.parametrize(("norm", "eps"), [("L1", 1.0), ("Linf", 0.0), ("Linf", -1.0), ("L2", float("nan"))])
def test_bad_threat_models_raise(norm: str, eps: float) -> None:
    """On construction."""
    with pytest.raises(ValueError, match=r"unknown norm|above 0"):
        ThreatModel(norm, eps)


def test_bad_images_and_labels_raise() -> None:
    """Before any work, with what was given."""
    for bad, message in [
        (torch.ones(3, 2, dtype=torch.uint8), "floating tensor"),
        (torch.tensor([[0.5, float("nan")]]), "NaN or inf"),
        (torch.tensor([[0.5, 1.5]]), r"got \[0.5, 1.5\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            require_images(bad)
    for labels, message in [
        (torch.zeros(3), "must be integers"),
        (torch.zeros(2, dtype=torch.long), r"shape \(3,\)"),
        (torch.tensor([0, 1, 10]), "0 to 9, got 0 to 10"),
        (torch.tensor([0, 1, -1]), "got -1 to 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            require_labels(labels, 3, classes=10)
