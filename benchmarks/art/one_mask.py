"""OneMask: SAP whose noise is held still, as a policy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sap_art.policies import SAP
from sap_art.policies.base import Affine, OnActivations
from sap_art.randomness import make_generator


@dataclass(frozen=True)
class OneMask(OnActivations):
    """SAP at 100 % with the same uniform numbers for every image, batch and call: a function of one image.

    A unit is kept where its number lies below its keep probability, and divided by it.
    """

    spec = "one-mask"

    def draw(self, h: Tensor, generator: torch.Generator) -> Affine:
        q = SAP(100, "bernoulli").keep_probability(h)
        numbers = torch.rand(h.shape[1:], generator=make_generator(h.device, 0, *h.shape[1:]), device=h.device)
        keep = numbers < q
        return Affine((keep / torch.where(keep, q, 1)).to(h.dtype), 0.0)

    def __call__(self, h: Tensor, generator: torch.Generator, *, held: bool = False) -> Tensor:
        affine = self.draw(h, generator)
        return (Affine(affine.scale.detach(), 0.0) if held else affine)(h)
