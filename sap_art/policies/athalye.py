"""The re-implementation of SAP that was attacked in 2018, which is not the paper's SAP."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sap_art.policies.base import Affine, Where, as_text, require_above_zero
from sap_art.policies.sap import SAP


@dataclass(frozen=True)
class AthalyeSAP:
    """SAP's Poisson draw on the signed outputs of convolutions, before normalisation and ReLU.

    Each of the w h c outputs of a convolution stays with probability q = 1 - exp(-r p), p = |h| / sum |h| and
    r = percent w h c / 100, and becomes h / q; the others are 0. Mean h, variance h^2 (1/q - 1). Athalye, Carlini and
    Wagner 2018 (arXiv:1802.00420) broke this one, with r = 2 w h c; the paper's prunes what comes out of the ReLU.

    Args:
        percent: r in percent of the outputs; > 0.

    Raises:
        ValueError: a percent out of its range, outputs with NaN or inf.
    """

    percent: float = 200.0

    def __post_init__(self) -> None:
        require_above_zero("AthalyeSAP's percent", self.percent)

    @property
    def where(self) -> Where:
        return "preactivation"

    @property
    def per_example(self) -> bool:
        return True

    @property
    def spec(self) -> str:
        return f"athalye:{as_text(self.percent)}"

    def keep_probability(self, h: Tensor) -> Tensor:
        """Probability that each output survives: (B, ...) -> (B, ...) in [0, 1]."""
        return self._sap().keep_probability(h)

    def draw(self, h: Tensor, generator: torch.Generator) -> Affine:
        """One draw: scale = mask / q (B, ...), shift 0; differentiable in h through q where gradients are on."""
        return self._sap().draw(h, generator)

    def __call__(self, h: Tensor, generator: torch.Generator, *, held: bool = False) -> Tensor:
        """(B, ...) -> (B, ...), same dtype; ``held`` takes 1 / q for a constant."""
        return self._sap()(h, generator, held=held)

    def _sap(self) -> SAP:
        return SAP(self.percent, "poisson")
