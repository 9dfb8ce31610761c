"""Flags: each planted failure raises its own, an honest model raises none, and the verdict follows."""

from __future__ import annotations

import pytest
import reference
import torch
from torch import Tensor, nn

from sap_art import SAP, DefendedModel, Evaluation, wrap
from sap_art.diagnostics import comparisons, probes
from sap_art.diagnostics.gradient_signal import gradient_signal
from sap_art.flags import LEVELS, complete, flag, raised_if, verdict
from sap_art.record import GradientInfo
from sap_art.stochastic import StochasticModel

X, Y = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(6)


@pytest.fixture
def honest(net: nn.Module) -> DefendedModel:
    """SAP on the shipped net."""
    return DefendedModel(net, SAP(100), seed=1)


class SharedNoise(nn.Module):
    """One noise tensor for the whole batch."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x + 0.1 * torch.randn(x.shape[1:])).clamp(0, 1))


class Optimising(nn.Module):
    """Purifies its input by gradient steps within the forward pass."""

    def __init__(self, net: nn.Module, *, by_backward: bool) -> None:
        super().__init__()
        self.net, self.by_backward = net, by_backward

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            value = self.net(point).logsumexp(1).sum()
            if self.by_backward:
                value.backward()
                gradient = point.grad
            else:
                (gradient,) = torch.autograd.grad(value, point)
        assert gradient is not None
        return self.net((x - 0.01 * gradient).clamp(0, 1))


class Probabilities(nn.Module):
    """Returns a softmax."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).softmax(1)


class ZeroGradient(nn.Module):
    """Hides its gradient."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.detach()) + 0 * x.sum()


class CutOff(nn.Module):
    """Has no gradient at all: its input is detached, or its output made without autograd."""

    def __init__(self, net: nn.Module, *, no_grad: bool) -> None:
        super().__init__()
        self.net, self.no_grad = net, no_grad

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(not self.no_grad):
            return self.net(x.detach())


def test_shared_noise_in_a_batch_is_seen(net: nn.Module, honest: DefendedModel) -> None:
    """Raised on a model that declares noise per example and shares it; not on SAP, a plain net or an honest label."""
    shared = SharedNoise(net)

    class PerBatchCoin(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return net(x) * (1 if torch.rand(()) < 0.7 else -1)

    for seed in range(2):
        assert probes.batch_shared_noise(wrap(PerBatchCoin()), X, seed=seed).state == "raised"
    assert probes.batch_shared_noise(wrap(shared, seed=1), X, seed=1).state == "raised"
    assert probes.batch_shared_noise(wrap(shared, per_example=False, seed=1), X, seed=1).state == "clear"
    assert probes.batch_shared_noise(honest, X, seed=1).state == "clear"
    assert probes.batch_shared_noise(wrap(net, dense=net), X, seed=1).state == "clear"


def test_coupling_to_the_attack_s_seed_is_seen(net: nn.Module, honest: DefendedModel) -> None:
    """A model whose noise comes from what the attack left behind, against SAP."""

    class Coupled(DefendedModel):
        def seeded(self, seed: int):  # type: ignore[no-untyped-def]
            self.reseed(seed + self.calls)
            return super().fixed_noise()

        calls = 0

        def single(self, x: Tensor, *, gradient: str | None = None) -> Tensor:
            if torch.is_grad_enabled():
                self.calls += 1
            return super().single(x, gradient=gradient)

    assert probes.coupled_generator(honest, X, Y, seed=1).state == "clear"
    found = probes.coupled_generator(Coupled(net, SAP(100), seed=1), X, Y, seed=1)
    assert found.state == "raised"
    assert "changed" in found.evidence


def test_a_model_that_cannot_be_seeded_is_not_called_clear(net: nn.Module) -> None:
    """Randomness that we do not control leaves the question open."""
    state = [0]

    class Counter(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            state[0] += 1
            return net(x) + state[0]

    found = probes.coupled_generator(wrap(nn.Sequential(Counter(), nn.Softplus())), X, Y, seed=1)
    assert found.state == "not-checked"


@pytest.mark.parametrize("by_backward", [True, False])
def test_test_time_optimisation_is_seen(net: nn.Module, honest: DefendedModel, by_backward: bool) -> None:
    """Both ways of asking for a gradient."""
    assert probes.test_time_optimisation(wrap(Optimising(net, by_backward=by_backward)), X, seed=1).state == "raised"
    assert probes.test_time_optimisation(honest, X, seed=1).state == "clear"


def test_probabilities_instead_of_logits_are_seen(net: nn.Module, honest: DefendedModel) -> None:
    """A warning."""
    assert probes.softmax_output(wrap(Probabilities(net)), X, seed=1).state == "raised"
    assert probes.softmax_output(honest, X, seed=1).state == "clear"


def test_zero_and_nan_gradients_are_seen(net: nn.Module, honest: DefendedModel) -> None:
    """Shares of images, by estimator; the flag names them."""
    models: list[tuple[StochasticModel, str, str]] = [
        (honest, "bpda", "clear"),
        (wrap(ZeroGradient(net)), "autograd", "raised"),
        (wrap(CutOff(net, no_grad=True)), "autograd", "raised"),
        (wrap(CutOff(net, no_grad=False)), "autograd", "raised"),
        (DefendedModel(net, reference.NaiveSAP(100), seed=1), "autograd", "raised"),
    ]
    for model, estimator, state in models:
        shares = {n: s.info() for n, s in gradient_signal(model, X, Y, draws=2, seed=1).items()}

        assert probes.zero_or_non_finite(shares).state == state
        assert (max(shares[estimator].zero, shares[estimator].non_finite) == 1.0) == (state == "raised")


def test_one_percent_of_bad_gradients_is_allowed() -> None:
    """The threshold is the protocol's."""
    assert probes.zero_or_non_finite({"bpda": GradientInfo(zero=0.01, non_finite=0.0)}).state == "clear"
    assert probes.zero_or_non_finite({"bpda": GradientInfo(zero=0.0, non_finite=0.011)}).state == "raised"


