"""Scoring of what ART's attacks leave: fresh predictions of the whole estimator, beside the one that ART would take."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from art.estimators.classification.classifier import ClassifierMixin
from art.utils import compute_accuracy
from numpy.typing import NDArray
from torch import Tensor, nn

from sap_art.attacks.isolation import seeded_generators
from sap_art.evaluation import Evaluation
from sap_art.integrations.art.chance import one_draw_p_value
from sap_art.integrations.art.checks import Array, ready_inputs, ready_labels, require_range
from sap_art.integrations.art.preprocessor import SAPPreprocessor
from sap_art.integrations.art.view import AttackView
from sap_art.randomness import derive_seed
from sap_art.stochastic import StochasticModel

LEVEL = 1e-3
"""The most often that an evaluation is warned about where nothing but chance parts its two numbers."""
OF_PROBABILITIES = ("SimBA", "VirtualAdversarialMethod")


class SingleDrawWarning(UserWarning):
    """One prediction an image, as ART scores, is further from many than chance explains: report the many."""


@dataclass(frozen=True, kw_only=True)
class ArtEvaluation(Evaluation):
    """An ``Evaluation`` of an ART estimator, a draw being one ``predict``, with what ART would say beside it.

    ``single_predict_accuracy``: ``art.utils.compute_accuracy`` of one further ``predict``, in [0, 1]; ``x_adv``
    (B, ...): the points that were scored.

    ``single_predict_p_value``: in [0, 1], the chance of at least this difference between the two accuracies if that
    predict is one more draw, and images have noise of their own; see ``chance.one_draw_p_value``.
    """

    single_predict_accuracy: float
    single_predict_p_value: float
    x_adv: NDArray[Any]


def evaluate_art(
    estimator: Any,
    attack: Any,
    x: Array | Tensor,
    y: Array | Tensor,
    *,
    draws: int,
    seed: int = 0,
    targets: Array | Tensor | None = None,
    batch_size: int = 128,
) -> ArtEvaluation:
    """Attack ``x`` (B, ...) and score the points on ``draws`` fresh predictions of ``estimator`` that no attack saw.

    A draw is one ``predict``: preprocessing, all the draws of a K-draw predictor, postprocessing. Attack and draws
    run from ``seed`` alone; the noise of models and of ``SAPPreprocessor``, and the global generators, go on where
    they were. ``probabilities`` mean something only if ``predict`` gives logits or log-probabilities.

    Args:
        estimator: what is scored, any ART classifier: a ``SAPClassifier``, never its attack view.
        attack: an evasion attack of ART, made for ``estimator.attack_view()``, or for another net to transfer from;
            None scores ``x`` itself.
        x: images in ``clip_values``.
        y: true labels, indices (B,) or one-hot (B, C).
        draws: m, fresh predictions an image.
        seed: of the attack and of the draws.
        targets: what a targeted attack aims at, as ``y``; needed by such an attack, refused by others.
        batch_size: of ``predict``.

    Warns:
        SingleDrawWarning: the accuracy of one ``predict``, which is ART's way, is further from that of the draws than
            chance explains (``single_predict_p_value`` < 1e-3, exact for any number of images and draws): images share
            the noise of a ``predict``, or predictions change from call to call.

    Raises:
        TypeError: no classifier of ART, or an attack view; no attack, or its class; an attack that gives no images.
        ValueError: images outside ``clip_values`` or not finite, before or after the attack, labels that do not fit,
            no draws, targets without a targeted attack or the reverse, a view of logits for an attack that takes
            probabilities, predictions that are not finite.
    """
    if not isinstance(estimator, ClassifierMixin) or isinstance(estimator, AttackView):
        raise TypeError(f"evaluate_art scores a classifier of ART and no attack view, got {type(estimator).__name__}")
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    scored: Any = estimator
    images = _images(scored, x, "x")
    labels = _labels(scored, y, images)
    x_adv = _attacked(scored, attack, images, labels, targets, seed=derive_seed(seed, "attack"))

    def predict(*place: object) -> Array:
        with _seeded([scored], derive_seed(seed, *place)):
            return np.asarray(scored.predict(x_adv, batch_size=batch_size))

    answers = [*(predict("draw", draw) for draw in range(draws)), predict("art")]
    predictions = torch.from_numpy(np.stack(answers)).float()
    if predictions.ndim != 3 or not torch.isfinite(predictions).all():
        raise ValueError(f"predict must give finite (B, C), got {tuple(predictions.shape[1:])}, or NaN or inf in it")
    log_probabilities, true = predictions.log_softmax(-1), torch.from_numpy(labels.argmax(1))
    right = log_probabilities.argmax(-1) == true
    result = ArtEvaluation(
        draw_log_probabilities=log_probabilities[:-1],
        labels=true,
        per_example=all(model.per_example for model in _models(scored)),
        single_predict_accuracy=float(compute_accuracy(answers[-1], labels)[0]),
        single_predict_p_value=one_draw_p_value(right[:-1].sum(0), right[-1], draws=draws),
        x_adv=x_adv,
    )
    _compare(result)
    return result


def _images(estimator: Any, x: Any, name: str) -> Array:
    try:
        ready = ready_inputs(x, shape=tuple(estimator.input_shape))
        require_range(ready, estimator.clip_values)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from error
    return ready.detach().cpu().numpy() if isinstance(ready, Tensor) else ready


def _labels(estimator: Any, y: Any, images: Array) -> Array:
    return np.asarray(ready_labels(y, images=len(images), classes=int(estimator.nb_classes), like=images))


def _attacked(estimator: Any, attack: Any, images: Array, labels: Array, targets: Any, *, seed: int) -> Array:
    if attack is not None and (isinstance(attack, type) or not hasattr(attack, "generate")):
        raise TypeError(
            f"attack must be None or an attack of ART on an estimator, ATTACK(estimator, ...), got {attack!r}"
        )
    if bool(getattr(attack, "targeted", False)) != (targets is not None):
        raise ValueError("a targeted attack needs targets=, an untargeted one takes none")
    if attack is None:
        return images
    _require_probabilities(attack)
    aims = labels if targets is None else _labels(estimator, targets, images)
    with _seeded([estimator, getattr(attack, "estimator", None)], seed):
        x_adv = attack.generate(x=images.copy(), y=aims)
    return _images(estimator, x_adv, "the attack's points")


def _require_probabilities(attack: Any) -> None:
    """Raises ValueError where ART's own error would not say which view to take."""
    view, name = getattr(attack, "estimator", None), type(attack).__name__
    if name in OF_PROBABILITIES and isinstance(view, AttackView) and not view.module.probabilities:
        raise ValueError(f"{name} takes probabilities, not logits: make it for .attack_view(probabilities=True)")


