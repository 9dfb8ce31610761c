"""SAPPreprocessor: SAP on the input itself, as a PyTorch preprocessor of ART."""

from __future__ import annotations

from typing import Any

import torch
from art.defences.preprocessor.preprocessor import PreprocessorPyTorch
from torch import Tensor

from sap_art import gradients
from sap_art.integrations.art.checks import require_device_type
from sap_art.policies import SAP
from sap_art.stochastic import NoiseSource


class SAPPreprocessor(PreprocessorPyTorch):
    """SAP (Dhillon et al. 2018, arXiv:1803.01442, Algorithm 1) on the pixels, before the net.

    What it can do: make the input random without touching the net, in any chain of ART's PyTorch preprocessors. Each
    image (B, ...) keeps its bright values with a high probability, loses dark ones and has the rest scaled up, so that
    its mean is unchanged; values may then exceed ``clip_values``. What it cannot do: it is not the paper's defence,
    which prunes activations. Black pixels stay as they are, an image turned to its negative is pruned elsewhere, a net
    that was not trained on pruned images loses accuracy, and the noise hides nothing from an attacker who averages
    gradients over draws (Athalye et al. 2018, arXiv:1802.00420).

    Its gradient is the identity (BPDA), built into ``forward``, because ART asks nothing else where all preprocessors
    are PyTorch's. ART draws a preprocessor once a call: average over repeated gradients to attack it.

    Args:
        percent: size of SAP's draw in percent of an image's values.
        sampler: see ``SAP``.
        seed: of the preprocessor's own generator; None takes one from the operating system.
        apply_fit: prune training data too.
        apply_predict: prune what is predicted, and differentiated.
        device_type: ``cpu`` or ``gpu``, for arrays; tensors stay where they are.

    Raises:
        ValueError: what ``SAP`` refuses; a device that is not there; in ``forward`` an input with NaN or inf.
    """

    params = ["percent", "sampler", "seed", "apply_fit", "apply_predict"]  # noqa: RUF012  ART's, never changed

    def __init__(
        self,
        percent: float = 100.0,
        *,
        sampler: str = "multinomial",
        seed: int | None = None,
        apply_fit: bool = False,
        apply_predict: bool = True,
        device_type: str = "cpu",
    ) -> None:
        require_device_type(device_type, torch.nn.Identity())
        super().__init__(device_type=device_type, is_fitted=True, apply_fit=apply_fit, apply_predict=apply_predict)
        self.policy = SAP(percent, sampler)
        self.noise = NoiseSource(seed)
        self.seed = seed

    @property
    def percent(self) -> float:
        """SAP's percent."""
        return self.policy.percent

    @property
    def sampler(self) -> str:
        """SAP's sampler."""
        return self.policy.sampler

    def forward(self, x: Tensor, y: Any = None) -> tuple[Tensor, Any]:
        """One draw: (B, ...) -> (B, ...) of the same type, integers as float32; labels are handed on."""
        x = x if x.is_floating_point() else x.float()
        if not torch.isfinite(x).all():
            raise ValueError("the input of SAPPreprocessor contains NaN or inf")
        with self.noise.call():
            generator = self.noise.stream(x.device, rows=len(x), batch=len(x))
            return gradients.apply(x, self.policy, generator, estimator="bpda"), y

    def set_params(self, **kwargs: Any) -> None:
        """Set what ``params`` names; a seed, if not None, starts the noise afresh.

        Raises:
            ValueError: an unknown name, or what ``SAP`` refuses; nothing is changed then.
        """
        if unknown := sorted(set(kwargs) - set(self.params)):
            raise ValueError(f"SAPPreprocessor has no {', '.join(unknown)}; it has {', '.join(self.params)}")
        self.policy = SAP(kwargs.get("percent", self.percent), kwargs.get("sampler", self.sampler))
        self._apply_fit = kwargs.get("apply_fit", self._apply_fit)
        self._apply_predict = kwargs.get("apply_predict", self._apply_predict)
        if kwargs.get("seed") is not None:
            self.seed = int(kwargs["seed"])
            self.noise.reseed(self.seed)

    def __repr__(self) -> str:
        return f"SAPPreprocessor(percent={self.percent:g}, sampler={self.sampler!r}, seed={self.seed})"
