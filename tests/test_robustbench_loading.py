"""RobustBench's zoo by name, under SAP: ours and RobustBench's loader, checkpoints that are there, missing or bad."""

from __future__ import annotations

import argparse
import importlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sap_art import SAP, DefendedModel
from sap_art.integrations.robustbench import build, load_model, register, repaired

SMALLEST = "Ding2020MMA"  # 5.8 million parameters, functional and modular activations


@pytest.fixture(scope="module")
def small() -> nn.Module:
    """The smallest architecture of the zoo with random weights."""
    return build(SMALLEST, seed=1)


@pytest.fixture
def x() -> Tensor:
    """Two images."""
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """No network: what RobustBench tries to download, with a working directory of its own."""
    tried: list[str] = []

    def fail(*_: object, **kwargs: Any) -> None:
        tried.append(str(kwargs["output"]))
        raise ConnectionError("no network")

    monkeypatch.setattr("gdown.download", fail)
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda url, *_, **__: fail(output=url))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.chdir(tmp_path)
    return tried


def place(content: object, folder: Path, name: str = SMALLEST) -> Path:
    """The file where RobustBench looks for it."""
    path = folder / "cifar10" / "Linf" / f"{name}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


@torch.no_grad()
def same(one: nn.Module, other: nn.Module, x: Tensor) -> bool:
    """Whether two nets give the same bits."""
    return torch.equal(one(x), other(x))


def robustbench_s(name: str, **options: Any) -> nn.Module:
    """RobustBench's own loader, called outside of our repairs."""
    return importlib.import_module("robustbench").load_model(name, **options)


# Ours.


def test_a_net_by_name_with_and_without_sap(small: nn.Module, x: Tensor, tmp_path: Path) -> None:
    """The weights of the file, the percent of the name, in eval mode; the global generator is left alone."""
    place(small.state_dict(), tmp_path / "m")
    before = torch.get_rng_state()
    dense = load_model(SMALLEST, model_dir=tmp_path / "m")
    model, twin = (load_model(f"SAP12.5_{SMALLEST}", model_dir=str(tmp_path / "m"), seed=3) for _ in range(2))

    assert torch.equal(before, torch.get_rng_state())
    assert same(dense, small, x)
    assert isinstance(model, DefendedModel)
    assert model.policy == SAP(12.5)
    assert same(model.net, small, x)
    assert not same(model, small, x)
    twin.reseed(3)
    model.reseed(3)
    assert same(model, twin, x)
    assert not any(module.training for net in (dense, model) for module in net.modules())


@pytest.mark.parametrize("core", [b"core", b"_core"], ids=["numpy 1", "numpy 2"])
def test_weights_only_loading_takes_what_zoo_files_hold(
    core: bytes, small: nn.Module, x: Tensor, tmp_path: Path
) -> None:
    """DataParallel's prefix, settings of the run, numbers of numpy; none of these types stays allowed."""
    numbers = {"best": np.float64(0.5), "epoch": np.int64(7), "lr": np.float32(0.1)}
    state = {f"module.{name}": value for name, value in small.state_dict().items()}
    path = place(None, tmp_path)
    settings = argparse.Namespace(epochs=3, **numbers)
    torch.save({"state_dict": state, "args": settings, **numbers}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"cnumpy._core.", b"cnumpy." + core + b"."))

    assert same(load_model(SMALLEST, model_dir=tmp_path), small, x)
    with repaired():
        load_model(SMALLEST, model_dir=tmp_path)  # whose own repair ends here, and this one holds
        assert torch.load(path, weights_only=False).keys() == {"state_dict", "args", *numbers}
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        torch.load(path, weights_only=True)


@pytest.mark.parametrize("name", [SMALLEST, "Debenedetti2022Light_XCiT-S12"])
def test_a_file_that_would_execute_code(name: str, tmp_path: Path) -> None:
    """Refused, also by timm, which reads files with pickles on; and the advice to switch that off is not passed on."""

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "executed",)

    path = place({"state_dict": Hostile()}, tmp_path, name)
    with pytest.raises(ValueError, match="a pickle can run code") as caught:
        load_model(f"SAP100_{name}", model_dir=tmp_path)

    assert str(path) in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("damage", ["another model", "cut short", "no weights"])
