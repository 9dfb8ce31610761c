"""Flags that compare attacks with each other, on the stand-alone images where every attack ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sap_art.evaluation import Evaluation
from sap_art.flags import flag, raised_if
from sap_art.metrics import paired_difference
from sap_art.randomness import derive_seed
from sap_art.record import Flag

FALSE_DISCOVERY_RATE = 0.05
DISCOVERED_SHARE, DISCOVERED_IMAGES = 0.02, 3
SURVIVING_ACCURACY = 0.10
SPREAD = 0.05

Columns = Mapping[str, Evaluation]


def transfer_beats_white_box(columns: Columns, *, transfer: Sequence[str], white_box: Sequence[str], seed: int) -> Flag:
    """Raised if the dense net's attacks alone do more damage than the white-box attacks alone: masked gradients.

    In each group an image's worst attack is chosen on one half of the draws and scored on the other. Raised when the
    paired interval of white-box minus transfer accuracy is above 0, or when on more than 2 % of the images, 3 at least,
    transfer is the better attack by Fisher's exact test at a false discovery rate of 5 % (Benjamini & Hochberg 1995).
    """
    code = "transfer-beats-white-box"
    ours, theirs = ([name for name in group if name in columns] for group in (white_box, transfer))
    if not transfer:
        return flag(code, "clear", "there is no dense counterpart that would be another net")
    if not ours or not theirs:
        return flag(code, "not-checked", "needs attacks on the defence and on its dense counterpart")
    white, dense = (_worst_counts(columns, group) for group in (ours, theirs))
    draws = white.draws
    gap = paired_difference(white.right / draws, dense.right / draws, seed=derive_seed(seed, code))
    single = _discovered_share(dense.right, white.right, draws)
    many = single > DISCOVERED_SHARE and round(single * len(white.right)) >= DISCOVERED_IMAGES
    evidence = (
        f"accuracy under white-box minus under transfer {gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]; "
        f"transfer is significantly better on {single:.1%} of the images"
    )
    return raised_if(gap.low > 0 or many, code, evidence, value=gap.value, threshold=0.0)


def single_step_beats_iterative(columns: Columns, *, single: str, iterative: str, seed: int) -> Flag:
    """Raised if one step does more damage than many, on the same net with the same gradient."""
    code = "single-step-beats-iterative"
    if single not in columns or iterative not in columns:
        return flag(code, "not-checked", f"needs both {single} and {iterative}")
    gap = paired_difference(_shares(columns[single]), _shares(columns[iterative]), seed=derive_seed(seed, code))
    evidence = f"accuracy under {single} minus under {iterative} {gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
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
    gap = paired_difference(_shares(columns[worst]), _shares(columns[best]), seed=derive_seed(seed, code))
    evidence = f"{worst} leaves {gap.value:.3f} [{gap.low:.3f}, {gap.high:.3f}] more accuracy than {best}"
    return raised_if(gap.value > SPREAD and gap.low > 0, code, evidence, value=gap.value, threshold=SPREAD)


def large_eps_survives(at_large_eps: Evaluation, *, eps: float) -> Flag:
    """Raised if more than 10 % of the predictions survive a radius at which any image can become any other."""
    found = at_large_eps.estimate
    evidence = f"accuracy at eps {eps:g} is {found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
    return raised_if(
        found.low > SURVIVING_ACCURACY, "large-eps-survives", evidence, value=found.value, threshold=SURVIVING_ACCURACY
    )


class _Counts:
    """Right draws (B,) of a group's worst attack image by image, out of ``draws``."""

    def __init__(self, right: NDArray[np.float64], draws: int) -> None:
        self.right, self.draws = right, draws


def _worst_counts(columns: Columns, names: Sequence[str]) -> _Counts:
    """Choose each image's worst attack on the even draws, count the right odd ones."""
    right = np.stack([columns[name].right.numpy() for name in names]).astype(np.float64)
    chosen = right[:, 0::2].mean(1).argmin(0)
    scored = right[:, 1::2]
    return _Counts(scored.sum(1)[chosen, np.arange(right.shape[2])], scored.shape[1])


def _discovered_share(low: NDArray[np.float64], high: NDArray[np.float64], draws: int) -> float:
    """Share of images on which ``low`` counts are significantly below ``high`` ones, both of ``draws``."""
    # [[a, m - a], [b, m - b]] with a unusually small, by the hypergeometric law of a given a + b.
    p = stats.hypergeom.cdf(low, 2 * draws, low + high, draws)
    return float((stats.false_discovery_control(p) <= FALSE_DISCOVERY_RATE).mean())


def _shares(evaluation: Evaluation) -> NDArray[np.float64]:
    return (evaluation.correct.double() / evaluation.draws).numpy()
