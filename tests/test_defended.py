"""DefendedModel: a net and a policy, with noise of its own, and the net left as it was."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sap_art import SAP, DefendedModel
from sap_art.attacker import AttackerView
from sap_art.policies import Policy, parse_policy
from sap_art.sites import DEFAULT_SITES
from sap_art.stochastic import draw_logits, log_mean_prob, log_vote

X = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(5))


def small_net() -> nn.Module:
    """Two activations, no randomness of its own."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 32), nn.GELU(), nn.Linear(32, 5))
    generator = torch.Generator().manual_seed(3)
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator) * 0.1
    return net.eval()


def defended(**settings: Any) -> DefendedModel:
    """A small defended model with a fixed seed."""
    return DefendedModel(small_net(), SAP(60), **{"seed": 1, **settings})


def test_the_same_seed_gives_the_same_bits_and_calls_differ() -> None:
    """Noise moves from call to call, and ``reseed`` brings it back."""
    first, second = defended(), defended()
    outs = [first(X), first(X)]

    assert torch.equal(outs[0], second(X))
    assert not torch.equal(outs[0], outs[1])
    first.reseed(1)
    assert torch.equal(outs[0], first(X))
    assert not torch.equal(outs[0], defended(seed=2)(X))


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    """Attack libraries reseed it, and would freeze the noise."""
    model, twin = defended(), defended()
    torch.manual_seed(0)
    a = model(X)
    torch.manual_seed(0)
    b = model(X)
    state = torch.get_rng_state()

    assert not torch.equal(a, b)
    assert torch.equal(torch.stack([a, b]), torch.stack([twin(X), twin(X)]))
    assert torch.equal(state, torch.get_rng_state())


def test_without_a_seed_two_models_differ() -> None:
    """The operating system gives each a seed of its own."""
    assert not torch.equal(defended(seed=None)(X), defended(seed=None)(X))


def test_copies_of_one_image_in_a_batch_get_different_draws() -> None:
    """Noise is per example, under fixed noise too."""
    model = defended()
    copies = X[:1].repeat(6, 1, 1, 1)
    with model.fixed_noise():
        fixed = model(copies)

    for out in (model(copies), fixed):
        assert len(out.unique(dim=0)) == 6


def test_fixed_noise_fixes_the_uniforms_but_not_the_mask() -> None:
    """Calls repeat, scopes differ, and with independent units the mask is u < q(x) for one u."""
    masks: list[Tensor] = []

    class Spy(SAP):
        def __call__(self, h: Tensor, generator: torch.Generator) -> Tensor:
            out = super().__call__(h, generator)
            masks.append(out != 0)
            return out

    model = DefendedModel(nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(192, 2)), Spy(50, "bernoulli"), seed=4)
    other = X.flip(-1)
    with model.fixed_noise():
        outs = [model(X), model(X), model(other)]
    with model.fixed_noise():
        outs.append(model(X))

    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[3])
    assert not torch.equal(masks[0], masks[2])
    q, q_other = (SAP(50).keep_probability(v.flatten(1)) for v in (X, other))
    live = (X.flatten(1) != 0) & (other.flatten(1) != 0)
    rises, falls = live & (q_other > q), live & (q_other < q)
    assert (masks[2] >= masks[0])[rises].all()
    assert (masks[2] <= masks[0])[falls].all()


def test_noise_goes_on_after_a_seeded_or_fixed_scope() -> None:
    """``seeded`` leaves no trace, and under fixed noise it does not bring fresh noise in: an attack sees the same."""
    model, twin = defended(), defended()
    with model.seeded(9):
        first = model(X)
        with model.fixed_noise():
            fixed = model(X)
            with model.seeded(9):
                assert torch.equal(model(X), fixed)
    with model.seeded(9):
        assert torch.equal(model(X), first)

    assert torch.equal(model(X), twin(X))


def test_copies_and_pickles_go_on_with_the_same_noise() -> None:
    """deepcopy, pickle and state_dict survive, also in mid-stream."""
    model = defended(predictor="mean_prob", draws=3)
    model(X)
    clones = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    expected = model(X)

    for clone in clones:
        assert torch.equal(clone(X), expected)
    fresh = DefendedModel(small_net(), SAP(60), predictor="mean_prob", draws=3, seed=1)
    for p in fresh.parameters():
        p.data.zero_()
    fresh.load_state_dict(model.state_dict())
    model.reseed(1)
    assert torch.equal(fresh(X), model(X))
    assert model.to(torch.float64)(X.double()).dtype == torch.float64


