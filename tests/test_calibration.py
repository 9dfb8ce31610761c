"""Calibration: hand-made cases, the edge at confidence 1, and another library's number."""

from __future__ import annotations

import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from sap_art.calibration import calibration_report, expected_calibration_error


def test_confidence_one_belongs_to_the_last_bin() -> None:
    """Two images at .95 (right) and 1.0 (wrong): one bin, |.5 - .975| = .475."""
    p = torch.tensor([[0.95, 0.05], [1.0, 0.0]])

    assert expected_calibration_error(p, torch.tensor([0, 1])) == pytest.approx(0.475)


def test_bins_are_closed_on_the_right() -> None:
    """Confidence .75 of four bins belongs to (.5, .75]."""
    report = calibration_report(torch.tensor([[0.75, 0.25]]), torch.tensor([0]), bins=4)

    assert [b.count for b in report.bins] == [0, 0, 1, 0]


def test_it_agrees_with_torchmetrics_away_from_the_edge(generator: torch.Generator) -> None:
    """To 1e-6, on random float64 predictions below confidence 1."""
    p = torch.randn(2000, 10, generator=generator, dtype=torch.double).mul(2).softmax(1)
    y = torch.randint(10, (2000,), generator=generator)
    theirs = multiclass_calibration_error(p, y, num_classes=10, n_bins=15, norm="l1").item()

    assert expected_calibration_error(p, y) == pytest.approx(theirs, abs=1e-6)


def test_perfect_and_hopeless_predictions() -> None:
    """0 when confidence is accuracy, 1 when it is certain and always wrong."""
    certain = torch.eye(2)

    assert expected_calibration_error(certain, torch.tensor([0, 1])) == 0.0
    assert expected_calibration_error(certain, torch.tensor([1, 0])) == 1.0


def test_the_report(generator: torch.Generator) -> None:
    """Brier, NLL, gap and bins add up."""
    logs = torch.randn(300, 4, generator=generator, dtype=torch.double).log_softmax(1)
    y = torch.randint(4, (300,), generator=generator)
    report = calibration_report(logs.exp(), y, log_probabilities=logs)
    true = logs.exp()[torch.arange(300), y]
    brier = ((logs.exp() ** 2).sum(1) - 2 * true + 1).mean()

    assert report.brier == pytest.approx(brier.item())
    assert report.nll == pytest.approx(-true.log().mean().item())
    assert sum(b.count for b in report.bins) == 300
    filled = [b for b in report.bins if b.count]
    assert report.gap == pytest.approx(sum(b.count * ((b.confidence or 0) - (b.accuracy or 0)) for b in filled) / 300)
    assert report.ece == pytest.approx(
        sum(b.count * abs((b.confidence or 0) - (b.accuracy or 0)) for b in filled) / 300
    )
    assert all(b.confidence is None for b in report.bins if not b.count)


def test_an_underflowed_true_class_needs_log_probabilities() -> None:
    """No infinite loss, and no clipped one."""
    p, y = torch.tensor([[1.0, 0.0]]), torch.tensor([1])

    with pytest.raises(ValueError, match="give log_probabilities"):
        calibration_report(p, y)
    assert calibration_report(p, y, log_probabilities=torch.tensor([[0.0, -150.0]])).nll == pytest.approx(150)


@pytest.mark.parametrize(
    ("p", "y", "message"),
    [
        (torch.ones(2, 2), torch.tensor([0, 1]), "must be a distribution"),
        (torch.tensor([[float("nan"), 1.0]]), torch.tensor([0]), "must be a distribution"),
        (torch.tensor([[1.5, -0.5]]), torch.tensor([0]), "must be a distribution"),
        (torch.eye(2), torch.tensor([0, 2]), "from 0 to 1"),
        (torch.eye(2), torch.tensor([0]), "expected probabilities"),
        (torch.zeros(0, 2), torch.tensor([], dtype=torch.long), "N > 0"),
    ],
)
def test_bad_predictions_raise(p: torch.Tensor, y: torch.Tensor, message: str) -> None:
    """Shapes, distributions, labels."""
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(p, y)
