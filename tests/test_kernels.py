"""The compiled kernel's own parts: random bits, elementary functions, the Poisson number, threads."""

from __future__ import annotations

import math
import os
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
import reference
import torch
from numba import njit
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from sap_art import process
from sap_art.kernels import compiled, describe, lanes, plain, threads
from sap_art.kernels.streams import Row, poisson
from sap_art.policies import SAP
from sap_art.randomness import make_generator
from sap_art.sampling import METHODS, prune

KEY = (np.uint32(0x1234), np.uint32(0x5678))


@njit
def _philox(counter: Any, key: Any) -> Any:
    return lanes.philox(counter, key)


@njit
def _exponentials(bits: Any) -> Any:
    out = np.empty(len(bits), np.float32)
    for i in range(len(bits)):
        out[i] = lanes.exponential(bits[i])
    return out


@njit
def _one_minus_exp(x: Any) -> Any:
    out = np.empty_like(x)
    for i in range(len(x)):
        out[i] = lanes.one_minus_exp(x[i])
    return out


def test_the_reference_generator_gives_the_published_numbers() -> None:
    """Known answers of Random123 for philox4x32-10, so that the reference is Philox."""
    assert reference.philox([0] * 4, [0] * 2, 10) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert reference.philox([2**32 - 1] * 4, [2**32 - 1] * 2, 10) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


@pytest.mark.parametrize("seed", range(5))
def test_random_bits_are_philox(seed: int) -> None:
    """With seven rounds, to the bit."""
    numbers = [int(n) for n in np.random.default_rng(seed).integers(0, 2**32, 6)]
    words = [np.uint32(n) for n in numbers]

    assert [int(n) for n in _philox(tuple(words[:4]), tuple(words[4:]))] == reference.philox(
        numbers[:4], numbers[4:], 7
    )


def test_the_logarithm_keeps_its_digits_at_both_ends() -> None:
    """-log of (k + 1/2) 2^-31 for every scale of k and of 2^31 - k, to three units in float32's last place."""
    ends = np.concatenate([np.arange(100), 2 ** np.arange(7, 31), np.random.default_rng(0).integers(0, 2**31, 100_000)])
    k = np.unique(np.concatenate([ends, 2**31 - 1 - ends])).astype(np.uint64)
    v = (k.astype(np.float64) + 0.5) * 2.0**-31
    above = (2.0**31 - 0.5 - k.astype(np.float64)) * 2.0**-31
    exact = np.where(v < 0.5, -np.log1p(-v), -np.log(above))
    seen = _exponentials((k << np.uint64(1)).astype(np.uint32)).astype(np.float64)

    assert np.abs(seen / exact - 1).max() < 3 * 2.0**-23


def test_the_exponential_keeps_its_digits_near_zero() -> None:
    """1 - exp(-x) from 1e-37 to 1e5, to three units in float32's last place."""
    x = (10 ** np.linspace(-37, 5, 200_001)).astype(np.float32)
    exact = -np.expm1(-x.astype(np.float64))

    assert np.abs(_one_minus_exp(x) / exact - 1).max() < 3 * 2.0**-23


def _poisson_numbers(mean: float, rows: int) -> NDArray[np.int64]:
    """One for each of the images 0, 1, 2, ..."""
    return np.array([poisson(mean, 1 << 31, Row(np.uint32(row), np.uint32(0)), KEY) for row in range(rows)])


@pytest.mark.parametrize("mean", [0.0, 0.3, 4.0, 9.99, 10.0, 30.0, 250.0])
def test_the_poisson_number_has_its_law(mean: float) -> None:
    """Each count's frequency over 100,000 draws, within five standard errors; below and above the change of method."""
    rows = 100_000
    counts = _poisson_numbers(mean, rows)
    values = np.arange(counts.max() + 2)
    p = stats.poisson.pmf(values, mean)
    seen = np.bincount(counts, minlength=len(values)) / rows
    common = p * rows > 20

    assert (np.abs(seen - p)[common] <= 5 * np.sqrt(p * (1 - p) / rows)[common]).all()
    assert seen[~common].sum() < p[~common].sum() + 5 * math.sqrt(p[~common].sum() / rows) + 1e-9


