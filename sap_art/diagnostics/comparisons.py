"""Flags that compare attacks with each other, on the stand-alone images where every attack ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from sap_art.evaluation import Evaluation, accuracy_difference
from sap_art.flags import TOGETHER, flag, raised_if
from sap_art.metrics import Estimate, accuracy_gap
from sap_art.randomness import derive_seed
from sap_art.record import Flag

FALSE_DISCOVERY_RATE = 0.05
DISCOVERED_SHARE, DISCOVERED_IMAGES = 0.02, 3
SURVIVING_ACCURACY = 0.10
SPREAD = 0.05
SEED_GAP = 0.10

Columns = Mapping[str, Evaluation]


def transfer_beats_white_box(columns: Columns, *, transfer: Sequence[str], white_box: Sequence[str], seed: int) -> Flag:
    """Raised if the dense net's attacks alone do more damage than the white-box attacks alone: masked gradients.

    In each group an image's worst attack is chosen on one half of the draws and scored on the other. Raised when the
    paired interval of white-box minus transfer accuracy is above 0 (see ``flags.TOGETHER``), or when on more than 2 %
    of the images, 3 at least, transfer is the better attack by Fisher's exact test at a false discovery rate of 5 %
    (Benjamini & Hochberg 1995).
    """
    code = "transfer-beats-white-box"
    if not transfer:
        return flag(code, "clear", "there is no dense counterpart that would be another net")
    return _beats_white_box(code, columns, blind=transfer, white_box=white_box, name="transfer", seed=seed)


def black_box_beats_white_box(
    columns: Columns, *, black_box: Sequence[str], white_box: Sequence[str], seed: int
) -> Flag:
    """Raised if attacks without gradients (noise, Square) do more damage than the white-box attacks alone.

    Decided as ``transfer_beats_white_box``.
    """
    code = "black-box-beats-white-box"
    return _beats_white_box(code, columns, blind=black_box, white_box=white_box, name="black box", seed=seed)


def transfer_gap(columns: Columns, *, transfer: Sequence[str], white_box: Sequence[str], seed: int) -> Estimate:
    """Accuracy under the white-box attacks alone minus under transfer alone, paired: positive means masking.

    Raises:
        ValueError: a group of which no attack is among the columns.
    """
    ours, theirs = ([name for name in group if name in columns] for group in (white_box, transfer))
    if not ours or not theirs:
        raise ValueError(f"needs a column of {', '.join(white_box)} and one of {', '.join(transfer)}")
    return _gap(_worst(columns, ours), _worst(columns, theirs), seed=seed)


def seed_gap(worst: Evaluation, known: Tensor, *, seed: int) -> Flag:
    """Raised if knowing the random numbers is worth more than 10 points beyond the interval: robust while they hide.

    Args:
        worst: the worst case (T1) on B images.
        known: (S, B) bool, right or not when attacked under each of S known seeds (T3), the same images.
    """
    gap = _known_gap(worst, known, seed=derive_seed(seed, "seed-gap"))
    evidence = f"accuracy minus known-seed accuracy {_interval(gap)} over {len(known)} seeds"
    return raised_if(gap.value > SEED_GAP and gap.low > 0, "seed-gap", evidence, value=gap.value, threshold=SEED_GAP)


def known_seed_attack_fails(worst: Evaluation, known: Tensor, *, seed: int) -> Flag:
    """Raised if the known-seed accuracy is above the worst case beyond the interval: E min <= min E, so it is broken.

    Arguments as for ``seed_gap``.
    """
    code = "known-seed-attack-fails"
    gap = _known_gap(worst, known, seed=derive_seed(seed, code), comparisons=TOGETHER)
    evidence = f"accuracy minus known-seed accuracy {_interval(gap)} over {len(known)} seeds"
    return raised_if(gap.high < 0, code, evidence, value=gap.value, threshold=0.0)


def single_step_beats_iterative(columns: Columns, *, single: str, iterative: str, seed: int) -> Flag:
    """Raised if one step does more damage than many, on the same net with the same gradient."""
    code = "single-step-beats-iterative"
    if single not in columns or iterative not in columns:
        return flag(code, "not-checked", f"needs both {single} and {iterative}")
    gap = accuracy_difference(columns[single], columns[iterative], seed=derive_seed(seed, code), comparisons=TOGETHER)
    evidence = f"accuracy under {single} minus under {iterative} {_interval(gap)}"
    return raised_if(gap.high < 0, code, evidence, value=gap.value, threshold=0.0)


def estimator_spread(columns: Columns, *, names: Sequence[str], seed: int) -> Flag:
    """Raised if the same attack with two gradient estimators differs by more than 5 points: report the best."""
    code = "estimator-spread"
    present = [name for name in names if name in columns]
    if len(present) < len(names):
        return flag(code, "not-checked", f"needs every one of {', '.join(names)}")
    if len(present) < 2:
        return flag(code, "clear", "the model offers one gradient estimator", value=0.0, threshold=SPREAD)
    ordered = sorted(present, key=lambda name: columns[name].accuracy)
    best, worst = ordered[0], ordered[-1]
    gap = accuracy_difference(columns[worst], columns[best], seed=derive_seed(seed, code))
    evidence = f"{worst} leaves {gap.value:.3f} [{gap.low:.3f}, {gap.high:.3f}] more accuracy than {best}"
    return raised_if(gap.value > SPREAD and gap.low > 0, code, evidence, value=gap.value, threshold=SPREAD)


def large_eps_survives(at_large_eps: Evaluation, *, eps: float) -> Flag:
    """Raised if more than 10 % of the predictions survive a radius at which any image can become any other."""
    found = at_large_eps.estimate
    evidence = f"accuracy at eps {eps:g} is {found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
    return raised_if(
        found.low > SURVIVING_ACCURACY, "large-eps-survives", evidence, value=found.value, threshold=SURVIVING_ACCURACY
    )


def _beats_white_box(
    code: str, columns: Columns, *, blind: Sequence[str], white_box: Sequence[str], name: str, seed: int
) -> Flag:
    ours, theirs = ([name for name in group if name in columns] for group in (white_box, blind))
    if not ours or not theirs:
        return flag(code, "not-checked", f"needs white-box attacks on the defence and {name} ones")
    white, other = _worst(columns, ours), _worst(columns, theirs)
    gap = _gap(white, other, seed=derive_seed(seed, code), comparisons=TOGETHER)
    low, high = (side.right.double().sum(0).numpy() for side in (other, white))
    single = _discovered_share(low, high, len(white.right))
    many = single > DISCOVERED_SHARE and round(single * white.right.shape[1]) >= DISCOVERED_IMAGES
    evidence = (
        f"accuracy under white-box minus under {name} {_interval(gap)}; "
        f"{name} is significantly better on {single:.1%} of the images"
    )
    return raised_if(gap.low > 0 or many, code, evidence, value=gap.value, threshold=0.0)


class _Right(NamedTuple):
    """Whether draws are right (m, B), and whether images have noise of their own."""

    right: Tensor
    per_example: bool


def _worst(columns: Columns, names: Sequence[str]) -> _Right:
    """Each image's worst attack, chosen on the even draws: its odd draws."""
    right = torch.stack([columns[name].right for name in names])
    chosen = right[:, 0::2].double().mean(1).argmin(0)
    return _Right(
        right[:, 1::2].permute(2, 0, 1)[torch.arange(len(chosen)), chosen].T,
        all(columns[name].per_example for name in names),
    )


