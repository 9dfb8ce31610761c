"""What a policy is: one random draw, for an activation as ``out = h * scale + shift``, for a weight tensor in whole."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
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
        """What the policy acts on: outputs of activations or of convolutions (B, ...), or weight tensors."""
        ...

    @property
    def per_example(self) -> bool:
        """Whether each image of a batch gets a draw of its own; never where weights are drawn."""
        ...

    @property
    def spec(self) -> str:
        """The policy as text, as read by ``parse_policy``: ``sap:100``."""
        ...

    def __call__(self, h: Tensor, generator: torch.Generator, /, *, held: bool = False) -> Tensor:
        """One draw in h's shape and dtype; with ``held``, what it multiplies and adds is constant to the gradient."""
        ...


class ActivationPolicy(Policy, Protocol):
    """A policy for ``activation`` or ``preactivation``: ``policy(h, generator)`` is ``draw(h, generator)(h)``."""

    def draw(self, h: Tensor, generator: torch.Generator, /) -> Affine:
        """One draw for ``h`` (B, ...)."""
        ...


class WeightPolicy(Policy, Protocol):
    """A policy for ``weight``: ``policy(w, generator)`` is ``draw(w, generator)``, for one weight tensor at a time."""

    def draw(self, w: Tensor, generator: torch.Generator, /) -> Tensor:
        """One draw of the tensor ``w``, of any shape."""
        ...


class OnActivations:
    """For policies on activations: each image of a batch has a draw of its own."""

    @property
    def where(self) -> Where:
        return "activation"

    @property
    def per_example(self) -> bool:
        return True


class OnWeights(ABC):
    """For policies on weights: all images of a batch share a draw."""

    @property
    def where(self) -> Where:
        return "weight"

    @property
    def per_example(self) -> bool:
        return False

    def draw(self, w: Tensor, generator: torch.Generator) -> Tensor:
        """One draw, of any shape, same dtype: a call, without a say in gradients."""
        return self(w, generator)

    @abstractmethod
    def __call__(self, w: Tensor, generator: torch.Generator, *, held: bool = False) -> Tensor:
        """One draw, of any shape, same dtype."""


@dataclass(frozen=True)
class GaussianNoise:
    """The setting of a policy that adds or multiplies normal numbers: sd, their standard deviation, above 0."""

    sd: float

    def __post_init__(self) -> None:
        require_above_zero(f"{type(self).__name__}'s sd", self.sd)

    @property
    def spec(self) -> str:
        return f"{type(self).__name__.lower()}:{as_text(self.sd)}"


def require_above_zero(name: str, value: float) -> None:
    """Raise ValueError unless ``value`` is a finite number above 0; ``name`` says whose it is."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a finite number above 0, got {value}")


def require_activations(h: Tensor) -> None:
    """Raise ValueError unless ``h`` is floating and (B, ...) with two axes or more."""
    if h.ndim < 2 or not h.is_floating_point():
        raise ValueError(f"activations must be floating (B, ...) of two axes or more, got {h.dtype} {tuple(h.shape)}")


def as_text(value: float) -> str:
    """A number as specs have it: the shortest text that reads back the same.

    >>> as_text(100.0), as_text(0.1234567891)
    ('100', '0.1234567891')
    """
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))
