"""The threat model: how far an adversarial image may lie from the clean one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

NORMS = ("Linf", "L2")
TOLERANCE = 1e-6


@dataclass(frozen=True)
class ThreatModel:
    """An eps-ball around each image, within the pixel range [0, 1].

    Args:
        norm: ``Linf`` or ``L2`` (over all non-batch axes).
        eps: radius in units of the pixel range, > 0; 8/255 is the ranked setting on CIFAR-10.

    Raises:
        ValueError: unknown norm; eps not a finite number above 0.

    >>> threat = ThreatModel("Linf", 0.25)
    >>> threat.project(torch.tensor([[0.5, 0.9]]), torch.tensor([[0.0, 2.0]]))
    tensor([[0.2500, 1.0000]])
    """

    norm: str = "Linf"
    eps: float = 8 / 255

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(f"unknown norm {self.norm!r}; known: {', '.join(NORMS)}")
        if not (math.isfinite(self.eps) and self.eps > 0):
            raise ValueError(f"eps must be a finite number above 0, got {self.eps}")

    def distance(self, x: Tensor, x_adv: Tensor) -> Tensor:
        """Distance of each pair of images in this norm: (B, ...), (B, ...) -> (B,)."""
        difference = (x_adv.double() - x.double()).flatten(1)
        return difference.abs().amax(1) if self.norm == "Linf" else difference.norm(dim=1)

    def require(self, x: Tensor, x_adv: Tensor) -> None:
        """Raise ValueError unless every image of ``x_adv`` is within eps + 1e-6 of ``x`` and in [0, 1]."""
        require_images(x_adv, "x_adv")
        if x.shape != x_adv.shape:
            raise ValueError(f"x and x_adv must have one shape, got {tuple(x.shape)} and {tuple(x_adv.shape)}")
        if len(x) and (worst := self.distance(x, x_adv).max().item()) > self.eps + TOLERANCE:
            raise ValueError(f"x_adv is {worst:.6g} from x in {self.norm}, allowed {self.eps:.6g}")

    def project(self, x: Tensor, candidate: Tensor) -> Tensor:
        """Nearest allowed images along the way: inside the ball around ``x``, then inside [0, 1]; same shapes."""
        step = candidate - x
        if self.norm == "Linf":
            return (x + step.clamp(-self.eps, self.eps)).clamp(0, 1)
        length = step.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, *[1] * (x.ndim - 1))
        return (x + step * (self.eps / length).clamp(max=1)).clamp(0, 1)

    def ascent_direction(self, gradient: Tensor) -> Tensor:
        """Steepest ascent of unit size: sign for Linf, the normalised gradient for L2; zero stays zero."""
        if self.norm == "Linf":
            return gradient.sign()
        length = gradient.flatten(1).norm(dim=1).view(-1, *[1] * (gradient.ndim - 1))
        return gradient / torch.where(length > 0, length, 1)

    def random_start(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """A random point of the ball around each image, clipped to [0, 1]: (B, ...) -> (B, ...).

        Linf: uniform in the cube. L2: uniform direction, radius eps * U^(1/d), so uniform in the ball.
        """
        if self.norm == "Linf":
            noise = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
            return (x + self.eps * (2 * noise - 1)).clamp(0, 1)
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        radius = torch.rand((len(x), *[1] * (x.ndim - 1)), generator=generator, dtype=x.dtype, device=x.device)
        radius = self.eps * radius ** (1 / max(1, x[:1].numel()))
        return (x + radius * self.ascent_direction(noise)).clamp(0, 1)


def require_images(x: Tensor, name: str = "x") -> None:
    """Raise ValueError unless ``x`` is a floating (B, ...) tensor of finite values in [0, 1]."""
    if x.ndim < 2 or not x.is_floating_point():
        raise ValueError(f"{name} must be a floating tensor (B, ...), got {x.dtype} {tuple(x.shape)}")
    if not torch.isfinite(x).all():
        raise ValueError(f"{name} contains NaN or inf")
    if x.numel() and (x.min() < 0 or x.max() > 1):
        raise ValueError(f"{name} must lie in [0, 1], got [{x.min().item():.6g}, {x.max().item():.6g}]")


def require_labels(y: Tensor, images: int, *, classes: int | None = None) -> None:
    """Raise ValueError unless ``y`` is an integer tensor (images,) with values in [0, classes)."""
    if y.ndim != 1 or y.is_floating_point() or y.dtype == torch.bool or len(y) != images:
        raise ValueError(f"labels must be integers of shape ({images},), got {y.dtype} {tuple(y.shape)}")
    if len(y) and (y.min() < 0 or (classes is not None and y.max() >= classes)):
        top = "" if classes is None else f" to {classes - 1}"
        raise ValueError(f"labels must be 0{top}, got {int(y.min())} to {int(y.max())}")
