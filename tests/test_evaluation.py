"""Scoring on fresh draws: what is kept, what is refused, and that nothing else can move it."""

from __future__ import annotations

import pytest
import reference
import torch
from torch import Tensor, nn

from sap_art import SAP, DefendedModel, Evaluation, evaluate, wrap
from sap_art.evaluation import Evaluation as SameEvaluation

X = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2])


def model() -> DefendedModel:
    """A small defended net of three classes."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 300), nn.ReLU(), nn.Linear(300, 3))
    generator = torch.Generator().manual_seed(3)
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator)
    return DefendedModel(net, SAP(50), seed=1)


def hand_made() -> Evaluation:
    """Four draws on two images: image 0 is right 3 times of 4, image 1 once."""
    right, wrong = torch.tensor([0.8, 0.2]), torch.tensor([0.4, 0.6])
    draws = torch.stack(
        [torch.stack([a, b]) for a, b in [(right, wrong), (right, wrong), (wrong, right), (right, wrong)]]
    )
    return Evaluation(draws.log(), torch.tensor([0, 0]))


def test_counts_and_mean_probabilities() -> None:
    """Per image, from the draws themselves."""
    result = hand_made()

    assert result.correct.tolist() == [3, 1]
    assert result.accuracy == 0.5
    torch.testing.assert_close(result.probabilities[:, 0], torch.tensor([0.7, 0.5], dtype=torch.double))
    assert SameEvaluation is Evaluation


def test_predictors_over_disjoint_groups() -> None:
    """Groups (1, 2) and (3, 4): mean_prob is right on image 0 twice, a tied vote is wrong."""
    result = hand_made()

    # Image 0: group means .8 and .6 -> right, right; image 1: .4 and .6 -> wrong, right.
    assert result.under("mean_prob", 2).value == 0.75
    # Image 0: 2:0 right, 1:1 tied; image 1: 0:2 wrong, 1:1 tied.
    assert result.under("vote", 2).value == 0.25
    assert result.under("single", 1).value == 0.5
    assert result.under("vote", 3).value == 0.5


def test_shared_noise_widens_the_interval_of_every_predictor() -> None:
    """30 images that are right together in half of the groups: as uncertain as one coin tossed 8 times."""
    right = (torch.arange(16) < 8)[:, None].expand(16, 30).float()
    draws = torch.stack([right, 1 - right], -1).log_softmax(-1)
    alone, shared = (
        Evaluation(draws, torch.zeros(30).long(), per_example).under("vote", 2) for per_example in (True, False)
    )

    assert alone.value == shared.value == 0.5
    assert shared.high - shared.low > 0.4 > alone.high - alone.low


@pytest.mark.parametrize(("predictor", "draws"), [("single", 2), ("mean_prob", 5), ("vote", 0), ("median", 1)])
def test_impossible_predictors_raise(predictor: str, draws: int) -> None:
    """More draws than there are, or no such predictor."""
    with pytest.raises(ValueError, match="1 <= K <= 4"):
        hand_made().under(predictor, draws)  # pyright: ignore[reportArgumentType]


def test_the_seed_alone_decides_the_draws_and_the_model_goes_on() -> None:
    """Whatever was computed before; the model's own noise is left where it was."""
    m, twin = model(), model()
    first = evaluate(m, X, Y, draws=5, seed=9)
    m(X)
    second = evaluate(m, X, Y, draws=5, seed=9)
    twin(X)

    assert torch.equal(first.draw_log_probabilities, second.draw_log_probabilities)
    assert not torch.equal(first.draw_log_probabilities, evaluate(m, X, Y, draws=5, seed=8).draw_log_probabilities)
    assert torch.equal(m(X), twin(X))


def test_draws_are_fresh_across_batches() -> None:
    """Cut into small passes, all draws of one image still differ."""
    result = evaluate(model(), X, Y, draws=7, seed=1, batch_size=4)

    assert result.draw_log_probabilities.shape == (7, 6, 3)
    for image in range(6):
        assert len(result.draw_log_probabilities[:, image].unique(dim=0)) == 7


