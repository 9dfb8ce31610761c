"""DefendedModel with policies on weights and on convolutions: what is drawn, when, and the net left as it was."""

from __future__ import annotations

import copy
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sap_art import SAP, AttackerView, DefendedModel, ThreatModel, evaluate
from sap_art.attacks import eot_apgd
from sap_art.attacks.known_seed import evaluate_known_seed, known_seed
from sap_art.attacks.objective import loss_and_gradient
from sap_art.diagnostics.probes import batch_shared_noise
from sap_art.policies import DWP, RNA, RNW, RSW, SWP, AthalyeSAP, Policy, parse_policy
from sap_art.sites import DEFAULT_SITES
from sap_art.stochastic import draw_logits

X = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(5))
Y = torch.tensor([0, 1, 2, 3])
BASIS = torch.eye(12).view(12, 3, 2, 2)
RANDOM: list[Policy] = [RNW(0.1), RSW(0.3), SWP(80)]


def spec(policy: Policy) -> str:
    """The id of a case."""
    return policy.spec


def small_net() -> nn.Module:
    """A convolution, a normalisation with statistics of its own, two matrices."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 20), nn.ReLU(), nn.Linear(20, 5)
    )
    generator = torch.Generator().manual_seed(3)
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator).mul(0.2).abs_() + 0.5 if "var" in name
                         else torch.randn(tensor.shape, generator=generator) * 0.2)  # fmt: skip
    return net.eval()


def defended(policy: Policy, **settings: Any) -> DefendedModel:
    """The small net with a fixed seed."""
    return DefendedModel(small_net(), policy, **{"seed": 1, **settings})


def matrix(policy: Policy, **settings: Any) -> DefendedModel:
    """One matrix of ones (2, 12): its logits on ``BASIS`` are the drawn weights, one column an image."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2, bias=False))
    nn.init.ones_(net[1].weight)
    return DefendedModel(net, policy, **{"seed": 1, **settings})


@pytest.mark.parametrize("policy", [*RANDOM, DWP(50)], ids=spec)
def test_a_pass_is_the_net_with_drawn_weights(policy: Policy) -> None:
    """Every tensor of two axes or more is drawn by itself, biases and normalisation are not."""
    model = defended(policy)
    out = model(X)
    names = ["0.weight", "4.weight", "6.weight"]
    by_hand = small_net()
    with model.seeded(1), model.noise.call(), torch.no_grad():
        for i, name in enumerate(names):
            w = by_hand.get_parameter(name)
            w.copy_(policy(w, model.noise.shared_stream(w.device, i)))

    torch.testing.assert_close(out, by_hand(X))
    assert [(site.index, site.name, site.shape) for site in model.sites] == [
        (i, name, tuple(by_hand.get_parameter(name).shape)) for i, name in enumerate(names)
    ]
    assert not torch.allclose(out, small_net()(X), atol=1e-3)


@pytest.mark.parametrize("policy", RANDOM, ids=spec)
def test_images_of_a_batch_share_the_draw_and_calls_do_not(policy: Policy) -> None:
    """So noise is not declared per example; the same seed gives the same bits."""
    model, twin = defended(policy), defended(policy)
    copies = X[:1].repeat(6, 1, 1, 1)
    outs = [model(copies), model(copies)]

    assert not model.per_example
    assert torch.allclose(outs[0], outs[0][:1].expand(6, -1), atol=1e-5)
    assert not torch.allclose(*outs, atol=1e-3)
    assert torch.equal(outs[0], twin(copies))
    model.reseed(1)
    assert torch.equal(outs[0], model(copies))
    assert not torch.equal(outs[0], defended(policy, seed=2)(copies))


def test_k_draws_of_a_view_are_k_draws_of_the_weights() -> None:
    """All weights of all draws are independent normal numbers, though 12 images and 500 draws go in together."""
    k, sd = 500, 0.3
    with torch.no_grad():
        logits = AttackerView(matrix(RNW(sd)), draws=k).logits(BASIS)
    drawn = (logits.flatten(1).double() - 1) / sd
    n = drawn.numel()

    assert len(drawn.flatten().unique()) > 0.99 * n  # float32 cannot tell all of them apart
    assert abs(drawn.mean().item()) < 5 / n**0.5
    assert abs(drawn.var().item() - 1) < 5 * (2 / n) ** 0.5
    between_draws = torch.corrcoef(torch.cat([drawn[1:].flatten()[None], drawn[:-1].flatten()[None]]))[0, 1]
    assert abs(between_draws.item()) < 5 / n**0.5


