"""The draw of SAP's keep-set, by each kernel: exact laws against enumeration and closed forms, edges, errors."""

from __future__ import annotations

import math
from functools import partial
from itertools import product

import pytest
import reference
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from sap_art.kernels import arrivals, plain
from sap_art.kernels.splitmix import RowNumbers
from sap_art.kernels.weights import weigh
from sap_art.randomness import Place
from sap_art.sampling import MAX_EXACT_DRAWS, METHODS, keep_probability, keep_set, prune

ROWS = 200_000
SMALL_CASES = [
    ([1.0, 1.0, 1.0], 3),
    ([5.0, 1.0, 0.5, 0.0], 4),
    ([0.7, 0.2, 0.1], 1),
    ([3.0, 2.0, 1.0], 8),
    ([10.0, 0.1, 0.1, 0.1], 6),
]


@pytest.fixture(params=["torch", "numba"])
def kernel(request: pytest.FixtureRequest) -> str:
    """Each kernel for a CPU in turn; test_fused.py has the kernel for a GPU."""
    return str(request.param)


@pytest.mark.parametrize(("weights", "draws"), SMALL_CASES)
def test_multinomial_has_the_exact_joint_law(
    weights: list[float], draws: int, kernel: str, generator: torch.Generator
) -> None:
    """Every keep-set comes up as often as enumeration of all draws says, within five standard errors."""
    law = reference.keep_set_law(weights, draws)
    keep = keep_set(torch.tensor(weights).expand(ROWS, -1).contiguous(), draws, generator, kernel=kernel)

    assert reference.worst_deviation(keep, law) < 5


@pytest.mark.parametrize(
    ("weights", "draws"), [([16.0, 1.0, 1.0, 1.0, 1.0, 1.0], 40), ([4.0, 1.0, 1.0, 1.0, 0.0, 1.0], 20)]
)
def test_many_draws_have_the_exact_joint_law(
    weights: list[float], draws: int, kernel: str, generator: torch.Generator
) -> None:
    """As above where looks at the arrivals decide: P(K = A) = sum over B in A of (-1)^|A - B| P(all draws in B)."""
    p = [w / sum(weights) for w in weights]
    law: dict[tuple[bool, ...], float] = {}
    for kept in product((False, True), repeat=len(p)):
        for inner in product(*((False, True) if is_kept else (False,) for is_kept in kept)):
            inside = math.fsum(q for q, is_in in zip(p, inner, strict=True) if is_in)
            law[kept] = law.get(kept, 0.0) + (-1.0) ** (sum(kept) - sum(inner)) * inside**draws
    law = {kept: share for kept, share in law.items() if share > 1e-12}
    rows = torch.tensor(weights).expand(ROWS, -1).contiguous()

    assert sum(law.values()) == pytest.approx(1)
    assert reference.worst_deviation(keep_set(rows, draws, generator, kernel=kernel), law) < 5
    assert reference.worst_deviation(keep_set(rows, draws, generator, method="bernoulli", kernel=kernel), law) > 8


@pytest.mark.parametrize("shortcut", ["independent units", "without replacement", "overshoot kept", "no top-up"])
def test_the_joint_law_rejects_every_wrong_shortcut(shortcut: str, generator: torch.Generator) -> None:
    """The test above can fail: each of these has been sold as the draw with replacement."""
    weights, draws = [5.0, 1.0, 0.5, 0.2], 2
    rows = torch.tensor(weights).expand(ROWS, -1).contiguous()
    p, keep = rows / rows.sum(1, keepdim=True), torch.zeros_like(rows, dtype=torch.bool)
    if shortcut == "independent units":
        keep = keep_set(rows, draws, generator, method="bernoulli")
    elif shortcut == "without replacement":
        keep.scatter_(1, torch.multinomial(rows, draws, generator=generator), True)
    else:
        counts = torch.poisson(p * draws, generator)
        keep = counts > 0
        if shortcut == "overshoot kept":
            missing = (draws - counts.sum(1)).clamp(min=0).long().numpy()
            kept = F.pad(keep.float(), (0, weigh(rows).w.shape[1] - len(weights)))
            arrivals.top_up(kept, weigh(rows), missing, RowNumbers.of(7, Place(0, 0, ROWS), ROWS))
            keep = kept[:, : len(weights)] > 0
        else:
            keep = keep[counts.sum(1) <= draws]

    assert reference.worst_deviation(keep, reference.keep_set_law(weights, draws)) > 20


