"""Our APGD beside pyautoattack's on a deterministic net, at equal numbers of gradients.

    python benchmarks/attacks/apgd_parity.py --images 200 --gradients 20

Prints the accuracy that each leaves, in percent, and on how many images the two disagree.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor, nn

from sap_art import AttackerView, ThreatModel, data, zoo
from sap_art.attacks import eot_apgd

CASES = [(norm, loss, targets) for norm in ("Linf", "L2") for loss, targets in (("ce", 0), ("dlr", 0), ("dlr", 3))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--gradients", type=int, default=20, help="a climb")
    parser.add_argument("--linf", type=float, default=1.0, help="radius in 1/255")
    parser.add_argument("--l2", type=float, default=0.12)
    args = parser.parse_args()
    net = zoo.load("preact-resnet20")
    x, y = data.load("cifar10", n=args.images)
    clean = right(net, x, y)
    print(f"{args.images} images, {args.gradients} gradients a climb; clean {percent(clean)}")
    print(f"{'norm':6}{'loss':6}{'targets':>8}{'ours':>8}{'theirs':>8}{'only ours wins':>16}{'only theirs':>13}")
    for norm, loss, targets in CASES:
        threat = ThreatModel(norm, args.linf / 255 if norm == "Linf" else args.l2)
        view = AttackerView(net, gradient="autograd")
        points = eot_apgd(view, x, y, threat, seed=1, steps=args.gradients, loss=loss, targets=targets)
        ours = right(net, points, y)
        peer = right(net, pyautoattack(net, x, y, threat, gradients=args.gradients, loss=loss, targets=targets), y)
        only = (int((peer & ~ours).sum()), int((ours & ~peer).sum()))
        print(f"{norm:6}{loss:6}{targets:8}{percent(ours):>8}{percent(peer):>8}{only[0]:16}{only[1]:13}", flush=True)


def pyautoattack(
    net: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, gradients: int, loss: str, targets: int
) -> Tensor:
    """Its APGD, untargeted or towards the likeliest wrong classes; it takes one gradient more than ``n_iter``."""
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

    options: dict[str, Any] = {
        "n_iter": gradients - 1, "norm": threat.norm, "eps": threat.eps, "seed": 1, "device": "cpu"
    }  # fmt: skip
    if targets:
        return APGDAttack_targeted(net, n_target_classes=targets, **options).perturb(x, y)
    return APGDAttack(net, loss=loss, **options).perturb(x, y)


@torch.no_grad()
def right(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return net(x).argmax(1) == y


def percent(right: Tensor) -> str:
    return f"{100 * right.double().mean().item():.1f}"


if __name__ == "__main__":
    main()
