"""Controls: defences whose worth is known, to put the evaluator on trial. One function each, for FILE.py:FUNCTION.

    sap-art bench --model benchmarks/controls/models.py:dropout --output DIR

All but the last ones stand on the undefended net. Whatever is random draws from torch's global generator.
``expectations.toml`` says what must come out, and why.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sap_art import data, wrap, zoo
from sap_art.stochastic import StochasticModel

BASE, TRAINED = "preact-resnet20", "preact-resnet20-fast"
SIGMA = 8 / 255
NEGLIGIBLE = 1e-4
CLASSES, LOGIT = 10, 5.0


class Before(nn.Module):
    """``net`` after a change of its input: (B, 3, 32, 32) in [0, 1] -> (B, 10) logits."""

    def __init__(self, change: Callable[[Tensor], Tensor], net: nn.Module) -> None:
        super().__init__()
        self.change, self.net = change, net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(self.change(x))
        return logits


class Scaled(nn.Module):
    """``net`` with its logits times ``factor``: a softmax of temperature 1 / factor."""

    def __init__(self, factor: float, net: nn.Module) -> None:
        super().__init__()
        self.factor, self.net = factor, net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return self.factor * logits


class SlidingMask:
    """A grey window that hides a tenth of the pixels and moves on by one pixel every eight calls: no law of its own."""

    HIDDEN, CALLS = 102, 8

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Tensor) -> Tensor:
        pixels = x.shape[-2] * x.shape[-1]
        first, self.calls = self.calls // self.CALLS, self.calls + 1
        where = torch.arange(first, first + self.HIDDEN, device=x.device) % pixels
        hidden = torch.zeros(pixels, dtype=torch.bool, device=x.device).index_fill(0, where, True)
        return x.masked_fill(hidden.view(x.shape[-2:]), 0.5)


class Remembers(nn.Module):
    """``net``, but an input within 12/255 of an earlier one gets that one's answer, whatever has become of it."""

    NEAR = 12 / 255

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.asked, self.said = torch.empty(0), torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        flat, now = x.detach().flatten(1), logits.detach()
        if len(self.asked) == 0:
            self.asked, self.said = flat, now
        distance, nearest = torch.cdist(flat, self.asked, p=float("inf")).min(1)
        new = distance >= self.NEAR
        answer = torch.where(new[:, None], now, self.said[nearest])
        self.asked, self.said = torch.cat([self.asked, flat[new]]), torch.cat([self.said, now[new]])
        return logits - now + answer


class Dropout(nn.Module):
    """An activation, then dropout that stays on in eval mode."""

    def __init__(self, share: float, activation: nn.Module) -> None:
        super().__init__()
        self.share, self.activation = share, activation

    def forward(self, h: Tensor) -> Tensor:
        return F.dropout(self.activation(h), self.share, training=True)


class KWinners(nn.Module):
    """The largest values of a map stay, all others become 0 (Xiao et al. 2020, arXiv:1905.10510, equation 3).

    (B, C, H, W) -> the same; ``share`` in (0, 1] of the C H W values of an image win. Not continuous in its input.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, h: Tensor) -> Tensor:
        flat = h.flatten(1)
        least = flat.topk(max(1, round(self.share * flat.shape[1])), dim=1).values[:, -1:]
        return torch.where(flat >= least, flat, 0).view_as(h)


class KnowsItsImages(nn.Module):
    """It knows the test images of ``data.load`` and takes an input for the one at the smallest angle, from mid-grey."""

    images: Tensor
    directions: Tensor
    labels: Tensor

    def __init__(self) -> None:
        super().__init__()
        images, labels = data.load("cifar10")
        self.register_buffer("images", images.flatten(1), persistent=False)
        self.register_buffer("directions", F.normalize(self.images - 0.5), persistent=False)
        self.register_buffer("labels", labels, persistent=False)

    def recognise(self, flat: Tensor) -> Tensor:
        """Numbers (B,) of the images that (B, 3072) are taken for."""
        return ((flat.detach() - 0.5) @ self.directions.T).argmax(1)


class Coin(KnowsItsImages):
    """Right with probability ``p``, image by image and call by call, whatever is done to an image."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        label = self.labels[self.recognise(flat)]
        right = torch.rand(len(x), device=x.device) < self.p
        predicted = torch.where(right, label, (label + 1) % CLASSES)
        return LOGIT * F.one_hot(predicted, CLASSES) + 0 * flat.sum(1, keepdim=True)