def test_the_number_kept_has_the_exact_mean_and_variance(kernel: str, generator: torch.Generator) -> None:
    """At N = r = 4,096 with half the units dead, over 4,000 rows."""
    units, rows = 4096, 4000
    weights = torch.randn(units, generator=generator).relu()
    mean, variance = reference.number_kept(weights.double() / weights.double().sum(), units)
    size = _number_kept(weights, units, rows, partial(keep_set, generator=generator, kernel=kernel))

    assert abs(size.mean().item() - mean) < 5 * math.sqrt(variance / rows)
    assert abs(size.var().item() / variance - 1) < 5 * math.sqrt(2 / (rows - 1))


@pytest.mark.parametrize(("method", "deviation"), [("multinomial", 39.91), ("bernoulli", 61.73)])
def test_the_number_kept_spreads_less_than_with_independent_units(
    method: str, deviation: float, kernel: str, generator: torch.Generator
) -> None:
    """16,384 equal weights, r = N: N q (1 - q) against N q (1 - q) + N (N - 1) ((1 - 2/N)^r - (1 - 1/N)^2r)."""
    n, rows = 16_384, 2000
    missed = (1 - 1 / n) ** n
    independent = n * missed * (1 - missed)
    expected = independent + n * (n - 1) * ((1 - 2 / n) ** n - missed**2) * (method == "multinomial")
    draw = partial(keep_set, generator=generator, method=method, kernel=kernel)
    size = _number_kept(torch.ones(n), n, rows, draw)

    assert math.sqrt(expected) == pytest.approx(deviation, abs=0.01)
    assert abs(size.mean().item() - n * (1 - missed)) < 5 * math.sqrt(expected / rows)
    assert abs(size.var().item() / expected - 1) < 5 * math.sqrt(2 / (rows - 1))


