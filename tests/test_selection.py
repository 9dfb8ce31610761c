"""The choice of the worst point: right candidate, fresh draws, invalid ones left out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sap_art import evaluate, wrap
from sap_art.selection import choose_worst


class Brightness(nn.Module):
    """Right (class 0) with probability equal to the first pixel."""

    def forward(self, x: Tensor) -> Tensor:
        right = torch.rand(len(x)) < x.flatten(1)[:, 0]
        return torch.stack([right.float(), 1 - right.float()], 1)


def candidates(probabilities: list[float], images: int) -> Tensor:
    """One candidate a probability of being right, the same for all images."""
    return torch.tensor(probabilities).view(-1, 1, 1, 1).expand(-1, images, 1, 2).clone()


def test_the_most_damaging_candidate_wins() -> None:
    """With .05 against .9 and more, nearly always; the report on fresh draws is unbiased."""
    n = 200
    points = candidates([0.9, 1.0, 0.05, 0.95, 0.9], n)
    y = torch.zeros(n, dtype=torch.long)
    model = wrap(Brightness())
    choice = choose_worst(model, points, torch.ones(5, n, dtype=torch.bool), y, draws=8, seed=1)

    assert (choice.candidate == 2).float().mean() > 0.99
    assert torch.equal(choice.points, points[choice.candidate, torch.arange(n)])


def test_equal_candidates_are_not_flattered_by_the_choice() -> None:
    """Among equal coins any choice is lucky on its own draws; on fresh ones the accuracy is still the coin's."""
    n, draws = 300, 50
    points, y = candidates([0.6] * 6, n), torch.zeros(n, dtype=torch.long)
    model = wrap(Brightness())
    choice = choose_worst(model, points, torch.ones(6, n, dtype=torch.bool), y, draws=4, seed=1)
    accuracy = evaluate(model, choice.points, y, draws=draws, seed=2).accuracy

    assert len(choice.candidate.unique()) == 6
    assert abs(accuracy - 0.6) < 5 * (0.24 / (n * draws)) ** 0.5


def test_invalid_candidates_are_never_chosen() -> None:
    """However damaging their filler would be."""
    n = 20
    valid = torch.tensor([[True], [False], [True]]).expand(3, n).clone()
    valid[0, :5] = False
    points, y = candidates([0.9, 0.0, 0.8], n), torch.zeros(n, dtype=torch.long)
    choice = choose_worst(wrap(Brightness()), points, valid, y, draws=8, seed=1)

    assert valid[choice.candidate, torch.arange(n)].all()


def test_ties_go_to_the_smaller_probability_of_the_true_class() -> None:
    """Both candidates are always right; the less confident one is chosen."""

    class Confidence(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([5 * x.flatten(1)[:, 0], torch.zeros(len(x))], 1)

    points, y = candidates([0.9, 0.3, 0.6], 4), torch.zeros(4, dtype=torch.long)
    net = Confidence()
    choice = choose_worst(wrap(net), points, torch.ones(3, 4, dtype=torch.bool), y, draws=2, seed=1)

    assert choice.candidate.tolist() == [1, 1, 1, 1]


def test_a_single_candidate_is_chosen() -> None:
    """When every attack has crashed the clean image is left."""
    points, y = candidates([0.5], 3), torch.zeros(3, dtype=torch.long)

    assert (
        choose_worst(
            wrap(Brightness()), points, torch.ones(1, 3, dtype=torch.bool), y, draws=2, seed=1
        ).candidate.tolist()
        == [0] * 3
    )