def test_a_shared_noise_model_is_drawn_one_by_one() -> None:
    """A model that declares noise per batch never has copies put into one batch."""

    class Shared(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            sign = torch.where(torch.rand(()) < 0.5, 1.0, -1.0)
            return sign * torch.tensor([1.0, -1.0]).expand(len(x), 2) + 0 * x.flatten(1).sum(1, keepdim=True)

    x, y = torch.rand(1, 3, 2, 2), torch.tensor([0])
    result = evaluate(wrap(Shared(), per_example=False), x, y, draws=400, seed=1)

    assert abs(result.accuracy - 0.5) < 5 * 0.5 / 400**0.5


def test_probabilities_stay_finite_in_the_log() -> None:
    """A true class at e^-200 has a log-probability."""

    class Certain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([200.0, 0.0]).expand(len(x), 2)

    result = evaluate(Certain(), X[:1], torch.tensor([1]), draws=3, seed=1)

    assert result.log_probabilities[0, 1].item() == pytest.approx(-200)


def test_batch_statistics_are_refused() -> None:
    """Images would influence each other; test-time dropout in training mode is allowed, it is the defence."""
    norm = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 3))

    with pytest.raises(ValueError, match=r"batch normalisation is in training mode.*call \.eval\(\)"):
        evaluate(norm, X, Y, draws=1, seed=1)
    evaluate(norm.eval(), X, Y, draws=1, seed=1)
    evaluate(nn.Sequential(nn.Dropout(), nn.Flatten(), nn.Linear(48, 3)).train(), X, Y, draws=1, seed=1)


class Broken(nn.Module):
    """Returns NaN."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.full((len(x), 3), float("nan"))


@pytest.mark.parametrize(
    ("m", "x", "y", "draws", "message"),
    [
        (model(), X + 1, Y, 1, r"must lie in \[0, 1\]"),
        (model(), X * float("nan"), Y, 1, "NaN or inf"),
        (model(), X, Y[:-1], 1, r"shape \(6,\)"),
        (model(), X, Y + 1, 1, "0 to 2, got 1 to 3"),
        (model(), X, Y, 0, "at least 1"),
        (Broken(), X, Y, 1, "returned NaN or inf"),
        (nn.Identity(), X, Y, 1, r"must return \(B, C\) logits"),
    ],
)
def test_bad_input_raises(m: nn.Module, x: Tensor, y: Tensor, draws: int, message: str) -> None:
    """Said what was given and what is allowed."""
    with pytest.raises(ValueError, match=message):
        evaluate(m, x, y, draws=draws, seed=1)


def test_the_mean_over_draws_has_the_binomial_s_standard_error() -> None:
    """A coin of .9: accuracies of many evaluations scatter by sqrt(p (1 - p) / (m n))."""
    x, y = reference.coin_data(20)
    values = torch.tensor([evaluate(reference.Coin(0.9), x, y, draws=10, seed=s).accuracy for s in range(300)])
    sd = (0.09 / 200) ** 0.5

    assert abs(values.mean().item() - 0.9) < 5 * sd / 300**0.5
    assert abs(values.std().item() / sd - 1) < 5 / (2 * 299) ** 0.5


def test_scoring_halves_its_batch_until_it_fits() -> None:
    """And gives what it would have given with that batch from the start; what cannot fit is an error."""
    small = reference.SmallMemory(model().net, rows=3)
    policy = SAP(50)
    result = evaluate(DefendedModel(small, policy), X, Y, draws=4, seed=1, batch_size=12)
    direct = evaluate(DefendedModel(small.net, policy), X, Y, draws=4, seed=1, batch_size=3)

    assert small.sizes[:3] == [12, 6, 3]
    assert max(small.sizes[3:]) == 3
    assert torch.equal(result.draw_log_probabilities, direct.draw_log_probabilities)
    with pytest.raises(torch.OutOfMemoryError, match="no memory for 1 images"):
        evaluate(DefendedModel(reference.SmallMemory(small.net, rows=0), policy), X, Y, draws=4, seed=1)


@pytest.mark.parametrize("kernel", ["torch", "numba"])
@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
def test_the_draws_do_not_depend_on_the_batch(batch_size: int, kernel: str) -> None:
    """Random numbers belong to layer, draw and image: any cut into passes gives the same draws up to rounding."""
    sap = DefendedModel(model().net, SAP(50, kernel=kernel), seed=1)
    whole = evaluate(sap, X, Y, draws=7, seed=3, batch_size=6).draw_log_probabilities
    cut = evaluate(sap, X, Y, draws=7, seed=3, batch_size=batch_size).draw_log_probabilities

    torch.testing.assert_close(cut, whole, rtol=1e-4, atol=1e-5)
    assert len(whole[:, 0].unique(dim=0)) == 7
