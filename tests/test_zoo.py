"""Nets by name, from files and from a user's own code; what is damaged, foreign or hostile is refused."""

from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sap_art import data, zoo
from sap_art.checkpoints import save_checkpoint
from sap_art.networks import ARCHITECTURES, build, initialise

ARCHITECTURE = "preact-resnet20"
CARD: dict[str, Any] = {
    "architecture": ARCHITECTURE,
    "recipe": {"name": "none", "epochs": 0},
    "dataset": "cifar10",
    "train_images": 50_000,
    "seed": 3,
    "accuracy": 0.1,
    "test_images": 10_000,
    "torch": "2.15",
}


class Marker:
    """Unpickling it makes a folder: what a hostile checkpoint would do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    """A net with random weights and batch norms that have seen something."""
    generator = torch.Generator().manual_seed(0)
    net = build(ARCHITECTURE, device="cpu")
    initialise(net, generator)
    net.train()
    with torch.no_grad():
        net(torch.rand(8, 3, 32, 32, generator=generator))
    return net.eval()


@pytest.fixture
def folder(net: nn.Module, tmp_path: Path) -> Path:
    """A folder with one net, "mine", and its card."""
    save_checkpoint(net, CARD, tmp_path / "mine.safetensors")
    return tmp_path


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def rewrite_card(folder: Path, **changes: Any) -> None:
    path = folder / "mine.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# --- by name


def test_loaded_net_is_the_saved_net(folder: Path, net: nn.Module, images: torch.Tensor):
    """Names, types and values of all weights come back, in eval mode, ready to be trained on."""
    loaded = zoo.load("mine", folder=folder)

    assert not any(module.training for module in loaded.modules())
    assert all(weight.requires_grad for weight in loaded.parameters())
    assert {k: v.dtype for k, v in loaded.state_dict().items()} == {k: v.dtype for k, v in net.state_dict().items()}
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in loaded.state_dict().items())
    assert torch.equal(loaded(images), net(images))


def test_loading_leaves_the_global_generator_alone(folder: Path):
    """Loading draws no random number."""
    before = torch.get_rng_state()
    zoo.load("mine", folder=folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_do_not_depend_on_the_file(folder: Path, images: torch.Tensor):
    """A net once loaded does not change when its file does."""
    loaded = zoo.load("mine", folder=folder)
    before = loaded(images)
    path = folder / "mine.safetensors"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(path.stat().st_size // 2))

    assert torch.equal(loaded(images), before)


def test_card(folder: Path):
    """A card has all that was said of the net, other keys under ``more``."""
    card = zoo.load_card("mine", folder=folder)

    assert (card.name, card.architecture, card.accuracy, card.seed) == ("mine", ARCHITECTURE, 0.1, 3)
    assert card.recipe == CARD["recipe"]
    assert card.sha256 == zoo.file_sha256(folder / "mine.safetensors")
    assert card.more == {"torch": "2.15"}


def test_list_nets(folder: Path):
    """Nets are listed by name with their size; one whose file is gone is not present."""
    size = (folder / "mine.safetensors").stat().st_size
    (folder / "absent.json").write_bytes((folder / "mine.json").read_bytes())

    assert zoo.list_nets(folder=folder) == [
        zoo.Entry("absent", ARCHITECTURE, 0.1, None, False),
        zoo.Entry("mine", ARCHITECTURE, 0.1, size, True),
    ]


def test_several_checkpoints_of_one_architecture(folder: Path, net: nn.Module):
    """A checkpoint has the name of its file, whatever its architecture; a second one needs two files, no more."""
    save_checkpoint(net, CARD, folder / f"{ARCHITECTURE}.safetensors")
    other = build(ARCHITECTURE, device="cpu")
    initialise(other, torch.Generator().manual_seed(1))
    save_checkpoint(other, {**CARD, "accuracy": 0.2}, folder / f"{ARCHITECTURE}-fast.safetensors")
    entries = {entry.name: (entry.architecture, entry.accuracy) for entry in zoo.list_nets(folder=folder)}

    assert entries == {name: (ARCHITECTURE, a) for name, a in
                       ((ARCHITECTURE, 0.1), (f"{ARCHITECTURE}-fast", 0.2), ("mine", 0.1))}  # fmt: skip
    for name, expected in ((ARCHITECTURE, net), (f"{ARCHITECTURE}-fast", other)):
        assert torch.equal(
            zoo.load(name, folder=folder).get_parameter("head.weight"), expected.get_parameter("head.weight")
        )


def test_list_names_what_is_not_trained(tmp_path: Path):
    """An architecture without any checkpoint is listed as missing."""
    entries = zoo.list_nets(folder=tmp_path)
    assert entries == [zoo.Entry(name, name, None, None, False) for name in sorted(ARCHITECTURES)]


def test_nets_that_ship_are_as_good_as_their_cards_say():
    """Each net of the package has on the bundled images the accuracy of its card, within five standard errors."""
    present = [entry for entry in zoo.list_nets() if entry.present]
    if not present:
        pytest.skip("no checkpoint in sap_art/assets")
    x, y = data.load()
    for entry in present:
        with torch.inference_mode():
            right = (zoo.load(entry.name)(x).argmax(1) == y).double().mean().item()
        assert entry.accuracy is not None
        assert abs(right - entry.accuracy) < 5 * (entry.accuracy * (1 - entry.accuracy) / len(y)) ** 0.5


@pytest.mark.parametrize("name", ["yours", "../mine", "", "mine.json"])
def test_unknown_name(folder: Path, name: str):
    """An unknown name is refused and the known ones are listed."""
    with pytest.raises(ValueError, match=r"unknown net .*; known: mine; a model is the name of a net, .*FILE.py"):
        zoo.load(name, folder=folder)
    with pytest.raises(ValueError, match="unknown net"):
        zoo.load_card(name, folder=folder)


def test_missing_weights(folder: Path, tmp_path: Path):
    """Absent weights are an error that names the file, or how to train the net."""
    (folder / "mine.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no such checkpoint: .*mine\.safetensors"):
        zoo.load("mine", folder=folder)
    with pytest.raises(FileNotFoundError, match=f"sap-art train --arch {ARCHITECTURE}"):
        zoo.load(ARCHITECTURE, folder=tmp_path)


@pytest.mark.parametrize("cut", [False, True])
def test_wrong_sha256(folder: Path, cut: bool):
    """A file that is cut short or has one bit turned is not the file of its card."""
    path = folder / "mine.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content[:-4] if cut else content)

    with pytest.raises(ValueError, match=r"mine.safetensors is damaged .* must be [0-9a-f]{64}"):
        zoo.load("mine", folder=folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": None}, "not a card: architecture missing or of the wrong type"),
        ({"recipe": "sgd", "seed": "3"}, "recipe, seed missing"),
        ({"accuracy": 91.5}, r"accuracy must be a fraction in \[0, 1\], got 91.5"),
        ({"accuracy": float("nan")}, "not a card: accuracy must be a finite number, got nan"),
        ({"architecture": "vgg"}, f"unknown architecture 'vgg'; known: {ARCHITECTURE}"),
    ],
)
def test_bad_card(folder: Path, changes: dict[str, Any], message: str):
    """A card that lacks something or says the impossible is refused."""
    rewrite_card(folder, **changes)
    with pytest.raises(ValueError, match=message):
        zoo.load("mine", folder=folder)


@pytest.mark.parametrize("content", ["", "[]", '{"sha256": '])
def test_card_that_is_none(folder: Path, content: str):
    """A file that is no JSON object is not a card."""
    (folder / "mine.json").write_text(content)
    with pytest.raises(ValueError, match=r"mine\.json is not a card"):
        zoo.load("mine", folder=folder)


# --- a user's own file


def save(path: Path, net: nn.Module, *, prefix: str = "", wrapped: bool = False) -> Path:
    state = {prefix + key: value for key, value in net.state_dict().items()}
    torch.save({"state_dict": state, "best": 0.9} if wrapped else state, path)
    return path


def save_safetensors(path: Path, net: nn.Module) -> Path:
    save_file(net.state_dict(), path)
    return path


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".th"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_torch_checkpoints(tmp_path: Path, net: nn.Module, suffix: str, prefix: str, wrapped: bool):
    """torch.save's files are read, with their state_dict key and the prefix of DataParallel taken off."""
    path = save(tmp_path / f"a{suffix}", net, prefix=prefix, wrapped=wrapped)
    loaded = zoo.load_checkpoint(path, architecture=ARCHITECTURE)

    assert not loaded.training
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in loaded.state_dict().items())


