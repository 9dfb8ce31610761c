"""AttackView: what an attack is given of a SAPClassifier."""

from __future__ import annotations

from typing import Unpack, cast

from torch import nn

from sap_art.attacker import AttackerView
from sap_art.integrations.art.estimator import Estimator, Settings
from sap_art.integrations.art.module import EstimatorModule


class AttackView(Estimator):
    """What an attack is given of a ``SAPClassifier``: an ART ``PyTorchClassifier`` over its ``AttackerView``.

    Made by ``SAPClassifier.attack_view``. Its predictions are logits of the mean softmax over draws (see
    ``EstimatorModule``), its gradients theirs, also for attacks that rebuild a classifier from ``.model``. It answers
    wherever an attack goes: outside ``clip_values``, and with predictions of NaN where an image has NaN. Never score
    it: it is not the defence.

    Args:
        model: an ``AttackerView``.
        loss: torch loss of logits.
        input_shape: of one image, without the batch axis.
        nb_classes: C.
        settings: as of ``SAPClassifier``.

    Raises:
        TypeError: a model that is not an ``AttackerView``.
    """

    tolerant = True

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        input_shape: tuple[int, ...],
        nb_classes: int,
        **settings: Unpack[Settings],
    ) -> None:
        module = model if isinstance(model, EstimatorModule) else EstimatorModule(cast(AttackerView, model))
        if not isinstance(module.inner, AttackerView):
            raise TypeError(f"an AttackView is of an AttackerView, got {type(module.inner).__name__}")
        super().__init__(module, loss, input_shape, nb_classes, **settings)
