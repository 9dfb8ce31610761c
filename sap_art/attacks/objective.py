"""What an attack climbs: a loss over the draws of a view, and its gradient.

A loss maps logits (K, B, C) of K draws and labels (B,) to one number an image (B,), larger where the model errs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sap_art.attacker import AttackerView
from sap_art.stochastic import halving, in_blocks, log_mean_prob, require_eval
from sap_art.threat import require_images, require_labels

Result = TypeVar("Result")

TINY = 1e-12  # keeps the quotient of equal logits finite


class Value(NamedTuple):
    """Loss of each image (B,) and its gradient (B, ...), both over the view's draws."""

    loss: Tensor
    gradient: Tensor


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Mean over draws of the cross-entropy in nats: (K, B, C), (B,) -> (B,)."""
    return F.cross_entropy(logits.flatten(0, 1), y.repeat(len(logits)), reduction="none").view(len(logits), -1).mean(0)


def margins(logits: Tensor, y: Tensor) -> Tensor:
    """Each draw's best wrong logit minus the true one, above 0 where it errs: (K, B, C), (B,) -> (K, B)."""
    wrong = logits.scatter(-1, _index(logits, y), -torch.inf).amax(-1)
    return wrong - _of_class(logits, y)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Mean over draws of the best wrong logit minus the true one: (K, B, C), (B,) -> (B,)."""
    return margins(logits, y).mean(0)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Mean over draws of the difference of logits ratio: (K, B, C >= 3), (B,) -> (B,).

    -(z_y - max_{i != y} z_i) / (z_(1) - z_(3)) with z_(i) the i-th largest logit, the same for a z + b (Croce & Hein
    2020, arXiv:2003.01690, section 4).
    """
    top = _largest(logits, 3)
    return (margins(logits, y) / (top[..., 0] - top[..., 2] + TINY)).mean(0)


def cross_entropy_of_mean(logits: Tensor, y: Tensor) -> Tensor:
    """-log of the true class's probability in the mean prediction over draws: (K, B, C), (B,) -> (B,)."""
    return -_of_class(log_mean_prob(logits), y)


def margin_of_mean(logits: Tensor, y: Tensor) -> Tensor:
    """The best wrong log-probability of the mean prediction over draws minus the true one: (K, B, C), (B,) -> (B,)."""
    return margins(log_mean_prob(logits)[None], y)[0]


def targeted_margin(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Mean over draws of the target's logit minus the true one: (K, B, C), (B,), (B,) -> (B,)."""
    return (_of_class(logits, target) - _of_class(logits, y)).mean(0)


def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Mean over draws of the targeted difference of logits ratio: (K, B, C >= 4), (B,), (B,) -> (B,).

    -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2) (Croce & Hein 2020, arXiv:2003.01690, section 4).
    """
    top = _largest(logits, 4)
    spread = top[..., 0] - (top[..., 2] + top[..., 3]) / 2 + TINY
    return ((_of_class(logits, target) - _of_class(logits, y)) / spread).mean(0)


Loss = Callable[..., Tensor]
LOSSES: dict[str, Loss] = {
    "ce": cross_entropy,
    "margin": margin,
    "dlr": dlr,
    "ce-of-mean": cross_entropy_of_mean,
    "margin-of-mean": margin_of_mean,
}
TARGETED: dict[str, Loss] = {"margin": targeted_margin, "dlr": targeted_dlr}
"""Losses towards a class: (K, B, C), (B,), targets (B,) -> (B,)."""


def prepare(view: AttackerView, x: Tensor, y: Tensor, **budget: int) -> None:
    """Check an attack's input before any work; raises ValueError, also where a number of ``budget`` is below 1."""
    require_images(x)
    require_labels(y, len(x))
    require_eval(view)
    for name, number in budget.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")


def loss_and_gradient(
    view: AttackerView, x: Tensor, y: Tensor, *, loss: str | Loss, target: Tensor | None = None
) -> Value:
    """The loss and its gradient at ``x``: (B, ...), (B,) -> (B,), (B, ...), a draw a pass forwards and backwards.

    ``loss`` is a name of ``LOSSES``, of ``TARGETED`` if there is a ``target`` (B,), or such a function itself.

    Raises:
        ValueError: unknown loss.
        FloatingPointError: a gradient with NaN or inf, a loss that is NaN.
    """
    value = raw_loss_and_gradient(view, x, y, loss=loss, target=target)
    bad = int(((~torch.isfinite(value.gradient)).flatten(1).any(1) | value.loss.isnan()).sum())
    if bad:
        raise FloatingPointError(
            f"the {view.gradient} gradient is NaN or inf on {bad} of {len(x)} images: the attack cannot proceed"
        )
    return value