class SecretDirection(KnowsItsImages):
    """Right, but in a share of the calls only while an image has not moved along a direction that the call draws.

    The direction r has d entries of 1 and -1. The logit of the label is proportional to 1 - 2 r . delta / (8/255 d),
    below 0 where the perturbation delta is near 8/255 r. One that does not know r has r . delta of standard deviation
    |delta| <= 8/255 sqrt(d), and would need d / 2: 28 of them.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        number = self.recognise(flat)
        direction = 2 * torch.randint(0, 2, flat.shape, device=x.device) - 1
        open_to_it = torch.rand(len(x), device=x.device) < self.share
        moved = (direction * (flat - self.images[number])).mean(1) / SIGMA
        margin = 1 - 2 * open_to_it * moved
        return LOGIT * margin[:, None] * F.one_hot(self.labels[number], CLASSES)


def undefended() -> nn.Module:
    return zoo.load(BASE)


def zero_gradient() -> nn.Module:
    """Cut off from its input: every gradient is exactly zero."""
    return Before(torch.Tensor.detach, undefended())


def cold_softmax() -> nn.Module:
    """Logits times 1,000: in float32 the cross-entropy of what is right is 0, and so is its gradient."""
    return Scaled(1000.0, undefended())


def quantised() -> nn.Module:
    """Pixels rounded to 8 levels, whose derivative is 0 (Guo et al. 2018, arXiv:1711.00117, bit depth)."""
    return Before(lambda x: (7 * x).round() / 7, undefended())


def sign_flips() -> nn.Module:
    """The forward pass of the net itself; each pixel's gradient has a random sign."""
    return Before(_flip_gradient, undefended())


def nan_gradient() -> nn.Module:
    """A branch that is never taken divides by zero: its gradient is NaN all the same."""
    return Before(lambda x: x + torch.where(x > 2, x / (x - x), 0 * x), undefended())


def per_batch_noise() -> nn.Module:
    """One noise image for the whole batch, where ``wrap`` takes noise per example for granted."""
    return Before(lambda x: x + SIGMA * torch.randn(x.shape[1:], device=x.device), undefended())


def stateful_mask() -> nn.Module:
    """No randomness at all, only a state that moves with the calls."""
    return Before(SlidingMask(), undefended())


def remembers() -> nn.Module:
    """A memory of earlier inputs: to who asks for the clean image first, nothing near it is adversarial."""
    return Remembers(undefended())


def dropout() -> nn.Module:
    """5 % of the units after each of the 19 activations."""
    return _with_activations(undefended(), lambda activation: Dropout(0.05, activation))


def resize_and_pad() -> nn.Module:
    """Random resizing and padding (Xie et al. 2018, arXiv:1711.01991) by up to 11 %, as there; image by image."""
    return Before(lambda x: torch.cat([_resized(image, 35) for image in x.split(1)]), undefended())


def input_noise() -> nn.Module:
    """Gaussian, with a standard deviation of 8/255."""
    return Before(lambda x: x + SIGMA * torch.randn_like(x), undefended())


def k_winners() -> nn.Module:
    """In place of all activations; deterministic."""
    return _with_activations(undefended(), lambda activation: KWinners(0.3))


def coin() -> nn.Module:
    return Coin(0.7)


def sign_flips_of_a_known_net() -> StochasticModel:
    """``sign_flips``, whose net is named: transfer attacks take that one's gradient."""
    return wrap(sign_flips(), dense=undefended())


def secret_direction() -> nn.Module:
    """In 30 % of the calls."""
    return SecretDirection(0.3)


def trained() -> nn.Module:
    """An adversarially trained net with noise that decides nothing. Raises ValueError while there is no such net."""
    return Before(lambda x: x + NEGLIGIBLE * torch.randn_like(x), trained_dense())


def trained_dense() -> nn.Module:
    """The same net without noise."""
    return zoo.load(TRAINED)


def _flip_gradient(x: Tensor) -> Tensor:
    still = x.detach()
    return still + (2 * torch.randint(0, 2, x.shape, device=x.device) - 1) * (x - still)


def _resized(image: Tensor, size: int) -> Tensor:
    """(1, 3, H, H) enlarged to a random side in [H, size) and put at a random place of a black square of ``size``."""
    side = int(torch.randint(image.shape[-1], size, ()))
    left, top = torch.randint(0, size - side + 1, (2,)).tolist()
    enlarged = F.interpolate(image, size=side, mode="nearest")
    return F.pad(enlarged, (left, size - side - left, top, size - side - top))


def _with_activations(net: nn.Module, make: Callable[[nn.Module], nn.Module]) -> nn.Module:
    names = [name for name, module in net.named_modules() if isinstance(module, nn.ReLU)]
    for name in names:
        net.set_submodule(name, make(net.get_submodule(name)))
    return net
