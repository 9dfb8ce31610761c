"""GPU memory of forward and backward with SAP-100 beside the dense net; exercised on machines that have a GPU."""

from __future__ import annotations

from functools import partial

import torch
from forward import DENSE, NET, defended, evidence, input_gradient, load
from ratios import Against, Section, compare
from setting import Setting
from torch import Tensor, nn

from sap_art.gradients import RANDOM_ESTIMATORS

TARGET = 1.3
"""Times the peak of the dense net, at most."""

MIB = 2**20


def measure(setting: Setting) -> Section:
    title = f"Peak memory of {NET}, forward and backward"
    if setting.device.type != "cuda":
        return Section("memory", title, "MiB", (), "Not measured: it needs --device cuda.")
    net, images = load(setting, setting.size.images)
    models = {DENSE: net}
    for gradient in RANDOM_ESTIMATORS:
        for kernel in setting.kernels:
            models[f"SAP {gradient}, {kernel}"] = defended(net, kernel, gradient=gradient)
    peaks = {name: [_peak(model, images)] for name, model in models.items()}
    columns = [Against(DENSE, faster=False, targets={name: TARGET for name in models if name != DENSE})]
    rows = compare({"images": len(images)}, peaks, columns)
    return Section("memory", title, "MiB", tuple(rows), "torch.cuda.max_memory_allocated, weights and images included.")


def _peak(model: nn.Module, images: Tensor) -> float:
    """MiB at most allocated during one pass, after one that is not counted."""
    work = partial(input_gradient, partial(evidence, model), images)
    work()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / MIB
