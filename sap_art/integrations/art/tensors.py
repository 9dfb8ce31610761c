"""The methods of an ART classifier that take tensors as they are, and what makes arrays of them and the reverse."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor

from sap_art.integrations.art.checks import Array


class TensorsToo:
    """The two methods of which ART's metaclass, where it finds them in a classifier, makes arrays of tensors first."""

    def predict(self: Any, x: Any, batch_size: int = 128, training_mode: bool = False, **kwargs: Any) -> Any:
        """(B, ...) -> (B, C) logits or log-probabilities: one prediction, noise and all.

        Always an array, as ART's is: its PGD with random restarts compares predictions of tensors by numpy. An attack
        view predicts NaN for images with NaN or inf: SquareAttack divides by zero in L2, and drops what comes of it.
        """
        x = as_array(self._ready(x, undefined=True))
        undefined = ~np.isfinite(x).reshape(len(x), -1).all(1)
        given = np.nan_to_num(x, posinf=0, neginf=0) if undefined.any() else x
        out = PyTorchClassifier.predict(self, given, batch_size=batch_size, training_mode=training_mode, **kwargs)
        if undefined.any():
            out[undefined] = np.nan
        return out

    def fit(self: Any, x: Any, y: Any, *args: Any, **kwargs: Any) -> None:
        """Train the net's weights *without* the defence, as ART's ``fit`` trains a net; afterwards in eval mode.

        SAP is for nets that were trained without it (Dhillon et al. 2018, arXiv:1803.01442, abstract): its noise is
        made for inference, the identity of its backward pass is an attacker's estimate and no gradient of a training
        loss, and votes have none at all. To train through noise, train the module yourself.
        """
        x = self._ready(x)
        y = self._labels(y, x)
        try:
            with self.module.undefended():
                PyTorchClassifier.fit(self, as_array(x), as_array(y), *args, **kwargs)
        finally:
            self._model.eval()


def as_array(x: Array | Tensor) -> Array:
    """``x`` (B, ...) as an array."""
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else x


def as_given(out: Any, x: Array | Tensor) -> Any:
    """``out`` as an array or a tensor, as ``x`` is."""
    return torch.from_numpy(out).to(x.device) if isinstance(x, Tensor) and isinstance(out, np.ndarray) else out