def test_a_file_that_is_not_the_model_s(damage: str, small: nn.Module, tmp_path: Path) -> None:
    """One clear error that names the file."""
    path = place([3] if damage == "no weights" else small.state_dict(), tmp_path, "Wong2020Fast")
    if damage == "cut short":
        path.write_bytes(path.read_bytes()[:-1000])

    with pytest.raises(ValueError, match=r"Wong2020Fast\.pt .*: it is damaged, of another model than Wong2020Fast"):
        load_model("Wong2020Fast", model_dir=tmp_path)


def test_a_model_that_robustbench_takes_from_timm(x: Tensor, tmp_path: Path, offline: list[str]) -> None:
    """A file at the same place serves, and nothing is downloaded."""
    name = "Debenedetti2022Light_XCiT-S12"
    net = build(name, seed=2)
    place({"model": net.model.state_dict(), "args": argparse.Namespace()}, tmp_path, name)  # as timm trains

    assert same(load_model(name, model_dir=tmp_path), net, x)
    assert offline == []


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("Wong2020Fast", ["Wong2020Fast.pt"]),
        ("SAP100_Wong2020Fast", ["Wong2020Fast.pt"]),
        ("SAP100_Debenedetti2022Light_XCiT-S12", ["Debenedetti2022Light_XCiT-S12.pt"]),
        ("Chen2020Adversarial", [f"Chen2020Adversarial.pt_m{i}.pt" for i in range(3)]),
    ],
)
def test_offline_without_the_file(name: str, files: list[str], tmp_path: Path, offline: list[str]) -> None:
    """RobustBench's own route is tried; then one error says where each file belongs."""
    with pytest.raises(FileNotFoundError, match="could not be downloaded") as caught:
        load_model(name, model_dir=tmp_path / "zoo")

    folder = tmp_path / "zoo" / "cifar10" / "Linf"
    assert f"at {', '.join(str(folder / file) for file in files)}, and" in str(caught.value)
    assert len(offline) == 1
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize("there", [".", "cifar10", "cifar10/Linf"])
def test_a_failed_download_removes_no_folder_that_was_there(there: str, tmp_path: Path) -> None:
    """Empty as it was; nor what has come into one that was made."""
    kept = tmp_path / "zoo" / there
    kept.mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="could not be downloaded"):
        load_model("Wong2020Fast", model_dir=tmp_path / "zoo")

    assert kept.is_dir()
    assert list(kept.iterdir()) == []


