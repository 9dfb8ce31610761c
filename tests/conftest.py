"""What many tests need: the net and the images that ship with the package."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor, nn

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports triton: its kernels run on the CPU then, slowly


from sap_art import data, zoo


@pytest.fixture(scope="session")
def net() -> nn.Module:
    """The shipped pre-activation ResNet-20."""
    return zoo.load("preact-resnet20")


@pytest.fixture(scope="session")
def images() -> tuple[Tensor, Tensor]:
    """The first 64 bundled test images and their labels."""
    return data.load("cifar10", n=64, source=None)


@pytest.fixture
def generator() -> torch.Generator:
    """A generator that is new for each test."""
    return torch.Generator().manual_seed(20180303)
