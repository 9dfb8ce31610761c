"""What a policy is: one random draw for a tensor, expressed as ``out = h * scale + shift``."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

Where = Literal["activation", "preactivation", "weight"]


class Affine(NamedTuple):
    """One draw, ``out = h * scale + shift``; both broadcast to h, and are differentiable where they depend on it."""

    scale: Tensor
    shift: Tensor | float

    def __call__(self, h: Tensor) -> Tensor:
        scaled = h * self.scale
        return scaled + self.shift if isinstance(self.shift, Tensor) or self.shift else scaled


class Policy(Protocol):
    """What is made random, and how. Policies are immutable settings; randomness comes in as an argument."""

    @property
    def where(self) -> Where:
        """What the policy acts on."""
        ...

    @property
    def per_example(self) -> bool:
        """Whether each image of a batch gets a draw of its own."""
        ...

    @property
    def spec(self) -> str:
        """The policy as text, as read by ``parse_policy``: ``sap:100``."""
        ...

    def draw(self, h: Tensor, generator: torch.Generator) -> Affine:
        """One draw for ``h`` (B, ...)."""
        ...

    def __call__(self, h: Tensor, generator: torch.Generator, *, held: bool = False) -> Tensor:
        """``draw(h, generator)(h)`` in h's dtype; with ``held``, scale and shift are constants to the gradient."""
        ...