def test_what_a_failed_download_leaves_in_part_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its folders: it may be what somebody waits for."""

    def cut_off(*_: object, output: str, **__: object) -> None:
        Path(output).with_suffix(".part").write_bytes(b"half")
        raise ConnectionError("cut off")

    monkeypatch.setattr("gdown.download", cut_off)
    with pytest.raises(FileNotFoundError, match="could not be downloaded"):
        load_model("Wong2020Fast", model_dir="zoo")

    assert [path.name for path in (tmp_path / "zoo/cifar10/Linf").iterdir()] == ["Wong2020Fast.part"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Standart", r"unknown model 'Standart' of the 76 in RobustBench's cifar10 Linf zoo; like it: Standard"),
        ("SAP100_Standart", "unknown model 'Standart'.*like it: Standard"),
        ("SAP100", "unknown model 'SAP100'"),
        ("SAPlot_Standard", r"'lot' is no percent; a name is SAP<percent>_<id>"),
        ("SAP_Standard", "'' is no percent"),
        ("SAP0_Standard", "above 0, got 0"),
        ("SAP-100_Standard", "above 0, got -100"),
        ("SAPnan_Standard", "above 0, got nan"),
        ("SAPinf_Standard", "above 0, got inf"),
    ],
)
def test_wrong_names(name: str, message: str, tmp_path: Path, offline: list[str]) -> None:
    """Refused before anything is built, made or downloaded."""
    with pytest.raises(ValueError, match=message):
        load_model(name, model_dir=tmp_path / "zoo")

    assert offline == []
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize(
    ("text", "percent"), [("100", 100.0), ("0.5", 0.5), ("12.5", 12.5), ("400", 400.0), ("1e9", 1e9)]
)
def test_percent_in_the_name(text: str, percent: float, small: nn.Module, tmp_path: Path) -> None:
    """Any number above 0."""
    place(small.state_dict(), tmp_path)
    model = load_model(f"SAP{text}_{SMALLEST}", model_dir=tmp_path)

    assert isinstance(model, DefendedModel)
    assert model.policy == SAP(percent)


# RobustBench's.


def test_registered_names_work_in_robustbench(small: nn.Module, x: Tensor, tmp_path: Path) -> None:
    """All 76 nets at each percent, decimals too; no key of the checkpoint is rewritten on the way."""
    place(small.state_dict(), tmp_path / "m")
    names = register((100, 12.5), model_dir=tmp_path / "m", seed=3)
    ours = load_model(f"SAP100_{SMALLEST}", model_dir=tmp_path / "m", seed=3)
    theirs, finer = (robustbench_s(f"SAP{percent}_{SMALLEST}") for percent in ("100", "12.5"))

    assert len(set(names)) == 2 * 76
    assert {f"SAP100_{SMALLEST}", "SAP12.5_Debenedetti2022Light_XCiT-S12", "SAP100_Wang2023Better_WRN-28-10"} < {*names}
    assert isinstance(theirs, DefendedModel)
    assert isinstance(finer, DefendedModel)
    assert (theirs.policy, finer.policy) == (SAP(100), SAP(12.5))
    assert same(theirs, ours, x)
    assert same(finer.net, small, x)
    assert not any(module.training for module in theirs.modules())


def test_every_registered_name_is_one_that_robustbench_asks_timm_for(tmp_path: Path) -> None:
    """By its own rule: lower case, underscores, data set and norm behind."""
    names = register(model_dir=tmp_path)
    is_model = importlib.import_module("timm").is_model

    assert len(names) == 3 * 76
    assert all(is_model(f"{name.lower().replace('-', '_')}_cifar10_linf") for name in names)


def test_registering_again_replaces_the_folder(small: nn.Module, x: Tensor, tmp_path: Path) -> None:
    """Without a word from timm about a name that it knows already."""
    place(small.state_dict(), tmp_path / "right")
    register((300,), model_dir=tmp_path / "wrong")
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "wrong")):
        robustbench_s(f"SAP300_{SMALLEST}", model_dir=tmp_path / "right")  # which it does not hand on
    register((300,), model_dir=tmp_path / "right", seed=1)
    model = robustbench_s(f"SAP300_{SMALLEST}")

    assert isinstance(model, DefendedModel)
    assert same(model.net, small, x)


def test_timm_makes_the_architecture_alone(tmp_path: Path) -> None:
    """As for its own models, ``pretrained=False`` needs no file; what would change the model is refused."""
    register((100,), model_dir=tmp_path, seed=5)
    create = importlib.import_module("timm").create_model
    model, twin = (create(f"sap100_{SMALLEST.lower()}_cifar10_linf") for _ in range(2))

    assert isinstance(model, DefendedModel)
    assert torch.equal(model.net.conv1.weight, twin.net.conv1.weight)
    with pytest.raises(ValueError, match=r"takes no num_classes"):
        create(f"sap100_{SMALLEST.lower()}_cifar10_linf", num_classes=100)


def test_an_unknown_net_behind_a_decimal(tmp_path: Path) -> None:
    """timm hands over everything behind a dot, so the name is checked by us."""
    register((12.5,), model_dir=tmp_path)
    with pytest.raises(ValueError, match="unknown model 'nobody'"):
        robustbench_s("SAP12.5_nobody")


@pytest.mark.parametrize("percents", [(0,), (100, -1), (float("inf"),)])
def test_percents_that_cannot_be_registered(percents: tuple[float, ...]) -> None:
    """Nothing is."""
    with pytest.raises(ValueError, match="above 0"):
        register(percents)


def test_random_weights_are_decided_by_the_seed(small: nn.Module, x: Tensor) -> None:
    """And by nothing else; the global generator is left alone."""
    before = torch.get_rng_state()
    again, other = (build(SMALLEST, seed=seed) for seed in (1, 2))

    assert torch.equal(before, torch.get_rng_state())
    assert same(again, small, x)
    assert not same(other, small, x)
    assert not small.training
