"""ResNet-20 with SAP-100 beside the net without: the forward pass, and with the gradient of the input."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from peers import NaiveSAP
from ratios import Against, Row, Section, compare
from setting import Setting
from timing import Work, race
from torch import Tensor, nn

from sap_art import data, zoo
from sap_art.defended import DefendedModel
from sap_art.gradients import RANDOM_ESTIMATORS
from sap_art.policies import SAP

NET, DENSE = "preact-resnet20", "the dense net"
PLAIN_TARGET, COMPILED_TARGET = 2.5, 1.5
"""Times the cost of the dense net, at most."""


def measure(setting: Setting) -> Section:
    net, images = load(setting, setting.size.images)
    rows = [*_forward(net, images, setting), *_backward(net, images, setting)]
    note = "Backward gives the gradient of the logits' logsumexp by the images, and none of the parameters."
    return Section("forward", f"{NET} with SAP-100", "ms", tuple(rows), note)


def load(setting: Setting, images: int) -> tuple[nn.Module, Tensor]:
    """The trained net and the first test images, on the setting's device."""
    return zoo.load(NET, device=setting.device), data.load(n=images)[0].to(setting.device)


def input_gradient(score: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """d score / d images, for a scalar score: the shape of ``images``."""
    images = images.detach().requires_grad_()
    return torch.autograd.grad(score(images), images)[0]


def evidence(model: nn.Module, images: Tensor) -> Tensor:
    """The sum of the images' logsumexp, a scalar whose gradient reaches every logit."""
    return model(images).logsumexp(1).sum()


def defended(net: nn.Module, kernel: str, *, sampler: str = "multinomial", gradient: str = "bpda") -> DefendedModel:
    return DefendedModel(net, SAP(100, sampler=sampler, kernel=kernel), seed=0, gradient=gradient)


def _forward(net: nn.Module, images: Tensor, setting: Setting) -> list[Row]:
    models = {DENSE: net, "SAP by torch.multinomial + scatter": DefendedModel(net, NaiveSAP(), seed=0)}
    targets: dict[str, float] = {}
    for sampler in ("multinomial", "bernoulli"):
        for kernel in setting.kernels:
            name = f"SAP {sampler}, {kernel}"
            models[name], targets[name] = defended(net, kernel, sampler=sampler), _target(kernel)
    work: dict[str, Work] = {name: partial(model, images) for name, model in models.items()}
    with torch.no_grad():
        return _compare("forward", work, targets, setting, images=len(images))


def _backward(net: nn.Module, images: Tensor, setting: Setting) -> list[Row]:
    work: dict[str, Work] = {DENSE: partial(input_gradient, partial(evidence, net), images)}
    targets: dict[str, float] = {}
    for gradient in RANDOM_ESTIMATORS:
        for kernel in setting.kernels:
            model = defended(net, kernel, gradient=gradient)
            name = f"SAP {gradient}, {kernel}"
            work[name], targets[name] = partial(input_gradient, partial(evidence, model), images), _target(kernel)
    return _compare("forward and backward", work, targets, setting, images=len(images))


def _compare(
    step: str, work: dict[str, Work], targets: dict[str, float], setting: Setting, *, images: int
) -> list[Row]:
    times = race(work, rounds=setting.size.forward_rounds, device=setting.device)
    case = {"step": step, "images": images}
    return compare(case, times, [Against(DENSE, faster=False, targets=targets)])


def _target(kernel: str) -> float:
    return PLAIN_TARGET if kernel == "torch" else COMPILED_TARGET