def test_train_and_eval_mode_do_not_switch_the_defence() -> None:
    """Attack libraries toggle it."""
    model = defended()
    training = model.train()(X)
    model.reseed(1)

    assert torch.equal(model.eval()(X), training)


def test_the_net_is_left_as_it_was_and_may_be_shared() -> None:
    """No hook stays, the dense output is the same before and after, two models share one net."""
    net = small_net()
    before = net(X)
    models = [DefendedModel(net, SAP(percent), seed=1) for percent in (30, 300)]
    outs = [model(X) for model in models]

    assert torch.equal(net(X), before)
    assert models[0].dense is models[1].dense is net
    assert not torch.equal(*outs)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_sites_are_listed_in_the_order_of_the_calls() -> None:
    """Names and shapes, known after the first forward pass."""
    model = defended()
    with pytest.raises(RuntimeError, match="call the model on one image first"):
        _ = model.sites
    model(X)

    assert [(s.index, s.name, s.shape) for s in model.sites] == [(0, "1", (8, 6, 6)), (1, "4", (32,))]


def test_the_shipped_net_has_nineteen_sites(net: nn.Module) -> None:
    """Two a block and the one before the pooling; the path around a block is not pruned."""
    model = DefendedModel(net, SAP(100), seed=1)
    model(torch.rand(1, 3, 32, 32))

    assert len(model.sites) == 19
    assert model.sites[0].shape == (16, 32, 32)
    assert model.sites[-1].name == "act"