def _number_kept(weights: Tensor, draws: int, rows: int, draw: partial[Tensor]) -> Tensor:
    """The sizes of ``rows`` keep-sets (rows,), drawn 500 rows at a time."""
    part = weights.expand(500, -1).contiguous()
    return torch.cat([draw(part, draws).sum(1).double() for _ in range(rows // 500)])


def test_pairs_of_units_have_the_multinomial_covariance(kernel: str, generator: torch.Generator) -> None:
    """Power-law weights: cov(i, j) = (1 - p_i - p_j)^r - ((1 - p_i)(1 - p_j))^r < 0 for all pairs, and marginals."""
    units, draws = 24, 30
    p = 1 / torch.arange(1, units + 1).double().sqrt()
    p /= p.sum()
    keep = keep_set(p.float().expand(ROWS, -1).contiguous(), draws, generator, kernel=kernel).double()
    q = 1 - (1 - p) ** draws
    neither = (1 - p[:, None] - p[None]).clamp(min=0) ** draws
    covariance = neither - (1 - q[:, None]) * (1 - q[None])
    products = (keep - q).T @ (keep - q) / ROWS
    error = ((_product_square(q, neither) - covariance**2) / ROWS).sqrt()
    pairs = torch.ones(units, units, dtype=torch.bool).triu(1)

    assert ((keep.mean(0) - q).abs() <= 5 * (q * (1 - q) / ROWS).sqrt()).all()
    assert ((products - covariance).abs() / error)[pairs].max() < 5
    assert (covariance / error)[pairs].max() < 0
    assert (covariance / error)[pairs].min() < -8  # independent units, with 0, would not pass


def _product_square(q: Tensor, neither: Tensor) -> Tensor:
    """E[(K_i - q_i)^2 (K_j - q_j)^2] over the four states of a pair, from P(neither kept) (N, N)."""
    missed = 1 - q
    only_j, only_i = missed[:, None] - neither, missed[None] - neither
    both = 1 - neither - only_i - only_j
    kept_i, kept_j, missed_i, missed_j = missed[:, None] ** 2, missed[None] ** 2, q[:, None] ** 2, q[None] ** 2
    return (
        both * kept_i * kept_j + only_i * kept_i * missed_j + only_j * missed_i * kept_j + neither * missed_i * missed_j
    )


def test_the_reference_agrees_with_the_closed_form(generator: torch.Generator) -> None:
    """The slow sampler has the marginals 1 - (1 - p)^r, so that reference and formula check each other."""
    weights, rows = torch.tensor([4.0, 2.0, 1.0, 0.0]), 4000
    seen = reference.keep_set(weights.expand(rows, -1), 3, generator).double().mean(0)
    q = 1 - (1 - weights.double() / 7) ** 3

    assert ((seen - q).abs() <= 5 * (q * (1 - q) / rows).sqrt()).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("kernel", "dtype"),
    [
        *((name, dtype) for name in ("torch", "numba") for dtype in (torch.float16, torch.bfloat16, torch.float32)),
        ("torch", torch.float64),
    ],
)
def test_units_are_kept_as_often_as_promised(
    method: str, dtype: torch.dtype, kernel: str, generator: torch.Generator
) -> None:
    """Marginal frequencies are those of ``keep_probability`` for each method, kernel and type."""
    weights, rows, draws = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.0, 0.25], dtype=dtype), 40_000, 7
    seen = (
        keep_set(weights.expand(rows, -1).contiguous(), draws, generator, method=method, kernel=kernel).double().mean(0)
    )
    q = keep_probability(weights.double()[None], draws, method=method)[0]

    assert ((seen - q).abs() <= 5 * (q * (1 - q) / rows).sqrt()).all()


@pytest.mark.parametrize("method", METHODS)
def test_pruned_units_are_those_of_the_draw_over_their_probability(
    method: str, kernel: str, generator: torch.Generator
) -> None:
    """h keep / q with the keep-set that the same generator state gives, whether that is asked for or not."""
    h = torch.randn(300, 900, generator=generator)
    h[:, ::2] = 0
    state, mask = generator.get_state(), torch.empty(300, 900, dtype=torch.bool)
    pruned = prune(h, 900, generator, method=method, kernel=kernel)
    keep = keep_set(h.abs(), 900, generator.set_state(state), method=method, kernel=kernel)
    again = prune(h, 900, generator.set_state(state), method=method, kernel=kernel, keep=mask)
    q = keep_probability(h.abs(), 900, method=method)

    torch.testing.assert_close(pruned, torch.where(keep, h / q, 0.0), rtol=1e-5, atol=0)
    assert torch.equal(again, pruned)
    assert torch.equal(mask, keep)


def test_small_probabilities_are_not_lost_at_a_million_units(generator: torch.Generator) -> None:
    """r p of the smallest unit at N = 10^6 agrees with float64 to 1e-4."""
    weights = torch.rand(1, 10**6, generator=generator) + 1e-3
    exact = keep_probability(weights.double(), 10**6)

    assert ((keep_probability(weights, 10**6).double() - exact) / exact).abs().max() < 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_a_row_of_zeros_keeps_nothing(method: str, kernel: str, generator: torch.Generator) -> None:
    """Beside a live row, which is not affected."""
    weights = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])

    keep = keep_set(weights, 50, generator, method=method, kernel=kernel)

    assert not keep[[0, 2]].any()
    assert keep[1].tolist() == [True, False, False]