@contextmanager
def _seeded(estimators: list[Any], seed: int) -> Generator[None]:
    """Within, all that these estimators draw from runs from ``seed``; afterwards it goes on where it was."""
    scopes = {id(owner): owner for estimator in estimators for owner in (*_models(estimator), *_pruners(estimator))}
    with ExitStack() as stack:
        stack.enter_context(seeded_generators(seed))
        for number, owner in enumerate(scopes.values()):
            stack.enter_context(owner.noise.seeded(derive_seed(seed, "noise", number)))
        yield


def _models(estimator: Any) -> list[StochasticModel]:
    model = getattr(estimator, "model", None)
    return [m for m in model.modules() if isinstance(m, StochasticModel)] if isinstance(model, nn.Module) else []


def _pruners(estimator: Any) -> list[SAPPreprocessor]:
    return [p for p in getattr(estimator, "preprocessing_operations", []) if isinstance(p, SAPPreprocessor)]


def _compare(result: ArtEvaluation) -> None:
    if result.single_predict_p_value < LEVEL:
        low, high = result.interval
        warnings.warn(
            f"one predict an image says {result.single_predict_accuracy:.1%}, {result.draws} fresh ones say "
            f"{result.accuracy:.1%} [{low:.1%}, {high:.1%}]: with noise of its own for each image, chance alone would "
            f"part them so far with p = {result.single_predict_p_value:.1e}. Images share the noise of a predict, or "
            "predictions change from call to call: report the latter",
            SingleDrawWarning,
            stacklevel=3,
        )
