"""SAPClassifier, an ART classifier with a random defence in it, and what an attacker is given of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack, cast

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from art.utils import is_probability
from torch import Tensor, nn

from sap_art.attacker import AttackerView
from sap_art.defended import Predictor
from sap_art.integrations.art.choices import DEFENCE, changed_model, defended_module
from sap_art.integrations.art.estimator import Estimator, Settings
from sap_art.integrations.art.module import EstimatorModule
from sap_art.integrations.art.view import AttackView
from sap_art.policies import SAP, Policy


class SAPClassifier(Estimator):
    """An ART ``PyTorchClassifier`` with Stochastic Activation Pruning, or another policy, inside its module.

    This is the defence: what is scored. Give attacks its ``attack_view``. What one noisy ``predict`` says of an
    adversarial example is one throw of the dice, and ART's attacks decide by such throws which images to leave alone:
    score with ``evaluate_art``.

    It answers for images as the net takes them: values outside ``clip_values`` (bytes, or images that were standardised
    already), NaN and other shapes raise ValueError. A few of ART's attacks leave ``clip_values`` on their way, which
    the attack view allows them. With ``policy="none"`` there is no defence, and none of these checks but that for NaN:
    it does what ART's own classifier does, casting alone is added.

    Args:
        model: net (B, ...) -> (B, C) logits, put into eval mode; or a model that is random already (a
            ``DefendedModel``, what ``sap_art.wrap`` makes), which is used as it is.
        loss: torch loss of logits, for gradients and ``fit``.
        input_shape: of one image, without the batch axis.
        nb_classes: C, as the net has them.
        percent: of SAP, 100 unless a policy is given.
        sampler: of SAP, ``multinomial`` unless given.
        policy: another policy, or its text (``sap:50:bernoulli``), in the place of percent and sampler; ``none`` leaves
            the net as it is.
        predictor: ``single`` unless given, ``mean_prob`` or ``vote``; see ``DefendedModel``.
        draws: of one prediction, 1 unless given.
        gradient: backward pass of ``loss_gradient`` and ``class_gradient``: ``bpda`` unless given, ``frozen``,
            ``autograd``.
        seed: of the model's own generator; None takes one from the operating system.
        settings: ART's keywords: ``optimizer`` (of the net's parameters, for ``fit``), ``clip_values`` ((0, 1)
            unless given; None checks no range), ``channels_first``, ``preprocessing_defences``,
            ``postprocessing_defences``, ``preprocessing``, and ``device_type`` (``cpu``, ``gpu``; unless given where
            the net is, while ART takes a GPU if there is one).

    Raises:
        ValueError: settings that contradict each other, a model random already together with settings of a defence, a
            net with another number of outputs or without activations, a device that is not there.
        TypeError: a model that is no module, or an attacker's view.
        NotImplementedError: preprocessors of numpy and of PyTorch in one chain, which ART does not run.
    """

    estimator_params = [*PyTorchClassifier.estimator_params, *DEFENCE, "seed"]  # noqa: RUF012  ART's, never changed

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        input_shape: tuple[int, ...],
        nb_classes: int,
        *,
        percent: float | None = None,
        sampler: str | None = None,
        policy: Policy | str | None = None,
        predictor: Predictor | None = None,
        draws: int | None = None,
        gradient: str | None = None,
        seed: int | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        given = {
            "percent": percent,
            "sampler": sampler,
            "policy": policy,
            "predictor": predictor,
            "draws": draws,
            "gradient": gradient,
        }
        given = {name: value for name, value in given.items() if value is not None}
        self._seed = seed
        super().__init__(defended_module(model, given, seed=seed), loss, input_shape, nb_classes, **settings)
        self.tolerant = self.defence.deterministic
        if not self.defence.deterministic:
            self._require_classes()

    @property
    def policy(self) -> Policy | None:
        """What is made random; None without a defence, and in a random model of somebody else."""
        return cast("Policy | None", getattr(self.defence, "policy", None))

    @property
    def percent(self) -> float | None:
        """SAP's percent; None for another policy."""
        return self.policy.percent if isinstance(self.policy, SAP) else None

    @property
    def sampler(self) -> str | None:
        """SAP's sampler; None for another policy."""
        return self.policy.sampler if isinstance(self.policy, SAP) else None

    @property
    def predictor(self) -> str | None:
        """How draws become a prediction; None in a random model of somebody else."""
        return cast("str | None", getattr(self.defence, "predictor", None))

    @property
    def draws(self) -> int | None:
        """K, the draws of one prediction; None in a random model of somebody else."""
        return cast("int | None", getattr(self.defence, "draws", None))

    @property
    def gradient(self) -> str | None:
        """The estimator of the backward pass; None in a random model of somebody else."""
        return cast("str | None", getattr(self.defence, "gradient", None))

    @property
    def seed(self) -> int | None:
        """As given; None if the seed came from the operating system, or with the model."""
        return self._seed

    def attack_view(self, *, gradient: str | None = None, draws: int = 10, probabilities: bool = False) -> AttackView:
        """The estimator to give to an attack: the same net and preprocessing, the draws averaged inside its module.

        EOT averages over the draws of the model; a random preprocessor is drawn once a call.

        Args:
            gradient: ``bpda``, ``frozen``, ``autograd``, or ``dense`` (the net without the defence); unless given
                ``bpda``, but ``autograd`` without a policy.
            draws: averaged in each prediction and gradient: logits of the mean softmax.
            probabilities: the mean softmax itself, for SimBA and VirtualAdversarialMethod, which take nothing else; it
                has no gradient, lest a loss of logits is taken of it.

        Raises:
            ValueError: an estimator that the model does not offer, draws < 1; a net that ends in a softmax, whose own
                softmax would be taken again and leave next to no gradient.
        """
        if is_probability(self._of_grey(self.module.single)[0].cpu().numpy()):
            raise ValueError("the net gives probabilities; a view takes the softmax of logits: leave out the net's own")
        view = AttackerView(self.defence, gradient=gradient or self.defence.estimators[0], draws=draws)
        module = EstimatorModule(view, probabilities=probabilities)
        return AttackView(module, self.loss, self.input_shape, self.nb_classes, **self.settings())

    def set_params(self, **kwargs: Any) -> None:
        """Set what ``get_params`` gives, the defence in place, so that attack views made before follow.

        They follow the defence alone: after a change of preprocessing or ``clip_values`` make a new view.
        A new percent or sampler changes SAP, a new policy replaces it. A seed, if not None, starts the noise afresh.

        Raises:
            ValueError: an unknown name, settings that contradict each other, or settings of the defence of a random
                model of somebody else; nothing is changed then.
        """
        given = {name: kwargs.pop(name) for name in DEFENCE if name in kwargs}
        given = {name: value for name, value in given.items() if value != getattr(self, name)}
        seed = kwargs.pop("seed", None)
        changed = changed_model(self.defence, given) if given else None
        super().set_params(**kwargs)
        if changed is not None:
            for name in ("policy", "predictor", "draws", "gradient", "per_example", "rule"):
                setattr(self.defence, name, getattr(changed, name))
        if seed is not None:
            self._seed = seed
            self.defence.reseed(seed)

    def _require_classes(self) -> None:
        """Raises ValueError if the net cannot take one image, or gives other than C numbers for it."""
        try:
            out = self._of_grey(self.model)
        except NotImplementedError:  # a chain of preprocessors that ART does not run
            raise
        except RuntimeError as error:
            raise ValueError(f"the net cannot take an image of input_shape {self.input_shape}: {error}") from error
        if out.shape != (1, self.nb_classes):
            raise ValueError(f"nb_classes is {self.nb_classes}, but the net gives {tuple(out.shape)} for one image")

    def _of_grey(self, net: Callable[[Tensor], Tensor]) -> Tensor:
        """What ``net`` makes of one grey image as preprocessed, with noise of its own."""
        clip: Any = (0.0, 1.0) if self.clip_values is None else self.clip_values
        grey = np.full((1, *self.input_shape), (np.min(clip) + np.max(clip)) / 2, dtype=np.float32)
        with torch.no_grad(), self.defence.seeded(0):
            x, _ = self._apply_preprocessing(grey, y=None, fit=False)
            return net(torch.as_tensor(x).to(self.device))


