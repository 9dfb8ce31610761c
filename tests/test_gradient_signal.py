"""Gradient signal against the closed forms of Gaussian gradients; the flag; finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import reference
import torch
from scipy import special, stats
from torch import Tensor, nn

from sap_art import SAP, AttackerView, DefendedModel, wrap
from sap_art.attacks.objective import raw_loss_and_gradient
from sap_art.diagnostics.finite_difference import finite_differences
from sap_art.diagnostics.gradient_signal import (
    AGGRAVATING,
    GradientSignal,
    draw_gradients,
    gradient_signal,
    low_gradient_signal,
    signal_of,
)
from sap_art.flags import flag
from sap_art.randomness import derive_seed
from sap_art.record import Flag
from sap_art.stochastic import StochasticModel

PIXELS, IMAGES = 12, 1500
MU = torch.linspace(-1.0, 1.5, PIXELS)
X = torch.rand(IMAGES, 3, 2, 2, generator=torch.Generator().manual_seed(0))
Y = torch.zeros(IMAGES, dtype=torch.long)


def gaussian(mu: Tensor, sigma: float) -> StochasticModel:
    """Where the score is far above zero, the cross-entropy's gradient for class 0 is mu + sigma z to the last bit."""
    return wrap(reference.NoisyLinear(mu, b=200.0, sigma=sigma), dense=reference.Linear(mu, b=200.0))


def require_mean(samples: Tensor, expected: float) -> None:
    """Within five standard errors."""
    assert abs(samples.mean().item() - expected) < 5 * samples.std().item() / math.sqrt(len(samples))


def mean_direction(mu: Tensor, sd: float) -> float:
    """E cos(N(mu, sd^2 I), mu) in d dimensions."""
    d, rho = len(mu), mu.norm().item() / sd
    ratio = math.exp(special.gammaln((d + 1) / 2) - special.gammaln(d / 2 + 1))
    return rho / math.sqrt(2) * ratio * special.hyp1f1(0.5, d / 2 + 1, -(rho**2) / 2)


