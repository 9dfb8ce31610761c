"""SAP as one layer, drawn and multiplied, beside dropout and beside a copy of the same bytes.

The targets are for GPUs, where a fused layer should cost little more than its memory traffic. As in a forward pass,
nothing waits for the GPU (``wait=False``).
"""

from __future__ import annotations

from functools import partial

import torch
from draw import relu_of_normals
from ratios import Against, Row, Section, compare
from setting import Setting
from timing import Work, race
from torch.nn import functional as F

from sap_art.sampling import prune

DROPOUT, COPY = "dropout", "copy"
DROPOUT_TARGET, COPY_TARGET = 1.5, 2.5
"""Times the cost, at most, for the compiled kernel on a GPU."""


def measure(setting: Setting) -> Section:
    rows = [row for shape in setting.size.layer_shapes for row in _rows(shape, setting)]
    note = "Targets are for a GPU's compiled kernel. The mask is what the backward pass of frozen and autograd keeps."
    return Section("layer", "SAP-100 as a layer", "ms", tuple(rows), note)


def _rows(shape: tuple[int, int], setting: Setting) -> list[Row]:
    h = relu_of_normals(shape, setting)
    work: dict[str, Work] = {DROPOUT: partial(F.dropout, h), COPY: partial(torch.empty_like(h).copy_, h)}
    for kernel in setting.kernels:
        draw = partial(prune, h, shape[1], setting.generator("draws"), kernel=kernel, wait=False)
        work[f"prune, {kernel}"] = draw
        work[f"prune and mask, {kernel}"] = partial(draw, keep=torch.empty(shape, dtype=torch.bool, device=h.device))
    times = race(work, rounds=setting.size.rounds, device=setting.device)
    case = {"B": shape[0], "N": shape[1], "r": shape[1]}
    compiled = [name for name in work if name.endswith(", auto")]
    columns = [
        Against(DROPOUT, faster=False, targets=dict.fromkeys(compiled, DROPOUT_TARGET)),
        Against(COPY, faster=False, targets=dict.fromkeys(compiled, COPY_TARGET)),
    ]
    return compare(case, times, columns)
