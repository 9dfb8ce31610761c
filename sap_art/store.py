"""Where work lies: finished units of one run, each whole or not there, so that an interrupted run goes on where it was.

- ``suite.json``: what the run is, as it was first begun.
- ``work/<place>/<unit>.safetensors``: a finished unit, with the SHA-256 of the file in its header.
- ``work/<place>/<unit>.run.json``: what it took, and what it depends on.
- ``work/<place>/<unit>.failed.json``: what a unit died of that is not tried again by itself.
- ``work/<place>/<unit>.safetensors.<random>.part``: a unit in work, or one that was killed.
- ``records/``: results.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sap_art.files import LOCK, PART, locked, replacing
from sap_art.record import write_json
from sap_art.untrusted import read_json

Unit = dict[str, Tensor]

SUFFIX, FAILED, RUN = ".safetensors", ".failed.json", ".run.json"
BLANK = b"0" * 64
"""Stands for the SHA-256 of a unit's file while that is computed."""
_BEFORE = b'{"__metadata__":{"sha256":"'
_AT = 8 + len(_BEFORE)
"""Where the digest begins: metadata come first in the header."""
_PIECE = 2**20
"""Bytes that are read at a time."""
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
ENTRIES = "entries"
"""What ``suite.json`` lists under this name may come and go; all else must be the same from run to run."""


class Failure(NamedTuple):
    """What a unit died of: the type and the message of the error."""

    kind: str
    message: str