def test_checkpoint_with_a_card_needs_nothing_more(folder: Path, net: nn.Module):
    """The card beside a file says its architecture; saying another one is an error."""
    loaded = zoo.load_checkpoint(str(folder / "mine.safetensors"))

    assert all(torch.equal(v, net.state_dict()[k]) for k, v in loaded.state_dict().items())
    with pytest.raises(ValueError, match=f"is a {ARCHITECTURE} by its card, asked for vgg"):
        zoo.load_checkpoint(folder / "mine.safetensors", architecture="vgg")


def test_checkpoint_without_a_card_needs_an_architecture(folder: Path):
    """Without a card the architecture must be said, and then is enough."""
    (folder / "mine.json").unlink()

    with pytest.raises(ValueError, match=f"has no card; say which architecture it is, one of {ARCHITECTURE}"):
        zoo.load_checkpoint(folder / "mine.safetensors")
    assert zoo.load_checkpoint(folder / "mine.safetensors", architecture=ARCHITECTURE)


def test_half_precision_becomes_float32(tmp_path: Path, net: nn.Module):
    """Weights take the types of the architecture, not of the file."""
    save_file({k: v.half() for k, v in net.state_dict().items()}, tmp_path / "half.safetensors")
    loaded = zoo.load_checkpoint(tmp_path / "half.safetensors", architecture=ARCHITECTURE)
    head = net.get_parameter("head.weight")

    assert torch.equal(loaded.get_parameter("head.weight"), head.half().float())
    assert loaded.state_dict()["norm.num_batches_tracked"].dtype == torch.int64