def test_a_huge_percent_reproduces_the_dense_net(net: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    """With independent units; the exact sampler says that it cannot make so many draws."""
    x = images[0][:8]
    with torch.no_grad():
        torch.testing.assert_close(DefendedModel(net, SAP(1e9, "bernoulli"), seed=1)(x), net(x), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="at most 4294967296 draws a row"):
        DefendedModel(net, SAP(1e9), seed=1)(x)


def test_a_net_without_an_activation_raises() -> None:
    """It would be undefended; the message says how to name sites."""
    with pytest.raises(ValueError, match="no activation was met in Flatten"):
        DefendedModel(nn.Flatten(), SAP(100))(X)


def test_the_user_can_name_sites() -> None:
    """By qualified name; here the only activation is a convolution's output."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    model = DefendedModel(net, SAP(100), sites=DEFAULT_SITES.extended(activations=("0",)), seed=1)
    model(X)

    assert [site.name for site in model.sites] == ["0"]


def test_mean_prob_is_the_log_of_the_mean_softmax() -> None:
    """Of the very draws that the seed gives."""
    model = defended(predictor="mean_prob", draws=5)
    out = model(X)
    model.reseed(1)
    draws = draw_logits(model, X, 5)

    torch.testing.assert_close(out, draws.softmax(-1).mean(0).log())
    torch.testing.assert_close(out.exp().sum(1), torch.ones(4))


def test_vote_is_the_smoothed_share_of_votes() -> None:
    """log((v + 1/C) / (K + 1)), a distribution."""
    logits = torch.tensor([[[2.0, 1.0, 0.0]], [[2.0, 1.0, 0.0]], [[0.0, 1.0, 0.0]]])

    torch.testing.assert_close(log_vote(logits).exp(), torch.tensor([[(2 + 1 / 3) / 4, (1 + 1 / 3) / 4, (1 / 3) / 4]]))
    assert defended(predictor="vote", draws=7)(X).exp().sum(1).allclose(torch.ones(4))


def test_draws_of_one_call_differ_under_fixed_noise() -> None:
    """Also across the batches into which they are cut."""
    model = defended()
    with model.fixed_noise():
        logits = draw_logits(model, X, 6, max_batch=8)
        again = draw_logits(model, X, 6, max_batch=8)

    assert len(logits.flatten(1).unique(dim=0)) == 6
    assert torch.equal(logits, again)


def test_log_mean_prob_does_not_underflow() -> None:
    """In log space: a class at -200 stays there."""
    logits = torch.tensor([[[0.0, -200.0]], [[0.0, -200.0]]])

    assert log_mean_prob(logits)[0, 1].item() == pytest.approx(-200.0)


@pytest.mark.parametrize("gradient", ["bpda", "frozen", "autograd"])
def test_the_gradient_argument_changes_the_backward_pass_only(gradient: str) -> None:
    """Values agree, gradients do not."""
    x = X.clone().requires_grad_()
    out = defended(gradient=gradient)(x)
    reference = defended(gradient="bpda")(x)
    gradients = [torch.autograd.grad(o.square().sum(), x)[0] for o in (out, reference)]

    torch.testing.assert_close(out, reference)
    assert torch.allclose(*gradients) == (gradient == "bpda")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"predictor": "median"}, "unknown predictor 'median'; known: single, mean_prob, vote"),
        ({"draws": 3}, "1 for the predictor 'single', got 3"),
        ({"predictor": "vote", "draws": 0}, "at least 1"),
        ({"gradient": "dense"}, "unknown gradient 'dense'"),
    ],
)
def test_bad_settings_raise(settings: dict[str, Any], message: str) -> None:
    """On construction."""
    with pytest.raises(ValueError, match=message):
        defended(**settings)


class Folded(nn.Module):
    """Four patches of each image in the batch axis at its only activation."""

    def forward(self, x: Tensor) -> Tensor:
        patches = torch.relu(x.reshape(len(x) * 4, -1))
        return patches.reshape(len(x), 4, -1).sum(-1)


def test_patches_in_the_batch_axis_have_noise_of_their_own_in_every_draw() -> None:
    """Rows are not images there: all rows of all draws differ, and draws in several passes are independent."""
    model = DefendedModel(Folded(), SAP(50), seed=1)
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    logits = draw_logits(model, x.expand(2, -1, -1, -1), 8, max_batch=2)

    assert len(logits.flatten().unique()) == logits.numel()
    with model.seeded(3):
        values = draw_logits(model, x, 3000, max_batch=1)[:, 0].double()
    correlation = torch.corrcoef(torch.cat([values[1:], values[:-1]], 1).T)[:4, 4:]
    assert correlation.abs().max() < 5 / 3000**0.5


def test_two_threads_have_calls_of_their_own() -> None:
    """A model that is called while another thread is within a call of it."""
    started, ended = threading.Event(), threading.Event()

    class Slow(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            h = torch.relu(x.flatten(1))
            if threading.current_thread() is not threading.main_thread():
                started.set()
                assert ended.wait(20)
            return torch.relu(h)

    model = DefendedModel(Slow(), SAP(50), seed=1)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(model, X)
        assert started.wait(20)
        mine = model(X)
        ended.set()
        assert not torch.equal(mine, other.result())


@pytest.fixture
def no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("policy", [SAP(100), parse_policy("rnw:0.1")], ids=["maps", "weights"])
@pytest.mark.parametrize("gradient", ["dense", "bpda", "frozen", "autograd"])
@pytest.mark.usefixtures("no_garbage_collection")
def test_a_pass_holds_nothing_when_it_is_over(policy: Policy, gradient: str) -> None:
    """Or an attack's memory would grow with every pass until Python looks for cycles."""
    view = AttackerView(DefendedModel(small_net(), policy, seed=0), gradient=gradient)
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    held = weakref.ref(x)

    view(x).logsumexp(1).sum().backward()
    del x

    assert held() is None


def test_a_copy_made_within_a_call_is_not_bound_to_it() -> None:
    """Its noise is not frozen."""
    model = DefendedModel(nn.Sequential(nn.Flatten(), nn.ReLU()), SAP(50), seed=1)
    with model.noise.call(), model.fixed_noise():
        copy = deepcopy(model)

    assert not torch.equal(copy(X), copy(X))


def test_what_comes_after_an_activation_may_work_in_place() -> None:
    """Residual nets add to it; for every estimator."""

    class Residual(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            h = torch.relu(x.flatten(1))
            h += 1
            return h

    x = X.clone().requires_grad_()
    for estimator in ("bpda", "frozen", "autograd"):
        out = DefendedModel(Residual(), SAP(500), seed=1, gradient=estimator)(x)
        assert torch.autograd.grad(out.sum(), x)[0].any()
