"""Models written as one file of torch's operators: the same logits and gradients where nothing of ours is installed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sap_art import SAP, DefendedModel
from sap_art.integrations.robustbench.submission import fix_mask, load_standalone, write_standalone

X = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))

FRESH = """
import importlib.util, sys
import torch
sys.modules["sap_art"] = None  # importing it raises
spec = importlib.util.spec_from_file_location("generated", sys.argv[1])
generated = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generated)
model = generated.load()
given = torch.load(sys.argv[2], weights_only=True)
x = given["x"].requires_grad_()
logits = model(x)
logits.square().sum().backward()
assert type(model).__mro__[1] is torch.nn.Module
assert torch.equal(model(x[:1]), model(x[:1]))
model.train()
alone = torch.cat([model(one[None]) for one in x])
torch.save({"logits": logits.detach(), "alone": alone.detach(), "gradient": x.grad}, sys.argv[3])
others = [name for name in sys.modules if name.split(".")[0] in ("safetensors", "robustbench", "art", "scipy", "numba")]
print(others)
"""


class Swish(torch.autograd.Function):
    """As in RobustBench's zoo: a forward pass of its own, and a backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,) = ctx.saved_tensors
        return gradients[0] * (x.sigmoid() * (1 + x * (1 - x.sigmoid())))


class Many(nn.Module):
    """Much of what nets do: in-place and functional activations, pooling, views by batch size, splits, attention."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.attention = nn.Linear(8, 24)
        self.layer_norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 10)
        self.register_buffer("shift", torch.linspace(0, 1, 8), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.norm(self.conv(x)))
        h = F.max_pool2d(F.pad(Swish.apply(h), (1, 1, 1, 1)), 2)
        tokens = h.view(x.size(0), 8, -1).transpose(1, 2) + self.shift
        q, k, v = self.attention(self.layer_norm(tokens)).chunk(3, dim=-1)
        h = F.gelu(F.scaled_dot_product_attention(q, k, v)).mean(1)
        return self.head(self.drop(h)) + torch.zeros(x.shape[0], 10, device=x.device)


def weighted(net: nn.Module) -> nn.Module:
    """Weights and batch statistics from a seed, in eval mode."""
    generator = torch.Generator().manual_seed(0)
    for value in [*net.parameters(), *(b for b in net.buffers() if b.is_floating_point())]:
        value.data = torch.rand(value.shape, generator=generator) * 0.5 + 0.1
    return net.eval()


class Function(nn.Module):
    """A function as a net."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def in_a_fresh_process(path: Path, x: Tensor) -> dict[str, Tensor]:
    """What the generated module gives where ``sap_art`` cannot be imported."""
    given, found = path.parent / "given.bin", path.parent / "found.bin"
    torch.save({"x": x}, given)
    command = [sys.executable, "-I", "-c", FRESH, str(path), str(given), str(found)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
    return torch.load(found, weights_only=True)


def test_a_fixed_mask_is_reproduced_without_this_package(
    tmp_path: Path, net: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    """Logits for any batch size, in train mode too, and the gradient; on the shipped net under SAP-200."""
    x = images[0][:5]
    fixed = fix_mask(DefendedModel(net, SAP(200), seed=0), images[0][32:], seed=0)
    path = write_standalone(fixed, images[0][:3], tmp_path / "fixed_mask.py", about="A net.")
    found = in_a_fresh_process(path, x)
    point = x.clone().requires_grad_()
    logits = fixed(point)
    (gradient,) = torch.autograd.grad(logits.square().sum(), point)

    torch.testing.assert_close(found["logits"], logits.detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["alone"], logits.detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["gradient"], gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max().item())
    assert not torch.allclose(found["logits"], net(x))


def test_whatever_nets_do_is_written_out(tmp_path: Path) -> None:
    """In-place and functional activations, operators of their own, attention; parameters are parameters."""
    net = weighted(Many())
    path = write_standalone(net, X[:2], tmp_path / "many.py", about='Ends """ here? \\')
    made = load_standalone(path)
    point, other = X.clone().requires_grad_(), X.clone().requires_grad_()
    gradients = [torch.autograd.grad(m(p).square().sum(), p)[0] for m, p in ((net, point), (made, other))]

    torch.testing.assert_close(made(X), net(X))
    torch.testing.assert_close(made(X[:1]), net(X[:1]))
    torch.testing.assert_close(gradients[1], gradients[0])
    assert not made.training
    assert sum(p.numel() for p in made.parameters()) == sum(p.numel() for p in net.parameters())
    assert all(p.requires_grad for p in made.parameters())


def test_the_same_model_gives_the_same_files(tmp_path: Path) -> None:
    """To the byte."""
    net = weighted(Many())
    paths = [write_standalone(net, X[:2], tmp_path / folder / "many.py", about="A net.") for folder in made(tmp_path)]

    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].with_suffix(".pt").read_bytes() == paths[1].with_suffix(".pt").read_bytes()


def made(folder: Path) -> tuple[str, str]:
    """Two new folders."""
    for name in ("a", "b"):
        (folder / name).mkdir()
    return "a", "b"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        pytest.param(lambda x: x.flatten(1) if x.sum() > 0 else -x.flatten(1), "cannot be written", id="branch"),
        pytest.param(lambda x: x.flatten(1) + torch.rand(()), "differs from the model", id="random"),
        pytest.param(lambda x: (x.flatten(1), x), "return logits alone", id="two outputs"),
        pytest.param(lambda x: x.view(2, -1), "cannot be written", id="one batch size"),
    ],
)
def test_what_cannot_be_written_truly_is_refused(
    tmp_path: Path, function: Callable[[Tensor], Tensor], message: str
) -> None:
    """A run that depends on the image, randomness, more than logits, one batch size only."""
    with pytest.raises(ValueError, match=message):
        write_standalone(Function(function).eval(), X[:3], tmp_path / "net.py", about="")


class Counter(nn.Module):
    """Counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.get_buffer("calls").add_(1)
        return x.flatten(1) * self.get_buffer("calls")


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Counter().eval(), "differs from the model"),
        (nn.Sequential(nn.BatchNorm2d(3).train(), nn.Flatten()), "training mode"),
    ],
)
def test_a_net_that_changes_itself_is_refused(tmp_path: Path, net: nn.Module, message: str) -> None:
    """By a buffer of its own, or by batch statistics that move with each call."""
    with pytest.raises(ValueError, match=message):
        write_standalone(net, X, tmp_path / "net.py", about="")


@pytest.mark.parametrize("name", ["my-net.py", "class.py", "net.txt", "1.py"])
def test_the_file_can_be_imported(tmp_path: Path, name: str) -> None:
    """Or there is none."""
    with pytest.raises(ValueError, match="must be importable"):
        write_standalone(nn.Flatten().eval(), X, tmp_path / name, about="")
    assert not list(tmp_path.iterdir())