def column(probability: float, *, images: int = 64, draws: int = 16, seed: int = 0) -> Evaluation:
    """Draws that are right with the given probability, image by image."""
    generator = torch.Generator().manual_seed(seed)
    right = torch.rand(draws, images, generator=generator) < probability
    return Evaluation(torch.stack([right.float(), 1 - right.float()], -1).log_softmax(-1), torch.zeros(images).long())


def test_transfer_that_beats_the_white_box_is_seen() -> None:
    """.2 against .6 is raised with the gap as its value; equal ones, and the other order, are clear."""

    def found(white: float, transfer: float) -> tuple[str, float]:
        columns = {"w": column(white, seed=1), "t": column(transfer, seed=2)}
        result = comparisons.transfer_beats_white_box(columns, transfer=["t"], white_box=["w"], seed=1)
        return result.state, result.value or 0.0

    state, gap = found(0.6, 0.2)
    assert state == "raised"
    assert gap == pytest.approx(0.4, abs=0.1)
    assert found(0.4, 0.4)[0] == found(0.2, 0.6)[0] == "clear"


def test_a_few_images_where_transfer_wins_are_seen() -> None:
    """Six of 64 images turned round, the rest equal: the mean moves little, the images tell."""
    white, transfer = column(0.0, seed=1), column(0.0, seed=1)
    right = white.right.clone()
    right[:, :6] = True
    white = Evaluation(torch.stack([right.float(), 1 - right.float()], -1).log_softmax(-1), white.labels)
    # On the other images the transfer is worse, so that the mean alone would be in its disfavour.
    other = transfer.right.clone()
    other[:, 20:30] = True
    transfer = Evaluation(torch.stack([other.float(), 1 - other.float()], -1).log_softmax(-1), white.labels)
    found = comparisons.transfer_beats_white_box({"w": white, "t": transfer}, transfer=["t"], white_box=["w"], seed=1)

    assert found.state == "raised"
    assert (found.value or 0.0) < 0


