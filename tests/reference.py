"""Slow, obvious versions of what the package does fast, and models whose right answers are known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sap_art.kernels.streams import Row, poisson
from sap_art.policies import SAP, Affine


def keep_set(weights: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """SAP's keep-set as the paper words it: draw one index after the other, mark it. (B, N) -> (B, N) bool."""
    keep = torch.zeros_like(weights, dtype=torch.bool)
    for row, marks in zip(weights, keep, strict=True):
        for _ in range(draws):
            marks[torch.multinomial(row, 1, generator=generator)] = True
    return keep


def keep_set_law(weights: Sequence[float], draws: int) -> dict[tuple[bool, ...], float]:
    """The exact probability of each keep-set, by going through all N^r sequences of draws."""
    total = sum(weights)
    law: dict[tuple[bool, ...], float] = {}
    for sequence in itertools.product(range(len(weights)), repeat=draws):
        kept = tuple(j in sequence for j in range(len(weights)))
        law[kept] = law.get(kept, 0.0) + math.prod(weights[j] / total for j in sequence)
    return {kept: p for kept, p in law.items() if p > 0}


def worst_deviation(keep: Tensor, law: dict[tuple[bool, ...], float]) -> float:
    """The largest distance, in standard errors, of a keep-set's frequency from its probability; inf if impossible."""
    sets, counts = keep.unique(dim=0, return_counts=True)
    seen = {tuple(s): c for s, c in zip(sets.tolist(), counts.tolist(), strict=True)}
    if not set(seen) <= set(law):
        return math.inf
    rows = len(keep)
    return max(
        (abs(seen.get(kept, 0) - rows * p) - 1e-6) / math.sqrt(rows * p * (1 - p) + 1e-12) for kept, p in law.items()
    )


def number_kept(p: Tensor, draws: int) -> tuple[float, float]:
    """Mean and variance of the size of the keep-set: inclusion-exclusion over pairs, in float64. p (N,)."""
    p = p.double()
    missed = (draws * torch.log1p(-p)).exp()
    pair = (1 - p[:, None] - p[None]).clamp(min=0) ** draws
    covariance = pair - missed[:, None] * missed[None]
    covariance.fill_diagonal_(0)
    return (1 - missed).sum().item(), (missed * (1 - missed)).sum().item() + covariance.sum().item()