def raw_loss_and_gradient(
    view: AttackerView, x: Tensor, y: Tensor, *, loss: str | Loss, target: Tensor | None = None
) -> Value:
    """As ``loss_and_gradient``, with whatever comes out; a block of images at a time, so that the draws fit."""
    function = _function(loss, LOSSES if target is None else TARGETED)

    def block(part: slice) -> Value:
        classes = (y[part],) if target is None else (y[part], target[part])
        return _block(view, x[part], lambda logits: function(logits, *classes))

    losses, gradients = zip(*_blocks(view, x, block), strict=True)
    return Value(torch.cat(losses), torch.cat(gradients))


@torch.no_grad()
def mean_loss(view: AttackerView, x: Tensor, y: Tensor, *, loss: str | Loss) -> Tensor:
    """The untargeted loss alone at ``x``: (B, ...), (B,) -> (B,), a draw a forward pass.

    Raises:
        ValueError: unknown loss.
        FloatingPointError: logits with NaN or inf.
    """
    function = _function(loss, LOSSES)
    losses = torch.cat(_blocks(view, x, lambda part: function(view.logits(x[part]), y[part])))
    bad = int((~torch.isfinite(losses)).sum())
    if bad:
        raise FloatingPointError(f"the logits are NaN or inf on {bad} of {len(x)} images: the attack cannot proceed")
    return losses


def paired_losses(
    view: AttackerView, points: Sequence[Tensor], y: Tensor, *, loss: str | Loss, seed: int, calls: int = 1
) -> Tensor:
    """The mean loss of each of P points over ``calls`` calls, all on the same fresh draws: (P, B).

    Common random numbers: what differs is the point. Raises as ``mean_loss``.
    """
    losses: list[Tensor] = []
    for point in points:
        with view.seeded(seed):
            losses.append(torch.stack([mean_loss(view, point, y, loss=loss) for _ in range(calls)]).mean(0))
    return torch.stack(losses)


@torch.no_grad()
def likeliest_wrong_classes(view: AttackerView, x: Tensor, y: Tensor, *, count: int) -> Tensor:
    """The wrong classes with the largest mean probability over the view's draws, largest first: (B, count).

    Raises:
        ValueError: count not in 1 to C - 1.
    """
    mean = torch.cat(_blocks(view, x, lambda part: log_mean_prob(view.logits(x[part]))))
    if not 1 <= count < mean.shape[-1]:
        raise ValueError(f"of {mean.shape[-1]} classes 1 to {mean.shape[-1] - 1} can be targets, got {count}")
    return mean.scatter(-1, _index(mean, y), -torch.inf).topk(count, -1).indices


def _blocks(view: AttackerView, x: Tensor, work: Callable[[slice], Result]) -> list[Result]:
    """``work`` for blocks of images that fit with all their draws, in one call of the model."""

    def attempt(rows: int) -> list[Result]:
        results = in_blocks(view.model, len(x), rows, work)
        if rows < view.images_per_pass(x.device):
            view.limit_images(rows)
        return results

    with view.model.noise.call():
        return halving(min(view.images_per_pass(x.device), max(1, len(x))), attempt)


def _block(view: AttackerView, x: Tensor, loss: Callable[[Tensor], Tensor]) -> Value:
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        value = loss(view.logits(x))
        # A model that cuts itself off from its input has gradient zero; the flags say so.
        found = torch.autograd.grad(value.sum(), x, allow_unused=True)[0] if value.requires_grad else None
    return Value(value.detach(), torch.zeros_like(x) if found is None else found)


def _function(loss: str | Loss, known: dict[str, Loss]) -> Loss:
    if not isinstance(loss, str):
        return loss
    if loss not in known:
        raise ValueError(f"unknown loss {loss!r}; known: {', '.join(known)}")
    return known[loss]


def _index(logits: Tensor, y: Tensor) -> Tensor:
    return y.expand(logits.shape[:-1])[..., None]


def _of_class(logits: Tensor, y: Tensor) -> Tensor:
    return logits.gather(-1, _index(logits, y))[..., 0]


def _largest(logits: Tensor, count: int) -> Tensor:
    if logits.shape[-1] < count:
        raise ValueError(f"this loss needs at least {count} classes, the model has {logits.shape[-1]}: take margin")
    return logits.topk(count, -1).values
