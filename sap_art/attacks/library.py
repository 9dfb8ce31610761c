"""Reference columns: AutoAttack and ART's PGD as other people run them, with the number that they would print.

That number is not an estimate of anything on a random model: AutoAttack decides each image on one draw after each
attack and keeps a lucky error for ever. The points are worth as much as any other attack's; score them with
``evaluate``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from sap_art.attacker import AttackerView
from sap_art.attacks.isolation import Guarded, isolated, without_last_resort
from sap_art.attacks.objective import prepare
from sap_art.randomness import derive_seed
from sap_art.stochastic import draw_logits
from sap_art.threat import ThreatModel

ATTACKS = {"rand": ("apgd-ce", "apgd-dlr"), "standard": ("apgd-ce", "apgd-t", "fab-t", "square")}
FEWEST_CLASSES = {"apgd-dlr": 3, "apgd-t": 4}
TARGETS = 9


class LibraryResult(NamedTuple):
    """Points (B, ...) in [0, 1], and the images (B,) that the library itself counts as still right."""

    x_adv: Tensor
    right: Tensor

    @property
    def reported_accuracy(self) -> float:
        """What the library prints, in [0, 1]."""
        return self.right.double().mean().item()


def autoattack_rand(
    view: AttackerView,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    attacks: Sequence[str] | None = None,
    steps: int = 100,
    draws: int = 20,
) -> Tensor:
    """The points of AutoAttack's version ``rand``; see ``reported_autoattack``."""
    return reported_autoattack(
        view, x, y, threat, seed=seed, version="rand", attacks=attacks, steps=steps, draws=draws
    ).x_adv


def autoattack_standard(
    view: AttackerView,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    attacks: Sequence[str] | None = None,
    steps: int = 100,
    queries: int = 5000,
) -> Tensor:
    """The points of AutoAttack's version ``standard``; see ``reported_autoattack``."""
    return reported_autoattack(
        view, x, y, threat, seed=seed, version="standard", attacks=attacks, steps=steps, draws=1, queries=queries
    ).x_adv


def reported_autoattack(
    view: AttackerView,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    version: Literal["rand", "standard"],
    draws: int,
    attacks: Sequence[str] | None = None,
    steps: int = 100,
    queries: int = 5000,
) -> LibraryResult:
    """AutoAttack (Croce & Hein 2020, arXiv:2003.01690) of pyautoattack on the view, usually one of a single draw.

    An image that a draw gets wrong, the clean one included, is not attacked any further; one that withstands, and one
    whose clean draw is wrong, comes back as it was.

    Args:
        x: (B, ...) in [0, 1]; (B, C, H, W) for ``square``.
        version: ``rand`` (apgd-ce, apgd-dlr) or ``standard`` (apgd-ce, apgd-t, fab-t, square).
        draws: gradients averaged by AutoAttack itself, as a loop: 20 in ``rand``, 1 in ``standard``.
        attacks: only these of the version's; None is all of them.
        steps: of APGD and FAB.
        queries: of Square.

    Raises:
        ImportError: pyautoattack is not installed.
        ValueError: an attack that the version has not, budgets below 1, too few classes for the DLR loss, images
            that Square cannot cut (for L2 it needs sides of 5).
        FloatingPointError: logits or gradients with NaN or inf.
    """
    prepare(view, x, y)
    chosen = _chosen(version, attacks)
    if min(steps, draws, queries) < 1:
        raise ValueError(f"steps, draws and queries must be at least 1, got {steps}, {draws} and {queries}")
    smallest = 5 if threat.norm == "L2" else 1
    if "square" in chosen and (x.ndim != 4 or min(x.shape[2:]) < smallest):
        raise ValueError(f"square needs (B, C, H, W), sides of at least {smallest}, got {tuple(x.shape)}: leave it out")
    with isolated(view, seed=seed), without_last_resort("auto-attack"):
        classes = _classes(view, x)
        if short := [name for name in chosen if classes < FEWEST_CLASSES.get(name, 2)]:
            raise ValueError(f"{short[0]} needs {FEWEST_CLASSES[short[0]]} classes, got {classes}: leave it out")
        autoattack = _autoattack(Guarded(view, x.dtype), x, threat, seed=seed, version=version, draws=draws)
        autoattack.attacks_to_run = chosen
        _limit(autoattack, steps=steps, queries=queries, targets=min(TARGETS, classes - 1))
        x_adv, predicted = autoattack.run_standard_evaluation(
            x.float(), y.long(), batch_size=min(max(1, len(x)), view.images_per_pass(x.device))
        )
    x_adv = x_adv.detach().to(x.dtype)
    threat.require(x, x_adv)
    return LibraryResult(x_adv, predicted == y)


