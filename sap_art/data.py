"""Images in [0, 1] with their labels: 512 that ship with the package, or more from a folder, a file or a download."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sap_art import cifar
from sap_art.mapping import mapped
from sap_art.untrusted import require_no_bomb, shortened

CLASS_NAMES = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
}
SPLITS = ("test", "train")
SOURCE_VARIABLE = "SAP_ART_DATA"
IMAGE_SHAPES = {"cifar10": (3, 32, 32)}
BUNDLE = "cifar10-test-512.npz"
SOURCES = f"a directory that holds {cifar.FOLDER}/ or a FILE.npz with the keys images and labels"
HOW_TO_GET_MORE = (
    f"for more, set {SOURCE_VARIABLE} (or --data DIR) to a directory that holds {cifar.FOLDER}/, "
    "give images of your own with --data FILE.npz, or use download=True"
)
PIECE = 256
"""Images that are made from bytes at a time."""
Array = NDArray[Any]
Arrays = tuple[Array, Array]


def load(
    name: str = "cifar10",
    *,
    n: int | None = None,
    split: str = "test",
    source: Path | str | None = None,
    download: bool = False,
) -> tuple[Tensor, Tensor]:
    """The first ``n`` images of a split: (n, 3, H, W) float32 in [0, 1] and (n,) int64 labels, on the CPU.

    The images are ``mapped``: in memory are those that are in use.

    Args:
        name: a key of ``CLASS_NAMES``.
        n: how many, in official order; None takes all that the source has.
        split: "test" or "train". ``train_1.npz`` ... ``train_5.npz`` serve where the official batches are missing.
        source: a directory or a FILE.npz (images uint8 (N, H, W, 3) or float32 (N, 3, H, W) in [0, 1]; integer
            labels (N,)). None reads the variable SAP_ART_DATA; without it the 512 bundled test images are used.
        download: fetch what ``source`` lacks into it (without a source: into the user's cache folder).

    Raises:
        ValueError: an argument or the content of a file is not as said here, or there are fewer than ``n`` images.
        FileNotFoundError: the source or a file in it does not exist, or the download failed.
    """
    _check_request(name, split, n)
    place = _place(source)
    if download:
        place = _downloaded(place, split)
    parts = _first(_batches(place, split), n, where="the bundle" if place is None else str(place))
    labels = np.concatenate([labels for _, labels in parts]).astype(np.int64)
    return mapped(_pieces(images for images, _ in parts)), torch.as_tensor(labels)


def set_name(name: str = "cifar10", *, source: Path | str | None = None) -> str:
    """What a record calls the images that ``load`` takes from this source: ``custom`` for those of a FILE.npz."""
    place = _place(source)
    return "custom" if place is not None and place.suffix == ".npz" else name


def image_ids(images: Tensor, labels: Tensor) -> list[str]:
    """What each image is: SHA-256 (hex) of its float32 pixels in (3, H, W) order, then its int64 label, little-endian.

    Takes (N, 3, H, W) float32 and (N,) integers; raises ValueError for anything else.
    """
    if images.dtype != torch.float32 or labels.is_floating_point() or labels.shape != images.shape[:1]:
        raise ValueError(
            f"expected float32 images (N, 3, H, W) and integer labels (N,), got {images.dtype} {tuple(images.shape)} "
            f"and {labels.dtype} {tuple(labels.shape)}"
        )
    pixels = images.detach().cpu().numpy().astype("<f4", copy=False)
    numbers = labels.detach().cpu().numpy().astype("<i8")[:, None]  # rows, since scalars would be native
    return [hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest() for x, y in zip(pixels, numbers, strict=True)]


def ids_sha256(images: Tensor, labels: Tensor) -> str:
    """One SHA-256 (hex) for these images in this order: over the digests (bytes) of ``image_ids``."""
    return hashlib.sha256(b"".join(map(bytes.fromhex, image_ids(images, labels)))).hexdigest()


def _check_request(name: str, split: str, n: object) -> None:
    if name not in CLASS_NAMES:
        raise ValueError(f"unknown data set {name!r}; known: {', '.join(CLASS_NAMES)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    if n is not None and (not isinstance(n, int) or isinstance(n, bool) or n < 1):
        raise ValueError(f"n must be a whole number of images, at least 1, got {n!r}; None takes all there are")


def _place(source: Path | str | None) -> Path | None:
    given = source if source is not None else os.environ.get(SOURCE_VARIABLE) or None
    return None if given is None else Path(given).expanduser()


def _downloaded(place: Path | None, split: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sap_art"
    directory = place or cache
    if directory.is_file() or directory.suffix == ".npz":
        raise ValueError(f"a download goes into a directory, got the file {directory}; leave out download or the file")
    cifar.download(directory, split)
    return directory


def _batches(place: Path | None, split: str) -> Iterator[Arrays]:
    """(images, labels) of each file of the source, in order, read only when asked for."""
    if place is not None and place.is_dir():
        yield from _directory_batches(place, split)
    elif place is not None and not place.exists():
        raise FileNotFoundError(f"no data at {place}, given by source, --data or {SOURCE_VARIABLE}; use {SOURCES}")
    elif place is not None and place.suffix != ".npz":
        raise ValueError(f"cannot read {place}; a data source is {SOURCES}")
    elif split != "test":
        what = "the bundle" if place is None else str(place)
        raise ValueError(f"{what} has test images only, asked for split {split!r}; {HOW_TO_GET_MORE}")
    elif place is not None:
        yield _read_npz(place)
    else:
        yield _read_npz(resources.files("sap_art") / "assets" / BUNDLE)


def _directory_batches(directory: Path, split: str) -> Iterator[Arrays]:
    official = cifar.batch_paths(directory, split)
    packed = [directory / f"train_{i}.npz" for i in range(1, 6)] if split == "train" else []
    missing = [str(path) for path in official + packed if not path.is_file()]
    if all(path.is_file() for path in official):
        yield from map(cifar.read_batch, official)
    elif packed and all(path.is_file() for path in packed):
        yield from map(_read_packed, packed)
    else:
        raise FileNotFoundError(
            f"{directory} lacks the {split} split of cifar10: missing {', '.join(missing)}; "
            f"copy the official files there or use download=True"
        )


def _read_packed(path: Path) -> Arrays:
    images, labels = _read_npz(path)
    if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3):
        raise ValueError(f"{path}: images must be uint8 (N, 32, 32, 3), got {images.dtype} {images.shape}")
    return images, labels


def _read_npz(path: Path | Traversable) -> Arrays:
    if isinstance(path, Path):
        require_no_bomb(path, what="an archive of images")
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            keys: list[str] = sorted(getattr(archive, "files", []))
            found = {key: archive[key] for key in ("images", "labels") if key in keys}
    except Exception as error:  # whatever numpy and zipfile make of damaged bytes
        raise ValueError(f"cannot read {path}: {error}; it is damaged or was not made by numpy.savez") from error
    arrays = {key: value for key, value in found.items() if isinstance(value, np.ndarray)}  # else it is no .npy inside
    if len(arrays) < 2:
        raise ValueError(f"{path} must have the keys images and labels, got {shortened(keys, 200)}")
    images, labels = arrays["images"], arrays["labels"]
    problem = _image_problem(images) or _label_problem(labels, count=len(images))
    if problem:
        raise ValueError(f"{path}: {problem}")
    return images, labels


def _image_problem(images: Array) -> str | None:
    channel_axis = {"uint8": 3, "float32": 1}.get(str(images.dtype))
    if channel_axis is None or images.ndim != 4 or images.shape[channel_axis] != 3 or images.size == 0:
        return (
            "images must be uint8 (N, H, W, 3) or float32 (N, 3, H, W) with at least one image, "
            f"got {images.dtype} {images.shape}"
        )
    if channel_axis == 1 and not np.isfinite(images).all():
        return "images hold NaN or infinite values, must be in [0, 1]"
    if channel_axis == 1 and (images.min() < 0 or images.max() > 1):
        return f"float images must be in [0, 1], got [{images.min():g}, {images.max():g}]; divide by 255 or save uint8"
    return None


def _label_problem(labels: Array, *, count: int) -> str | None:
    classes = len(CLASS_NAMES["cifar10"])
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        return f"labels must be integers (N,), got {labels.dtype} {labels.shape}"
    if len(labels) != count:
        return f"there must be one label an image, got {count} images and {len(labels)} labels"
    if labels.min() < 0 or labels.max() >= classes:
        return f"labels must be in 0 ... {classes - 1}, got {labels.min()} ... {labels.max()}"
    return None


def _first(batches: Iterator[Arrays], n: int | None, *, where: str) -> list[Arrays]:
    parts: list[Arrays] = []
    have = 0
    for images, labels in batches:
        more = None if n is None else n - have
        parts.append((images[:more], labels[:more]))
        have += len(labels)
        if n is not None and have >= n:
            break
    if n is not None and have < n:
        raise ValueError(f"asked for {n} images, {where} has {have}; {HOW_TO_GET_MORE}")
    return parts


def _pieces(parts: Iterable[Array]) -> Iterator[Tensor]:
    return (_as_pixels(images[first : first + PIECE]) for images in parts for first in range(0, len(images), PIECE))


def _as_pixels(images: Array) -> Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W), divided by 255; float32 (N, 3, H, W) as it is."""
    if images.dtype != np.uint8:
        return torch.as_tensor(np.ascontiguousarray(images))
    return torch.as_tensor(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float().div_(255)