def defend(classifier: PyTorchClassifier, *, percent: float | None = None, **defence: Any) -> SAPClassifier:
    """The same classifier with SAP inside: its net, loss, optimizer, preprocessing, clip values and device.

    The net is shared, not copied.

    Args:
        classifier: a ``PyTorchClassifier`` of ART.
        percent: of SAP, 100 unless a policy is given.
        defence: sampler, policy, predictor, draws, gradient, seed, as of ``SAPClassifier``.

    Raises:
        TypeError: not a ``PyTorchClassifier``, or of a class made from it, whose additions would be lost.
        ValueError: what ``SAPClassifier`` refuses, and mixed precision.
    """
    if type(classifier) is not PyTorchClassifier:
        raise TypeError(f"defend takes a PyTorchClassifier of ART itself, got {type(classifier).__name__}")
    if classifier.use_amp:
        raise ValueError("mixed precision (use_amp=True) is not supported: build the classifier without")
    return SAPClassifier(
        classifier.model,
        classifier.loss,
        classifier.input_shape,
        classifier.nb_classes,
        percent=percent,
        **defence,
        optimizer=classifier.optimizer,
        clip_values=classifier.clip_values,
        channels_first=classifier.channels_first,
        preprocessing_defences=classifier.preprocessing_defences,
        postprocessing_defences=classifier.postprocessing_defences,
        preprocessing=classifier.preprocessing,
        device_type="gpu" if classifier.device.type == "cuda" else "cpu",
    )