@pytest.mark.parametrize("draws", [1, 2, 5, 10**6])
def test_a_single_live_unit_is_always_kept_with_probability_one(
    draws: int, kernel: str, generator: torch.Generator
) -> None:
    """q is exactly 1, and its gradient finite."""
    weights = torch.tensor([[0.0, 3.0, 0.0]], requires_grad=True)
    q = keep_probability(weights, draws)
    (gradient,) = torch.autograd.grad(q.sum(), weights)

    assert q.tolist() == [[0.0, 1.0, 0.0]]
    assert torch.isfinite(gradient).all()
    assert keep_set(weights.detach().expand(1000, -1).contiguous(), draws, generator, kernel=kernel).sum(
        0
    ).tolist() == [0, 1000, 0]


def test_a_unit_of_weight_zero_is_never_kept(kernel: str, generator: torch.Generator) -> None:
    """Not even by the top-up, at the edges of the row."""
    weights = torch.tensor([0.0, 1.0, 0.0, 2.0, 0.0]).repeat(50_000, 1)

    assert not keep_set(weights, 3, generator, kernel=kernel)[:, [0, 2, 4]].any()


def test_no_row_keeps_more_units_than_it_has_draws(kernel: str, generator: torch.Generator) -> None:
    """A row that overshoots is drawn afresh: 50 draws among 20,000 units would else give up to 60."""
    size = keep_set(torch.ones(2000, 20_000), 50, generator, kernel=kernel).sum(1)

    assert size.max() == 50


