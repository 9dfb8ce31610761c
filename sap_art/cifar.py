"""The official CIFAR-10 files: MD5 checked first, read by an unpickler that can build nothing but uint8 arrays."""

from __future__ import annotations

import hashlib
import http.client
import importlib
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = "cifar-10-batches-py"
ARCHIVE_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE_MD5 = "c58f30108f718f92721af3b95e74349a"
MD5 = {
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
}
SPLITS = {"test": ("test_batch",), "train": tuple(f"data_batch_{i}" for i in range(1, 6))}


def batch_paths(directory: Path, split: str) -> list[Path]:
    """Where the official files of ``split`` lie, or would lie, in or below ``directory``."""
    inner = directory / FOLDER
    return [(inner if inner.is_dir() else directory) / name for name in SPLITS[split]]


def read_batch(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One official batch file -> images (10000, 32, 32, 3) uint8, labels (10000,) int64.

    Raises ValueError when the MD5 is not the official one; not a byte is unpickled before that check.
    """
    content = path.read_bytes()
    found, expected = _md5(content), MD5[path.name]
    if found != expected:
        raise ValueError(
            f"{path} is damaged or not the official file: its MD5 is {found}, must be {expected}; "
            "copy it again, or delete it and use download=True"
        )
    batch = restricted_loads(content)
    images = batch["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, np.asarray(batch["labels"], dtype=np.int64)


def restricted_loads(content: bytes) -> Any:
    """Unpickle plain containers and uint8 arrays; pickle.UnpicklingError for anything that names another object."""
    return _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()


def download(directory: Path, split: str) -> None:
    """Fetch and unpack the official archive below ``directory`` (made if need be), unless ``split`` is there.

    Raises ImportError without torchvision, FileNotFoundError when the download fails.
    """
    if all(p.is_file() and _md5(p.read_bytes()) == MD5[p.name] for p in batch_paths(directory, split)):
        return
    try:
        utils: Any = importlib.import_module("torchvision.datasets.utils")
    except ImportError as error:
        raise ImportError("downloading CIFAR-10 needs torchvision: pip install 'sap_art[robustbench]'") from error
    try:
        utils.download_and_extract_archive(ARCHIVE_URL, directory, md5=ARCHIVE_MD5, remove_finished=True)
    except (OSError, EOFError, RuntimeError, http.client.HTTPException) as error:
        raise FileNotFoundError(
            f"could not download CIFAR-10 from {ARCHIVE_URL} into {directory}: {error}; "
            f"fetch and unpack that archive on a machine with a network, then set SAP_ART_DATA to its folder"
        ) from error


class _ArrayUnpickler(pickle.Unpickler):
    """Resolves the three names that a pickled array needs, each to something that can only make uint8 arrays."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        name = f"{module_name}.{global_name}"
        if name not in _ALLOWED:
            raise pickle.UnpicklingError(f"refused to load {name}: only uint8 arrays are allowed in a data file")
        return _ALLOWED[name]


def _empty_array(*_: object) -> NDArray[np.uint8]:
    """Stands in for numpy's _reconstruct; the state set afterwards brings shape and values."""
    return np.empty(0, np.uint8)


def _uint8_type(code: object, *_: object) -> np.dtype[Any]:
    """Stands in for numpy.dtype; a copy, since the state set afterwards must not reach the shared object."""
    if code not in ("u1", "|u1"):
        raise pickle.UnpicklingError(f"refused an array of type {code!r}: only uint8 is allowed in a data file")
    return np.dtype("u1", False, True)


_ALLOWED: dict[str, Any] = {
    "numpy.core.multiarray._reconstruct": _empty_array,
    "numpy._core.multiarray._reconstruct": _empty_array,
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": _uint8_type,
}


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
