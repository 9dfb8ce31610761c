"""Calibration: hand-made cases, slow loops, another library's number, and laws that hold for calibrated models."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from reference import calibration_scores
from scipy import stats
from torchmetrics.functional.classification import multiclass_calibration_error

from sap_art.calibration import (
    apply_temperature,
    bootstrap_intervals,
    calibration_curve,
    calibration_report,
    expected_calibration_error,
    fit_temperature,
    mean_of_draws,
    null_floor,
    temperature_scaling,
)
from sap_art.randomness import derive_seed

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
SCORES = ("ece", "squared_l2", "brier", "nll", "gap")


def softmax_model(
    rng: np.random.Generator, n: int, *, sharpen: float = 1.0, spread: float = 2.5
) -> tuple[Floats, Integers]:
    """Log-probabilities (n, 10) of logits times ``sharpen``, and labels drawn from the logits as they are."""
    logits = rng.normal(0, spread, (n, 10))
    y = (np.exp(log_softmax(logits)).cumsum(1) < rng.random((n, 1))).sum(1)
    return log_softmax(sharpen * logits), y


def log_softmax(logits: Floats) -> Floats:
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def two_classes(confidence: Floats, right: NDArray[np.bool_]) -> tuple[Floats, Integers]:
    """Predictions of class 0 with the given confidences above one half."""
    return np.stack([confidence, 1 - confidence], 1), np.where(right, 0, 1)


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
        (torch.tensor([[3.0, -1.0], [0.2, 4.0]]), torch.tensor([0, 1]), "Logits need a softmax"),
        (torch.tensor([[0.5, 0.49], [0.5, 0.5]]), torch.tensor([0, 1]), "must be a distribution"),
        (torch.ones(2, 2), torch.tensor([0, 1]), "must be a distribution"),
        (torch.tensor([[float("nan"), 1.0]]), torch.tensor([0]), "must be a distribution"),
        (torch.tensor([[1.5, -0.5]]), torch.tensor([0]), "must be a distribution"),
        (torch.eye(2), torch.tensor([0, 2]), "from 0 to 1"),
        (torch.eye(2), torch.tensor([-1, 1]), "from 0 to 1"),
        (torch.eye(2), torch.tensor([0.0, 1.0]), "must be integers"),
        (torch.eye(2), torch.tensor([False, True]), "must be integers"),
        (torch.eye(2), torch.tensor([0]), "expected probabilities"),
        (torch.zeros(0, 2), torch.tensor([], dtype=torch.long), "N > 0"),
    ],
)
def test_bad_predictions_raise(p: torch.Tensor, y: torch.Tensor, message: str) -> None:
    """Shapes, distributions, labels."""
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(p, y)


def test_the_scores_are_those_of_the_slow_loop() -> None:
    """All five, over 137 images in bins of unequal size, as tensors of float32 and as arrays."""
    logs, y = softmax_model(np.random.default_rng(1), 137, sharpen=1.5)
    expected = calibration_scores(np.exp(logs), y, bins=15)
    report = calibration_report(np.exp(logs), y)
    narrow = calibration_report(torch.from_numpy(np.exp(logs)).float(), torch.from_numpy(y))

    for name in SCORES:
        assert getattr(report, name) == pytest.approx(expected[name], abs=1e-12)
        assert getattr(narrow, name) == pytest.approx(expected[name], abs=1e-5)


def test_equal_mass_bins() -> None:
    """Sizes differ by at most one, (low, high] holds what it says, and equal confidences are never parted."""
    rng = np.random.default_rng(2)
    p, y = two_classes(rng.uniform(0.5, 1, 100), rng.random(100) < 0.7)
    bins = calibration_report(p, y).mass_bins

    assert {b.count for b in bins} == {6, 7}
    assert [b.count for b in bins] == [((p.max(1) > b.low) & (p.max(1) <= b.high)).sum() for b in bins]

    p, y = two_classes(np.repeat([0.6, 0.9], 50), np.arange(100) % 3 > 0)
    order = rng.permutation(100)
    report = calibration_report(p, y)

    assert sorted(b.count for b in report.mass_bins) == [0] * 13 + [50, 50]
    assert calibration_report(p[order], y[order]).squared_l2 == pytest.approx(report.squared_l2)


@pytest.mark.parametrize(("levels", "variance"), [((0.7, 0.7), 0.0), ((0.6, 0.9), 0.15**2)])
def test_the_expectation_of_debiased_l2(levels: tuple[float, float], variance: float) -> None:
    """Over all outcomes of 20 + 20 images in one bin: 0, less the documented share of the spread of confidence."""
    n = 20
    mean = 0.0
    for right in np.ndindex(n + 1, n + 1):
        outcome = np.concatenate([np.arange(n) < k for k in right])
        found = calibration_report(*two_classes(np.repeat(levels, n), outcome), bins=1).squared_l2
        mean += math.prod(stats.binom.pmf(k, n, c) for k, c in zip(right, levels, strict=True)) * (found or 0.0)

    assert mean == pytest.approx(-variance / (2 * n - 1), abs=1e-12)


def test_debiased_l2_is_unbiased_when_calibrated() -> None:
    """Mean 0 within five standard errors over 1,000 data sets in 15 bins, where the plain one is 60 of them away."""
    rng = np.random.default_rng(3)
    confidence = np.repeat(np.linspace(0.55, 0.97, 15), 20)
    debiased, plain = [], []
    for _ in range(1000):
        report = calibration_report(*two_classes(confidence, rng.random(300) < confidence))
        debiased.append(report.squared_l2 or 0.0)
        gaps = [(b.accuracy or 0.0) - (b.confidence or 0.0) for b in report.mass_bins]
        plain.append(np.square(gaps).mean())
    error = np.std(debiased) / math.sqrt(1000)

    assert abs(np.mean(debiased)) < 5 * error
    assert np.mean(plain) > 60 * error
    assert np.mean(plain) == pytest.approx((confidence * (1 - confidence)).mean() / 20, abs=5 * error)
    assert min(debiased) < 0


def test_debiased_l2_needs_two_images_in_a_bin() -> None:
    """Three images in 15 bins have none."""
    p, y = two_classes(np.array([0.6, 0.7, 0.8]), np.array([True, True, False]))

    assert calibration_report(p, y).squared_l2 is None
    assert calibration_report(p, y, bins=1).squared_l2 is not None
    assert bootstrap_intervals(p, y, seed=0).squared_l2 is None
    # Four images resampled once have one of them twice: what the resample has, the images have not.
    p, y = two_classes(np.array([0.6, 0.7, 0.8, 0.9]), np.array([True, True, False, True]))
    assert all(bootstrap_intervals(p, y, seed=seed, resamples=1).squared_l2 is None for seed in range(8))


def test_null_p_values_are_uniform_when_calibrated() -> None:
    """Kolmogorov-Smirnov over 400 calibrated data sets; an overconfident model is found out each time."""
    rng = np.random.default_rng(4)
    honest, sharp = [], []
    for seed in range(400):
        logs, y = softmax_model(rng, 150)
        honest.append(null_floor(np.exp(logs), y, seed=seed, simulations=199).p_value)
    for seed in range(20):
        logs, y = softmax_model(rng, 300, sharpen=3)
        sharp.append(null_floor(np.exp(logs), y, seed=seed, simulations=199).p_value)

    assert stats.kstest(honest, "uniform").pvalue > 0.01
    assert sharp == [1 / 200] * 20


def test_the_null_floor_in_closed_form() -> None:
    """50 images at confidence .7: ECE is |Binomial(50, .7) / 50 - .7|."""
    p, y = two_classes(np.full(50, 0.7), np.arange(50) < 40)
    k = np.arange(51)
    pmf = stats.binom.pmf(k, 50, 0.7)
    ece = abs(k / 50 - 0.7)
    mean = pmf @ ece
    found = null_floor(p, y, seed=5, simulations=20_000)

    assert found.mean == pytest.approx(mean, abs=5 * math.sqrt((pmf @ ece**2 - mean**2) / 20_000))
    reached = pmf[ece >= 0.1 - 1e-9].sum()
    assert found.p_value == pytest.approx(reached, abs=5 * math.sqrt(reached * (1 - reached) / 20_000) + 1e-4)
    assert pmf[ece < found.quantile - 1e-9].sum() <= 0.95 <= pmf[ece < found.quantile + 1e-9].sum()
    assert null_floor(p, y, seed=5, simulations=20_000) == found


def test_the_bootstrap_is_that_of_the_slow_loop() -> None:
    """40 resamples of 60 images, image by image; and the definition of each interval."""
    logs, y = softmax_model(np.random.default_rng(6), 60, sharpen=3)
    p = np.exp(logs)
    times = np.random.default_rng(derive_seed(7, "bootstrap")).multinomial(60, np.full(60, 1 / 60), 40)
    slow = [calibration_scores(p, y, bins=10, copies=row.tolist()) for row in times]
    once = calibration_scores(p, y, bins=10)
    found = asdict(bootstrap_intervals(p, y, seed=7, log_probabilities=logs, bins=10, resamples=40))

    assert null_floor(p, y, seed=7, bins=10).p_value < 0.025
    for name, population, kept in (("ece", "ece", 1), ("squared_l2", "plain_l2", 0)):
        error = np.array([s[name] for s in slow]) - once[population]
        bias, (low, high) = error.mean(), once[name] - np.quantile(error, (0.975, 0.025))
        assert found[name] == pytest.approx((once[name], bias, low, high + kept * bias), abs=1e-9)
    for name in ("brier", "nll", "gap"):
        low, high = np.quantile([s[name] for s in slow], (0.025, 0.975))
        assert found[name] == pytest.approx((once[name], 0.0, low, high), abs=1e-9)


@pytest.mark.parametrize("off", [0.0, 0.06])
def test_bootstrap_intervals_cover(off: float) -> None:
    """Five confidences whose accuracies are lower by ``off``: 200 intervals of 300 images hold every true score."""
    rng = np.random.default_rng(8)
    levels = np.linspace(0.6, 0.96, 5)
    truth = {
        "ece": off,
        "squared_l2": off**2,
        "brier": np.mean((levels - off) * 2 * (1 - levels) ** 2 + (1 - levels + off) * 2 * levels**2),
        "nll": -np.mean((levels - off) * np.log(levels) + (1 - levels + off) * np.log(1 - levels)),
        "gap": off,
    }
    hits = dict.fromkeys(SCORES, 0)
    for seed in range(200):
        confidence = rng.choice(levels, 300)
        p, y = two_classes(confidence, rng.random(300) < confidence - off)
        found = asdict(bootstrap_intervals(p, y, seed=seed, resamples=400))
        for name in SCORES:
            _, _, low, high = found[name]
            hits[name] += low - 1e-12 <= truth[name] <= high + 1e-12
        assert found["ece"][2] <= found["ece"][0] <= found["ece"][3]
    slack = 5 * math.sqrt(0.95 * 0.05 / 200)

    assert min(hits.values()) / 200 > 0.95 - slack
    assert off == 0 or max(hits.values()) < 200


def test_intervals_have_the_width_of_the_standard_error() -> None:
    """Of means, on 1,000 images: within a tenth."""
    logs, y = softmax_model(np.random.default_rng(9), 1000)
    found = bootstrap_intervals(np.exp(logs), y, seed=10, log_probabilities=logs)
    error = logs[np.arange(1000), y].std() / math.sqrt(1000)

    assert (found.nll.high - found.nll.low) / 2 == pytest.approx(1.96 * error, rel=0.1)


def softmax_draws(seed: int, m: int, n: int) -> tuple[Floats, Integers]:
    """m noisy draws (m, n, 10) around one model."""
    rng = np.random.default_rng(seed)
    logs, y = softmax_model(rng, n)
    return log_softmax(logs + rng.normal(0, 1.5, (m, n, 10))), y


def test_each_draw_is_a_row_at_k_1() -> None:
    """The rows of a single predictor are the reports of its draws, and the value is their mean."""
    logs, y = softmax_draws(11, 4, 90)
    found = mean_of_draws(logs, y, draws=1, seed=12)
    rows = [calibration_report(np.exp(draw), y, log_probabilities=draw) for draw in logs]

    assert len(found.groups) == 4
    for name in SCORES:
        expected = [getattr(row, name) for row in rows]
        assert [getattr(group, name) for group in found.groups] == pytest.approx(expected)
        assert getattr(found.intervals, name).value == pytest.approx(np.mean(expected))


def test_groups_are_disjoint_means_of_successive_draws() -> None:
    """K = 2 of 5: draws 0, 1 and 2, 3; the fifth is left out. K = m is the mean over all draws."""
    logs, y = softmax_draws(13, 5, 80)
    p = np.exp(logs)
    pairs = mean_of_draws(logs, y, draws=2, seed=14)
    everything = mean_of_draws(torch.from_numpy(logs), torch.from_numpy(y), draws=5, seed=14)
    mean = p.mean(0)

    assert [group.ece for group in pairs.groups] == pytest.approx(
        [expected_calibration_error(p[i : i + 2].mean(0), y) for i in (0, 2)]
    )
    assert everything.groups[0].nll == pytest.approx(calibration_report(mean, y).nll)
    assert everything.intervals.ece == pytest.approx(bootstrap_intervals(mean, y, seed=14).ece)
    assert asdict(everything.floor) == pytest.approx(asdict(null_floor(mean, y, seed=14)))


def test_draws_of_one_image_are_one_cluster() -> None:
    """Twenty copies of one draw say no more than one: same intervals, same floor, same p-value."""
    logs, y = softmax_draws(15, 1, 120)
    one = mean_of_draws(logs, y, draws=1, seed=16)
    twenty = mean_of_draws(np.repeat(logs, 20, 0), y, draws=1, seed=16)

    for name in SCORES:
        assert getattr(twenty.intervals, name) == pytest.approx(getattr(one.intervals, name), abs=1e-9)
    assert asdict(twenty.floor) == pytest.approx(asdict(one.floor))


def test_the_curve() -> None:
    """K of the protocol up to m; averaging lowers confidence at each step."""
    logs, y = softmax_draws(17, 20, 150)
    curve = calibration_curve(logs, y, seed=18)
    gaps = [point.intervals.gap.value for point in curve]

    assert [point.draws for point in curve] == [1, 2, 5, 10, 20]
    assert [len(point.groups) for point in curve] == [20, 10, 4, 2, 1]
    assert gaps == sorted(gaps, reverse=True)
    assert curve == calibration_curve(logs, y, seed=18)
    assert curve[1] == mean_of_draws(logs, y, draws=2, seed=18)


@pytest.mark.parametrize(
    ("logs", "y", "draws", "message"),
    [
        (np.zeros((3, 4, 2)), np.zeros(4, dtype=int), 1, "Logits need a softmax"),
        (np.full((3, 4, 2), np.nan), np.zeros(4, dtype=int), 1, "must be a distribution"),
        (np.full((3, 4, 2), math.log(0.5)), np.zeros(4, dtype=int), 4, "number of draws, 3, got 4"),
        (np.full((3, 4, 2), math.log(0.5)), np.zeros(4, dtype=int), 0, "number of draws, 3, got 0"),
        (np.full((3, 4, 2), math.log(0.5)), np.full(4, 2), 1, "from 0 to 1"),
        (np.full((3, 1, 2), math.log(0.5)), np.zeros(1, dtype=int), 1, "at least 2 images"),
        (np.zeros((0, 4, 2)), np.zeros(4, dtype=int), 1, r"\(m, B, C\)"),
        (np.full((4, 2), math.log(0.5)), np.zeros(4, dtype=int), 1, r"\(m, B, C\)"),
    ],
)
def test_bad_draws_raise(logs: Floats, y: Integers, draws: int, message: str) -> None:
    """Logits, NaN, K, labels, shapes."""
    with pytest.raises(ValueError, match=message):
        mean_of_draws(logs, y, draws=draws, seed=0)


def test_logarithms_of_something_else_raise() -> None:
    """Logits beside their softmax, or the logarithms of other images."""
    logs, y = softmax_model(np.random.default_rng(19), 20)

    for wrong in (logs + 3, logs[::-1], logs[:-1]):
        with pytest.raises(ValueError, match="logarithms of probabilities"):
            calibration_report(np.exp(logs), y, log_probabilities=wrong)


def test_softmax_applied_twice_is_detected() -> None:
    """A distribution by its form, so only the scores can tell: gap, NLL, null floor and temperature all do."""
    logs, y = softmax_model(np.random.default_rng(20), 1000, spread=6)
    twice = log_softmax(np.exp(logs))
    honest = calibration_report(np.exp(logs), y, log_probabilities=logs)
    trapped = calibration_report(np.exp(twice), y, log_probabilities=twice)

    assert abs(honest.gap) < 0.05
    assert trapped.gap < -0.5
    assert trapped.nll > 1.4 > 0.7 > honest.nll
    assert null_floor(np.exp(logs), y, seed=21).p_value > 0.05
    assert null_floor(np.exp(twice), y, seed=21).p_value == 1 / 1001
    assert fit_temperature(logs, y) == pytest.approx(1, abs=0.15)
    assert (fit_temperature(twice, y) or 1.0) < 0.25


@pytest.mark.parametrize("sharpen", [0.5, 1.0, 2.5])
def test_the_temperature_is_found(sharpen: float) -> None:
    """1 / T within five of its Fisher standard errors; the NLL is no lower on either side."""
    logs, y = softmax_model(np.random.default_rng(22), 4000, sharpen=sharpen)
    found = fit_temperature(logs, y)
    assert found is not None
    p = np.exp(logs / sharpen - np.log(np.exp(logs / sharpen).sum(1, keepdims=True)))
    information = ((p * logs**2).sum(1) - (p * logs).sum(1) ** 2).sum()

    def nll(temperature: float) -> float:
        return float(-apply_temperature(logs, temperature)[np.arange(4000), y].mean())

    assert abs(1 / found - 1 / sharpen) < 5 / math.sqrt(information)
    assert nll(found) < min(nll(found * 1.001), nll(found / 1.001))


def test_temperature_scaling_is_fitted_and_judged_on_different_images() -> None:
    """Even rows fit, odd rows are reported; the other half's labels change neither."""
    logs, y = softmax_model(np.random.default_rng(23), 2000, sharpen=3)
    found = temperature_scaling(logs, y, fit_on=logs)
    assert found is not None
    other_odd, other_even = y.copy(), y.copy()
    other_odd[1::2] = (y[1::2] + 1) % 10
    other_even[::2] = np.roll(y[::2], 1)
    even_changed = temperature_scaling(logs, other_even, fit_on=logs)
    odd_changed = temperature_scaling(logs, other_odd, fit_on=logs)

    assert found.temperature == fit_temperature(logs[::2], y[::2])
    assert found.before == calibration_report(np.exp(logs[1::2]), y[1::2], log_probabilities=logs[1::2])
    assert odd_changed is not None
    assert odd_changed.temperature == found.temperature
    assert even_changed is None or even_changed.before == found.before
    assert found.after.nll < found.before.nll
    assert found.after.ece < 0.05 < 0.1 < found.before.ece