@pytest.mark.parametrize("draws", [8, 9])
def test_gaussian_gradients_meet_their_closed_forms(draws: int) -> None:
    """SNR with E[1 / chi-square], split-half cosine as a product of two independent directions, signs by the normal."""
    sigma = 1.2
    found = gradient_signal(gaussian(MU, sigma), X, Y, draws=draws, seed=1)["autograd"]
    half_sd = sigma / math.sqrt(draws // 2)
    signal, freedom = MU.square().sum().item(), PIXELS * (draws - 1)
    over_v = (draws - 1) / (sigma**2 * (freedom - 2))
    same = stats.norm.cdf(MU / half_sd) ** 2 + stats.norm.sf(MU / half_sd) ** 2

    assert (found.snr > 0).all()  # so that nothing is clamped, and the mean is unbiased
    require_mean(found.snr, (signal + sigma**2 * PIXELS / draws) * over_v - 1 / draws)
    require_mean(found.cosine, mean_direction(MU, half_sd) ** 2)
    require_mean(found.sign_agreement, float(same.mean()))
    assert found.dense_cosine is not None
    require_mean(found.dense_cosine, mean_direction(MU, sigma / math.sqrt(draws)))
    assert not found.zero.any()
    assert not found.non_finite.any()


def test_noise_alone_has_no_signal_and_the_naive_cosine_says_it_has() -> None:
    """With mu = 0 split halves are orthogonal on average; a draw against a mean that contains it is not."""
    model, draws = gaussian(torch.zeros(PIXELS), 1.0), 8
    g = draw_gradients(model, X, Y, estimator="autograd", draws=draws, max_batch=4000)
    naive = torch.nn.functional.cosine_similarity(g[0].flatten(1), g.mean(0).flatten(1)).double()
    found = signal_of(g)

    require_mean(found.cosine, 0.0)
    require_mean(found.sign_agreement, 0.5)
    assert naive.mean() > 0.3  # about 1 / sqrt(draws)
    unclamped = (g.mean(0).flatten(1).double().square().sum(1) - g.double().var(0).flatten(1).sum(1) / draws) / PIXELS
    require_mean(unclamped, 0.0)
    assert 0.3 < (found.snr == 0).double().mean() < 0.7


def small() -> tuple[DefendedModel, Tensor, Tensor]:
    """A small SAP net with numbered random numbers, nine images."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 200), nn.ReLU(), nn.Linear(200, 3))
    generator = torch.Generator().manual_seed(3)
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator) * 0.3
    return DefendedModel(net, SAP(80, kernel="numba"), seed=1), X[:9], torch.arange(9) % 3


@pytest.mark.parametrize("estimator", ["bpda", "frozen", "autograd"])
def test_the_mean_of_the_draws_is_the_attack_s_gradient(estimator: str) -> None:
    """Draw by draw, in passes of 20 rows: what an attack averages under the same seed."""
    model, x, y = small()
    view = AttackerView(model, gradient=estimator, draws=6)
    with model.seeded(5):
        g = draw_gradients(model, x, y, estimator=estimator, draws=6, max_batch=20)
    with model.seeded(5):
        mean = raw_loss_and_gradient(view, x, y, loss="ce").gradient

    assert g.shape == (6, *x.shape)
    torch.testing.assert_close(g.mean(0), mean, rtol=1e-4, atol=1e-6)
    assert len(g[:, 0].flatten(1).unique(dim=0)) == 6


def test_blocks_of_images_change_nothing() -> None:
    """40 draws of 9 images do not fit into one pass of 64 rows; their signal is that of all at once."""
    model, x, y = small()
    found = gradient_signal(model, x, y, draws=40, seed=2)
    assert list(found) == ["bpda", "frozen", "autograd"]

    with model.seeded(derive_seed(2, "gradient signal", "frozen")):
        whole = signal_of(draw_gradients(model, x, y, estimator="frozen", draws=40, max_batch=1000))
    torch.testing.assert_close(found["frozen"].snr, whole.snr, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(found["frozen"].cosine, whole.cosine, rtol=1e-3, atol=1e-5)


def test_shared_noise_is_drawn_one_by_one() -> None:
    """Copies in a batch would all be one draw."""

    class Shared(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            score = 200 + (x.flatten(1) * torch.randn(PIXELS)).sum(1)
            return torch.stack([torch.zeros_like(score), score], 1)

    model = wrap(Shared(), per_example=False)
    g = draw_gradients(model, X[:2], Y[:2], estimator="autograd", draws=5, max_batch=100)

    assert len(g[:, 0].flatten(1).unique(dim=0)) == 5
    assert torch.equal(g[:, 0], g[:, 1])


def test_a_deterministic_gradient_has_no_snr() -> None:
    """No variance, nothing to divide by: absent; the halves are equal."""
    found = gradient_signal(gaussian(MU, 0.0), X[:4], Y[:4], draws=4, seed=1)["autograd"]
    info = found.info()

    assert found.snr.isnan().all()
    assert info.snr is None
    assert info.split_half_cosine == pytest.approx(1)
    assert info.dense_cosine == pytest.approx(1)
    assert info.sign_agreement == 1


def test_zero_and_non_finite_gradients_are_no_signal() -> None:
    """Image 0 zero in all draws, image 1 in one draw only, image 2 with one NaN, image 3 with one inf."""
    g = torch.randn(4, 4, 6, generator=torch.Generator().manual_seed(0))
    g[:, 0], g[0, 1], g[1, 2, 3], g[2, 3, 0] = 0, 0, torch.nan, torch.inf
    found = signal_of(g, dense=torch.ones(4, 6))

    assert found.zero.tolist() == [True, False, False, False]
    assert found.non_finite.tolist() == [False, False, True, True]
    assert found.cosine[[0, 2, 3]].tolist() == [0, 0, 0]
    assert found.sign_agreement[0] == 0
    assert found.snr.isnan().tolist() == [True, False, True, True]
    assert found.dense_cosine is not None
    assert found.dense_cosine[[0, 2, 3]].tolist() == [0, 0, 0]
    assert found.info().zero == 0.25
    assert found.info().non_finite == 0.5


@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 0, 4), (3, 4)])
def test_too_few_draws_or_images_raise(shape: tuple[int, ...]) -> None:
    """Two halves are needed."""
    with pytest.raises(ValueError, match="k >= 2 and B > 0"):
        signal_of(torch.zeros(shape))
    with pytest.raises(ValueError, match="at least 2 draws, got 1"):
        gradient_signal(gaussian(MU, 1.0), X[:1], Y[:1], draws=1, seed=1)


def signals(low: int, *, images: int = 64, value: float = 0.05) -> GradientSignal:
    """``low`` images with that cosine, the rest at .5."""
    cosine = torch.full((images,), 0.5, dtype=torch.double)
    cosine[:low] = value
    none = torch.zeros(images, dtype=torch.bool)
    return GradientSignal(snr=cosine, cosine=cosine, sign_agreement=cosine, zero=none, non_finite=none)


def test_low_signal_is_raised_on_the_interval_of_the_median() -> None:
    """Of 64 the interval of the median ends at the 41st smallest (binomial): 40 low ones are too few, 41 enough."""
    inside = stats.binom.cdf(40, 64, 0.5), stats.binom.cdf(39, 64, 0.5)
    assert inside[0] > 0.975 > inside[1]

    def state(low: int, value: float = 0.05) -> str:
        return low_gradient_signal({"bpda": [signals(low, value=value)]}, others=[]).state

    assert (state(33), state(40), state(41)) == ("clear", "clear", "raised")
    assert (state(64, 0.099), state(64, 0.1), state(64, 0.101)) == ("raised", "clear", "clear")


def test_one_estimator_with_a_signal_is_enough_and_points_are_averaged() -> None:
    """And nothing measured, or on five images, is not clear."""
    low, high = signals(64), signals(0)

    assert low_gradient_signal({"bpda": [low], "frozen": [high]}, others=[]).state == "clear"
    assert low_gradient_signal({"bpda": [low], "frozen": [low]}, others=[]).state == "raised"
    assert low_gradient_signal({"bpda": [low, low, high]}, others=[]).value == pytest.approx(0.2)
    assert low_gradient_signal({}, others=[]).state == "not-checked"
    assert low_gradient_signal({"bpda": []}, others=[]).state == "not-checked"
    assert low_gradient_signal({"bpda": [signals(5, images=5)]}, others=[]).state == "not-checked"
    assert low_gradient_signal({"bpda": [signals(6, images=6)]}, others=[]).state == "raised"


@pytest.mark.parametrize(
    ("other", "level"),
    [
        *((flag(code, "raised", ""), "R") for code in AGGRAVATING),
        (flag("not-monotone", "clear", ""), "W"),
        (flag("seed-gap", "raised", ""), "W"),
    ],
)
def test_low_signal_is_worse_beside_a_sign_of_masking(other: Flag, level: str) -> None:
    """A warning alone; unreliable with any of four."""
    assert low_gradient_signal({"bpda": [signals(64)]}, others=[other]).level == level
    assert low_gradient_signal({"bpda": [signals(0)]}, others=[other]).level == "W"


class Scaled(StochasticModel):
    """Smooth noise on a score, an honest gradient and a dishonest one (three times too long, or turned round)."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__(seed=1, per_example=True)
        self.change = change

    @property
    def dense(self) -> None:
        return None

    @property
    def estimators(self) -> tuple[str, ...]:
        return ("autograd", "bpda")

    def single(self, x: Tensor, *, gradient: str | None = None) -> Tensor:
        if gradient == "bpda" and x.requires_grad:
            x.register_hook(self.change)
        with self.noise.call():
            noise = torch.randn(x.shape, generator=self.noise.stream(x.device, rows=len(x), batch=len(x)))
        score = ((1 + noise) * x.sin()).flatten(1).sum(1)
        return torch.stack([torch.zeros_like(score), score], 1)


def test_finite_differences_know_a_right_gradient() -> None:
    """Autograd is right in direction and size; three times the gradient is right in direction, the opposite in size."""
    x, y = X[:8], Y[:8]
    longer = finite_differences(Scaled(lambda g: 3 * g), x, y, draws=3, directions=4, seed=1)
    turned = finite_differences(Scaled(lambda g: -g), x, y, draws=3, directions=4, seed=1)

    assert longer["autograd"] == pytest.approx((1, 1), abs=2e-3)
    assert longer["bpda"] == pytest.approx((1, 3), abs=6e-3)
    assert turned["bpda"] == pytest.approx((-1, 1), abs=2e-3)


def test_finite_differences_see_hidden_gradients() -> None:
    """A zero gradient predicts nothing; a constant model has nothing to predict."""

    class Hidden(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            score = x.detach().flatten(1).sum(1)
            return torch.stack([0 * score, score], 1) + 0 * x.sum()

    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x), 2) + 0 * x.sum()

    hidden, constant = (
        finite_differences(wrap(m), X[:4], Y[:4], draws=1, directions=2, seed=1) for m in (Hidden(), Constant())
    )
    assert hidden["autograd"] == (0, 0)
    assert constant["autograd"].cosine == 0
    assert math.isnan(constant["autograd"].scale)