def test_eot_has_one_kth_of_the_variance() -> None:
    """The mean of k draws of the weights varies k times less than one draw."""
    k, n = 8, 400
    views = [AttackerView(matrix(RNW(0.3)), draws=draws) for draws in (1, k)]
    with torch.no_grad():
        one, many = (
            torch.stack([view.logits(BASIS[:1]).mean(0)[0, 0] for _ in range(n)]).double().var() for view in views
        )

    assert abs((one / many / k).log().item()) < 5 * (4 / n) ** 0.5


@pytest.mark.parametrize("policy", RANDOM, ids=spec)
def test_draws_of_the_weights_do_not_depend_on_the_batch(policy: Policy) -> None:
    """A call of 5 draws: all images at once, one by one, and by ``evaluate`` in blocks of any size."""
    model = defended(policy)
    with model.seeded(3), torch.no_grad():
        whole = draw_logits(model, X, 5)
    with model.seeded(3), torch.no_grad():
        pieces = draw_logits(model, X, 5, max_batch=1)
    scores = [evaluate(model, X, Y, draws=5, seed=9, batch_size=size) for size in (None, 4, 3, 1)]

    torch.testing.assert_close(pieces, whole, rtol=1e-4, atol=1e-5)
    for other in scores[1:]:
        torch.testing.assert_close(other.draw_log_probabilities, scores[0].draw_log_probabilities, rtol=1e-4, atol=1e-5)


