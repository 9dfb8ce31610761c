"""All of RobustBench's CIFAR-10 Linf zoo with random weights: built, activations found, defended, differentiated."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from upstream_records import upstream_records

from sap_art import SAP, AttackerView, DefendedModel
from sap_art.integrations.robustbench import ZooModel, build, repaired, zoo_model, zoo_models
from sap_art.sites import DEFAULT_SITES, Site, SiteScope

LARGE = 100_000_000
"""Parameters above which a net is built without weights only."""

NO_OUTLINE = {"Kang2021Stable": "it orthogonalises a matrix while it is built, and that takes numbers"}
NO_PASS = {"Bai2024MixedNUTS": "its map of the logits looks at their values"}
"""What cannot be counted without weights, which ``zoo.csv`` has from one pass with weights."""

STRUCTURES = (
    "Bartoldson2024Adversarial_WRN-82-8",
    "Wang2023Better_WRN-28-10",
    "Gowal2020Uncovering_28_10_extra",
    "Rade2021Helper_extra",
    "Sehwag2021Proxy_ResNest152",
    "Huang2021Exploring",
    "Dai2021Parameterizing",
    "Wu2020Adversarial",
    "Carmon2019Unlabeled",
    "Rebuffi2021Fixing_R18_ddpm",
    "Zhang2019Theoretically",
    "Debenedetti2022Light_XCiT-M12",
    "Debenedetti2022Light_XCiT-S12",
    "Addepalli2022Efficient_RN18",
    "Hendrycks2019Using",
    "Chen2020Adversarial",
    "Chen2020Efficient",
    "Engstrom2019Robustness",
    "Andriushchenko2020Understanding",
    "Wong2020Fast",
    "Ding2020MMA",
    "Standard",
)
"""One model of each structure of up to LARGE parameters."""

ONE_GRADIENT = ("Bartoldson2024Adversarial_WRN-82-8", "Huang2021Exploring")
"""Above 10 billion multiplications a pass."""

pytestmark = pytest.mark.filterwarnings(r"ignore:`torch\.cuda\.amp\.autocast:FutureWarning")  # Bai2023, Bai2024


class ScalarsAreReal(TorchFunctionMode):
    """Beneath ``torch.device("meta")``, single numbers have values: nets decide by them what to do."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        single = func is torch.tensor and isinstance(args[0], int | float)
        return func(*args, **{**(kwargs or {}), **({"device": "cpu"} if single else {})})


@cache
def outline(name: str) -> nn.Module:
    """The net without weights."""
    with torch.device("meta"), ScalarsAreReal():
        return build(name, seed=0)


@torch.no_grad()
def sites(net: nn.Module, x: Tensor) -> tuple[Site, ...]:
    """The activations of one pass."""
    with SiteScope(net, DEFAULT_SITES, lambda h, site: h) as scope, torch.device(x.device):
        net(x)
    return scope.sites


@torch.no_grad()
def alive(name: str) -> nn.Module:
    """The net with random weights and the batch statistics of 16 images: without these some have no signal left.

    Of two images the statistics of a gate's two numbers may be next to nothing: with them Sehwag2021Proxy_ResNest152
    turned a change of one unit in the last place of the image into half of its logits.
    """
    net = build(name, seed=0).requires_grad_(False)
    layers = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for layer in layers:
        layer.train().momentum = 1.0
    net(torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    for layer in layers:
        layer.eval()
    return net


def structure(name: str) -> tuple[str, str]:
    """Equal for nets that are the same but for their weights."""
    return type(outline(name)).__qualname__, repr(outline(name))


@pytest.fixture(scope="module")
def x() -> Tensor:
    """One image."""
    return torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_the_table_is_of_robustbench_s_zoo() -> None:
    """Each of its models and no other."""
    with repaired():
        zoo = importlib.import_module("robustbench.model_zoo").model_dicts
        enums = importlib.import_module("robustbench.model_zoo.enums")

    assert set(zoo_models()) == set(zoo[enums.BenchmarkDataset("cifar10")][enums.ThreatModel("Linf")])
    assert len(zoo_models()) == 76


def test_what_the_table_says() -> None:
    """Published accuracies are fractions, those of RobustBench's records; most models have no number from elsewhere."""
    assert zoo_model("Standard") == ZooModel("Standard", "WideResNet-28-10", 36_479_194, 25, 0.9478, 0.0, None)
    assert zoo_model("Kang2021Stable").external == 0.6420
    for model in zoo_models().values():
        assert 0 <= model.autoattack < model.clean < 1
        assert model.external is None or model.external < model.autoattack
    for name, record in upstream_records().items():
        model = zoo_model(name)
        assert model.architecture == record["architecture"], name
        assert (model.clean, model.autoattack, model.external) == pytest.approx(
            tuple(
                float(record[key]) / 100 if key in record else None
                for key in ("clean_acc", "autoattack_acc", "external")
            )
        ), name
    with pytest.raises(ValueError, match=r"unknown model 'Standart' of the 76 .* like it: Standard"):
        zoo_model("Standart")


@pytest.mark.parametrize("name", zoo_models())
def test_every_model_is_built_and_its_activations_are_found(name: str) -> None:
    """Without weights; as many parameters and sites as the table says, and a structure that is tested with weights."""
    if name in NO_OUTLINE:
        pytest.skip(f"{name}: {NO_OUTLINE[name]}")
    net, facts = outline(name), zoo_model(name)

    assert isinstance(DefendedModel(net, SAP(100)).net, nn.Module)
    assert sum(parameter.numel() for parameter in net.parameters()) == facts.parameters
    if name not in NO_PASS:
        assert len(sites(net, torch.empty(1, 3, 32, 32, device="meta"))) == facts.sites
    if facts.parameters <= LARGE:
        assert structure(name) in {structure(known) for known in STRUCTURES}


def test_each_structure_is_tested_once() -> None:
    """With weights, the small ones only."""
    assert len({structure(name) for name in STRUCTURES}) == len(STRUCTURES)
    assert all(zoo_model(name).parameters <= LARGE for name in STRUCTURES)


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_structure_under_sap(name: str, x: Tensor) -> None:
    """All activations met; drawn often enough SAP is the net itself; each estimator has a gradient at the image."""
    net = alive(name)
    model = DefendedModel(net, SAP(100), seed=1)
    everything = DefendedModel(net, SAP(percent=1e9, sampler="bernoulli"), seed=1)
    dense, value, noisy = net(x), everything(x), model(x)

    assert dense.shape == (1, 10)
    assert len(model.sites) == zoo_model(name).sites
    assert (value - dense).abs().max() <= 1e-4 * dense.abs().max()
    assert (noisy - dense).abs().max() > 1e-2 * dense.abs().max()
    for gradient in model.estimators[: 1 if name in ONE_GRADIENT else None]:
        point = x.clone().requires_grad_()
        F.cross_entropy(AttackerView(model, gradient=gradient)(point), torch.tensor([0])).backward()
        assert point.grad is not None
        assert point.grad.isfinite().all(), gradient
        assert point.grad.any(), gradient
