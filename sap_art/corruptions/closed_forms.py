"""Three corruptions of CIFAR-10-C that are one formula, for a check of the whole way without its files.

Formulas and severities are those of the published generator (github.com/hendrycks/robustness, make_cifar_c.py). The
other twelve need its textures, blurs and codecs: what comes out here is no ``corruptions_acc``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sap_art.corruptions.scoring import CorruptedImages
from sap_art.randomness import make_generator
from sap_art.store import tensor_sha256
from sap_art.threat import require_images, require_labels

SOURCE = "closed forms"
_BRIGHTNESS = (0.05, 0.1, 0.15, 0.2, 0.3)
_CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)
_NOISE = (0.04, 0.06, 0.08, 0.09, 0.1)


def brightness(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """The value of HSV plus c, at most 1; hue and saturation stay, black goes grey: (n, 3, H, W) -> the same."""
    del generator
    value = x.amax(1, keepdim=True)
    brighter = (value + _BRIGHTNESS[severity - 1]).clamp(max=1)
    return torch.where(value > 0, x * (brighter / torch.where(value > 0, value, 1)), brighter)


def contrast(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Deviations from the mean of each image and channel times c: (n, 3, H, W) -> the same."""
    del generator
    mean = x.mean((2, 3), keepdim=True)
    return (mean + _CONTRAST[severity - 1] * (x - mean)).clamp(0, 1)


def gaussian_noise(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    """Plus independent normal noise of standard deviation c: (n, 3, H, W) -> the same."""
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return (x + _NOISE[severity - 1] * noise).clamp(0, 1)


CLOSED_FORMS: dict[str, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "brightness": brightness,
    "contrast": contrast,
    "gaussian_noise": gaussian_noise,
}


def closed_forms(x: Tensor, y: Tensor, *, seed: int) -> CorruptedImages:
    """``x`` (n, 3, H, W) in [0, 1] under three corruptions, cut to multiples of 1/255 as in the published files.

    Args:
        x, y: clean images and labels (n,), on the CPU.
        seed: of the noise.

    Raises:
        ValueError: images outside [0, 1], labels that do not fit.
    """
    require_images(x)
    require_labels(y, len(x))

    def read(corruption: str, severity: int) -> Tensor:
        generator = make_generator("cpu", seed, corruption, severity)
        return CLOSED_FORMS[corruption](x, severity, generator).mul(255).floor().div(255)

    return CorruptedImages(SOURCE, tuple(CLOSED_FORMS), tensor_sha256(x, y, torch.tensor(seed)), y, read)
