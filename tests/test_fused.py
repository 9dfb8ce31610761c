"""The Triton kernel: against a slow reference in float64 and the compiled kernel, interpreted on a CPU, real on a GPU.

Both kernels have the same random numbers, so that a few rows compared unit by unit say more than many rows counted.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import reference
import torch
from torch import Tensor

from sap_art import SAP, DefendedModel
from sap_art.kernels import compiled, plain
from sap_art.randomness import Place
from sap_art.sampling import METHODS, keep_probability, keep_set, prune

if not sys.platform.startswith("linux"):
    pytest.skip("triton has wheels for Linux only", allow_module_level=True)

from sap_art.kernels import fused

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # conftest.py sets TRITON_INTERPRET=1 for the latter
ON_GPU = pytest.mark.skipif(DEVICE == "cpu", reason="no GPU here: interpreted rows are too slow to count")
LENGTHS = [1, 3, 17, 100, 1023, 1500, 5000]


def key_of(generator: torch.Generator) -> tuple[np.uint32, np.uint32]:
    """The Philox key that the next draw will take from the generator, which is left as it was."""
    state = generator.get_state()
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    generator.set_state(state)
    return np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32)


@pytest.fixture
def generator() -> torch.Generator:
    """On the device of these tests."""
    return torch.Generator(DEVICE).manual_seed(20180303)


@pytest.mark.parametrize("margin", [3.0, -0.5])
@pytest.mark.parametrize("length", LENGTHS)
def test_the_exact_draw_is_that_of_the_reference(
    length: int, margin: float, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unit by unit, with first arrivals, Poisson number and top-up; with a negative margin rows are drawn afresh."""
    monkeypatch.setattr(fused, "MARGIN", margin)
    h = torch.randn(4, length, generator=generator, device=DEVICE).relu() + 1e-3
    draws = max(4, length // 2)
    key = key_of(generator)
    seen = keep_set(h, draws, generator, kernel="triton").cpu().numpy()
    rows = [reference.first_arrivals(h[row].double().cpu().numpy(), draws, margin, row, key) for row in range(4)]

    assert np.array_equal(seen, np.stack([keep for keep, _ in rows]))
    assert margin > 0 or length < 100 or max(attempts for _, attempts in rows) > 1


@pytest.mark.parametrize("method", ["bernoulli", "poisson"])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_independent_units_are_those_of_the_compiled_kernel(
    length: int, method: str, dtype: torch.dtype, generator: torch.Generator
) -> None:
    """Same key, same decisions, and values equal to 1e-5."""
    h = torch.randn(3, length, generator=generator, device=DEVICE).to(dtype)
    key = key_of(generator)
    seen = prune(h, length, generator, method=method, kernel="triton").cpu()
    expected = _compiled_product(h.cpu(), length, method, key)

    assert ((seen != 0) != (expected != 0)).sum() <= length // 1000  # the last bit of a logarithm may decide
    both = (seen != 0) & (expected != 0)
    torch.testing.assert_close(seen[both], expected[both], rtol=1e-5, atol=0)


def _compiled_product(h: Tensor, draws: int, method: str, key: tuple[np.uint32, np.uint32]) -> Tensor:
    """The compiled kernel's h keep / q with this key."""
    source, out = h.float().contiguous(), torch.empty(h.shape)
    law = compiled.Exponents(*map(np.float32, compiled.exponents(draws, method, margin=0.0)))
    nothing, place = compiled._NO_MASK.numpy(), Place(0, 0, len(h))
    compiled.draw_rows(source.numpy(), out.numpy(), nothing, law, 0, key, place, 0, len(h))
    return out


@pytest.mark.parametrize("method", METHODS)
def test_keep_set_product_and_mask_are_one_draw(method: str, generator: torch.Generator) -> None:
    """h keep / q with the right q, and the keep-set beside it if it is asked for."""
    h = torch.randn(3, 400, generator=generator, device=DEVICE)
    state, mask = generator.get_state(), torch.empty(3, 400, dtype=torch.bool, device=DEVICE)
    keep = keep_set(h.abs(), 400, generator, method=method, kernel="triton")
    product = prune(h, 400, generator.set_state(state), method=method, kernel="triton")
    again = prune(h, 400, generator.set_state(state), method=method, kernel="triton", keep=mask)
    q = keep_probability(h.abs(), 400, method=method)

    torch.testing.assert_close(product, torch.where(keep, h / q, 0.0), rtol=1e-5, atol=0)
    assert torch.equal(again, product)
    assert torch.equal(mask, keep)


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("length", [1, 7, 300, 1025])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_derivative_is_that_of_the_torch_kernel(
    length: int, method: str, dtype: torch.dtype, held: bool, generator: torch.Generator
) -> None:
    """In float64, on rows with zeros, one without weight and one with a single unit."""
    h, keep, gradient = reference.pruned_rows(length, method, torch.Generator().manual_seed(length))
    h = h.to(dtype)
    on_device = [tensor.to(DEVICE) for tensor in (h, keep, gradient)]
    seen = fused.prune_gradient(*on_device, length, method=method, held=held)
    exact = plain.prune_gradient(h.double(), keep, gradient.double(), length, method=method, held=held)

    assert seen.dtype == dtype
    torch.testing.assert_close(seen.cpu().double(), exact, rtol=0.02 if dtype == torch.bfloat16 else 2e-3, atol=1e-5)


def test_rows_without_weight_and_rows_that_are_not_finite(generator: torch.Generator) -> None:
    """Zeros keep nothing; NaN and inf raise at once or, without waiting, come out as NaN, and touch no other row."""
    h = torch.ones(4, 50, device=DEVICE)
    h[0], h[2, 7], h[3, 9] = 0, math.nan, math.inf
    out = prune(h, 50, generator, kernel="triton", wait=False)

    assert out[0].eq(0).all()
    assert out[1].isfinite().all()
    assert out[2:].isnan().all()
    for function in (prune, keep_set):
        with pytest.raises(ValueError, match="contain NaN or inf"):
            function(h, 50, generator, kernel="triton")
    assert keep_set(h[:2], 50, generator, kernel="triton").sum(1).tolist()[0] == 0


def test_a_defended_model_raises_for_activations_that_are_not_finite() -> None:
    """Though no layer waited for the device."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU(), torch.nn.Linear(12, 2)).to(DEVICE)
    model = DefendedModel(net, SAP(100, kernel="triton"), seed=1)
    x = torch.rand(2, 3, 2, 2, generator=torch.Generator().manual_seed(0)).to(DEVICE)

    assert model(x).isfinite().all()
    with pytest.raises(ValueError, match="contain NaN or inf"):
        model(torch.where(x == x[1, 0, 0, 0], math.inf, x))


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # numpy is the interpreter
def test_a_row_whose_sum_is_beyond_float32_is_refused(generator: torch.Generator) -> None:
    """Rather than rescaled to inf; the sums of blocks are within it."""
    with pytest.raises(ValueError, match="contain NaN or inf"):
        prune(torch.full((1, 160), 4e36, device=DEVICE), 160, generator, kernel="triton")


@pytest.mark.parametrize("length", [0, 1])
def test_empty_batches_and_single_units(length: int, generator: torch.Generator) -> None:
    """Pass through."""
    assert keep_set(torch.ones(0, 3, device=DEVICE), 3, generator, kernel="triton").shape == (0, 3)
    assert (
        keep_set(torch.ones(2, length, device=DEVICE), 3, generator, kernel="triton").tolist() == [[True] * length] * 2
    )


@pytest.mark.parametrize("architecture", [80, 90])
def test_it_compiles_for_gpus_that_are_not_here(architecture: int) -> None:
    """Down to machine code, for A100 and H100: what the interpreter accepts need not be what the compiler does."""
    program = f"""
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from sap_art.kernels import fused

kinds = dict.fromkeys(["h", "out", "gradient"], "*fp32") | {{"mask": "*u8", "sums": "*fp64"}}
kinds |= dict.fromkeys(["key", "draws"], "i64") | dict.fromkeys(["masked", "held"], "constexpr")
kinds |= dict.fromkeys(["first_draw", "first_image", "images", "units", "blocks", "steps"], "i32")
for program, option in ((fused._draw_row, "masked"), (fused._differentiate_row, "held")):
    for value in (True, False):
        signature = {{name: kinds.get(name, "fp32") for name in program.arg_names}}
        source = ASTSource(fn=program, signature=signature, constexprs={{option: value}})
        kernel = triton.compile(source, target=GPUTarget("cuda", {architecture}, 32), options={{"num_warps": 8}})
        assert len(kernel.asm["cubin"]) > 1000
"""
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr[-3000:]


@ON_GPU
@pytest.mark.parametrize(("weights", "draws"), [([5.0, 1.0, 0.5, 0.0], 4), ([10.0, 0.1, 0.1, 0.1], 6)])
def test_on_a_gpu_the_joint_law_is_exact(weights: list[float], draws: int, generator: torch.Generator) -> None:
    """As enumeration says, within five standard errors."""
    rows = 200_000
    keep = keep_set(torch.tensor(weights, device=DEVICE).expand(rows, -1).contiguous(), draws, generator)

    assert reference.worst_deviation(keep.cpu(), reference.keep_set_law(weights, draws)) < 5


@ON_GPU
def test_on_a_gpu_the_number_kept_has_the_exact_mean_and_variance(generator: torch.Generator) -> None:
    """16,384 equal weights, r = N, 20,000 rows: sd 39.91."""
    n, rows = 16_384, 20_000
    missed = (1 - 1 / n) ** n
    variance = n * missed * (1 - missed) + n * (n - 1) * ((1 - 2 / n) ** n - missed**2)
    size = torch.cat([keep_set(torch.ones(1000, n, device=DEVICE), n, generator).sum(1) for _ in range(20)]).double()

    assert abs(size.mean().item() - n * (1 - missed)) < 5 * math.sqrt(variance / rows)
    assert abs(size.var().item() / variance - 1) < 5 * math.sqrt(2 / (rows - 1))
