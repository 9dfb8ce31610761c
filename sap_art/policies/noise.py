"""Gaussian noise on activations, added or multiplied: the paper's baselines RNA and RSA."""

from __future__ import annotations

import torch
from torch import Tensor

from sap_art.kernels.numbers import normal_like
from sap_art.policies.base import Affine, GaussianNoise, OnActivations, require_activations


class RNA(OnActivations, GaussianNoise):
    """Random noisy activations, h + N(0, s^2), unit by unit (Dhillon et al. 2018, arXiv:1803.01442).

    Mean h, variance s^2, also where h is 0.

    Args:
        sd: s, the standard deviation, in units of the activations; above 0.

    Raises:
        ValueError: an sd out of its range, activations that are not floating (B, ...).
    """

    def draw(self, h: Tensor, generator: torch.Generator) -> Affine:
        """One draw: scale 1, shift s z (B, ...) with z standard normal."""
        require_activations(h)
        return Affine(torch.ones((), device=h.device), self.sd * normal_like(h, generator))

    def __call__(self, h: Tensor, generator: torch.Generator, *, held: bool = False) -> Tensor:
        """(B, ...) -> (B, ...), same dtype; what is drawn does not depend on h, so ``held`` changes nothing."""
        return self.draw(h, generator)(h).to(h.dtype)


class RSA(OnActivations, GaussianNoise):
    """Random scaled activations, h N(1, s^2), unit by unit (Dhillon et al. 2018, arXiv:1803.01442).

    Mean h, variance s^2 h^2.

    Args:
        sd: s, the standard deviation of the factor; above 0.

    Raises:
        ValueError: an sd out of its range, activations that are not floating (B, ...).
    """

    def draw(self, h: Tensor, generator: torch.Generator) -> Affine:
        """One draw: scale 1 + s z (B, ...) with z standard normal, shift 0."""
        require_activations(h)
        return Affine(1 + self.sd * normal_like(h, generator), 0.0)

    def __call__(self, h: Tensor, generator: torch.Generator, *, held: bool = False) -> Tensor:
        """(B, ...) -> (B, ...), same dtype; what is drawn does not depend on h, so ``held`` changes nothing."""
        return self.draw(h, generator)(h).to(h.dtype)
