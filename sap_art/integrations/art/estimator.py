"""What SAPClassifier and its attack view share: an ART PyTorchClassifier that says what is wrong with its input."""

from __future__ import annotations

from typing import Any, TypedDict, cast

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from art.preprocessing.standardisation_mean_std.pytorch import StandardisationMeanStdPyTorch
from torch import Tensor, nn

from sap_art.integrations.art.checks import (
    Array,
    ready_classes,
    ready_inputs,
    ready_labels,
    require_device_type,
    require_range,
)
from sap_art.integrations.art.module import EstimatorModule
from sap_art.integrations.art.tensors import TensorsToo, as_array, as_given
from sap_art.stochastic import StochasticModel

FIXED = ("model", "input_shape", "nb_classes", "device_type")


class Settings(TypedDict, total=False):
    """Keywords of ART's estimators, as ART has them."""

    optimizer: torch.optim.Optimizer | None
    clip_values: Any
    channels_first: bool
    preprocessing_defences: Any
    postprocessing_defences: Any
    preprocessing: Any
    device_type: str | None


class Estimator(TensorsToo, PyTorchClassifier):
    """An ART classifier around an ``EstimatorModule``.

    Arrays give arrays, tensors give tensors (``predict`` gives arrays); labels are indices or one-hot; inputs may be of
    any number type. NaN raises ValueError; so do values outside ``clip_values``, unless ``tolerant``, and other shapes
    than ``input_shape``, where there is a defence.
    """

    tolerant = False
    """Whether it answers outside ``clip_values``, and predicts NaN of NaN."""

    def __init__(
        self,
        model: EstimatorModule,
        loss: nn.Module,
        input_shape: tuple[int, ...],
        nb_classes: int,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        clip_values: Any = (0.0, 1.0),
        channels_first: bool = True,
        preprocessing_defences: Any = None,
        postprocessing_defences: Any = None,
        preprocessing: Any = (0.0, 1.0),
        device_type: str | None = None,
    ) -> None:
        super().__init__(
            model=model,
            loss=cast(Any, loss),
            input_shape=tuple(input_shape),
            nb_classes=nb_classes,
            optimizer=optimizer,
            clip_values=clip_values,
            channels_first=channels_first,
            preprocessing_defences=preprocessing_defences,
            postprocessing_defences=postprocessing_defences,
            preprocessing=preprocessing,
            device_type=require_device_type(device_type, model),
        )
        self._layer_names = [name for name, _ in model.net.named_children()]
        self._model.eval()

    @property
    def module(self) -> EstimatorModule:
        """``model`` by its type."""
        return cast(EstimatorModule, self.model)

    @property
    def defence(self) -> StochasticModel:
        """The random model, for ``sap_art.evaluate`` and the rest of ``sap_art``; it knows no preprocessing."""
        return self.module.stochastic

    def settings(self) -> Settings:
        """The keywords that make another estimator of the same data."""
        return Settings(
            clip_values=self.clip_values,
            channels_first=self.channels_first,
            preprocessing_defences=self.preprocessing_defences,
            postprocessing_defences=self.postprocessing_defences,
            preprocessing=self.preprocessing,
            device_type=self.device_type,
        )

    def loss_gradient(self, x: Any, y: Any, training_mode: bool = False, **kwargs: Any) -> Any:
        """Gradient of the loss of one prediction: (B, ...), labels -> (B, ...)."""
        x = self._ready(x)
        given = x if self.all_framework_preprocessing else as_array(x)
        y = self._labels(y, given)
        return as_given(super().loss_gradient(given, y, training_mode=training_mode, **kwargs), x)

    def class_gradient(self, x: Any, label: Any = None, training_mode: bool = False, **kwargs: Any) -> Any:
        """Gradients of all outputs, or of those that ``label`` names: (B, ...) -> (B, C, ...) or (B, 1, ...)."""
        x = self._ready(x)
        label = ready_classes(label, images=len(x), classes=self.nb_classes)
        return as_given(super().class_gradient(as_array(x), label=label, training_mode=training_mode, **kwargs), x)

    def compute_loss(self, x: Any, y: Any, reduction: str = "none", **kwargs: Any) -> Any:
        """Loss of one prediction: (B, ...), labels -> (B,), or a scalar for the reductions ``mean`` and ``sum``."""
        x = self._ready(x)
        given = x if self.all_framework_preprocessing else as_array(x)
        return as_given(super().compute_loss(given, self._labels(y, given), reduction=reduction, **kwargs), x)

    def get_activations(
        self, x: Any, layer: int | str | None = None, batch_size: int = 128, framework: bool = False
    ) -> Any:
        """Output of a layer of the net, mean over the draws of one prediction; see ``EstimatorModule.activations``.

        Args:
            x: (B, ...) in ``clip_values``.
            layer: a name of the net's ``named_modules``, or a place in ``layer_names``.
            batch_size: most images a pass; with ``framework`` all are one batch.
            framework: give a tensor that can be differentiated.

        Raises:
            ValueError: no such layer, or one that is not called.
        """
        x, name = self._ready(x), self._layer_name(layer)
        if framework and isinstance(x, Tensor) and not self.all_framework_preprocessing:
            raise ValueError("no gradient passes through numpy preprocessing: use preprocessors of PyTorch")
        self._model.eval()
        given = x if self.all_framework_preprocessing else as_array(x)
        given, _ = self._apply_preprocessing(given, y=None, fit=False, no_grad=not framework)
        inputs = torch.as_tensor(given).to(self.device)
        if framework:
            return self.module.activations(inputs, name)
        with torch.no_grad():
            parts = [self.module.activations(part, name) for part in inputs.split(batch_size)]
        return as_given(torch.cat(parts).cpu().numpy(), x)

    def fit_generator(self, generator: Any, *args: Any, **kwargs: Any) -> None:
        """As ``fit``, with batches from an ART data generator."""
        try:
            with self.module.undefended():
                super().fit_generator(generator, *args, **kwargs)
        finally:
            self._model.eval()

    def set_params(self, **kwargs: Any) -> None:
        """Set what ``get_params`` gives.

        Raises:
            ValueError: an unknown name; another model, shape, number of classes or device: build another estimator.
        """
        for name in FIXED:
            if name in kwargs and kwargs.pop(name) != getattr(self, name):
                raise ValueError(f"{name} is settled when {type(self).__name__} is built: build another one")
        preprocessing = kwargs.get("preprocessing")
        if isinstance(preprocessing, tuple):
            mean, std = cast("tuple[Any, Any]", preprocessing)
            kwargs["preprocessing"] = StandardisationMeanStdPyTorch(mean, std, device_type=self.device_type)
        super().set_params(**kwargs)

    def _ready(self, x: Any, *, undefined: bool = False) -> Array | Tensor:
        """``x`` as it should be; where the estimator is tolerant in any range, and ``undefined`` if that may be."""
        x = ready_inputs(x, shape=None if self.defence.deterministic else self.input_shape)
        if not (self.tolerant and undefined):
            require_range(x, None if self.tolerant else self.clip_values)
        return x

    def _labels(self, y: Any, x: Array | Tensor) -> Array | Tensor:
        """As ``ready_labels``; without a defence (B, 1) of two classes is what it is for ART, one output's 0 or 1."""
        binary = self.defence.deterministic and self.nb_classes == 2 and np.shape(y) == (len(x), 1)
        return ready_labels(y, images=len(x), classes=1 if binary else self.nb_classes, like=x)

    def _layer_name(self, layer: int | str | None) -> str:
        if isinstance(layer, int) and -len(self._layer_names) <= layer < len(self._layer_names):
            return self._layer_names[layer]
        if isinstance(layer, str) and layer in dict(self.module.net.named_modules()):
            return layer
        raise ValueError(
            f"no layer {layer!r}: give one of layer_names {self._layer_names}, its place, or a deeper name"
        )

    def __getstate__(self) -> dict[str, Any]:
        """Everything, weights included: ART's own leaves them in a file of this machine."""
        state = {name: value for name, value in self.__dict__.items() if name != "_model_wrapper"}
        return {**state, "_model": self.model}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._model = self._make_model_wrapper(state["_model"])
