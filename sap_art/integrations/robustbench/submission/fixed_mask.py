"""A deterministic relative of a net under SAP: one mask for all images, drawn once and kept as a constant.

SAP's mask depends on the activations. Two things could be held: the uniforms, or the mask. With the uniforms held the
mask still jumps as the image moves, where there is no gradient: what RobustBench's rules are there to keep out. So the
mask is held here. Which units it keeps is decided once, from mean activations, for images that come later as for any
others; the net is piecewise smooth in the image as it was without SAP, and its gradient is that of what it computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from sap_art.defended import DefendedModel
from sap_art.policies import SAP
from sap_art.randomness import make_generator
from sap_art.sites import DEFAULT_SITES, Site, SiteRule, SiteScope


class FixedMask(nn.Module):
    """``net`` with the output of each activation multiplied by a constant; deterministic.

    (B, ...) in [0, 1] -> (B, C) logits. ``scale_0``, ``scale_1``, ... (1, ...) are buffers, one a site in call order:
    0 for a pruned unit, 1 / q for a kept one.
    """

    def __init__(self, net: nn.Module, scales: Sequence[Tensor], *, sites: SiteRule = DEFAULT_SITES) -> None:
        super().__init__()
        self.net = net
        self.rule = sites
        for number, scale in enumerate(scales):
            self.register_buffer(f"scale_{number}", scale)

    def forward(self, x: Tensor) -> Tensor:
        def visit(h: Tensor, site: Site) -> Tensor:
            return h * self.get_buffer(f"scale_{site.index}")

        with SiteScope(self.net, self.rule, visit):
            return cast(Tensor, self.net(x))


@torch.no_grad()
def fix_mask(model: DefendedModel, images: Tensor, *, seed: int) -> FixedMask:
    """Draw one mask a site for ``model``'s SAP and keep it: the net is shared, the result is in eval mode.

    At each site in call order, with the sites before it masked: w_j is the mean over ``images`` (B, ...) of
    |h_j| / sum_k |h_k|, and one draw of SAP's law (Dhillon et al. 2018, arXiv:1803.01442, Algorithm 1) is made as if
    the activation map were w. Unit j is kept with probability q_j = 1 - (1 - w_j)^r and multiplied by 1 / q_j, so that
    over such draws the mean of a layer is the layer without SAP, for any image. Units without a share, which SAP never
    draws and leaves at their 0, stay as they are.

    Args:
        images: not those that the result is scored on; their labels are not asked for.
        seed: of the draw.

    Raises:
        ValueError: the policy is not SAP, or there is no image.
    """
    policy = model.policy
    if not isinstance(policy, SAP):
        raise ValueError(f"only SAP has a mask that can be drawn from mean activations, got {policy.spec}")
    if len(images) == 0:
        raise ValueError("a mask needs images to draw it from, got none")
    scales, sites = list[Tensor](), model.rule or DEFAULT_SITES

    def visit(h: Tensor, site: Site) -> Tensor:
        share = mean_share(h)
        drawn = policy.draw(share, make_generator(h.device, seed, "mask", site.index)).scale.to(h.dtype)
        scales.append(torch.where(share > 0, drawn, 1))
        return h * scales[-1]

    with SiteScope(model.net, sites, visit):
        model.net(images)
    return FixedMask(model.net, scales, sites=sites).eval()


def mean_share(h: Tensor) -> Tensor:
    """Mean over images of each unit's share of the magnitude, |h_j| / sum_k |h_k|: (B, ...) -> (1, ...), sum <= 1.

    An image whose activations are all zero has no shares and counts as zeros.
    """
    size = h.abs().flatten(1)
    total = size.sum(1, keepdim=True)
    return (size / torch.where(total > 0, total, 1)).mean(0, keepdim=True).reshape(1, *h.shape[1:])
