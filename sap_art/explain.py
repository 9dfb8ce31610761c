"""The flags of a record in plain words: what was seen, why it matters, what to do (RDP-1, section 6)."""

from __future__ import annotations

from typing import NamedTuple

from sap_art.record import Flag, Record
from sap_art.table import VERDICTS
from sap_art.tiers import TIERS

ORDER = tuple(TIERS)
"""The tiers of RDP-1, each of which checks what those before it check."""
LEVEL_WORDS = {"R": "makes the evaluation unreliable", "W": "a warning"}


class Explanation(NamedTuple):
    """What is to be said of a code; ``tier``: the first that checks it; ``function``: what checks it by itself."""

    why: str
    remedy: str
    tier: str
    function: str


EXPLANATIONS = {
    "transfer-beats-white-box": Explanation(
        "An attack on the deterministic counterpart knows nothing of the defence; one that goes through the defence "
        "should do at least as much damage. Where it does less, its gradients are masked.",
        "Improve the attack through the defence: another gradient estimator, more draws a gradient, the transferred "
        "points as its start. Quote the worst case, which counts transfer, and never the white-box column alone.",
        "smoke",
        "diagnostics.comparisons.transfer_beats_white_box",
    ),
    "black-box-beats-white-box": Explanation(
        "Noise and queries use no gradient. Where they do more damage than attacks that do, the gradients mislead.",
        "Improve the white-box attack: another gradient estimator, more draws a gradient, a longer run. Give the "
        "attacks that only query a larger budget too: they may not be at their end.",
        "quick",
        "diagnostics.comparisons.black_box_beats_white_box",
    ),
    "large-eps-survives": Explanation(
        "At this radius every image can be turned into one and the same, on which nothing beats a constant answer. "
        "Accuracy above that means that the attack failed.",
        "Find out why the attack fails (gradients, step size, draws) and do not quote accuracies at smaller radii "
        "before this one falls.",
        "smoke",
        "diagnostics.comparisons.large_eps_survives",
    ),
    "not-monotone": Explanation(
        "A larger radius allows all that a smaller one does, so the true worst case cannot rise with it. The attack "
        "did worse where it was allowed more.",
        "Let the step size follow the radius, take more steps, and start at each radius from the points of the one "
        "below.",
        "quick",
        "diagnostics.convergence.not_monotone",
    ),
    "steps-not-converged": Explanation(
        "With twice the steps the attack finds still worse points, so the reported accuracy measures its budget.",
        "Double the steps until the accuracy stays within its interval, and report that one.",
        "full",
        "diagnostics.convergence.not_converged",
    ),
    "draws-not-converged": Explanation(
        "With twice the draws in each gradient the attack finds still worse points: its steps were too noisy for the "
        "reported accuracy to be the worst case.",
        "Double the draws a gradient until the accuracy stays within its interval, or take an estimator of less "
        "variance.",
        "full",
        "diagnostics.convergence.not_converged",
    ),
    "restarts-not-converged": Explanation(
        "More starts find still worse points, so the reported accuracy depends on where the attack began.",
        "Add restarts until the accuracy stays within a point, and name their number with the result.",
        "full",
        "diagnostics.convergence.not_converged",
    ),
    "selection-not-converged": Explanation(
        "With more draws to choose by, worse points are chosen among the same ones: the choice was still noisy, and "
        "the reported accuracy is too high.",
        "Double the selection draws until the accuracy stays within a point. Never choose by the report draws.",
        "full",
        "diagnostics.convergence.not_converged",
    ),
    "zero-or-non-finite-gradient": Explanation(
        "A gradient that is exactly zero, NaN or infinite has no direction. On such images a gradient attack gets no "
        "further than its random start.",
        "Look for saturation, rounding, hard decisions and overflow in the forward pass. Attack with another backward "
        "pass through that step (bpda), and without gradients.",
        "smoke",
        "diagnostics.probes.zero_or_non_finite",
    ),
    "low-gradient-signal": Explanation(
        "Gradients from separate draws at the same image hardly agree, so a step follows the noise more than the loss. "
        "Attacks may fail for this alone.",
        "Average more draws, try an estimator of less variance, run longer with smaller steps, and compare with "
        "transfer and with queries.",
        "quick",
        "diagnostics.gradient_signal.low_gradient_signal",
    ),
    "estimator-spread": Explanation(
        "The same attack with another gradient estimator leaves a clearly different accuracy, so the choice of the "
        "estimator is part of the result.",
        "Report the estimator that leaves the least, by name, and spend further budget on it.",
        "smoke",
        "diagnostics.comparisons.estimator_spread",
    ),
    "known-seed-attack-fails": Explanation(
        "To know the random numbers cannot make the best attack worse: the mean of the minima is at most the minimum "
        "of the mean. So the known-seed attack is broken or too weak, and the seed gap means nothing.",
        "Check that its random numbers are the ones it is scored with and that masks still move with the image; then "
        "give it more steps and other losses.",
        "quick",
        "diagnostics.comparisons.known_seed_attack_fails",
    ),
    "seed-gap": Explanation(
        "Much of the accuracy is gone once the random numbers are known. What protects is that they are hidden: a seed "
        "that is reused, guessed or leaked takes it away.",
        "Quote the known-seed accuracy beside the worst case, and count on the latter only where every prediction "
        "draws new numbers that nobody can foresee.",
        "quick",
        "diagnostics.comparisons.seed_gap",
    ),
    "single-step-beats-iterative": Explanation(
        "One step does more damage than many steps along the same net's gradient, so the longer attack goes astray.",
        "Check step size, sign of the loss and projection of the iterative attack, on the net without the defence "
        "first.",
        "smoke",
        "diagnostics.comparisons.single_step_beats_iterative",
    ),
    "planted-example-missed": Explanation(
        "An adversarial example was planted behind the same defence, so it is known to be there. An attack that misses "
        "it is no evidence that others are absent.",
        "Strengthen the attack until it finds what is planted, then repeat the whole evaluation with it.",
        "full",
        "diagnostics.planted.planted_example_missed",
    ),
    "batch-shared-noise": Explanation(
        "The model declares noise of its own for each image, but copies in one batch are alike, or unlike copies that "
        "come one by one. A mean over a batch of copies then averages fewer draws than it claims.",
        "Draw noise for each image, or declare it shared. Once this is raised the draws are made one by one, here and "
        "in what you compute yourself.",
        "smoke",
        "diagnostics.probes.batch_shared_noise",
    ),
    "state-between-calls": Explanation(
        "The law of a prediction moves with the calls made before it, so attack, choice and scoring met different "
        "models.",
        "Keep counters, queues and running statistics out of the forward pass, or reset them at every call; then "
        "evaluate again.",
        "quick",
        "diagnostics.probes.state_between_calls",
    ),
    "coupled-generator": Explanation(
        "The draws that score depend on the seed of the attack that ran before, so they are not fresh: the attack may "
        "have been fitted to them.",
        "Let the seed of a call determine all of its draws; keep no generator from one call to the next.",
        "smoke",
        "diagnostics.probes.coupled_generator",
    ),
    "test-time-optimisation": Explanation(
        "The forward pass computes gradients of its own: the model adapts to each input. The attacks here are not made "
        "for that and may miss what an adaptive one would find.",
        "Attack the whole procedure, its inner steps included, with an attack written for it, and add attacks that "
        "only query.",
        "smoke",
        "diagnostics.probes.test_time_optimisation",
    ),
    "softmax-output": Explanation(
        "The outputs are probabilities. Losses that are made for logits saturate on them, their gradients vanish where "
        "the model is confident, and the attack looks weaker than it is. Calibration is that of a softmax of "
        "probabilities, which is sure of nothing; ece_of_outputs is that of the probabilities.",
        "Return the logits from before the softmax, or its logarithm, and evaluate again.",
        "smoke",
        "diagnostics.probes.softmax_output",
    ),
}
"""Code -> what to say of it, for all codes of ``flags.LEVELS``."""