def test_attacked_images_get_the_temperature_of_the_clean_ones() -> None:
    """T from one set of predictions, reports from the other."""
    rng = np.random.default_rng(24)
    clean, y = softmax_model(rng, 400, sharpen=2)
    attacked = log_softmax(clean + rng.normal(0, 2, clean.shape))
    found = temperature_scaling(attacked, y, fit_on=clean)

    assert found is not None
    assert found.temperature == fit_temperature(clean[::2], y[::2])
    assert found.before.nll == calibration_report(np.exp(attacked[1::2]), y[1::2]).nll


def test_no_temperature_where_the_nll_has_no_minimum() -> None:
    """All right: ever sharper. Worse than chance: ever flatter."""
    logs = np.log([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1]])

    assert fit_temperature(logs, np.array([0, 0])) is None
    assert fit_temperature(logs, np.array([2, 2])) is None
    assert fit_temperature(logs, np.array([0, 1])) is not None
    assert temperature_scaling(np.repeat(logs, 2, 0), np.full(4, 2), fit_on=np.repeat(logs, 2, 0)) is None


@pytest.mark.parametrize(
    ("logs", "message"),
    [
        (np.array([[3.0, 1.0], [0.0, 2.0]]), "Logits need a softmax"),
        (np.array([[0.0, -np.inf], [0.0, -np.inf]]), "must be finite"),
        (np.full((2, 2), np.nan), "must be a distribution"),
    ],
)
def test_bad_log_probabilities_raise(logs: Floats, message: str) -> None:
    """Temperature takes finite log-probabilities."""
    with pytest.raises(ValueError, match=message):
        fit_temperature(logs, np.array([0, 1]))


def test_bad_settings_raise() -> None:
    """Bins, simulations, resamples, temperature, too few images."""
    p, y = two_classes(np.array([0.6, 0.7]), np.array([True, False]))

    with pytest.raises(ValueError, match="bins must be at least 1"):
        expected_calibration_error(p, y, bins=0)
    with pytest.raises(ValueError, match="simulations must be at least 1"):
        null_floor(p, y, seed=0, simulations=0)
    with pytest.raises(ValueError, match="1 resample, got 2 and 0"):
        bootstrap_intervals(p, y, seed=0, resamples=0)
    with pytest.raises(ValueError, match="positive and finite, got 0"):
        apply_temperature(np.log(p), 0.0)
    with pytest.raises(ValueError, match="two or more images"):
        temperature_scaling(np.log(p)[:1], y[:1], fit_on=np.log(p)[:1])
    with pytest.raises(ValueError, match="the same in both"):
        temperature_scaling(np.log(p), y, fit_on=np.log(np.full((2, 3), 1 / 3)))