def test_two_images_alone_do_not_raise_it() -> None:
    """Of 64, two are 3 % but may be luck; three are not. Without another net as counterpart there is nothing to say."""

    def found(images: int) -> str:
        white = torch.zeros(16, 64)
        white[:, :images] = 1
        transfer = torch.zeros(16, 64)
        transfer[:, 20:30] = 1
        columns = {
            name: Evaluation(torch.stack([right, 1 - right], -1).log_softmax(-1), torch.zeros(64).long())
            for name, right in (("w", white), ("t", transfer))
        }
        return comparisons.transfer_beats_white_box(columns, transfer=["t"], white_box=["w"], seed=1).state

    assert (found(2), found(3)) == ("clear", "raised")
    assert comparisons.transfer_beats_white_box({}, transfer=[], white_box=["w"], seed=1).state == "clear"


def shares(counts: list[int], draws: int = 200) -> Evaluation:
    """Image i right in exactly ``counts[i]`` draws, evenly among even and odd ones."""
    right = torch.arange(draws)[:, None] < torch.tensor(counts)
    return Evaluation(
        torch.stack([right.float(), 1 - right.float()], -1).log_softmax(-1), torch.zeros(len(counts)).long()
    )


def test_a_black_box_that_beats_the_white_box_is_seen() -> None:
    """By any of its attacks, at the edge of the interval; missing columns are not called clear."""

    def found(white: Evaluation, *black: Evaluation) -> str:
        columns = {"w": white, **{f"b{i}": b for i, b in enumerate(black)}}
        names = [f"b{i}" for i in range(len(black))]
        return comparisons.black_box_beats_white_box(columns, black_box=names, white_box=["w"], seed=1).state

    half, less = shares([100] * 64), shares([98] * 64)
    assert found(half, half, less) == "raised"
    assert found(less, half) == found(half, half) == "clear"
    # 18 images down and 3 up by a tenth is 3.5 standard errors, beyond the 2.9 of 14 flags together; 12 and 3 is 2.4.
    assert found(half, shares([90] * 18 + [110] * 3 + [100] * 43)) == "raised"
    assert found(half, shares([90] * 12 + [110] * 3 + [100] * 49)) == "clear"
    # Three images by themselves, though the mean says otherwise.
    assert found(half, shares([20] * 3 + [110] * 61)) == "raised"
    assert found(half, shares([20] * 2 + [110] * 62)) == "clear"
    assert found(half) == "not-checked"
    assert comparisons.black_box_beats_white_box({"b": half}, black_box=["b"], white_box=["w"], seed=1).state == (
        "not-checked"
    )


def test_the_transfer_gap_is_that_of_the_groups_alone() -> None:
    """White-box minus transfer; positive means masking; an absent group cannot be compared."""
    columns = {"w": shares([160] * 64), "v": shares([140] * 64), "t": shares([100] * 64)}
    found = comparisons.transfer_gap(columns, transfer=["t"], white_box=["w", "v"], seed=1)

    assert found == pytest.approx((0.2, 0.2, 0.2))
    with pytest.raises(ValueError, match="one of x"):
        comparisons.transfer_gap(columns, transfer=["x"], white_box=["w"], seed=1)


def known(share: float, seeds: int = 100) -> Tensor:
    """(S, 64) bool: right under that share of the seeds, on each image."""
    return (torch.arange(seeds)[:, None] < round(share * seeds)).expand(-1, 64)


def some(down: int, up: int) -> Tensor:
    """(1, 64) bool: against images that are right half of the time, ``down`` wrong ones more than right ones."""
    return torch.arange(64)[None] >= 32 + (down - up) // 2


def test_what_hides_behind_the_seed_is_seen() -> None:
    """More than ten points and beyond the interval."""
    half = shares([100] * 64)

    def found(right: Tensor, worst: Evaluation = half) -> str:
        return comparisons.seed_gap(worst, right, seed=1).state

    assert (found(known(0.39)), found(known(0.41)), found(known(0.7))) == ("raised", "clear", "clear")
    # One seed, images right or wrong: 12.5 points are two standard errors of 64 such images, 10.9 points are 1.8.
    assert (found(some(18, 0)), found(some(14, 0))) == ("raised", "clear")
    assert comparisons.seed_gap(half, known(0.3), seed=1).value == pytest.approx(0.2)