def test_the_draws_of_evaluate_are_independent_and_its_interval_knows_that_images_share_them() -> None:
    """Labels are right with one half, for all images of a draw together: 400 draws of one coin, not 400 x 64."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2, bias=False))
    nn.init.zeros_(net[1].weight)
    model = DefendedModel(net, RNW(1.0), seed=1)
    x, y = BASIS[:1].repeat(64, 1, 1, 1), torch.zeros(64, dtype=torch.long)
    result = evaluate(model, x, y, draws=400, seed=2)
    coin = result.right[:, 0].double()

    assert (result.right == result.right[:, :1]).all()
    assert abs(coin.mean().item() - 0.5) < 5 * 0.5 / 400**0.5
    assert abs(torch.corrcoef(torch.stack([coin[1:], coin[:-1]]))[0, 1].item()) < 5 / 400**0.5
    low, high = result.interval
    assert 0.7 < (high - low) / (2 * 1.96 * 0.5 / 400**0.5) < 1.4
    again, other = (evaluate(model, x, y, draws=400, seed=seed) for seed in (2, 3))
    assert torch.equal(again.right, result.right)
    assert not torch.equal(other.right, result.right)


@pytest.mark.parametrize("policy", RANDOM, ids=spec)
def test_fixed_noise_repeats_the_weights(policy: Policy) -> None:
    """Whatever the images, and another scope has others; draws of one call differ all the same."""
    model = matrix(policy)
    with model.fixed_noise():
        first, second, part = model(BASIS), model(BASIS), model(BASIS[5:])
        draws = draw_logits(model, BASIS, 4)
        again = draw_logits(model, BASIS, 4)
    with model.fixed_noise():
        other = model(BASIS)

    assert torch.equal(first, second)
    torch.testing.assert_close(part, first[5:])
    assert not torch.allclose(first, other, atol=1e-3)
    assert torch.equal(draws, again)
    assert len(draws.flatten(1).unique(dim=0)) == 4


def test_a_known_draw_of_the_weights_can_be_attacked() -> None:
    """The point lowers the margin under the known weights, scored in other batches than it was made in."""
    model = defended(RSW(0.5))
    view = AttackerView(model, gradient="autograd")
    y = model.dense(X).argmax(1)
    found = known_seed(view, X, y, ThreatModel(eps=0.1), seed=1, noise_seed=7, attack=eot_apgd, steps=10)
    before, after = (evaluate_known_seed(view, x, y, noise_seed=7).log_probabilities for x in (X, found))
    small = evaluate_known_seed(AttackerView(model, gradient="autograd", max_batch=2), found, y, noise_seed=7)

    assert (after.gather(1, y[:, None]) < before.gather(1, y[:, None])).all()
    torch.testing.assert_close(small.log_probabilities, after, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("policy", [*RANDOM, DWP(50)], ids=spec)
def test_the_net_is_not_touched(policy: Policy) -> None:
    """The same parameters with the same values, shared with a model on its activations, also after an error."""
    net = small_net()
    before, values = dict(net.named_parameters()), copy.deepcopy(net.state_dict())
    models = [DefendedModel(net, p, seed=1) for p in (policy, SAP(100), parse_policy("rna:0.1"))]
    dense = net(X)
    for model in models:
        model(X)
        with pytest.raises(RuntimeError):
            model(X[:, :2])

    assert all(net.get_parameter(name) is p for name, p in before.items())
    assert all(torch.equal(values[name], value) for name, value in net.state_dict().items())
    assert torch.equal(net(X), dense)
    assert models[0].dense is net
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_copies_pickles_and_state_dicts() -> None:
    """All go on with the same weights; the model follows its net to another type."""
    model = defended(SWP(80), predictor="mean_prob", draws=3)
    model(X)
    clones = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    expected = model(X)
    fresh = defended(SWP(80), predictor="mean_prob", draws=3)
    for p in fresh.parameters():
        p.data.zero_()
    fresh.load_state_dict(model.state_dict())
    model.reseed(1)

    for clone in clones:
        assert torch.equal(clone(X), expected)
    assert torch.equal(fresh(X), model(X))
    for kind in (torch.float64, torch.bfloat16):
        for policy in (*RANDOM, DWP(50), RNA(0.1), AthalyeSAP()):
            out = defended(policy).to(kind)(X.to(kind))
            assert out.dtype == kind
            assert out.isfinite().all()


def test_mean_prob_and_vote_draw_anew() -> None:
    """Of the very draws that the seed gives."""
    model = defended(RNW(0.3), predictor="mean_prob", draws=5)
    out = model(X)
    model.reseed(1)
    draws = draw_logits(model, X, 5)

    torch.testing.assert_close(out, draws.softmax(-1).mean(0).log())
    assert len(draws.flatten(1).unique(dim=0)) == 5
    assert defended(RNW(0.3), predictor="vote", draws=5)(X).exp().sum(1).allclose(torch.ones(4))


@pytest.mark.parametrize("policy", [*RANDOM, DWP(50)], ids=spec)
def test_the_gradient_of_the_images_is_that_of_the_drawn_net(policy: Policy) -> None:
    """To the bit by all three estimators, for one draw and for the mean of several; dense runs the net itself."""
    found: dict[str, Tensor] = {}
    for estimator in ("bpda", "frozen", "autograd", "dense"):
        view = AttackerView(defended(policy), gradient=estimator, draws=3)
        with view.seeded(4):
            found[estimator] = loss_and_gradient(view, X, Y, loss="ce").gradient
    by_hand = torch.zeros_like(X)
    model = defended(policy)
    with model.seeded(4), model.noise.call():
        for draw in range(3):
            net = small_net()
            with torch.no_grad(), model.noise.draws_from(draw, len(X)):
                for i, name in enumerate(["0.weight", "4.weight", "6.weight"]):
                    w = net.get_parameter(name)
                    w.copy_(policy(w, model.noise.shared_stream(w.device, i)))
            x = X.clone().requires_grad_()
            by_hand += torch.autograd.grad(F.cross_entropy(net(x), Y, reduction="sum"), x)[0] / 3

    assert torch.equal(found["bpda"], found["frozen"])
    assert torch.equal(found["bpda"], found["autograd"])
    torch.testing.assert_close(found["autograd"], by_hand, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(found["dense"], found["autograd"], rtol=1e-2, atol=1e-4)


def test_parameters_learn_through_the_draw() -> None:
    """Each by its estimator: the weight itself for bpda, the factor for autograd."""
    for estimator in ("bpda", "autograd"):
        model = matrix(RSW(0.3), gradient=estimator)
        out = model(BASIS)
        out.sum().backward()
        gradient = model.net.get_parameter("1.weight").grad
        assert gradient is not None
        torch.testing.assert_close(gradient, torch.ones(2, 12) if estimator == "bpda" else out.detach().T)


def test_threads_take_turns() -> None:
    """Two models of one net in two threads: each has its own weights in every pass, and the net has its own again."""
    net = small_net()
    models = [DefendedModel(net, RNW(0.3), seed=seed) for seed in (1, 2)]

    def passes(model: DefendedModel) -> Tensor:
        with torch.no_grad():
            return torch.stack([model(X) for _ in range(60)])

    expected = [passes(model) for model in models]
    for seed, model in enumerate(models, 1):
        model.reseed(seed)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(passes, models))

    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert torch.equal(net(X), small_net()(X))


def test_tied_weights_are_drawn_once() -> None:
    """Both places meet the same draw."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(12, 12, bias=False)
            self.two = nn.Linear(12, 12, bias=False)
            self.two.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x.flatten(1)) - self.two(x.flatten(1))

    model = DefendedModel(Tied(), RNW(0.5), seed=1)
    assert torch.equal(model(BASIS), torch.zeros(12, 12))
    assert [site.name for site in model.sites] == ["one.weight"]


