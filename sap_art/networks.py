"""Network architectures by name; images in [0, 1] go in, logits come out, normalisation is inside."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2471, 0.2435, 0.2616)


class Normalize(nn.Module):
    """Per-channel standardisation: (B, 3, H, W) in [0, 1] -> (B, 3, H, W), (x - mean) / std."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        # Constants of the architecture, not weights: kept out of the state_dict, real on every device.
        self.register_buffer("mean", torch.tensor(mean, device="cpu").view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, device="cpu").view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class PreActBlock(nn.Module):
    """BN -> ReLU -> conv, twice, added to a path that no activation touches (He et al. 2016, arXiv:1603.05027)."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels_in)
        self.act1 = nn.ReLU()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.act2 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        same = stride == 1 and channels_in == channels_out
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(self.act1(self.norm1(x)))
        return self.shortcut(x) + self.conv2(self.act2(self.norm2(h)))


class PreActResNet(nn.Module):
    """CIFAR pre-activation ResNet of depth 6 * blocks + 2, the net of Dhillon et al. 2018 (arXiv:1803.01442).

    (B, 3, 32, 32) in [0, 1] -> (B, classes) logits. 16/32/64 channels, ``blocks`` blocks a stage and
    2 * 3 * blocks + 1 activations: two a block and the one before the pooling.
    """

    def __init__(self, *, blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.normalize = Normalize(CIFAR10_MEAN, CIFAR10_STD)
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        widths = [(16, 16, 1), (16, 32, 2), (32, 64, 2)]
        self.blocks = nn.Sequential(
            *(
                PreActBlock(width_in if i == 0 else width, width, stride=stride if i == 0 else 1)
                for width_in, width, stride in widths
                for i in range(blocks)
            )
        )
        self.norm = nn.BatchNorm2d(64)
        self.act = nn.ReLU()
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.blocks(self.stem(self.normalize(x)))
        return self.head(self.act(self.norm(h)).mean((2, 3)))


def preact_resnet20() -> PreActResNet:
    """Pre-activation ResNet-20: 0.27 million weights, 19 activations."""
    return PreActResNet(blocks=3)


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {"preact-resnet20": preact_resnet20}


def build(architecture: str, *, device: torch.device | str = "meta") -> nn.Module:
    """A net without meaningful weights, made on ``device`` without touching the global random generator.

    Raises ValueError for a name that is not in ``ARCHITECTURES``.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {architecture!r}; known: {', '.join(sorted(ARCHITECTURES))}")
    with torch.device("meta"):
        net = ARCHITECTURES[architecture]()
    if torch.device(device).type != "meta":
        constants = {name: b for name, b in net.named_buffers() if b.device.type != "meta"}
        net = net.to_empty(device=device)
        for name, value in constants.items():
            net.get_buffer(name).copy_(value)
    return net


@torch.no_grad()
def initialise(net: nn.Module, generator: torch.Generator) -> None:
    """Draw fresh weights in place: He-normal (fan out) convolutions and heads, unit batch norms (arXiv:1502.01852)."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
            module.reset_running_stats()