@pytest.mark.parametrize("mean", [1e3, 1e6, 4e9])
def test_the_poisson_number_does_not_underflow_at_large_means(mean: float) -> None:
    """exp(-mean) is 0 there: mean, variance and quantiles over 20,000 draws."""
    rows = 20_000
    counts = np.array(
        [poisson(mean, 1 << 31, Row(np.uint32(row), np.uint32(0)), KEY) for row in range(rows)], dtype=np.float64
    )
    standardised = (counts - mean) / math.sqrt(mean)

    assert abs(standardised.mean()) < 5 / math.sqrt(rows)
    assert abs(standardised.var() - 1) < 5 * math.sqrt(2 / rows)
    assert stats.kstest(standardised, "norm").pvalue > 1e-6


def _value_and_gradient(h: Tensor, kernel: str, *, count: int) -> tuple[Tensor, Tensor]:
    before, h = torch.get_num_threads(), h.detach().requires_grad_()
    torch.set_num_threads(count)
    try:
        value = SAP(100, kernel=kernel)(h, make_generator("cpu", 1, "draw"))
        return value.detach(), torch.autograd.grad(value.cos().sum(), h)[0]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kernel", ["numba", "torch"])
@pytest.mark.parametrize("shape", [(37, 5000), (1, 300_000), (3, 100_001)])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_draw_does_not_depend_on_the_number_of_threads(
    count: int, shape: tuple[int, int], kernel: str, generator: torch.Generator
) -> None:
    """Rows are numbered, not dealt out, and no sum is rounded by who makes it; also where it is of one long row."""
    h = torch.randn(shape, generator=generator)
    alone = _value_and_gradient(h, kernel, count=1)
    together = _value_and_gradient(h, kernel, count=count)

    assert h.numel() > threads.SMALL
    assert all(map(torch.equal, alone, together))


def test_a_row_with_nan_is_found_in_every_thread(generator: torch.Generator) -> None:
    """Also in the last rows, which another thread has."""
    h = torch.randn(40, 5000, generator=generator)
    h[-1, 17] = math.nan
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(ValueError, match="contain NaN or inf"):
            prune(h, 5000, generator, kernel="numba")
    finally:
        torch.set_num_threads(before)


def test_the_kernel_works_in_a_forked_child(generator: torch.Generator) -> None:
    """The pool's threads do not survive a fork; a child that waited for them would hang."""
    h = torch.randn(64, 5000, generator=generator)
    prune(h, 5000, generator, kernel="numba")
    child = os.fork()
    if child == 0:
        torch.set_num_threads(2)
        threads.in_threads(lambda first, last: True, rows=64, elements=10**6)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("length", [1, 7, 1025, 4096])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_kernels_have_the_same_derivative(
    length: int, method: str, dtype: torch.dtype, held: bool, generator: torch.Generator
) -> None:
    """Compiled against torch in float64, on rows with zeros, one without weight and one with a single unit."""
    h, keep, gradient = reference.pruned_rows(length, method, generator)
    h = h.to(dtype)
    seen = compiled.prune_gradient(h, keep, gradient, length, method=method, held=held)
    exact = plain.prune_gradient(h.double(), keep, gradient.double(), length, method=method, held=held)

    assert seen.dtype == dtype
    torch.testing.assert_close(seen.double(), exact, rtol=0.02 if dtype == torch.bfloat16 else 2e-3, atol=1e-5)


def test_the_kernel_of_a_run_is_named_with_its_version() -> None:
    """For the sidecar: what ``auto`` takes on each kind of device."""
    assert describe(torch.device("cpu")) == f"numba {version('numba')}"
    assert describe(torch.device("cuda")) == f"triton {version('triton')}"
    assert describe(torch.device("meta")) == f"torch {torch.__version__}"


@pytest.mark.parametrize(("given", "expected"), [(None, "1000"), ("7", "7")])
def test_waiting_threads_sleep_unless_the_user_says_otherwise(
    given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set before torch is loaded, never over a setting of the user's."""
    monkeypatch.setenv("GOMP_SPINCOUNT", given or "")
    if given is None:
        monkeypatch.delenv("GOMP_SPINCOUNT")
    process.prepare()

    assert os.environ["GOMP_SPINCOUNT"] == expected
