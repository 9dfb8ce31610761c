"""RobustBench's own ``benchmark()``, end to end and offline, with a word on what its number is worth."""

from __future__ import annotations

import importlib
import math
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sap_art import data
from sap_art.attacks.isolation import Guarded, isolated
from sap_art.foreign import as_stochastic
from sap_art.integrations.robustbench.mending import replaced
from sap_art.integrations.robustbench.repairs import IMAGES, repaired, require_installed
from sap_art.randomness import derive_seed
from sap_art.stochastic import StochasticModel, require_eval
from sap_art.threat import ThreatModel

CLASSES = len(data.CLASS_NAMES["cifar10"])
NO_EVALUATION = (
    "AutoAttack standard of a random model is no evaluation: it attacks single draws, one lucky error ends the "
    "attack on an image, and the accuracy is that of one draw; use sap-art bench, or sap_art.evaluate on fresh draws"
)


class BenchmarkResult(tuple[float, float]):
    """``clean, robust``: the accuracies in [0, 1] as RobustBench returned them, and what they are worth.

    ``random`` says that the model is random. Then ``robust`` is no evaluation and bounds nothing, see
    ``NO_EVALUATION``; printed, the result says so itself.
    """

    random: bool

    def __new__(cls, clean: float, robust: float, random: bool) -> BenchmarkResult:
        result = super().__new__(cls, (clean, robust))
        result.random = random
        return result

    def __getnewargs__(self) -> tuple[float, float, bool]:
        return self[0], self[1], self.random

    @property
    def clean(self) -> float:
        """Accuracy on the images as they are: one pass."""
        return self[0]

    @property
    def robust(self) -> float:
        """Accuracy of one fresh pass over what AutoAttack standard left."""
        return self[1]

    def __str__(self) -> str:
        text = f"clean {100 * self.clean:.2f} %, AutoAttack standard {100 * self.robust:.2f} %"
        return f"{text} ({NO_EVALUATION})" if self.random else text


def benchmark(
    model: nn.Module,
    n_examples: int,
    eps: float,
    *,
    norm: str = "Linf",
    source: Path | str | None = None,
    batch_size: int = 32,
    seed: int = 0,
) -> BenchmarkResult:
    """Accuracy without attack and under AutoAttack standard, by the real ``robustbench.benchmark()`` on CIFAR-10.

    It runs on the model's device and prints both numbers itself. **For a random model the second is no evaluation**
    (``NO_EVALUATION``): a UserWarning says so before the work, the result afterwards. Nothing stays changed: modules,
    trace function, global generators, the model's noise, gradients and mode.

    Args:
        model: (B, 3, 32, 32) in [0, 1] -> (B, 10) logits, in eval mode.
        n_examples: the first so many test images.
        eps: radius in units of the pixel range; 8/255 is ranked.
        norm: "Linf" or "L2".
        source: of the images, as in ``sap_art.data.load``; None is SAP_ART_DATA, else the 512 that ship.
        batch_size: images a pass.
        seed: of AutoAttack, of the global generators and of the model's noise meanwhile.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: an argument that is not as said here, a model in training mode or with other outputs, fewer
            images than asked for.
        ImportError: robustbench or pyautoattack is not installed.
        FloatingPointError: logits or gradients with NaN or inf, which AutoAttack would count as robust.
    """
    _check_model(model)
    _check_numbers(n_examples=n_examples, eps=eps, batch_size=batch_size)
    threat = ThreatModel(norm, eps)
    require_installed()
    x, y = data.load("cifar10", n=n_examples, source=source)
    handle, device, dtype = as_stochastic(model), *_place(model)
    guarded = Guarded(model, dtype).eval()
    with isolated(handle, seed=seed):
        random = _is_random(guarded, model, x[:batch_size].to(device))
    if random:
        warnings.warn(NO_EVALUATION, UserWarning, stacklevel=2)
    with isolated(handle, seed=seed), repaired() as robustbench, IMAGES.apply(x, y), _seeded(seed):
        clean, robust = robustbench.benchmark(
            guarded,
            n_examples=n_examples,
            dataset="cifar10",
            threat_model=threat.norm,
            device=device,
            batch_size=batch_size,
            eps=threat.eps,
        )
    return BenchmarkResult(clean, robust, random)


def _check_model(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}; load_model gives one by name")
    if model.training and not isinstance(model, StochasticModel):
        raise ValueError("the model is in training mode: call .eval() first, or wrap() it if that is its defence")
    require_eval(model)


def _check_numbers(*, n_examples: object, eps: object, batch_size: object) -> None:
    for name, value in (("n_examples", n_examples), ("batch_size", batch_size)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a whole number of images, at least 1, got {value!r}")
    if not isinstance(eps, int | float) or isinstance(eps, bool) or not math.isfinite(eps):
        raise ValueError(f"eps must be a number above 0 in units of the pixel range, such as 8/255, got {eps!r}")


def _place(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where the model lies, and its floating type."""
    tensors = [*model.parameters(), *model.buffers()]
    floating = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
    return (tensors[0].device if tensors else torch.device("cpu")), (floating or [torch.float32])[0]


@torch.no_grad()
def _is_random(guarded: Guarded, model: nn.Module, x: Tensor) -> bool:
    first, second = guarded(x), guarded(x)
    if first.shape != (len(x), CLASSES):
        raise ValueError(f"the model must return ({len(x)}, {CLASSES}) logits, got {tuple(first.shape)}")
    declared = isinstance(model, StochasticModel) and not model.deterministic
    return declared or not torch.equal(first, second)


def _seeded(seed: int) -> Any:
    """Within, the AutoAttack that RobustBench makes has a seed, where it would take the time of day."""
    evaluation = importlib.import_module("robustbench.eval")
    autoattack = partial(evaluation.AutoAttack, seed=derive_seed(seed, "autoattack"))
    return replaced(evaluation, "AutoAttack", autoattack)
