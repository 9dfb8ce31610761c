"""How much of a random gradient is signal: what one draw says about the mean, and about the dense net's gradient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from sap_art.attacker import AttackerView
from sap_art.attacks.objective import cross_entropy, raw_loss_and_gradient
from sap_art.flags import flag, raised_if
from sap_art.randomness import derive_seed
from sap_art.record import Flag, GradientInfo
from sap_art.stochastic import StochasticModel, default_max_batch, halving, in_blocks

LOW_COSINE = 0.1
LEAST_IMAGES = 6
"""With fewer images a median has no distribution-free 95 % interval."""
AGGRAVATING = ("transfer-beats-white-box", "black-box-beats-white-box", "large-eps-survives", "not-monotone")


@dataclass(frozen=True)
class GradientSignal:
    """Per-image statistics (B,) of the gradients g_1 .. g_k of k draws; float64 or bool, on the CPU.

    Attributes:
        snr: max(0, |mean|^2 - v / k) / v with v = sum |g_j - mean|^2 / (k - 1): squared signal over the variance of
            one draw; NaN where v = 0 or a gradient is not finite.
        cosine: in [-1, 1], between the means of two disjoint halves of the draws; 0 where one of them is zero or not
            finite. A draw against a mean that contains it would be biased up.
        sign_agreement: share of pixels in which those two means have one sign: .5 by chance; a zero agrees with none.
        zero: whether every draw's gradient is exactly zero.
        non_finite: whether some draw's gradient has NaN or inf.
        dense_cosine: between the mean and the dense counterpart's gradient, as ``cosine``; None without one.
    """

    snr: Tensor
    cosine: Tensor
    sign_agreement: Tensor
    zero: Tensor
    non_finite: Tensor
    dense_cosine: Tensor | None = None

    def info(self) -> GradientInfo:
        """Shares of images, and medians over images; a median of nothing is absent."""
        dense = None if self.dense_cosine is None else self.dense_cosine.median().item()
        snr = self.snr[~self.snr.isnan()]
        return GradientInfo(
            zero=self.zero.double().mean().item(),
            non_finite=self.non_finite.double().mean().item(),
            snr=snr.median().item() if len(snr) else None,
            split_half_cosine=self.cosine.median().item(),
            sign_agreement=self.sign_agreement.median().item(),
            dense_cosine=dense,
        )


def signal_of(gradients: Tensor, dense: Tensor | None = None) -> GradientSignal:
    """Statistics of per-draw gradients (k, B, ...), k >= 2, and of the dense gradient (B, ...) if there is one.

    Raises:
        ValueError: fewer than two draws or no image.
    """
    if gradients.ndim < 3 or len(gradients) < 2 or gradients.shape[1] == 0:
        raise ValueError(f"gradients must be (k, B, ...) with k >= 2 and B > 0, got {tuple(gradients.shape)}")
    g = gradients.flatten(2).double()
    k = len(g)
    mean = g.mean(0)
    variance = (g - mean).square().sum((0, 2)) / (k - 1)
    signal = (mean.square().sum(1) - variance / k).clamp(min=0)
    finite = g.isfinite().all(2).all(0)
    first, second = g[: k // 2].mean(0), g[k // 2 : 2 * (k // 2)].mean(0)
    return GradientSignal(
        snr=torch.where(finite & (variance > 0), signal / variance, torch.nan).cpu(),
        cosine=cosine(first, second).cpu(),
        sign_agreement=(first.sign() * second.sign() > 0).double().mean(1).cpu(),
        zero=(g == 0).all(2).all(0).cpu(),
        non_finite=(~finite).cpu(),
        dense_cosine=None if dense is None else cosine(mean, dense.flatten(1).double()).cpu(),
    )


def gradient_signal(
    model: StochasticModel, x: Tensor, y: Tensor, *, draws: int, seed: int
) -> dict[str, GradientSignal]:
    """Signal of each random estimator's cross-entropy gradient at ``x`` (B, ...) with labels ``y`` (B,), k = draws.

    The gradients of a block of images are reduced before the next one's are made, so memory does not grow with B.
    """
    if draws < 2:
        raise ValueError(f"the signal of a gradient needs at least 2 draws, got {draws}")
    dense = None
    if model.dense is not None:
        dense = raw_loss_and_gradient(AttackerView(model, gradient="dense"), x, y, loss="ce").gradient
    found: dict[str, GradientSignal] = {}
    for estimator in (name for name in model.estimators if name != "dense"):
        with model.seeded(derive_seed(seed, "gradient signal", estimator)):
            found[estimator] = _signal(model, x, y, dense, estimator=estimator, draws=draws)
    return found


def _signal(
    model: StochasticModel, x: Tensor, y: Tensor, dense: Tensor | None, *, estimator: str, draws: int
) -> GradientSignal:
    def work(rows: int) -> list[GradientSignal]:
        def block(part: slice) -> GradientSignal:
            gradients = draw_gradients(model, x[part], y[part], estimator=estimator, draws=draws, max_batch=rows)
            return signal_of(gradients, None if dense is None else dense[part])

        return in_blocks(model, len(x), max(1, rows // draws), block)

    return _join(halving(default_max_batch(x.device), work))


def draw_gradients(
    model: StochasticModel, x: Tensor, y: Tensor, *, estimator: str, draws: int, max_batch: int
) -> Tensor:
    """Cross-entropy gradient of each draw by itself: (B, ...), (B,) -> (draws, B, ...), with NaN or inf if it is so.

    Draws share a batch of at most ``max_batch`` rows if the model has noise per example; else they come one by one.
    """
    copies = max(1, min(draws, max_batch // max(1, len(x)))) if model.per_example else 1
    parts: list[Tensor] = []
    with model.noise.call(), torch.enable_grad():
        for first in range(0, draws, copies):
            count = min(copies, draws - first)
            rows = x.detach().repeat(count, *[1] * (x.ndim - 1)).requires_grad_()
            with model.noise.draws_from(first, max(1, len(x))):
                loss = cross_entropy(model.single(rows, gradient=estimator)[None], y.repeat(count)).sum()
            found = torch.autograd.grad(loss, rows, allow_unused=True)[0] if loss.requires_grad else None
            parts.append((torch.zeros_like(rows) if found is None else found).view(count, *x.shape))
    return torch.cat(parts)


def low_gradient_signal(signals: Mapping[str, Sequence[GradientSignal]], *, others: Iterable[Flag]) -> Flag:
    """Raised if the median split-half cosine of every random estimator is below .1, intervals included.

    Args:
        signals: for each estimator its signals at several points (the clean image, the random start, the last
            iterate) of the same images. An image counts with its mean over the points; the interval of the median is
            the distribution-free one (order statistics).
        others: flags raised so far; with one of ``AGGRAVATING`` among them this warning makes unreliable (R).
    """
    code = "low-gradient-signal"
    if not signals or any(len(points) == 0 for points in signals.values()):
        return flag(code, "not-checked", "needs the gradients of every random estimator", threshold=LOW_COSINE)
    cosines = {name: torch.stack([p.cosine for p in points]).mean(0).numpy() for name, points in signals.items()}
    if any(len(values) < LEAST_IMAGES for values in cosines.values()):
        return flag(code, "not-checked", f"needs at least {LEAST_IMAGES} images", threshold=LOW_COSINE)
    medians = {name: float(np.median(values)) for name, values in cosines.items()}
    highs = {name: _median_high(values) for name, values in cosines.items()}
    evidence = "median split-half cosine " + "; ".join(
        f"{name} {medians[name]:.3f} (at most {highs[name]:.3f})" for name in medians
    )
    low = max(highs.values()) < LOW_COSINE
    found = raised_if(low, code, evidence, value=max(medians.values()), threshold=LOW_COSINE)
    aggravated = any(f.state == "raised" and f.code in AGGRAVATING for f in others)
    return replace(found, level="R") if low and aggravated else found


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of each pair of rows (B, D) -> (B,); 0 where one of them is zero or not finite."""
    lengths = a.norm(dim=1) * b.norm(dim=1)
    usable = (lengths > 0) & lengths.isfinite()
    return torch.where(usable, (a * b).sum(1) / torch.where(usable, lengths, 1), 0)


def _median_high(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    return float(stats.quantile_test(values, p=0.5).confidence_interval(0.95).high)


def _join(blocks: Sequence[GradientSignal]) -> GradientSignal:
    dense = [block.dense_cosine for block in blocks if block.dense_cosine is not None]
    return GradientSignal(
        snr=torch.cat([block.snr for block in blocks]),
        cosine=torch.cat([block.cosine for block in blocks]),
        sign_agreement=torch.cat([block.sign_agreement for block in blocks]),
        zero=torch.cat([block.zero for block in blocks]),
        non_finite=torch.cat([block.non_finite for block in blocks]),
        dense_cosine=torch.cat(dense) if dense else None,
    )
