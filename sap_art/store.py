"""Where work lies: finished units of one run, written by rename, so that an interrupted run goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from sap_art.record import write_json

Unit = dict[str, Tensor]


class Store:
    """The output folder of one run: ``suite.json`` says which, ``work/`` holds its units, ``records/`` its results."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.records = root / "records"

    @classmethod
    def open(cls, root: Path, manifest: Mapping[str, Any]) -> Store:
        """The store in ``root`` for the run that ``manifest`` describes; made if it is new, resumed if it is the same.

        Raises:
            ValueError: the folder holds another run's results, or something else; nothing in it is touched.
        """
        path = root / "suite.json"
        if path.exists():
            _require_same(json.loads(path.read_text(encoding="utf-8")), dict(manifest), root)
        elif root.exists() and (not root.is_dir() or any(p.suffix != ".part" for p in root.iterdir())):
            raise ValueError(f"{root} is not empty and holds no results of ours; choose another --output")
        else:
            write_json(dict(manifest), path)
        return cls(root)

    def unit(self, key: str, compute: Callable[[], Unit]) -> Unit:
        """The tensors of the unit ``key``: read if they were finished before, else computed and written by rename."""
        if self.has(key):
            return self.read(key)
        unit, path = compute(), self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_bytes(save({name: value.detach().cpu().contiguous() for name, value in unit.items()}))
        os.replace(part, path)
        return self.read(key)

    def read(self, key: str) -> Unit:
        """The tensors of the finished unit ``key``; raises ValueError if its file is damaged."""
        path = self._path(key)
        try:
            return load(path.read_bytes())
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged ({error}); delete it to have it computed again") from error

    def has(self, key: str) -> bool:
        """Whether the unit ``key`` was finished before."""
        return self._path(key).exists()

    def _path(self, key: str) -> Path:
        return self.root / "work" / f"{key}.safetensors"

    def finished(self, entry: str) -> bool:
        """Whether the record of ``entry`` is there."""
        return (self.records / f"{entry}.json").exists()


def tensor_sha256(*tensors: Tensor) -> str:
    """SHA-256 over dtype, shape and bytes of the tensors in order."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def weights_sha256(net: nn.Module) -> str:
    """SHA-256 over the names and values of a net's state_dict, in name order."""
    state = sorted(net.state_dict().items())
    return hashlib.sha256("".join(name + tensor_sha256(value) for name, value in state).encode()).hexdigest()


def _require_same(before: dict[str, Any], now: dict[str, Any], root: Path) -> None:
    now = json.loads(json.dumps(now))
    differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if differing:
        raise ValueError(
            f"{root} holds the results of another run, which differs in: {', '.join(differing)}; "
            "choose another --output, or delete that folder"
        )
