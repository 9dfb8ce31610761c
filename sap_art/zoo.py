"""Nets by name, from checkpoints whose card and checksum are read first, or from a user's own file or function."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from sap_art.networks import ARCHITECTURES, build
from sap_art.references import call_reference
from sap_art.untrusted import read_json, read_tensors, require_no_bomb, shortened

ASSETS = Path(__file__).parent / "assets"
TORCH_SUFFIXES = (".pt", ".pth", ".th")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES)
REFERENCES = "the name of a net, a checkpoint with its card, PACKAGE.MODULE:FUNCTION or FILE.py:FUNCTION"
CARD_TYPES: dict[str, tuple[type, ...]] = {
    "architecture": (str,),
    "recipe": (dict,),
    "dataset": (str,),
    "train_images": (int,),
    "seed": (int,),
    "accuracy": (int, float),
    "test_images": (int,),
    "sha256": (str,),
}
SHOWN_KEYS = 5


@dataclass(frozen=True)
class Card:
    """Where a checkpoint comes from and what it is worth; ``accuracy`` is the fraction right of ``test_images``."""

    name: str
    architecture: str
    recipe: dict[str, Any]
    dataset: str
    train_images: int
    seed: int
    accuracy: float
    test_images: int
    sha256: str
    more: dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One line of ``list_nets``; accuracy is None without a card, bytes is None where ``present`` is False."""

    name: str
    architecture: str
    accuracy: float | None
    bytes: int | None
    present: bool


def load(name: str, *, device: torch.device | str = "cpu", folder: Path = ASSETS) -> nn.Module:
    """The trained net of that name, in eval mode: (B, 3, 32, 32) in [0, 1] -> (B, classes) logits.

    The global random generator is not touched. Raises ValueError for an unknown name or a file that is not the one
    its card describes, FileNotFoundError where the weights are missing.
    """
    _require_known(name, folder)
    return load_checkpoint(folder / f"{name}.safetensors").to(device)


def load_card(name: str, *, folder: Path = ASSETS) -> Card:
    """The card of the net of that name; ValueError for an unknown name or a card that lacks something."""
    _require_known(name, folder)
    return read_card(folder / f"{name}.json")


def list_nets(*, folder: Path = ASSETS) -> list[Entry]:
    """Every net with a card, and every architecture that has none yet, by name."""
    cards = [read_card(path) for path in folder.glob("*.json")]
    untrained = set(ARCHITECTURES) - {card.name for card in cards} - {card.architecture for card in cards}
    entries = [Entry(name, name, None, None, False) for name in untrained]
    for card in cards:
        path = folder / f"{card.name}.safetensors"
        size = path.stat().st_size if path.is_file() else None
        entries.append(Entry(card.name, card.architecture, card.accuracy, size, size is not None))
    return sorted(entries, key=lambda entry: entry.name)


def load_checkpoint(path: Path | str, *, architecture: str | None = None) -> nn.Module:
    """A net from a checkpoint file, in eval mode on the CPU.

    A card beside a .safetensors file gives the architecture and the SHA-256 that the file must have; any other file
    needs ``architecture``. Raises FileNotFoundError, or ValueError for a file that is not what it should be.
    """
    path = _existing(path)
    beside = path.with_suffix(".json")
    if path.suffix == ".safetensors" and beside.is_file():
        architecture = _checked_architecture(path, read_card(beside), architecture)
    if architecture is None:
        raise ValueError(f"{path} has no card; say which architecture it is, one of {', '.join(sorted(ARCHITECTURES))}")
    net = build(architecture)
    load_weights(net, path)
    return net.eval()


@torch.no_grad()
def load_weights(net: nn.Module, path: Path | str) -> None:
    """Put the weights of a checkpoint into ``net``, all of them, in the types that ``net`` has.

    ``net`` may be on the meta device. Raises ValueError, with ``net`` as it was, when names or shapes differ.
    """
    own, given = cast("dict[str, Tensor]", net.state_dict()), _read_weights(_existing(path))
    if odd := {key for key, value in given.items() if not _is_plain(value)}:
        raise ValueError(f"{path} must hold dense tensors of real values, got another kind: {_some(odd)}")
    counters = {key for key in own if key.endswith("num_batches_tracked")}  # absent in files of torch < 0.4.1
    problems = {
        "missing": own.keys() - given.keys() - counters,
        "unexpected": given.keys() - own.keys(),
        "of another shape": {key for key in own.keys() & given.keys() if own[key].shape != given[key].shape},
    }
    if any(problems.values()):
        shown = "; ".join(f"{kind}: {_some(keys)}" for kind, keys in problems.items() if keys)
        raise ValueError(f"{path} does not fit this net; {shown}; is it of this architecture?")
    typed = {key: value.to(own[key].dtype) for key, value in given.items()}
    net.load_state_dict(typed, strict=True, assign=any(value.is_meta for value in own.values()))