def art_pgd(view: AttackerView, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int, steps: int = 100) -> Tensor:
    """The points of ART's PGD; see ``reported_art_pgd``."""
    return reported_art_pgd(view, x, y, threat, seed=seed, steps=steps).x_adv


def reported_art_pgd(
    view: AttackerView, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int, steps: int = 100
) -> LibraryResult:
    """PGD (Madry et al. 2018, arXiv:1706.06083) of ART on the view, whose draws are the EOT: ART has none of its own.

    Random start, cross-entropy, steps of 2.5 eps / steps, last iterate. ART's users score one prediction a point:
    ``right`` is one draw of the model.

    Raises:
        ValueError: steps < 1.
        FloatingPointError: logits or gradients with NaN or inf.
    """
    prepare(view, x, y)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    on_device = torch.cuda.device(x.device) if x.device.type == "cuda" else nullcontext()
    with isolated(view, seed=seed), on_device:
        estimator = PyTorchClassifier(
            Guarded(view, x.dtype),
            torch.nn.CrossEntropyLoss(),
            tuple(x.shape[1:]),
            _classes(view, x),
            clip_values=(0.0, 1.0),
            device_type="gpu" if x.device.type == "cuda" else "cpu",
        )
        attack = ProjectedGradientDescentPyTorch(
            estimator,
            norm="inf" if threat.norm == "Linf" else 2,
            eps=threat.eps,
            eps_step=min(threat.eps, 2.5 * threat.eps / steps),
            max_iter=steps,
            num_random_init=1,
            batch_size=min(max(1, len(x)), view.images_per_pass(x.device)),
            verbose=False,
        )
        x_adv = torch.from_numpy(attack.generate(x.cpu().numpy(), y.cpu().numpy())).to(x)
        with torch.no_grad():
            predicted = draw_logits(view.model, x_adv, 1, max_batch=view.max_batch)[0].argmax(1)
    threat.require(x, x_adv)
    return LibraryResult(x_adv, predicted == y)


def _chosen(version: str, attacks: Sequence[str] | None) -> list[str]:
    if version not in ATTACKS:
        raise ValueError(f"unknown version {version!r}; known: {', '.join(ATTACKS)}")
    chosen = list(ATTACKS[version] if attacks is None else attacks)
    if not chosen or not set(chosen) <= set(ATTACKS[version]):
        raise ValueError(f"attacks of {version!r} are {', '.join(ATTACKS[version])}; got {chosen}")
    return chosen


@torch.no_grad()
def _classes(view: AttackerView, x: Tensor) -> int:
    return view(x[:1]).shape[-1]


def _autoattack(model: Guarded, x: Tensor, threat: ThreatModel, *, seed: int, version: Any, draws: int) -> Any:
    try:
        from pyautoattack import AutoAttack
    except ImportError as error:
        raise ImportError("AutoAttack needs pyautoattack: pip install 'sap_art[robustbench]'") from error

    norm: Any = threat.norm
    seed = derive_seed(seed, "autoattack")
    autoattack = AutoAttack(model, norm=norm, eps=threat.eps, seed=seed, version=version, device=x.device)
    autoattack.apgd.eot_iter = draws
    return autoattack


def _limit(autoattack: Any, *, steps: int, queries: int, targets: int) -> None:
    """Its attacks with other budgets; APGD works out its windows when it is made."""
    for apgd in (autoattack.apgd, autoattack.apgd_targeted):
        made = type(apgd)(apgd.model, n_iter=steps, eps=apgd.eps)
        for name in ("n_iter", "n_iter_orig", "n_iter_2", "n_iter_min", "size_decr"):
            setattr(apgd, name, getattr(made, name))
    autoattack.fab.n_iter, autoattack.square.n_queries = steps, queries
    autoattack.apgd_targeted.n_target_classes = autoattack.fab.n_target_classes = targets
