"""The worst point of each image, chosen on draws that no report sees."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sap_art.evaluation import evaluate
from sap_art.randomness import derive_seed
from sap_art.stochastic import StochasticModel


class Choice(NamedTuple):
    """The chosen points (B, ...) and which candidate each image's came from (B,)."""

    points: Tensor
    candidate: Tensor


def choose_worst(
    model: StochasticModel, candidates: Tensor, valid: Tensor, y: Tensor, *, draws: int, seed: int
) -> Choice:
    """Successive halving on fresh draws: for each image the candidate that is right least often.

    Each round shares ``draws`` times the number of candidates evenly among its rounds and keeps the worse half of an
    image's candidates by the share of right draws so far; ties go to the smaller mean probability of the true class.

    Args:
        candidates: (A, B, ...) images in [0, 1]; valid (A, B): which of them exist, at least one an image.
        y: (B,) labels.
        draws: selection draws a candidate, on average.
        seed: of the selection draws.
    """
    total, images = candidates.shape[:2]
    rounds = max(1, math.ceil(math.log2(total)))
    alive = torch.arange(total, device=y.device)[:, None].expand(total, images)
    score, count = torch.zeros(total, images, 2, dtype=torch.double), torch.zeros(total, images, dtype=torch.double)
    for number in range(rounds):
        fresh = max(1, draws * total // (rounds * len(alive)))
        exists = valid.to(alive.device).gather(0, alive)
        result = _score(model, candidates, alive, exists, y=y, draws=fresh, seed=derive_seed(seed, "round", number))
        where = alive.cpu()
        score.scatter_add_(0, where[..., None].expand(-1, -1, 2), result)
        count.scatter_add_(0, where, torch.full_like(where, fresh, dtype=torch.double))
        alive = _keep_worst(alive, score, count, valid.cpu(), keep=max(1, (len(alive) + 1) // 2))
    winner = alive[0]
    return Choice(candidates[winner, torch.arange(images, device=winner.device)], winner)


def _score(
    model: StochasticModel, candidates: Tensor, alive: Tensor, exists: Tensor, *, y: Tensor, draws: int, seed: int
) -> Tensor:
    """Right draws and summed true-class probability of the candidates still alive: (A', B, 2); 0 where none exists."""
    column = torch.arange(alive.shape[1], device=alive.device).expand_as(alive)[exists]
    labels = y[column]
    result = evaluate(model, candidates[alive[exists], column], labels, draws=draws, seed=seed)
    probability = result.probabilities.gather(1, labels.cpu().long()[:, None])[:, 0] * draws
    found = torch.zeros(*alive.shape, 2, dtype=torch.double)
    found[exists.cpu()] = torch.stack([result.correct.double(), probability], -1)
    return found


def _keep_worst(alive: Tensor, score: Tensor, count: Tensor, valid: Tensor, *, keep: int) -> Tensor:
    """Candidate numbers (keep, B), the most damaging first; invalid ones come last."""
    where = alive.cpu()
    n = count.gather(0, where)
    right, probability = (score[..., i].gather(0, where) / n for i in (0, 1))
    # Shares of right draws differ by more than 1e-9, probabilities times 1e-9 only break their ties.
    key = right + 1e-9 * probability + torch.where(valid.gather(0, where), 0.0, torch.inf)
    order = key.argsort(dim=0, stable=True)[:keep]
    return where.gather(0, order).to(alive.device)
