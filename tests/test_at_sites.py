"""Policies at chosen sites: what is not chosen is left alone, what is chosen has the policy's law."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from sap_art import SAP, DefendedModel, suites
from sap_art.policies import RNW, AtSites, parse_policy
from sap_art.policies.at_sites import parse_sites, sites_as_text

H = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.0, 0.25])


class Seen(nn.Module):
    """Keeps what passes through it."""

    def forward(self, h: Tensor) -> Tensor:
        self.value = h.detach()
        return h


def three() -> nn.Sequential:
    """Three activations, each followed by one that keeps what came out of it."""
    return nn.Sequential(nn.Flatten(), *(module for _ in range(3) for module in (nn.ReLU(), Seen())))


def outputs(policy: AtSites | SAP, x: Tensor, *, seed: int = 1) -> list[Tensor]:
    """What comes out of each of the three."""
    net = three()
    DefendedModel(net, policy, seed=seed).single(x)
    return [module.value for module in net if isinstance(module, Seen)]


def test_what_is_not_chosen_is_untouched_and_the_rest_has_sap_s_law() -> None:
    """Bit by bit before and after; at the chosen site mean h and variance h^2 (1/q - 1), within five s.e."""
    n = 40_000
    first, second, third = outputs(AtSites(SAP(50), (1,)), H.expand(n, -1))
    q = 1 - (1 - H.double() / H.sum().double()) ** 3
    odds = torch.where(q > 0, 1 / q - 1, 0)
    variance, fourth = H.double() ** 2 * odds, H.double() ** 4 * (1 - q) * (odds**3 + 1)

    assert torch.equal(first, H.expand(n, -1))
    assert torch.equal(third, second)
    found = second.double()
    assert ((found.mean(0) - H).abs() <= 5 * (variance / n).sqrt() + 1e-6).all()
    spread = ((found - H) ** 2).mean(0) - variance
    assert (spread.abs() <= 5 * ((fourth - variance**2).clamp(min=0) / n).sqrt() + 1e-6).all()


def test_a_chosen_site_draws_what_it_draws_where_all_are_chosen() -> None:
    """The first one, whose input is the same; and the order of the calls is that of the numbers."""
    x = H.expand(50, -1)
    everywhere, chosen = outputs(SAP(50), x), outputs(AtSites(SAP(50), (0, 2)), x)

    assert torch.equal(chosen[0], everywhere[0])
    assert torch.equal(chosen[1], chosen[0])
    assert not torch.equal(chosen[2], chosen[1])


def test_all_sites_are_the_policy_itself(net: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    """Of the shipped net, with each gradient estimator."""
    x = images[0][:2].clone().requires_grad_()
    for gradient in ("bpda", "frozen", "autograd"):
        models = [
            DefendedModel(net, parse_policy(spec), seed=3, gradient=gradient) for spec in ("sap:80", "sap:80@0-18")
        ]
        logits = [model(x) for model in models]
        gradients = [torch.autograd.grad(out.sum(), x)[0] for out in logits]

        assert torch.equal(*logits)
        assert torch.equal(*gradients)


def test_sites_of_weights_are_tensors() -> None:
    """In the net's order; the others are the net's own."""
    net = nn.Sequential(nn.Linear(6, 4), Seen(), nn.Linear(4, 3))
    model, x = DefendedModel(net, AtSites(RNW(1.0), (1,)), seed=1), H[None]
    drawn, seen = model(x), cast(Seen, net[1]).value

    assert torch.equal(seen, net[0](x))
    assert not torch.equal(drawn, net(x))
    assert [site.name for site in model.sites] == ["0.weight", "2.weight"]
    assert (model.per_example, model.policy.where) == (False, "weight")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sap:50@0,3", "sap:50@0,3 names site 3, but Sequential has 3, which are numbered 0 to 2"),
        ("rnw:1@0-9", "names site 9, but Sequential has 1, which are numbered 0 to 0"),
        ("athalye:100@1", "names site 1, but Sequential has 1,"),
    ],
)
def test_a_site_that_the_net_does_not_have(spec: str, message: str) -> None:
    """How many it has is said, whatever the policy acts on."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), *three())
    with pytest.raises(ValueError, match=message):
        DefendedModel(net, parse_policy(spec), seed=1)(torch.rand(1, 3, 5, 5))


@pytest.mark.parametrize(
    ("sites", "text"),
    [((0,), "0"), ((0, 5, 18), "0,5,18"), (tuple(range(10)), "0-9"), ((0, 1, 3, 4, 5, 9), "0-1,3-5,9")],
)
def test_sites_as_text(sites: tuple[int, ...], text: str) -> None:
    """There and back, with the policy's own options too."""
    assert (sites_as_text(sites), parse_sites(text)) == (text, sites)
    policy = parse_policy(f"sap:50:bernoulli@{text}")
    assert policy == AtSites(SAP(50, "bernoulli"), sites)
    assert policy.spec == f"sap:50:bernoulli@{text}"
    assert parse_policy("sap:1@0,1,2").spec == "sap:1@0-2"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sap:100@", "policy 'sap:100@': sites must be numbers and ranges from 0, such as 0-9 or 0,5,18, got ''"),
        ("sap:100@5-3", "got '5-3'"),
        ("sap:100@-1", "got '-1'"),
        ("sap:100@1,,2", "got '1,,2'"),
        ("sap:100@0-99999", "got '0-99999'"),
        ("sap:100@1@2", "got '1@2'"),
        ("sap:100@1.5", "got '1.5'"),
        ("sap:100@\u0663", "sites must be numbers"),
        ("sap:100@3,3", "sites must be numbers from 0 that rise, at least one, got .3, 3.; for all sites, .*: sap:100"),
        ("sap:100@5,0-2", "that rise"),
        ("swap:100@1", "unknown policy 'swap:100'"),
        ("sap@1", "must be sap:PERCENT"),
    ],
)
def test_bad_sites_are_refused_before_any_work(spec: str, message: str, tmp_path: Path) -> None:
    """By whoever reads a spec; a suite is not even loaded."""
    with pytest.raises(ValueError, match=message):
        parse_policy(spec)
    suite = tmp_path / "a.toml"
    suite.write_text(f'name = "x"\ntier = "smoke"\nentries = [{{model = "a", policy = "{spec}"}}]\n', encoding="utf-8")
    with pytest.raises(ValueError, match=message.split("; ")[0]):
        suites.load(str(suite))


def test_sites_are_chosen_once() -> None:
    """And at least one of them."""
    with pytest.raises(ValueError, match="sites are chosen once, but sap:50@1 has its own"):
        AtSites(AtSites(SAP(50), (1,)), (1,))
    for sites in ((), (-1, 2), (2, 1), (1, 1)):
        with pytest.raises(ValueError, match="must be numbers from 0 that rise"):
            AtSites(SAP(50), sites)