def philox(counter: Sequence[int], key: Sequence[int], rounds: int) -> list[int]:
    """Philox4x32 in Python's integers, from figure 3 of Salmon et al. 2011."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b % 2**32, (a >> 32) ^ c3 ^ k1, a % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [c0, c1, c2, c3]


def first_arrivals(
    weights: NDArray[np.float64], draws: int, margin: float, row: int, key: tuple[np.uint32, np.uint32]
) -> tuple[NDArray[np.bool_], int]:
    """The keep-set of one row by first arrivals in float64, with the kernels' random numbers; and the attempts."""
    words = (int(key[0]), int(key[1]))
    attempts = 0
    while True:
        slack = max(0.0, draws - margin * math.sqrt(draws)) * weights / weights.sum()
        slack += np.array(
            [math.log1p(-(bits // 2 + 0.5) / 2**31) for bits in _bits(len(weights), row, attempts, words)]
        )
        keep = slack > 0
        missing = (
            draws
            - int(keep.sum())
            - poisson(slack[keep].sum(), (1 << 31) + attempts, Row(np.uint32(row), np.uint32(0)), key)
        )
        attempts += 1
        if missing >= 0:
            break
    for n in range(missing):
        high, low, _, _ = philox((n, row, 1 << 30, 0), words, 7)
        point = (high + (low + 0.5) / 2**32) / 2**32 * weights.sum()
        keep[np.searchsorted(weights.cumsum(), point, side="right")] = True
    return keep, attempts


def _bits(units: int, row: int, purpose: int, key: tuple[int, int]) -> list[int]:
    """One number a unit: in each tile of 1,024 the counters' first outputs, then their second ones, and so on."""
    out: list[int] = []
    for start in range(0, units, 1024):
        length = min(1024, units - start)
        fours = [philox((start // 4 + i, row, purpose, 0), key, 7) for i in range((length + 3) // 4)]
        out += [four[k] for k in range(4) for four in fours][:length]
    return out


def calibration_scores(
    p: NDArray[np.float64], y: NDArray[np.int64], *, bins: int, copies: Sequence[int] | None = None
) -> dict[str, float]:
    """All calibration scores, image by image; each image is there ``copies`` times, in the bin it has once."""
    n = len(y)
    ranks = {image: 1 + rank for rank, image in enumerate(sorted(range(n), key=lambda i: p[i].max()))}
    width: dict[int, list[float]] = {}
    mass: dict[int, list[tuple[float, float]]] = {}
    brier, nll, gap = [], [], []
    for i in range(n):
        confidence, right = float(p[i].max()), float(p[i].argmax() == y[i])
        b = next(b for b in range(bins) if confidence <= (b + 1) / bins)
        for _ in range(1 if copies is None else copies[i]):
            width.setdefault(b, []).append(confidence - right)
            mass.setdefault(int((ranks[i] - 0.5) * bins / n), []).append((confidence, right))
            brier.append(sum((p[i, c] - (c == y[i])) ** 2 for c in range(p.shape[1])))
            nll.append(-math.log(p[i, y[i]]))
            gap.append(confidence - right)
    plain = debiased = 0.0
    for members in mass.values():
        size = len(members)
        if size < 2:
            continue
        accuracy = sum(right for _, right in members) / size
        squared = (accuracy - sum(confidence for confidence, _ in members) / size) ** 2
        plain += size / len(gap) * squared
        debiased += size / len(gap) * (squared - accuracy * (1 - accuracy) / (size - 1))
    return {
        "ece": sum(abs(sum(members)) for members in width.values()) / len(gap),
        "squared_l2": debiased,
        "plain_l2": plain,
        "brier": sum(brier) / len(brier),
        "nll": sum(nll) / len(nll),
        "gap": sum(gap) / len(gap),
    }


@dataclass(frozen=True)
class NaiveSAP(SAP):
    """SAP with the gradient that must never come back: 0 / 0 where nothing is kept, hidden by the mask."""

    def draw(self, h: Tensor, generator: torch.Generator) -> Affine:
        keep, q = self.sample_mask(h, generator), self.keep_probability(h)
        return Affine(torch.where(keep, 1 / q, 0.0), 0.0)

    def __call__(self, h: Tensor, generator: torch.Generator, *, held: bool = False) -> Tensor:
        return self.draw(h, generator)(h)


def pruned_rows(length: int, method: str, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Four rows, a keep-set of r = N draws and a gradient (4, N): zeros, no weight at all, one unit, all alive."""
    h = torch.randn(4, length, generator=generator)
    h[0, ::2], h[1], h[2, 1:] = 0, 0, 0
    keep = SAP(100, method, "torch").sample_mask(h, generator)
    return h, keep, torch.randn(4, length, generator=generator)


def game_value(payoff: NDArray[np.float64]) -> float:
    """Value of a matrix game by going through all square parts of it (Shapley & Snow 1950); rows maximise."""
    policies, attacks = payoff.shape
    for size in range(1, min(policies, attacks) + 1):
        equations = np.zeros((size + 1, size + 1))  # equal payoffs v, weights with sum 1
        equations[size, :size], equations[:size, size] = 1, -1
        for rows in itertools.combinations(range(policies), size):
            for columns in itertools.combinations(range(attacks), size):
                part = payoff[np.ix_(rows, columns)]
                x, y = np.zeros(policies), np.zeros(attacks)
                equations[:size, :size] = part.T
                if np.linalg.cond(equations) > 1e12:
                    continue
                target = np.append(np.zeros(size), 1.0)
                x[list(rows)] = np.linalg.solve(equations, target)[:size]
                equations[:size, :size] = part
                y[list(columns)] = np.linalg.solve(equations, target)[:size]
                if min(x.min(), y.min()) >= -1e-9 and (payoff @ y).max() <= (x @ payoff).min() + 1e-9:
                    return float(x @ payoff @ y)
    raise ValueError("no square part of the matrix has a solution")


class Coin(nn.Module):
    """Right with probability p whatever the input: labels are read from the first pixel, they are 0 and 1."""

    def __init__(self, p: float, classes: int = 2) -> None:
        super().__init__()
        self.p, self.classes = p, classes

    def forward(self, x: Tensor) -> Tensor:
        label = (x.flatten(1)[:, 0] > 0.5).long()
        right = torch.rand(len(x), device=x.device) < self.p
        predicted = torch.where(right, label, 1 - label)
        return nn.functional.one_hot(predicted, self.classes).float() + 0.0 * x.flatten(1).sum(1, keepdim=True)


def coin_data(n: int) -> tuple[Tensor, Tensor]:
    """Images whose first pixel is far from .5 and tells the label."""
    y = torch.arange(n) % 2
    x = torch.full((n, 3, 4, 4), 0.5)
    x[:, 0, 0, 0] = y.float()
    return x, y


class SmallMemory(nn.Module):
    """A net on a GPU with memory for ``rows`` images; ``sizes`` are those that were tried."""

    def __init__(self, net: nn.Module, rows: int) -> None:
        super().__init__()
        self.net, self.rows = net, rows
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        if len(x) > self.rows:
            raise torch.OutOfMemoryError(f"no memory for {len(x)} images")
        out: Tensor = self.net(x)
        return out


class Linear(nn.Module):
    """Two classes, logits (0, w.x + b): the worst perturbation is known in closed form."""

    def __init__(self, w: Tensor, b: float) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(w), b

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1) @ self.w + self.b
        return torch.stack([torch.zeros_like(score), score], 1)


class NoisyLinear(nn.Module):
    """Logits (0, (w + sigma z).x + b) with z standard normal, drawn for each image from the global generator."""

    def __init__(self, w: Tensor, b: float, sigma: float) -> None:
        super().__init__()
        self.w, self.b, self.sigma = nn.Parameter(w), b, sigma

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        noise = torch.randn(flat.shape, device=x.device)
        score = flat @ self.w + self.b + self.sigma * (noise * flat).sum(1)
        return torch.stack([torch.zeros_like(score), score], 1)


def one_draw_tail(right: Sequence[Sequence[bool]]) -> Fraction:
    """Share of the ways to pick one draw an image that leave it as far from the others as the last draw is.

    (m + 1, B) -> a fraction; all (m + 1)^B ways are looked at.
    """
    ways = list(itertools.product(range(len(right)), repeat=len(right[0])))
    total, others = sum(map(sum, right)), len(right) - 1

    def far(way: Sequence[int]) -> Fraction:
        one = sum(right[draw][image] for image, draw in enumerate(way))
        return abs(one - Fraction(total - one, others))

    last = far([others] * len(right[0]))
    return Fraction(sum(far(way) >= last for way in ways), len(ways))