class Store:
    """The output folder of one run; ``tell`` hears of damaged units, which are computed again."""

    def __init__(self, root: Path, *, tell: Callable[[str], None] = lambda text: None) -> None:
        self.root = root
        self.records = root / "records"
        self.work = root / "work"
        self.tell = tell

    @classmethod
    @contextmanager
    def open(
        cls,
        root: Path,
        manifest: Mapping[str, Any],
        *,
        tell: Callable[[str], None] = lambda text: None,
        name_of: Callable[[Any], object] = str,
    ) -> Generator[Store]:
        """Within, the store in ``root`` for the run that ``manifest`` describes, and for no other process.

        It is made if it is new and resumed if it is the same. Its ``entries`` may be others: those that were there
        stay in the list behind them, unless ``name_of`` has the same name for one of these.

        Raises:
            ValueError: the folder holds another run's results, or something else, or is in use; nothing is touched.
        """
        _require_ours(root, manifest)
        root.mkdir(parents=True, exist_ok=True)
        with locked(root):
            store, before = cls(root, tell=tell), _require_ours(root, manifest)
            store._sweep()
            now = _joined(before, manifest, name_of)
            if now != before:
                write_json(now, root / "suite.json")
            yield store

    def unit(self, key: str, compute: Callable[[], Unit]) -> Unit:
        """The tensors of the unit ``key``: read if they were finished before, else computed and written by rename."""
        unit = self.find(key)
        if unit is not None:
            return unit
        with replacing(self.path(key)) as write:
            write(*sealed(compute()))
        return self.read(key)

    def find(self, key: str) -> Unit | None:
        """The unit, None if it is not finished: so is a damaged one, which is told of and removed."""
        try:
            return unsealed(self.path(key))
        except FileNotFoundError:
            return None
        except ValueError as error:
            self.tell(f"unit {key} was damaged ({error}): computed again")
            self.path(key).unlink(missing_ok=True)
            return None

    def read(self, key: str) -> Unit:
        """The tensors of the finished unit ``key``; raises ValueError if its file is damaged."""
        path = self.path(key)
        try:
            return unsealed(path)
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error})") from error

    def has(self, key: str) -> bool:
        """Whether the unit ``key`` was finished before; its file has not been looked into."""
        return self.path(key).exists()

    def path(self, key: str, suffix: str = SUFFIX) -> Path:
        """Where the unit ``key`` lies, or with another suffix what is known of it."""
        return self.work / f"{key}{suffix}"

    def fail(self, key: str, failure: Failure) -> None:
        """Remember what the unit ``key`` died of: it is not tried again until ``forget_failures``."""
        write_json(failure._asdict(), self.path(key, FAILED))

    def failure(self, key: str) -> Failure | None:
        """What the unit ``key`` died of; None if it did not, or if nobody can read what of."""
        try:
            found = read_json(self.path(key, FAILED), what="a failed unit")
            return Failure(str(found["kind"]), str(found["message"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def forget_failures(self, place: str) -> int:
        """Have failed units below ``work/<place>`` tried again; how many there are."""
        paths = list((self.work / place).rglob(f"*{FAILED}"))
        for path in paths:
            path.unlink()
        return len(paths)

    def finished(self, entry: str) -> bool:
        """Whether the record of ``entry`` is there."""
        return (self.records / f"{entry}.json").exists()

    def _sweep(self) -> None:
        """Remove what a killed run was writing."""
        folders = [self.work, self.records, self.root / "model_info"]
        for part in [*self.root.glob(f"*{PART}"), *(p for folder in folders for p in folder.rglob(f"*{PART}"))]:
            part.unlink(missing_ok=True)


@dataclass(frozen=True)
class Stored:
    """A finished unit that is read when it is asked for, each time, so that it takes no memory; it travels whole.

    Args:
        key: of the unit; it stands for what the unit holds.
        source: the store that has it, or the unit itself.
    """

    key: str
    source: Store | Unit

    def read(self) -> Unit:
        """Its tensors; raises ValueError if its file is damaged."""
        return self.source.read(self.key) if isinstance(self.source, Store) else self.source

    def __reduce__(self) -> tuple[type[Stored], tuple[str, Unit]]:
        return Stored, (self.key, self.read())


def sealed(unit: Unit) -> list[bytes | memoryview]:
    """The unit as a safetensors file, in pieces: its header holds, as ``sha256``, that of the file with zeros there."""
    tensors = {name: unit[name].detach().cpu() for name in sorted(unit, key=lambda name: (-unit[name].itemsize, name))}
    header, pieces = _header(tensors), [_bytes(tensor) for tensor in tensors.values()]
    digest = hashlib.sha256(header)
    for piece in pieces:
        digest.update(piece)
    return [header[:_AT], digest.hexdigest().encode(), header[_AT + len(BLANK) :], *pieces]


def unsealed(path: Path) -> Unit:
    """The unit in such a file; raises ValueError if a single bit of it is not as it was written.

    Its tensors are mapped: the system reads them when they are used, and forgets them when memory is short.
    """
    with path.open("rb") as file:
        begin = file.read(_AT + len(BLANK))
        if begin[8:_AT] != _BEFORE:
            raise ValueError("it has no SHA-256")
        if begin[_AT:] != _sha256(file):
            raise ValueError("its content is not that of its SHA-256")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def require_new(root: Path) -> None:
    """Raise ValueError if a run has been begun in ``root``."""
    if (root / "suite.json").exists():
        raise ValueError(f"{root} holds a run that was begun before; leave out --no-resume, or choose another --output")


def read_manifest(root: Path) -> dict[str, Any]:
    """What ``suite.json`` says; raises ValueError if there is none, or if it is damaged."""
    path = root / "suite.json"
    try:
        found = read_json(path, what="what a run is")
    except FileNotFoundError as error:
        raise ValueError(f"{root} is no output folder of sap-art: it has no suite.json") from error
    except (ValueError, NotADirectoryError) as error:
        raise ValueError(f"{path} is damaged ({error}): put a copy back, or choose another --output") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged (no object): put a copy back, or choose another --output")
    return found


def tensor_sha256(*tensors: Tensor) -> str:
    """SHA-256 over dtype, shape and bytes of the tensors in order."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def weights_sha256(net: nn.Module) -> str:
    """SHA-256 over the names and values of a net's state_dict, in name order."""
    state = sorted(net.state_dict().items())
    return hashlib.sha256("".join(name + tensor_sha256(value) for name, value in state).encode()).hexdigest()


def _header(tensors: Unit) -> bytes:
    """Of a safetensors file with these tensors in this order, the largest numbers first so that all are aligned."""
    found: dict[str, Any] = {"__metadata__": {"sha256": BLANK.decode()}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        found[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(found, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bytes(tensor: Tensor) -> memoryview:
    """Those of a tensor, not copied if it is contiguous and on the CPU."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _sha256(file: BinaryIO) -> bytes:
    """Of a sealed file, with zeros where it holds this, in hexadecimal digits."""
    file.seek(0)
    digest = hashlib.sha256(file.read(_AT) + BLANK)
    file.seek(_AT + len(BLANK))
    while piece := file.read(_PIECE):
        digest.update(piece)
    return digest.hexdigest().encode()


def _joined(before: Mapping[str, Any] | None, manifest: Mapping[str, Any], name_of: Callable[[Any], object]) -> Any:
    """The manifest as JSON has it, with the entries that the folder had before after its own."""
    now = json.loads(json.dumps(dict(manifest)))
    if before is not None and ENTRIES in now:
        names = {name_of(entry) for entry in now[ENTRIES]}
        now[ENTRIES] += [entry for entry in before.get(ENTRIES, []) if name_of(entry) not in names]
    return now


def _require_ours(root: Path, manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest that is there, None in a new folder; raises ValueError for another run's, or somebody's."""
    if not (root / "suite.json").exists():
        if root.exists() and (not root.is_dir() or any(p.name != LOCK and p.suffix != PART for p in root.iterdir())):
            raise ValueError(f"{root} is not empty and holds no results of ours; choose another --output")
        return None
    before, now = read_manifest(root), json.loads(json.dumps(dict(manifest)))
    keys = (before.keys() | now.keys()) - {ENTRIES}
    differing = sorted(key for key in keys if before.get(key) != now.get(key))
    if differing:
        raise ValueError(
            f"{root} holds the results of another run, which differs in: {', '.join(differing)}; "
            "choose another --output, or delete that folder"
        )
    return before
