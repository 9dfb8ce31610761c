"""What an attack climbs: a loss averaged over the draws of a view, and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sap_art.attacker import AttackerView
from sap_art.stochastic import halving, in_blocks, require_eval
from sap_art.threat import require_images, require_labels


class Value(NamedTuple):
    """Loss of each image (B,) and its gradient (B, ...), both means over the view's draws."""

    loss: Tensor
    gradient: Tensor


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Mean over draws of the cross-entropy in nats: (K, B, C), (B,) -> (B,)."""
    return F.cross_entropy(logits.flatten(0, 1), y.repeat(len(logits)), reduction="none").view(len(logits), -1).mean(0)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Mean over draws of the best wrong logit minus the true one: (K, B, C), (B,) -> (B,)."""
    index = y.expand(len(logits), -1)[..., None]
    true = logits.gather(-1, index)[..., 0]
    wrong = logits.scatter(-1, index, -torch.inf).amax(-1)
    return (wrong - true).mean(0)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"ce": cross_entropy, "margin": margin}


def prepare(view: AttackerView, x: Tensor, y: Tensor) -> None:
    """Check an attack's input before any work; raises ValueError."""
    require_images(x)
    require_labels(y, len(x))
    require_eval(view)


def loss_and_gradient(view: AttackerView, x: Tensor, y: Tensor, *, loss: str) -> Value:
    """The named loss and its gradient at ``x``: (B, ...), (B,) -> (B,), (B, ...).

    Raises:
        ValueError: unknown loss.
        FloatingPointError: a gradient with NaN or inf.
    """
    value = raw_loss_and_gradient(view, x, y, loss=loss)
    bad = int((~torch.isfinite(value.gradient)).flatten(1).any(1).sum())
    if bad:
        raise FloatingPointError(
            f"the {view.gradient} gradient is NaN or inf on {bad} of {len(x)} images: the attack cannot proceed"
        )
    return value


@torch.no_grad()
def mean_loss(view: AttackerView, x: Tensor, y: Tensor, *, loss: str) -> Tensor:
    """The named loss at ``x`` over fresh draws, without a gradient: (B, ...), (B,) -> (B,).

    Raises:
        ValueError: unknown loss.
        FloatingPointError: logits with NaN or inf.
    """
    measure = _known(loss)

    def work(rows: int) -> Tensor:
        return torch.cat(in_blocks(view.model, len(x), rows, lambda part: measure(view.logits(x[part]), y[part])))

    with view.model.noise.call():
        losses = halving(min(view.images_per_pass(x.device), max(1, len(x))), work)
    bad = int((~torch.isfinite(losses)).sum())
    if bad:
        raise FloatingPointError(f"the logits are NaN or inf on {bad} of {len(x)} images: the attack cannot proceed")
    return losses


def raw_loss_and_gradient(view: AttackerView, x: Tensor, y: Tensor, *, loss: str) -> Value:
    """As ``loss_and_gradient``, with whatever comes out; a block of images at a time, so that the draws fit."""
    measure = _known(loss)

    def work(rows: int) -> Value:
        def block(part: slice) -> Value:
            return _block(view, x[part], y[part], measure)

        losses, gradients = zip(*in_blocks(view.model, len(x), rows, block), strict=True)
        if rows < view.images_per_pass(x.device):
            view.limit_images(rows)
        return Value(torch.cat(losses), torch.cat(gradients))

    with view.model.noise.call():
        return halving(min(view.images_per_pass(x.device), max(1, len(x))), work)


def _known(loss: str) -> Callable[[Tensor, Tensor], Tensor]:
    if loss not in LOSSES:
        raise ValueError(f"unknown loss {loss!r}; known: {', '.join(LOSSES)}")
    return LOSSES[loss]


def _block(view: AttackerView, x: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> Value:
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        value = loss(view.logits(x), y)
        # A model that cuts itself off from its input has gradient zero; the flags say so.
        found = torch.autograd.grad(value.sum(), x, allow_unused=True)[0] if value.requires_grad else None
    return Value(value.detach(), torch.zeros_like(x) if found is None else found)
