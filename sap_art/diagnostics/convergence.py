"""Flags on what more of the same would have done: a larger radius, more steps, draws, restarts or choices."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

from sap_art.evaluation import Evaluation, accuracy_difference
from sap_art.flags import LEVELS, TOGETHER, flag, raised_if
from sap_art.randomness import derive_seed
from sap_art.record import Flag

UNCONVERGED = 0.01
MORE = {
    "steps-not-converged": "twice the steps",
    "draws-not-converged": "twice the draws of a gradient",
    "restarts-not-converged": "twice the restarts",
    "selection-not-converged": "twice the selection draws",
}


def not_converged(code: str, base: Evaluation | None, more: Evaluation | None, *, seed: int) -> Flag:
    """Raised if ``more`` of what the code names lowers the accuracy by over 1 point and beyond the paired interval.

    Args:
        code: a key of ``MORE``.
        base: report draws on the points found with the tier's budget; None if they could not be found.
        more: report draws of another seed on the same images' points found with twice as much.
    """
    if code not in MORE:
        raise ValueError(f"unknown code {code!r}; known: {', '.join(MORE)}")
    if base is None or more is None:
        return flag(code, "not-checked", f"needs the accuracy with {MORE[code]} and without", threshold=UNCONVERGED)
    together = TOGETHER if LEVELS[code] == "R" else 1
    drop = accuracy_difference(base, more, seed=derive_seed(seed, code), comparisons=together)
    evidence = f"{MORE[code]} lower the accuracy by {drop.value:+.3f} [{drop.low:+.3f}, {drop.high:+.3f}]"
    raised = drop.value > UNCONVERGED and drop.low > 0
    return raised_if(raised, code, evidence, value=drop.value, threshold=UNCONVERGED)


def not_monotone(curve: Mapping[float, Evaluation], *, seed: int) -> Flag:
    """Raised if the accuracy rises from one eps to a larger one, beyond the paired interval of that pair.

    ``curve`` holds, for each eps, the evaluation of the same images attacked within it. All pairs are compared, each
    with an interval that holds together with the others and with those of all other flags (Bonferroni, see
    ``flags.TOGETHER``). The pair with the largest lower bound is the evidence.
    """
    code = "not-monotone"
    pairs = list(combinations(sorted(curve), 2))
    if not pairs:
        return flag(code, "not-checked", f"needs at least two radii, got {len(curve)}")
    rises = {
        (small, large): accuracy_difference(
            curve[large], curve[small], seed=derive_seed(seed, code, small, large), comparisons=len(pairs) * TOGETHER
        )
        for small, large in pairs
    }
    (small, large), rise = max(rises.items(), key=lambda item: item[1].low)
    evidence = (
        f"from eps {small:g} to {large:g} accuracy changes by {rise.value:+.3f} [{rise.low:+.3f}, {rise.high:+.3f}], "
        f"the largest rise of {len(pairs)} pairs"
    )
    return raised_if(rise.low > 0, code, evidence, value=rise.value, threshold=0.0)