def test_a_known_seed_attack_that_is_broken_is_seen() -> None:
    """Knowing the numbers cannot make the attack worse, beyond the interval."""
    half = shares([100] * 64)

    def found(right: Tensor) -> str:
        return comparisons.known_seed_attack_fails(half, right, seed=1).state

    assert (found(known(0.51)), found(known(0.5)), found(known(0.49))) == ("raised", "clear", "clear")
    assert (found(~some(26, 0)), found(~some(18, 0))) == ("raised", "clear")


@pytest.mark.parametrize("right", [torch.ones(3, 63).bool(), torch.ones(3, 64), torch.ones(64).bool()])
def test_known_seed_results_of_other_images_raise(right: Tensor) -> None:
    """Shape and type."""
    with pytest.raises(ValueError, match=r"known must be bool \(S, 64\)"):
        comparisons.seed_gap(shares([100] * 64), right, seed=1)


def test_probes_do_not_depend_on_the_model_s_own_seed(net: nn.Module) -> None:
    """So that a record is the same whatever seed a user's model was made with."""
    models = [DefendedModel(net, SAP(50)) for _ in range(2)]

    assert probes.softmax_output(models[0], X, seed=1) == probes.softmax_output(models[1], X, seed=1)


def test_one_step_better_than_many_is_seen() -> None:
    """And absent attacks are not called clear."""
    columns = {"one": column(0.3, seed=1), "many": column(0.7, seed=2)}

    for pair, state in [(("one", "many"), "raised"), (("many", "one"), "clear"), (("one", "none"), "not-checked")]:
        found = comparisons.single_step_beats_iterative(columns, single=pair[0], iterative=pair[1], seed=1)
        assert found.state == state


def test_estimators_far_apart_are_seen() -> None:
    """More than five points, beyond the interval; one estimator has no spread."""
    columns = {"a": column(0.1, seed=1), "b": column(0.4, seed=2), "c": column(0.1, seed=3)}

    assert comparisons.estimator_spread(columns, names=["a", "b", "c"], seed=1).state == "raised"
    assert comparisons.estimator_spread(columns, names=["a", "c"], seed=1).state == "clear"
    assert comparisons.estimator_spread(columns, names=["a"], seed=1).state == "clear"
    assert comparisons.estimator_spread(columns, names=["a", "crashed"], seed=1).state == "not-checked"


def test_survival_at_a_large_radius_is_seen() -> None:
    """Above 10 % beyond the interval."""
    assert comparisons.large_eps_survives(column(0.7), eps=0.5).state == "raised"
    assert comparisons.large_eps_survives(column(0.1), eps=0.5).state == "clear"


def test_all_flags_are_listed_and_the_rest_is_not_checked() -> None:
    """In the order of the protocol, with their levels."""
    flags = complete([raised_if(True, "seed-gap", "evidence")], tier="smoke")

    assert [f.code for f in flags] == list(LEVELS)
    assert {f.state for f in flags if f.code != "seed-gap"} == {"not-checked"}
    assert next(f for f in flags if f.code == "seed-gap").level == "W"


def test_verdicts() -> None:
    """A crash is worst, then R, then W; "no known failure" needs every flag checked."""
    clear = [flag(code, "clear", "") for code in LEVELS]
    warning = [*clear[1:], flag("seed-gap", "raised", "")]
    unreliable = [*warning, flag("not-monotone", "raised", "")]

    assert verdict(clear, attack_failed=False) == "no-known-failure"
    assert verdict(complete(clear[:5], tier="smoke"), attack_failed=False) == "incomplete"
    assert verdict(warning, attack_failed=False) == "warning"
    assert verdict(unreliable, attack_failed=False) == "unreliable"
    assert verdict(clear, attack_failed=True) == "failed"


def test_one_step_must_be_better_beyond_the_level_that_the_flags_share() -> None:
    """18 images down and 3 up by a tenth is 3.5 standard errors, 12 and 3 is 2.4; 14 flags together take 2.9."""

    def found(single: Evaluation) -> str:
        columns = {"one": single, "many": shares([100] * 64)}
        return comparisons.single_step_beats_iterative(columns, single="one", iterative="many", seed=1).state

    assert found(shares([90] * 18 + [110] * 3 + [100] * 43)) == "raised"
    assert found(shares([90] * 12 + [110] * 3 + [100] * 49)) == "clear"
