"""The paper's other defences, each against its closed form: mean, variance, gradients, every edge of its input."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from copy import deepcopy
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from sap_art.entries import make_entry
from sap_art.gradients import apply
from sap_art.policies import DRO, DWP, RNA, RNW, RSA, RSW, SAP, SWP, ActivationPolicy, AthalyeSAP, Policy, parse_policy
from sap_art.policies.base import as_text

H = torch.tensor([3.0, -2.0, 1.0, 0.5, 0.0, -0.25]).view(2, 3)
SHARE = H.abs().double() / 6.75

ON_MAPS: list[ActivationPolicy] = [DRO(0.3), RNA(0.4), RSA(0.4), AthalyeSAP(200)]
ON_WEIGHTS: list[Policy] = [RNW(0.4), RSW(0.4), SWP(50), SWP(150)]
RANDOM: list[Policy] = [*ON_MAPS, *ON_WEIGHTS]
ALL: list[Policy] = [*RANDOM, DWP(50)]
ESTIMATORS = ["bpda", "frozen", "autograd"]


def spec(policy: Policy) -> str:
    """The id of a case."""
    return policy.spec


def kept(q: Tensor) -> tuple[Tensor, Tensor]:
    """Variance and fourth central moment of h / q with probability q, else 0."""
    odds = torch.where(q > 0, 1 / q - 1, 0)
    return H.double() ** 2 * odds, H.double() ** 4 * (1 - q) * (odds**3 + 1)


def gaussian(sd: Tensor) -> tuple[Tensor, Tensor]:
    """Variance and fourth central moment."""
    return sd.double() ** 2, 3 * sd.double() ** 4


MOMENTS: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
    "dro:0.3": lambda: kept(torch.full_like(SHARE, 0.7)),
    "rna:0.4": lambda: gaussian(torch.full_like(SHARE, 0.4)),
    "rsa:0.4": lambda: gaussian(0.4 * H),
    "athalye:200": lambda: kept(1 - (-12 * SHARE).exp()),
    "rnw:0.4": lambda: gaussian(torch.full_like(SHARE, 0.4)),
    "rsw:0.4": lambda: gaussian(0.4 * H),
    "swp:50": lambda: kept(1 - (1 - SHARE) ** 3),
    "swp:150": lambda: kept(1 - (1 - SHARE) ** 9),
}


def samples(policy: Policy, h: Tensor, generator: torch.Generator) -> Tensor:
    """Draws of h (2, 3): of weights call by call, of maps image by image."""
    if policy.where == "weight":
        return torch.stack([policy(h, generator) for _ in range(8000)])
    return policy(h.expand(40_000, -1, -1), generator)


@pytest.mark.parametrize("policy", RANDOM, ids=spec)
def test_mean_and_variance(policy: Policy, generator: torch.Generator) -> None:
    """E[out] = h and the variance of the law, unit by unit, within five standard errors; other units tell nothing."""
    out = samples(policy, H, generator).double()
    n = len(out)
    variance, fourth = MOMENTS[policy.spec]()
    mean_error = 5 * (variance / n).sqrt() + 1e-6
    variance_error = 5 * ((fourth - variance**2).clamp(min=0) / n).sqrt() + 1e-5

    assert ((out.mean(0) - H).abs() <= mean_error).all()
    assert (((out - H).square().mean(0) - variance).abs() <= variance_error).all()
    if "swp" not in policy.spec:  # with a fixed number of draws one weight's gain is another's loss
        moving = out.flatten(1)[:, variance.flatten() > 0]
        correlation = torch.corrcoef(torch.cat([moving, moving.roll(1, 0)], 1).T)
        assert (correlation - torch.eye(len(correlation))).abs().max() < 5 / n**0.5


@pytest.mark.parametrize("policy", [RNA(0.5), RSA(0.5), RNW(0.5), RSW(0.5)], ids=spec)
def test_noise_is_gaussian(policy: Policy, generator: torch.Generator) -> None:
    """The shares within one, two and three deviations, and of each sign."""
    n = 100_000
    z = (policy(torch.ones(1, n, dtype=torch.float64), generator) - 1) / 0.5
    for share, seen in [*((math.erf(k / 2**0.5), z.abs() < k) for k in (1, 2, 3)), (0.5, z > 0)]:
        assert abs(seen.double().mean().item() - share) < 5 * (share * (1 - share) / n) ** 0.5


@pytest.mark.parametrize("shape", [(40,), (5, 8), (5, 2, 2, 2)])
def test_swp_is_sap_on_the_whole_tensor(shape: tuple[int, ...]) -> None:
    """The same bits from the same numbers, whatever the tensor's shape; the parameters are SAP's."""
    w = torch.randn(40, generator=torch.Generator().manual_seed(1))
    ours = SWP(70, "bernoulli", "torch")(w.view(shape), torch.Generator().manual_seed(2))
    saps = SAP(70, "bernoulli", "torch")(w[None], torch.Generator().manual_seed(2))

    assert torch.equal(ours.flatten(), saps[0])
    assert ours.shape == shape
    assert torch.equal(SWP(70).keep_probability(w.view(shape)).flatten(), SAP(70).keep_probability(w[None])[0])


@pytest.mark.parametrize(("percent", "left"), [(100, 7), (50, 4), (40, 3), (1e-9, 1)])
def test_dwp_keeps_the_largest_as_they_are(percent: float, left: int, generator: torch.Generator) -> None:
    """max(1, round(percent N / 100)) of them, by magnitude, without rescaling and without a random number."""
    w = torch.tensor([0.1, -5.0, 0.3, 4.0, -0.2, 2.0, -3.0])
    state = generator.get_state()
    out = DWP(percent)(w.view(7, 1), generator).flatten()
    expected = torch.zeros(7)
    for i in sorted(range(7), key=lambda i: -abs(w[i].item()))[:left]:
        expected[i] = w[i]

    assert torch.equal(out, expected)
    assert torch.equal(generator.get_state(), state)


def test_dwp_keeps_its_share_of_equal_weights(generator: torch.Generator) -> None:
    """Ties are no reason to keep more."""
    assert DWP(25)(torch.ones(4, 4), generator).sum() == 4


@pytest.mark.parametrize("policy", ON_MAPS, ids=spec)
def test_a_call_is_its_draw(policy: ActivationPolicy) -> None:
    """policy(h, g) = h * scale + shift."""
    h = H.expand(5, -1, -1)
    draw = policy.draw(h, torch.Generator().manual_seed(3))
    torch.testing.assert_close(draw(h), policy(h, torch.Generator().manual_seed(3)), rtol=2e-6, atol=1e-7)

    assert not torch.equal(draw(h)[0], draw(h)[1])


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("policy", [DRO(0.3), RNA(0.4), RSA(0.4), RNW(0.4), RSW(0.4), DWP(50)], ids=spec)
def test_gradients_where_the_draw_does_not_depend_on_the_values(policy: Policy, estimator: str) -> None:
    """The identity for bpda and for what is added; else the factor, for frozen and autograd alike."""
    h = torch.randn(4, 30, generator=torch.Generator().manual_seed(1)).requires_grad_()
    out = apply(h, policy, torch.Generator().manual_seed(2), estimator=estimator)
    gradient = torch.autograd.grad(out.sum(), h)[0]
    value = policy(h.detach(), torch.Generator().manual_seed(2))
    identity = estimator == "bpda" or isinstance(policy, RNA | RNW)

    torch.testing.assert_close(out, value, rtol=2e-6, atol=0)
    torch.testing.assert_close(gradient, torch.ones_like(h) if identity else value / h.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("policy", [AthalyeSAP(200), SWP(100)], ids=spec)
def test_gradients_of_pruning(policy: AthalyeSAP | SWP, generator: torch.Generator) -> None:
    """bpda is the identity, frozen mask / q, autograd the derivative of mask h / q(h), all in float64."""
    h = torch.rand(2, 6, generator=generator, dtype=torch.float64) + 0.1
    mask = policy(h, torch.Generator().manual_seed(4)) != 0

    def explicit(v: Tensor) -> Tensor:
        return mask * v / policy.keep_probability(v)

    def jacobian(f: Callable[[Tensor], Tensor]) -> Tensor:
        return cast(Tensor, torch.autograd.functional.jacobian(f, h)).reshape(12, 12)

    found = {
        name: jacobian(lambda v, name=name: apply(v, policy, torch.Generator().manual_seed(4), estimator=name))
        for name in ESTIMATORS
    }
    assert torch.equal(found["bpda"], torch.eye(12, dtype=torch.float64))
    torch.testing.assert_close(found["frozen"], torch.diag((mask / policy.keep_probability(h)).flatten()))
    torch.testing.assert_close(found["autograd"], jacobian(explicit))
    assert not torch.allclose(found["autograd"], found["frozen"], atol=1e-3)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("policy", ALL, ids=spec)
def test_zeros_and_a_single_live_unit(policy: Policy, estimator: str) -> None:
    """Values and gradients are finite; what prunes keeps a single live unit with its certain probability."""
    h = torch.zeros(2, 6)
    h[0, 2] = 3.0
    h.requires_grad_()
    out = apply(h, policy, torch.Generator().manual_seed(1), estimator=estimator)
    gradient = torch.autograd.grad(out.sum(), h)[0]

    assert out.isfinite().all()
    assert gradient.isfinite().all()
    if policy.spec.startswith(("swp", "dwp")):
        torch.testing.assert_close(out.detach(), h.detach(), rtol=1e-6, atol=0)
    if isinstance(policy, AthalyeSAP):
        torch.testing.assert_close(out.detach(), h.detach() / -math.expm1(-12), rtol=1e-6, atol=0)
    if isinstance(policy, RNA | RNW):
        assert (out != h).all()
    elif not isinstance(policy, DRO):
        assert ((out != 0) == (h != 0)).all()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("policy", ALL, ids=spec)
def test_types(policy: Policy, kind: torch.dtype, generator: torch.Generator) -> None:
    """The type is kept; in half precision the values are those of float32 but for rounding."""
    h = (torch.randn(4, 200, generator=generator) + 3).to(kind)
    state = generator.get_state()
    out = policy(h, generator)

    assert out.dtype == kind
    if kind != torch.float64:
        wide = policy(h.float(), generator.set_state(state))
        torch.testing.assert_close(out, wide.to(kind), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("policy", ON_MAPS, ids=spec)
def test_shapes_and_layouts(policy: Policy) -> None:
    """No image, one image, features alone; a map that is not contiguous gets the draw of the contiguous one."""
    for shape in ((0, 3, 2, 2), (1, 3, 2, 2), (5, 12)):
        assert policy(torch.rand(shape), torch.Generator()).shape == shape
    h = torch.randn(4, 6, 5, 5, generator=torch.Generator().manual_seed(1))
    plain = policy(h, torch.Generator().manual_seed(2))
    for other in (h.contiguous(memory_format=torch.channels_last), h.transpose(2, 3).contiguous().transpose(2, 3)):
        assert not other.is_contiguous()
        assert torch.equal(policy(other, torch.Generator().manual_seed(2)), plain)


@pytest.mark.parametrize("policy", ON_MAPS, ids=spec)
def test_activations_of_a_wrong_kind_raise(policy: Policy) -> None:
    """One axis, or whole numbers."""
    for h in (torch.ones(3), torch.ones(3, 2, dtype=torch.long)):
        with pytest.raises(ValueError, match=r"must be floating \(B, \.\.\.\) of two axes or more"):
            policy(h, torch.Generator())


@pytest.mark.parametrize("policy", ALL, ids=spec)
def test_policies_are_settings(policy: Policy, generator: torch.Generator) -> None:
    """Copies and pickles are equal, and so is what their text reads as."""
    for other in (deepcopy(policy), pickle.loads(pickle.dumps(policy)), parse_policy(policy.spec)):
        assert other == policy
    assert policy.per_example == (policy.where != "weight")
    state = generator.get_state()
    h = torch.arange(1.0, 81).view(2, 40)
    first, second = (policy(h, generator.set_state(state)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(first, policy(h, generator)) == isinstance(policy, DWP)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["rna", "rsa", "rnw", "rsw", "swp", "athalye", "dro", "dwp"])
def test_values_out_of_range_raise(name: str, value: float) -> None:
    """On construction, from text too; whose number it is, is said."""
    with pytest.raises(ValueError, match=rf"(?i){name}(SAP)?'s (sd|percent|rate) must be .*, got {value}"):
        parse_policy(f"{name}:{value}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dro:1", "between 0 and 1, both left out, got 1.0"),
        ("dwp:100.5", "at most 100, got 100.5"),
        ("dro", "policy 'dro' must be dro:RATE$"),
        ("rna:0.1:bernoulli", "must be rna:SD$"),
        ("rnw:much", "'much' is not a number"),
        ("swp:1:2:3:4", "must be swp:PERCENT, swp:PERCENT:SAMPLER or swp:PERCENT:SAMPLER:KERNEL$"),
        ("swp:100:urn", "unknown sampler 'urn'"),
        ("RNA:1", "unknown policy 'RNA:1'; known: athalye, dro, dwp, rna, rnw, rsa, rsw, sap, swp "),
    ],
)
def test_bad_texts_raise(text: str, message: str) -> None:
    """Each with its own reason."""
    with pytest.raises(ValueError, match=message):
        parse_policy(text)


@pytest.mark.parametrize("text", ["rna:0.1234567891", "dro:0.05", "rnw:1e-05", "swp:12.5:poisson:torch", "dwp:100"])
def test_texts_round_trip(text: str) -> None:
    """To the last digit."""
    assert parse_policy(text).spec == text


def test_numbers_as_text_read_back_the_same(generator: torch.Generator) -> None:
    """Any float, shortly."""
    numbers = [*(10 * torch.rand(200, generator=generator, dtype=torch.float64) ** 9).tolist(), 100.0, 1e-9, 12.5]

    assert [float(as_text(number)) for number in numbers] == numbers
    assert [as_text(number) for number in (100.0, 12.5, 0.1)] == ["100", "12.5", "0.1"]


@pytest.mark.parametrize("policy", ALL, ids=spec)
def test_entries_of_a_suite_say_what_is_random(
    policy: Policy, net: nn.Module, images: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the command line makes them: --model preact-resnet20 --policy rna:0.1."""
    monkeypatch.setattr("sap_art.entries._is_random", lambda model, x: False)  # known of this net, and slow
    x, y = images[0][:2], images[1][:2]
    made = make_entry(
        "one", "preact-resnet20", policy.spec, x=x, y=y, seed=1, device=torch.device("cpu")
    )  # fmt: skip

    assert (made.defence.spec, made.defence.where) == (policy.spec, policy.where)
    assert made.defence.per_example == made.model.per_example == policy.per_example
    assert made.classes == 10