def test_shared_noise_that_is_declared_raises_no_flag() -> None:
    """It would if weights claimed noise per example."""
    model = matrix(RNW(0.5))
    assert batch_shared_noise(model, BASIS, seed=1).state == "clear"
    model.per_example = True
    assert batch_shared_noise(model, BASIS, seed=1).state == "raised"


def test_nothing_to_draw_and_sites_for_weights_raise() -> None:
    """A net of biases alone, a net without a convolution; sites are about activations."""
    with pytest.raises(ValueError, match=r"no weight tensor of two axes or more in Flatten, so rnw:1 would defend"):
        DefendedModel(nn.Flatten(), RNW(1))(X)
    with pytest.raises(ValueError, match="no preactivation was met in Linear, so athalye:200 would defend nothing"):
        DefendedModel(nn.Linear(6, 2), AthalyeSAP())(X)
    with pytest.raises(ValueError, match="sites are activations, but rnw:1 acts on the weights: leave them out"):
        DefendedModel(small_net(), RNW(1), sites=DEFAULT_SITES)


def test_preactivations_are_the_outputs_of_convolutions(net: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    """Modules and functions, each once, signed and before what follows; 21 in the shipped net."""

    class Convolutions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            nn.init.normal_(self.conv.weight, generator=torch.Generator().manual_seed(1))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.conv(x), -F.conv2d(x, self.conv.weight)], 1).flatten(1)

    model = DefendedModel(Convolutions(), AthalyeSAP(20), seed=1)
    out, dense = model(X), model.dense(X)
    live = out != 0
    q = torch.cat([AthalyeSAP(20).keep_probability(part) for part in model.net(X).chunk(2, 1)], 1)

    assert [site.name for site in model.sites] == ["conv", "conv2d"]
    assert model.per_example
    assert ((out < 0) & live).any()
    bias = model.net.get_parameter("conv.bias")
    assert bias is not None
    torch.testing.assert_close(out[live], (dense / q)[live], rtol=1e-4, atol=1e-5)
    error = 5 * ((q * (1 - q)).sum() ** 0.5).item()
    assert abs(live.sum().item() - q.sum().item()) < error
    shipped = DefendedModel(net, AthalyeSAP(), seed=1)
    shipped(images[0][:2])
    assert [site.name for site in shipped.sites][:3] == ["stem", "blocks.0.conv1", "blocks.0.conv2"]
    assert len(shipped.sites) == 21


@pytest.mark.parametrize("policy", ["dro:0.1", "rna:0.1", "rsa:0.3", "athalye:200"])
def test_noise_on_maps_belongs_to_image_and_draw(policy: str) -> None:
    """How a call is cut into batches changes rounding only, and copies of an image differ."""
    model = defended(parse_policy(policy))
    scores = [evaluate(model, X, Y, draws=5, seed=9, batch_size=size) for size in (None, 6, 1)]
    out = model(X[:1].repeat(6, 1, 1, 1))

    for other in scores[1:]:
        torch.testing.assert_close(other.draw_log_probabilities, scores[0].draw_log_probabilities, rtol=1e-4, atol=1e-5)
    assert len(out.unique(dim=0)) == 6
    assert len(scores[0].draw_log_probabilities.flatten(1).unique(dim=0)) == 5


def test_noise_of_the_layers_is_independent() -> None:
    """Two layers of one width: the sum of both shifts has twice the variance, not four times."""

    class Two(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(torch.relu(x.flatten(1) + 100))

    x = torch.zeros(200, 3, 6, 6)
    out = DefendedModel(Two(), RNA(1.0), seed=1)(x).double() - 100
    assert abs(out.var().item() - 2) < 5 * 2 * math.sqrt(2 / out.numel())