@pytest.mark.parametrize("zipped", [False, True])
def test_hostile_checkpoint_is_not_run(tmp_path: Path, zipped: bool):
    """A checkpoint that would run code is refused and nothing in it runs."""
    marker, path = tmp_path / "marker", tmp_path / "a.pt"
    torch.save({"state_dict": {"x": Marker(marker)}}, path, _use_new_zipfile_serialization=zipped)

    with pytest.raises(ValueError, match=r"refused to load .*a pickle can run code") as caught:
        zoo.load_checkpoint(path, architecture=ARCHITECTURE)
    assert isinstance(caught.value.__cause__, pickle.UnpicklingError)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), "the payload of this test is not live"


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.999])
def test_truncated_checkpoint(tmp_path: Path, net: nn.Module, name: str, keep: float):
    """A file cut short anywhere is refused."""
    path = tmp_path / name
    (save if path.suffix == ".pt" else save_safetensors)(path, net)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])

    with pytest.raises(ValueError, match=r"is damaged|cut short"):
        zoo.load_checkpoint(path, architecture=ARCHITECTURE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), "must hold a state_dict, got Tensor"),
        ({}, "must hold a state_dict, got dict"),
        ({"state_dict": [1]}, "must hold a state_dict, got list"),
        ({"weight": torch.zeros(3), "epoch": 3}, "must hold tensors only"),
        ({0: torch.zeros(3)}, "must hold tensors only"),
    ],
)
def test_checkpoint_of_something_else(tmp_path: Path, content: Any, message: str):
    """What is no state_dict of tensors is refused."""
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=message):
        zoo.load_checkpoint(tmp_path / "a.pt", architecture=ARCHITECTURE)


def test_no_such_checkpoint(tmp_path: Path):
    """A path that leads nowhere, or a suffix that is not read, is an error."""
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        zoo.load_checkpoint(tmp_path / "gone.pt")
    (tmp_path / "a.onnx").touch()
    with pytest.raises(ValueError, match=r"a checkpoint ends in \.safetensors, \.pt, \.pth, \.th"):
        zoo.load_checkpoint(tmp_path / "a.onnx", architecture=ARCHITECTURE)