def load_model(reference: str, *, folder: Path = ASSETS) -> nn.Module:
    """A net by reference: zoo name, checkpoint with its card, PACKAGE.MODULE:FUNCTION or FILE.py:FUNCTION.

    The last two run the user's code, see ``call_reference``. Raises ValueError or FileNotFoundError.
    """
    if Path(reference).suffix in SUFFIXES:
        return load_checkpoint(reference)
    return call_reference(reference) if ":" in reference else load(reference, folder=folder)


def read_card(path: Path) -> Card:
    """The card in a JSON file; raises ValueError, naming what is missing or of the wrong type."""
    content = read_json(path, what="a card")
    fields = cast("dict[str, Any]", content) if isinstance(content, dict) else {}
    wrong = [key for key, types in CARD_TYPES.items() if not isinstance(fields.get(key), types)]
    if wrong:
        raise ValueError(f"{path} is not a card: {', '.join(wrong)} missing or of the wrong type")
    if not 0 <= fields["accuracy"] <= 1:
        raise ValueError(f"{path}: accuracy must be a fraction in [0, 1], got {fields['accuracy']}")
    more = {key: value for key, value in fields.items() if key not in CARD_TYPES}
    return Card(name=path.stem, more=more, **{key: fields[key] for key in CARD_TYPES})


def file_sha256(path: Path | str) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require_known(name: str, folder: Path) -> None:
    known = sorted(path.stem for path in folder.glob("*.json"))
    if name in known:
        return
    if name in ARCHITECTURES:
        raise FileNotFoundError(f"no checkpoint of {name} in {folder}; train one: sap-art train --arch {name}")
    raise ValueError(f"unknown net {name!r}; known: {', '.join(known) or 'none'}; a model is {REFERENCES}")


def _checked_architecture(path: Path, card: Card, architecture: str | None) -> str:
    if architecture not in (None, card.architecture):
        raise ValueError(f"{path} is a {card.architecture} by its card, asked for {architecture}")
    found = file_sha256(path)
    if found != card.sha256:
        raise ValueError(
            f"{path} is damaged or not the file of its card: its SHA-256 is {found}, must be {card.sha256}; "
            "copy both again"
        )
    return card.architecture


def _existing(path: Path | str) -> Path:
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    return Path(path)


def _some(keys: set[str]) -> str:
    names = ", ".join(map(shortened, sorted(keys)[:SHOWN_KEYS]))
    return names if len(keys) <= SHOWN_KEYS else f"{names} and {len(keys) - SHOWN_KEYS} more"


def _read_weights(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return read_tensors(path, what="a checkpoint", most=None)
    if path.suffix in TORCH_SUFFIXES:
        return _unwrapped(_read_torch(path), path)
    raise ValueError(f"cannot read {path}; a checkpoint ends in {', '.join(SUFFIXES)}")


def _is_plain(value: Tensor) -> bool:
    """Neither sparse, quantised, complex, of a subclass, nor without values."""
    kind = type(value) in (Tensor, nn.Parameter) and value.layout is torch.strided and value.device.type == "cpu"
    return kind and not value.is_quantized and not value.is_complex()


def _read_torch(path: Path) -> Any:
    require_no_bomb(path, what="a checkpoint")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the legacy format lets damage through as any type at all
        raise ValueError(
            f"refused to load {path}: it is damaged, or holds more than tensors (a pickle can run code); "
            "save net.state_dict() with torch.save or safetensors"
        ) from error


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors of a saved object: out of its ``state_dict`` key, without the prefix of DataParallel."""
    if isinstance(content, Mapping) and "state_dict" in content:
        content = cast("Mapping[str, Any]", content)["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path} must hold a state_dict, got {type(content).__name__}; save net.state_dict()")
    state = cast("Mapping[Any, Any]", content)
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise ValueError(f"{path} must hold tensors only, each under its name; save net.state_dict() alone")
    prefix = "module." if all(key.startswith("module.") for key in state) else ""
    return {key.removeprefix(prefix): value for key, value in state.items()}
