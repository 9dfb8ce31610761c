"""The page that puts side by side what the paper prints, what comes out here, and the worst case of RDP-1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sap_art.paper.figures import Attacker
from sap_art.paper.printed import PRINTED_NETS, printed
from sap_art.paper.results import CurveResult, Difference, FigureResult, NetInfo, PointResult
from sap_art.record_parts import Value

NOTHING = "–"
BEATEN = " †"
"""After a worst case that is none: the attack of the same row leaves less."""
DIFFERENCES = (
    "The paper works in another framework (MXNet), on crops of 28 × 28; here (PyTorch) images are 32 × 32, in training "
    "shifted by up to 4 pixels and flipped.",
    "The paper's prediction is the mean softmax of 100 draws; *mean* here is that of the report draws, which are fewer "
    "in the quick form, and *single* is beside it.",
    "The paper scores on all 10,000 test images.",
    "Which percents, rates and strengths the figures show, and what its random perturbation is, we do not know: ours "
    "are named in each row, and the perturbation is lambda times a random sign in each pixel.",
)


def page(results: Sequence[FigureResult]) -> str:
    """Markdown of these figures."""
    parts = ["# The paper's figures, computed again", _introduction(results[0]), *map(_figure, results)]
    nets = {net.role: net for result in results for net in result.nets}
    parts += ["## What differs from the paper", "\n".join(f"- {line}" for line in _differences(nets)), _nets(nets)]
    return "\n\n".join(parts) + "\n"


def _introduction(result: FigureResult) -> str:
    settings = result.settings
    budget = settings.budget
    return (
        "Stochastic Activation Pruning, Dhillon et al. 2018, arXiv:1803.01442. Accuracy in percent with 95 % interval "
        "at lambda / 255 in Linf. *Paper* is what it prints. *Mean* is the accuracy of the mean softmax over the "
        "report draws, the paper's predictor; *single* that of one fresh draw. *Worst case* is what RDP-1 makes of "
        "the same images today: APGD on the dense net and, through the defence, a long climb of single draws, the "
        "worst point of each image chosen on draws of their own, scored on fresh ones.\n\n"
        f"{settings.data.n} images ({settings.data.set}), budget {budget['name']}: {budget['report_draws']} report "
        f"draws, attacks of tier {budget['tier']}; seed {settings.seed}; {settings.device}; "
        f"sap_art {settings.version}. The iterative attack through a defence goes up to lambda "
        f"{budget['iterative_lambda']}; gradients of more than {budget['many_draws']} draws are computed for "
        f"the first {budget['many_draws_images']} images.{BEATEN} after a worst case: the attack of that row leaves "
        "less, so that RDP-1 with this budget has not found the worst, and the lower number is the one to believe."
    )


def _figure(result: FigureResult) -> str:
    parts = [f"## Figure {result.figure}: {result.title}"]
    if result.curves:
        parts.append(_table(_HEAD, (_row(curve, point) for curve in result.curves for point in curve.points)))
    if result.differences:
        rows = (_difference_row(difference, result) for difference in result.differences)
        parts.append(_table(("difference of means", "lambda", "paper", "here"), rows))
    if any(point.calibration for curve in result.curves for point in curve.points):
        rows = (row for curve in result.curves for row in _calibration_rows(curve))
        parts.append(
            "The error that the paper did not print, over 15 equal bins, of the mean prediction over K = "
            f"{result.settings.budget['report_draws']} draws (K = 1 where nothing is random):"
        )
        parts.append(_table(("defender", "lambda", "ECE", "ECE of a calibrated model", "confidence − accuracy"), rows))
    for curve in result.missing:
        parts.append(
            f"Missing: {curve.defender}, for there is no checkpoint of {curve.net}. To train it: `{curve.command}`"
        )
    return "\n\n".join(parts)


_HEAD = ("defender", "attack", "lambda", "paper", "mean", "single", "worst case, mean", "worst case, single")


def _row(curve: CurveResult, point: PointResult) -> tuple[str, ...]:
    found = printed(curve.defender, attacker_of(curve), point.lam)
    attacked, worst = ((score.mean, score.single) for score in (point.attacked, point.worst))
    marks = [BEATEN if ours.value < least.value else "" for ours, least in zip(attacked, worst, strict=True)]
    cells = [percent(least) + mark for least, mark in zip(worst, marks, strict=True)]
    paper = NOTHING if found is None else f"{100 * found.value:.1f}"
    return (curve.defender, describe(curve), str(point.lam), paper, *map(percent, attacked), *cells)


def attacker_of(curve: CurveResult) -> Attacker:
    """The attacker that a result is of."""
    return Attacker(curve.attack, curve.gradient, curve.gradient_draws)


def describe(curve: CurveResult) -> str:
    """An attack in words: ``iterative, own gradient of 10 draws``."""
    if curve.attack == "noise":
        return f"random, {curve.images} images"
    if not curve.random:
        gradient = "own gradient"
    elif curve.gradient == "dense":
        gradient = "gradient of the dense net"
    else:
        gradient = f"own gradient of {curve.gradient_draws} draw{'s' if curve.gradient_draws > 1 else ''}"
    return f"{'FGSM' if curve.attack == 'fgsm' else 'iterative'}, {gradient}, {curve.images} images"


def percent(value: Value) -> str:
    """A fraction with its interval, in percent: ``83.2 (78.6 to 87.8)``."""
    return f"{100 * value.value:.1f} ({100 * value.low:.1f} to {100 * value.high:.1f})"


def _difference_row(difference: Difference, result: FigureResult) -> tuple[str, ...]:
    first = [curve for curve in result.curves if curve.defender == difference.first]
    found = (printed(difference.first, attacker_of(c), difference.lam, minus=difference.second) for c in first)
    paper = next((f"{100 * p.value:+.1f}" for p in found if p is not None), NOTHING)
    v = difference.value
    ours = f"{100 * v.value:+.1f} ({100 * v.low:+.1f} to {100 * v.high:+.1f})"
    return (f"{difference.first} − {difference.second}", str(difference.lam), paper, ours)


def _calibration_rows(curve: CurveResult) -> Iterable[tuple[str, ...]]:
    for point in curve.points:
        if (found := point.calibration) is None:
            continue
        ece = percent(found.intervals["ece"]) if found.intervals else f"{100 * found.ece:.1f}"
        floor = f"{100 * found.null.mean:.1f}" if found.null else NOTHING
        yield (curve.defender, str(point.lam), ece, floor, f"{100 * found.gap:+.1f}")


def _differences(nets: Mapping[str, NetInfo]) -> list[str]:
    """What is not as in the paper, beginning with the nets: accuracies by the cards, on all test images."""
    names = {role: found for role, found in PRINTED_NETS.items() if role in nets}
    return [
        *(
            f"The paper's {name} net has {100 * accuracy:.1f} % clean after {epochs} epochs with steps of the rate; "
            f"ours has {100 * nets[role].accuracy:.2f} % after {_training(nets[role])}."
            for role, (name, accuracy, epochs) in names.items()
        ),
        *DIFFERENCES,
    ]


def _training(net: NetInfo) -> str:
    """``24 epochs of the recipe adv (one-cycle, instead of 100 epochs, step-decay)``."""
    notes = [net.schedule] if net.schedule else []
    if net.instead_of:
        notes.append(f"instead of {net.instead_of['epochs']} epochs, {net.instead_of['schedule']}")
    return f"{net.epochs} epochs of the recipe {net.recipe}" + (f" ({', '.join(notes)})" if notes else "")


def _nets(nets: Mapping[str, NetInfo]) -> str:
    rows = [
        (role, net.name, _training(net), f"{100 * net.accuracy:.2f} on {net.test_images:,}", net.weights_sha256[:12])
        for role, net in nets.items()
    ]
    return _table(("role", "net", "trained by", "clean accuracy in % on test images", "SHA-256 of its weights"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
