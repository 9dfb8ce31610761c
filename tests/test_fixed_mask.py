"""The deterministic relative of a net under SAP: the law of its mask, and that nothing about it is random."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from sap_art import SAP, DefendedModel
from sap_art.integrations.robustbench.submission import FixedMask, fix_mask
from sap_art.integrations.robustbench.submission.fixed_mask import mean_share

UNITS, SEEDS = 12, 1000
IMAGES = torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(1))


def defended(*, sites: int = 1, percent: float = 100.0) -> DefendedModel:
    """Linear layers with a ReLU behind each, then the logits; weights from a seed."""
    generator = torch.Generator().manual_seed(7)
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(sites):
        layers += [nn.Linear(12, UNITS), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(UNITS, 4)).eval()
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return DefendedModel(net, SAP(percent), seed=0)


def scales(model: FixedMask) -> list[Tensor]:
    """What each site is multiplied by."""
    return [model.get_buffer(f"scale_{i}") for i in range(sum("scale" in name for name, _ in model.named_buffers()))]


def test_the_mean_share_is_that_of_each_image_s_own_sum() -> None:
    """By hand; an image of zeros has no shares."""
    h = torch.tensor([[1.0, -3.0], [0.0, 0.0], [5.0, 5.0]])

    assert mean_share(h).tolist() == [[pytest.approx((0.25 + 0 + 0.5) / 3), pytest.approx((0.75 + 0 + 0.5) / 3)]]
    assert mean_share(torch.ones(2, 3, 4, 4)).shape == (1, 3, 4, 4)


@pytest.mark.parametrize("percent", [50.0, 200.0])
def test_units_are_kept_with_sap_s_probability_of_their_mean_share(percent: float) -> None:
    """Over seeds, within five standard errors; a kept unit is divided by it, so a layer's mean is the layer."""
    model = defended(percent=percent)
    h = model.net[:3](IMAGES).relu() if isinstance(model.net, nn.Sequential) else IMAGES
    shares = (h / h.sum(1, keepdim=True)).mean(0)
    r = round(percent * UNITS / 100)
    q = 1 - (1 - shares.double()) ** r
    drawn = torch.cat([scales(fix_mask(model, IMAGES, seed=seed))[0] for seed in range(SEEDS)]).double()
    kept = drawn > 0
    z = (kept.double().mean(0) - q) / (q * (1 - q) / SEEDS).sqrt()

    assert (shares == 0).any()
    assert z[(q > 0) & (q < 1)].abs().max() < 5
    assert (drawn[:, shares == 0] == 1).all()
    kept &= shares > 0
    torch.testing.assert_close(drawn[kept], (1 / q).expand_as(drawn)[kept], rtol=1e-5, atol=0)


def test_each_site_has_a_draw_of_its_own() -> None:
    """Two layers that give the same constants: their masks are equal no more often than by chance."""
    model = defended(sites=2, percent=50)
    for layer in cast(nn.Sequential, model.net)[1:4:2]:
        layer.weight.data.fill_(0)
        layer.bias.data.fill_(1)
    drawn = torch.stack([torch.cat(scales(fix_mask(model, IMAGES, seed=seed))) > 0 for seed in range(SEEDS)])
    q = 1 - (1 - 1 / UNITS) ** (UNITS // 2)
    equal = (drawn[:, 0] == drawn[:, 1]).double().mean().item()
    chance = q**2 + (1 - q) ** 2

    assert abs(equal - chance) < 5 * (UNITS * chance * (1 - chance) / (SEEDS * UNITS)) ** 0.5


def test_a_site_is_drawn_from_what_the_masks_before_it_leave() -> None:
    """Not from the activations of the net without them."""
    model = defended(sites=2, percent=50)
    net = cast(nn.Sequential, model.net)
    first, second = scales(fix_mask(model, IMAGES, seed=3))
    h = net[3:5](net[1:3](IMAGES.flatten(1)) * first)
    q = 1 - (1 - mean_share(h)[0].double()) ** (UNITS // 2)
    kept = (second[0] > 0) & (q > 0)

    assert (first == 0).any()
    torch.testing.assert_close(second[0][kept].double(), 1 / q[kept], rtol=1e-5, atol=0)


def test_it_computes_the_net_with_constants_at_the_sites() -> None:
    """By hand, for images that the mask was not drawn from; the same each time and alone as in a batch."""
    model = defended(sites=2)
    net = cast(nn.Sequential, model.net)
    fixed = fix_mask(model, IMAGES, seed=3)
    first, second = scales(fixed)
    x = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(2))
    by_hand = net[5](net[3:5](net[1:3](x.flatten(1)) * first) * second)

    assert torch.equal(fixed(x), by_hand)
    assert torch.equal(fixed(x), fixed(x))
    torch.testing.assert_close(torch.cat([fixed(one[None]) for one in x]), by_hand)


def test_a_seed_is_a_mask() -> None:
    """And the global generator has no part in it, nor is it touched; net and model stay as they were."""
    model = defended()
    before = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    one, same, other = (scales(fix_mask(model, IMAGES, seed=seed))[0] for seed in (1, 1, 2))

    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(before[1], torch.get_rng_state())
    assert before[0].keys() == model.state_dict().keys()


def test_its_gradient_is_that_of_what_it_computes() -> None:
    """Central differences in float64."""
    fixed = fix_mask(defended(), IMAGES, seed=1).double()
    x = IMAGES.double().requires_grad_()

    assert torch.autograd.gradcheck(fixed, (x,))


def test_a_dead_layer_is_kept() -> None:
    """SAP never draws its units, and never changes them."""
    model = defended()
    net = cast(nn.Sequential, model.net)
    net[1].bias.data.fill_(-1e6)

    assert scales(fix_mask(model, IMAGES, seed=1))[0].tolist() == [[1.0] * UNITS]


def test_large_percents_keep_everything() -> None:
    """Then it is the net itself."""
    model = defended(percent=1e7)

    torch.testing.assert_close(fix_mask(model, IMAGES, seed=1)(IMAGES), model.net(IMAGES))


def test_what_has_no_such_mask_is_refused() -> None:
    """Another policy, or no image."""
    other = cast(Any, SimpleNamespace(policy=SimpleNamespace(spec="dropout:0.5")))

    with pytest.raises(ValueError, match=r"only SAP has a mask .* got dropout:0\.5"):
        fix_mask(other, IMAGES, seed=0)
    with pytest.raises(ValueError, match="got none"):
        fix_mask(defended(), IMAGES[:0], seed=0)
