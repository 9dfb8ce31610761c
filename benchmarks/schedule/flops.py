"""Floating-point operations of one forward pass of each model of RobustBench's CIFAR-10 Linf zoo: ``flops.csv``.

    python benchmarks/schedule/flops.py

On random weights, without their values where a net allows that; a multiplication and an addition are two operations.
"""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sap_art.integrations.robustbench import build, zoo_models

SHAPE = (1, 3, 32, 32)


def main() -> None:
    with Path(__file__).with_name("flops.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["id", "flops"])
        for zoo_id in zoo_models():
            rows.writerow([zoo_id, forward_flops(build(zoo_id, seed=0))])


def forward_flops(net: nn.Module) -> int:
    try:
        return _count(net, "meta")
    except (RuntimeError, NotImplementedError):  # it looks at values, or makes tensors of its own on the CPU
        return _count(net.to_empty(device="cpu"), "cpu")


@torch.no_grad()
def _count(net: nn.Module, device: str) -> int:
    with FlopCounterMode(display=False) as counter:
        net.to(device)(torch.zeros(SHAPE, device=device))
    return counter.get_total_flops()


if __name__ == "__main__":
    main()