def _gap(first: _Right, second: _Right, *, seed: int, comparisons: int = 1) -> Estimate:
    per_example = first.per_example and second.per_example
    return accuracy_gap(first.right, second.right, per_example=per_example, seed=seed, comparisons=comparisons)


def _known_gap(worst: Evaluation, known: Tensor, *, seed: int, comparisons: int = 1) -> Estimate:
    if known.ndim != 2 or known.dtype != torch.bool or known.shape[1] != worst.right.shape[1]:
        raise ValueError(
            f"known must be bool (S, {worst.right.shape[1]}), got {known.dtype} {tuple(known.shape)}: "
            "both accuracies are of the same images"
        )
    told = _Right(known.cpu(), worst.per_example)
    return _gap(_Right(worst.right, worst.per_example), told, seed=seed, comparisons=comparisons)


def _interval(gap: Estimate) -> str:
    return f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"


def _discovered_share(low: NDArray[np.float64], high: NDArray[np.float64], draws: int) -> float:
    """Share of images on which ``low`` counts are significantly below ``high`` ones, both of ``draws``."""
    # [[a, m - a], [b, m - b]] with a unusually small, by the hypergeometric law of a given a + b.
    p = stats.hypergeom.cdf(low, 2 * draws, low + high, draws)
    return float((stats.false_discovery_control(p) <= FALSE_DISCOVERY_RATE).mean())