def test_one_row_s_uniforms_do_not_move_with_another_row_s_weights(
    kernel: str, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With fixed noise an image keeps its uniforms, also in the next chunk of rows."""
    monkeypatch.setattr(plain, "_CHUNK", 30_000)
    weights = torch.rand(300, 1000, generator=generator)
    changed = weights.clone()
    changed[0] = changed[0].flip(0)
    state = generator.get_state()
    before = keep_set(weights, 1000, generator, kernel=kernel)
    after = keep_set(changed, 1000, generator.set_state(state), kernel=kernel)

    assert torch.equal(before[1:], after[1:])


def test_the_same_generator_gives_the_same_draw_and_the_global_one_is_not_used(
    kernel: str, generator: torch.Generator
) -> None:
    """Randomness is an argument."""
    weights = torch.rand(5, 100, generator=generator)
    state, everybody = generator.get_state(), torch.get_rng_state()
    first = keep_set(weights, 100, generator, kernel=kernel)
    second = keep_set(weights, 100, generator.set_state(state), kernel=kernel)

    assert torch.equal(first, second)
    assert torch.equal(everybody, torch.get_rng_state())
    assert not torch.equal(first, keep_set(weights, 100, generator, kernel=kernel))


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_batch_gives_an_empty_keep_set(method: str, kernel: str, generator: torch.Generator) -> None:
    """(0, N) and (B, 0) pass through."""
    assert keep_set(torch.zeros(0, 7), 7, generator, method=method, kernel=kernel).shape == (0, 7)
    assert keep_set(torch.zeros(3, 0), 7, generator, method=method, kernel=kernel).shape == (3, 0)


@pytest.mark.parametrize(
    ("weights", "draws", "method", "message"),
    [
        (torch.ones(3), 1, "multinomial", r"must be floating \(B, N\)"),
        (torch.ones(2, 3, dtype=torch.long), 1, "multinomial", r"must be floating \(B, N\)"),
        (torch.ones(2, 3), 0, "multinomial", "draws must be at least 1"),
        (torch.tensor([[1.0, float("nan")]]), 1, "bernoulli", "contain NaN or inf"),
        (torch.tensor([[1.0, float("inf")]]), 1, "poisson", "contain NaN or inf"),
        (torch.tensor([[1.0, -1.0]]), 1, "multinomial", "must not be negative, got -1"),
        (torch.ones(2, 3), MAX_EXACT_DRAWS + 1, "multinomial", "use sampler='bernoulli'"),
        (torch.ones(2, 3), 1, "urn", "unknown sampler 'urn'; known: multinomial"),
    ],
)
def test_bad_input_gets_a_clear_error(
    weights: torch.Tensor, draws: int, method: str, message: str, kernel: str, generator: torch.Generator
) -> None:
    """Said before any work."""
    with pytest.raises(ValueError, match=message):
        keep_set(weights, draws, generator, method=method, kernel=kernel)


def test_the_exact_sampler_handles_the_largest_number_of_draws(kernel: str, generator: torch.Generator) -> None:
    """All live units are kept."""
    assert keep_set(torch.tensor([[1.0, 0.0, 2.0]]), MAX_EXACT_DRAWS, generator, kernel=kernel).tolist() == [
        [True, False, True]
    ]


def test_weights_may_span_sixty_orders_of_magnitude(kernel: str, generator: torch.Generator) -> None:
    """1e-30 to 1e30: the largest unit is always kept, what is below rounding never, and all rescalings are finite."""
    weights = (10.0 ** torch.linspace(-30, 30, 61)).expand(500, -1).contiguous()
    keep = keep_set(weights, 61, generator, kernel=kernel)
    q = keep_probability(weights[:1].double(), 61)[0]

    assert keep[:, -1].all()
    assert not keep[:, q < 1e-12].any()
    assert ((keep.double().mean(0) - q).abs() <= 5 * (q * (1 - q) / 500).sqrt() + 1e-9).all()
    assert torch.isfinite(prune(weights, 61, generator, kernel=kernel)).all()


@pytest.mark.parametrize("size", [1e-42, 1e-38, 1e38])
def test_weights_may_be_tiny_or_huge_all_together(size: float, kernel: str, generator: torch.Generator) -> None:
    """Only ratios matter, also among denormal numbers; their sum may not overflow."""
    weights = torch.tensor([2.0, 1.0, 0.0]).mul(size).expand(20_000, -1).contiguous()
    seen = keep_set(weights, 1, generator, kernel=kernel).double().mean(0)

    assert abs(seen[0].item() - 2 / 3) < 5 * math.sqrt(2 / 9 / 20_000) + 1e-3
    assert seen.sum() == 1


@pytest.mark.parametrize("length", [1, 2, 3, 5, 15, 16, 17, 31, 1023, 1025, 2051])
def test_every_place_in_a_row_is_reached(length: int, kernel: str, generator: torch.Generator) -> None:
    """Equal weights at lengths around the tiles and blocks: each unit's frequency is 1 - (1 - 1/N)^r."""
    rows, draws = 4000, max(1, length // 2)
    seen = keep_set(torch.ones(rows, length), draws, generator, kernel=kernel).double().mean(0)
    q = 1 - (1 - 1 / length) ** draws

    assert ((seen - q).abs() <= 5 * math.sqrt(q * (1 - q) / rows)).all()


def test_unlikely_units_keep_their_probability(kernel: str, generator: torch.Generator) -> None:
    """Two million units with r p = 1e-4 beside one heavy unit, 20 rows: 4,000 are kept, give or take 5 sd."""
    units, draws, rows = 2**21, 2**21, 20
    weights = torch.full((1, units), 1e-4)
    weights[0, -1] = units * (1 - 1e-4)
    kept = sum(int(keep_set(weights, draws, generator, kernel=kernel)[0, :-1].sum()) for _ in range(rows))
    expected = rows * keep_probability(weights.double(), draws)[0, :-1].sum().item()

    assert abs(kept - expected) < 5 * math.sqrt(expected)


def test_float32_uniforms_of_the_torch_kernel_have_no_steps_near_one() -> None:
    """-log U below 2^-10 fills steps of 2^-24 evenly: mean and variance of a uniform within the step."""
    log = RowNumbers.of(5, Place(0, 0, 8), 8).minus_uniform(torch.empty(8, 2**20)).log1p_().view(-1).double()
    near = log[log > -(2.0**-11)]
    place = (-torch.expm1(near) * 2**24) % 1
    n = len(near)

    assert abs(n - 2**23 * 2.0**-11) < 5 * math.sqrt(2**23 * 2.0**-11)
    assert abs(place.mean().item() - 0.5) < 5 / math.sqrt(12 * n) + 2.0 ** (-8)
    assert abs(place.var().item() * 12 - 1) < 5 * math.sqrt(0.8 / n) + 2.0 ** (-8)
    assert torch.isfinite(log).all()
    assert log.max() < 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniforms_have_their_law_and_belong_to_place_and_attempt(dtype: torch.dtype) -> None:
    """By Kolmogorov and Smirnov; another image, draw, attempt or key has others, another batch the same."""
    like = torch.empty(2, 50_001, dtype=dtype)

    def uniforms(draw: int, image: int, images: int, *, key: int = 9, afresh: bool = False) -> Tensor:
        numbers = RowNumbers.of(key, Place(draw, image, images), 2)
        return (numbers.afresh() if afresh else numbers).minus_uniform(like).neg()

    first = uniforms(3, 5, 2)
    others = [uniforms(4, 5, 2), uniforms(3, 6, 2)[1:], uniforms(3, 5, 2, key=8), uniforms(3, 5, 2, afresh=True)]

    assert stats.kstest(first.numpy().ravel(), "uniform").pvalue > 1e-6
    assert torch.equal(uniforms(3, 6, 2)[0], first[1])
    assert torch.equal(uniforms(3, 5, 1)[1], uniforms(4, 5, 1)[0])  # batches of one image: the second row is a draw
    for other in others:
        assert not torch.isin(other, first).float().mean() > 0.01


@pytest.mark.parametrize(
    ("kernel", "weights", "message"),
    [
        ("cuda", torch.ones(1, 2), "unknown kernel 'cuda'; known: auto, torch, numba, triton"),
        ("numba", torch.ones(1, 2, dtype=torch.float64), "float32 or less, got torch.float64"),
    ],
)
def test_a_kernel_that_does_not_fit_is_refused(
    kernel: str, weights: Tensor, message: str, generator: torch.Generator
) -> None:
    """Rather than replaced by another in silence."""
    with pytest.raises(ValueError, match=message):
        keep_set(weights, 1, generator, kernel=kernel)


def test_without_numba_auto_is_torch_and_numba_says_what_to_install(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra is optional."""
    monkeypatch.setattr("sap_art.kernels._installed", lambda package: False)
    weights = torch.rand(3, 50, generator=generator)
    state = generator.get_state()
    auto = keep_set(weights, 50, generator)

    assert torch.equal(auto, keep_set(weights, 50, generator.set_state(state), kernel="torch"))
    with pytest.raises(ValueError, match=r"pip install 'sap-art\[fast\]'"):
        keep_set(weights, 50, generator, kernel="numba")


def test_the_default_type_and_device_are_not_used(kernel: str, generator: torch.Generator) -> None:
    """Somebody else's settings do not reach the kernels."""
    weights = torch.rand(3, 50, generator=generator)
    state = generator.get_state()
    expected = prune(weights, 50, generator, kernel=kernel)
    try:
        torch.set_default_dtype(torch.float64)
        seen = prune(weights, 50, generator.set_state(state), kernel=kernel)
    finally:
        torch.set_default_dtype(torch.float32)

    assert torch.equal(seen, expected)


def test_a_row_whose_sum_is_beyond_float32_is_refused(kernel: str, generator: torch.Generator) -> None:
    """Rather than rescaled to inf."""
    with pytest.raises(ValueError, match="contain NaN or inf"):
        prune(torch.full((1, 16), 4e37), 16, generator, kernel=kernel)