def explain(record: Record) -> str:
    """One paragraph for each flag that is raised, then for each not checked, then one line for the clear ones.

    Raises:
        KeyError: a flag whose code is not in ``EXPLANATIONS``.
    """
    states = {state: [f for f in record.flags if f.state == state] for state in ("raised", "not-checked", "clear")}
    clear = ", ".join(f.code for f in states["clear"]) or "none"
    return "\n\n".join(
        [
            f"{record.entry}: {VERDICTS[record.verdict]}",
            *map(_raised, states["raised"]),
            *(_not_checked(f, tier=record.tier) for f in states["not-checked"]),
            f"Clear ({len(states['clear'])} of {len(record.flags)}): {clear}",
        ]
    )


def _raised(flag: Flag) -> str:
    about = EXPLANATIONS[flag.code]
    return (
        f"Raised, level {flag.level} ({LEVEL_WORDS[flag.level]}): {flag.code}. Seen: {flag.evidence}. "
        f"Why it matters: {about.why} What to do: {about.remedy}"
    )


def _not_checked(flag: Flag, *, tier: str) -> str:
    about = EXPLANATIONS[flag.code]
    return (
        f"Not checked, level {flag.level} if raised: {flag.code}. Reason: {flag.evidence}. "
        f"Why it would matter, if raised: {about.why} What would check it: {_check(about, tier=tier)}, or "
        f"sap_art.{about.function} on results of your own."
    )


def _check(about: Explanation, *, tier: str) -> str:
    if tier in ORDER[ORDER.index(about.tier) :]:
        return f"the tier {tier} once that reason is gone"
    return f"the tier {about.tier}"