def test_names_that_do_not_fit(tmp_path: Path):
    """Missing, unexpected and misshapen weights are named, five of a kind at most, and the net stays as it was."""
    net = nn.Sequential(*(nn.Linear(3, 3) for _ in range(4)))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    given = {"0.weight": torch.zeros(2, 3), "0.bias": torch.zeros(3), "other": torch.zeros(1)}
    save_file(given, tmp_path / "a.safetensors")
    expected = (
        "missing: 1.bias, 1.weight, 2.bias, 2.weight, 3.bias and 1 more; unexpected: other; of another shape: 0.weight;"
    )

    with pytest.raises(ValueError, match=expected):
        zoo.load_weights(net, tmp_path / "a.safetensors")
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_unexpected_name(tmp_path: Path):
    """One weight too many is enough to refuse a file."""
    net = nn.Linear(2, 1)
    save_file({**net.state_dict(), "extra": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="net; unexpected: extra; is it"):
        zoo.load_weights(net, tmp_path / "a.safetensors")


def test_old_files_lack_counters(tmp_path: Path):
    """Batch norms of files older than their counters are read, on the meta device or not."""
    save_file({k: torch.ones(2) for k in ("weight", "bias", "running_mean", "running_var")}, tmp_path / "a.safetensors")
    for net in (nn.BatchNorm2d(2), nn.BatchNorm2d(2, device="meta")):
        zoo.load_weights(net, tmp_path / "a.safetensors")
        assert torch.equal(net.state_dict()["running_mean"], torch.ones(2))
        assert net.state_dict()["num_batches_tracked"] == 0


def test_weights_go_into_a_net_in_place(tmp_path: Path):
    """A net that is in use keeps its parameters, an optimizer holds on to them."""
    net = nn.Linear(2, 1)
    weight = net.weight
    save_file({"weight": torch.ones(1, 2), "bias": torch.ones(1)}, tmp_path / "a.safetensors")
    zoo.load_weights(net, tmp_path / "a.safetensors")

    assert net.weight is weight
    assert torch.equal(weight, torch.ones(1, 2))


# --- by reference


def test_reference_to_a_name_or_a_checkpoint(folder: Path):
    """A zoo name and a checkpoint with its card are references."""
    expected = load_file(folder / "mine.safetensors")["head.weight"]
    for reference in ("mine", str(folder / "mine.safetensors")):
        assert torch.equal(zoo.load_model(reference, folder=folder).get_parameter("head.weight"), expected)


USER_CODE = """
from dataclasses import dataclass
from neighbour_of_a_test import WIDTH
from torch import nn

@dataclass
class Setting:
    width: "int" = WIDTH

def make():
    import other_neighbour_of_a_test
    return nn.Linear(3, Setting().width).train()

def number():
    return 3

def broken():
    raise KeyError("broken inside")

constant = 4
"""


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    (tmp_path / "neighbour_of_a_test.py").write_text("WIDTH = 7\n")
    (tmp_path / "other_neighbour_of_a_test.py").touch()
    (tmp_path / "user_code_of_a_test.py").write_text(USER_CODE)
    return tmp_path / "user_code_of_a_test.py"


@pytest.fixture(autouse=True)
def modules_as_before() -> Any:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("sap_art_user_") or "_of_a_test" in name:
            del sys.modules[name]


def test_reference_to_a_file(user_file: Path):
    """FILE.py:FUNCTION gives what the function returns, may import its neighbours, and leaves the path as it was."""
    before = list(sys.path)
    net = zoo.load_model(f"{user_file}:make")

    assert isinstance(net, nn.Linear)
    assert net.out_features == 7
    assert net.training
    assert sys.path == before


def test_reference_to_a_module(user_file: Path, monkeypatch: pytest.MonkeyPatch):
    """PACKAGE.MODULE:FUNCTION gives what the function returns."""
    monkeypatch.syspath_prepend(user_file.parent)
    assert isinstance(zoo.load_model("user_code_of_a_test:make"), nn.Linear)
    assert isinstance(zoo.load_model("torch.nn:Identity"), nn.Identity)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("number", "must return a torch.nn.Module, got int"),
        ("broken", "broken failed when called: KeyError: 'broken inside'"),
        ("constant", "no function 'constant' there, only dataclass, Setting, make, number, broken"),
        ("nothing", "no function 'nothing' there"),
    ],
)
def test_reference_to_a_wrong_function(user_file: Path, function: str, message: str):
    """What is wrong with a user's function is said, with the reference."""
    with pytest.raises(ValueError, match=message) as caught:
        zoo.load_model(f"{user_file}:{function}")
    assert f"user_code_of_a_test.py:{function}" in str(caught.value)


def test_error_in_user_code_is_chained(user_file: Path):
    """The user's own exception is the cause, when the file is read and when the function is called."""
    with pytest.raises(ValueError, match="failed when called") as caught:
        zoo.load_model(f"{user_file}:broken")
    assert isinstance(caught.value.__cause__, KeyError)

    (user_file.parent / "broken.py").write_text("1 / 0")
    before = set(sys.modules)
    with pytest.raises(ValueError, match=r"running .* failed: ZeroDivisionError") as caught:
        zoo.load_model(f"{user_file.parent}/broken.py:make")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert set(sys.modules) == before


@pytest.mark.parametrize("reference", ["no_such_package_of_a_test.nets:make", ".nets:make", "no such:make"])
def test_reference_to_no_module(reference: str):
    """A module that cannot be imported is an error that says where modules are looked for."""
    with pytest.raises(ValueError, match=r"importing .* failed: .*PYTHONPATH"):
        zoo.load_model(reference)


def test_reference_to_no_file(tmp_path: Path):
    """A file that is not there is an error."""
    with pytest.raises(FileNotFoundError, match=r"no such file: .*gone\.py"):
        zoo.load_model(f"{tmp_path}/gone.py:make")


@pytest.mark.parametrize("reference", ["file.py:", ":make", ":"])
def test_half_a_reference(reference: str):
    """Both sides of the colon are needed."""
    with pytest.raises(ValueError, match=r"use PACKAGE.MODULE:FUNCTION or FILE.py:FUNCTION"):
        zoo.load_model(reference)
