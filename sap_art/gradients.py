"""Gradient estimators through one random draw: what the attacker's backward pass sees.

All three give the value ``h * scale + shift``. For one SAP layer ``bpda`` is exactly the gradient of the expected
output, ``frozen`` is unbiased for it with variance 1/q - 1, and ``autograd`` is biased. Where scale and shift do not
depend on h (noise, dropout) ``autograd`` is ``frozen``, and where nothing is scaled all three are the identity. Of a
policy on weights h is the weight tensor, and no estimator changes the gradient of the images: it is that of the drawn
net. The fourth estimator, ``dense``, is not an expression: it runs the net without the policy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from sap_art.policies import Policy


def autograd(h: Tensor, policy: Policy, generator: torch.Generator) -> Tensor:
    """Through the value and through whatever ``scale`` and ``shift`` owe to h."""
    return policy(h, generator)


def frozen(h: Tensor, policy: Policy, generator: torch.Generator) -> Tensor:
    """Scale and shift held constant: the operator of the paper's authors."""
    return policy(h, generator, held=True)


def bpda(h: Tensor, policy: Policy, generator: torch.Generator) -> Tensor:
    """Identity backward (Athalye et al. 2018, arXiv:1802.00420)."""
    with torch.no_grad():
        value = policy(h, generator)
    if not (torch.is_grad_enabled() and h.requires_grad):
        return value
    return cast(Tensor, _StraightThrough.apply(h, [h.clone() if value is h else value]))


class _StraightThrough(torch.autograd.Function):
    """The second argument's value with the first one's gradient; in a list, for autograd makes a view of an input."""

    @staticmethod
    def forward(h: Tensor, value: list[Tensor]) -> Tensor:
        return value[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, list[Tensor]], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


Estimator = Callable[[Tensor, Policy, torch.Generator], Tensor]

RANDOM_ESTIMATORS: dict[str, Estimator] = {"bpda": bpda, "frozen": frozen, "autograd": autograd}
ESTIMATORS = (*RANDOM_ESTIMATORS, "dense")


def apply(h: Tensor, policy: Policy, generator: torch.Generator, *, estimator: str) -> Tensor:
    """One draw of the policy in h's dtype, with the named estimator's gradient: (B, ...) -> (B, ...).

    Raises:
        ValueError: an estimator that is not one of ``RANDOM_ESTIMATORS``.
    """
    if estimator not in RANDOM_ESTIMATORS:
        raise ValueError(f"unknown gradient estimator {estimator!r}; known: {', '.join(RANDOM_ESTIMATORS)}")
    return RANDOM_ESTIMATORS[estimator](h, policy, generator)
