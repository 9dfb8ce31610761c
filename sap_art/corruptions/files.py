"""The files of CIFAR-10-C: headers checked first, then mapped into memory; nothing is ever unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sap_art.corruptions.scoring import SEVERITIES, CorruptedImages
from sap_art.store import tensor_sha256

CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
"""The 15 of the benchmark; the four extra ones of CIFAR-10-C are for validation and do not count."""
SOURCE = "CIFAR-10-C"
FOLDER = "CIFAR-10-C"
HOW_TO_GET = "unpack CIFAR-10-C.tar of https://doi.org/10.5281/zenodo.2535967 and give the folder above CIFAR-10-C"
IMAGES, CLASSES = 10_000, 10
LABELS = "labels"
_SHAPES = {name: (len(SEVERITIES) * IMAGES, 32, 32, 3) for name in CORRUPTIONS} | {LABELS: (len(SEVERITIES) * IMAGES,)}
Array = NDArray[Any]


def cifar10_c(directory: Path | str, *, n: int | None = None) -> CorruptedImages:
    """The first ``n`` test images under the 15 corruptions of CIFAR-10-C, all 10,000 by default.

    Every file is checked here; its images are read when they are asked for.

    Args:
        directory: the folder ``CIFAR-10-C`` or the one above it, with ``<corruption>.npy`` (uint8 (50000, 32, 32, 3),
            10,000 rows a severity) and ``labels.npy`` (integers (50000,)).
        n: how many.

    Raises:
        FileNotFoundError: files are missing; the message names them all.
        ValueError: a file that is truncated, has other contents, or would have to be unpickled; n out of range.
    """
    if n is not None and not 1 <= n <= IMAGES:
        raise ValueError(f"n must be from 1 to {IMAGES} images of CIFAR-10-C, got {n}")
    count = IMAGES if n is None else n
    paths = _paths(Path(directory).expanduser())
    arrays = {name: _mapped(path, _SHAPES[name]) for name, path in paths.items()}
    labels = _labels(arrays.pop(LABELS), paths[LABELS])
    for name, images in arrays.items():
        if images.dtype != np.uint8:
            raise ValueError(f"{paths[name]} must hold uint8 images, got {images.dtype}; {HOW_TO_GET}")

    def read(corruption: str, severity: int) -> Tensor:
        first = (severity - 1) * IMAGES
        rows = np.ascontiguousarray(arrays[corruption][first : first + count].transpose(0, 3, 1, 2))
        return torch.from_numpy(rows).float().div_(255)

    some = [torch.from_numpy(np.array(images[::IMAGES])) for images in arrays.values()]  # the first of each severity
    digest = tensor_sha256(torch.from_numpy(labels[:count]), *some)
    return CorruptedImages(SOURCE, CORRUPTIONS, digest, torch.from_numpy(labels[:count]), read)


def _paths(directory: Path) -> dict[str, Path]:
    folder = directory / FOLDER if (directory / FOLDER).is_dir() else directory
    paths = {name: folder / f"{name}.npy" for name in _SHAPES}
    missing = [path.name for path in paths.values() if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)} of CIFAR-10-C; {HOW_TO_GET}")
    return paths


def _mapped(path: Path, shape: tuple[int, ...]) -> Array:
    try:
        array = np.lib.format.open_memmap(path, mode="r")  # refuses objects, which are pickles
    except OSError:
        raise
    except Exception as error:  # whatever numpy makes of damaged bytes, and of files shorter than their header says
        raise ValueError(f"{path} is truncated or no array ({error}); {HOW_TO_GET}") from error
    size, expected = path.stat().st_size, array.offset + array.nbytes
    if array.shape != shape or size != expected:
        raise ValueError(
            f"{path} must hold an array {shape} and no more, got {array.shape}, {size - expected} bytes too many; "
            f"{HOW_TO_GET}"
        )
    return array


def _labels(array: Array, path: Path) -> NDArray[np.int64]:
    """(10000,), the same for each severity."""
    if array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= CLASSES:
        raise ValueError(f"{path} must hold integers from 0 to {CLASSES - 1}, got {array.dtype}; {HOW_TO_GET}")
    by_severity = array.reshape(len(SEVERITIES), IMAGES).astype(np.int64)
    if (by_severity != by_severity[0]).any():
        raise ValueError(f"{path} must hold the same {IMAGES} labels for each severity; {HOW_TO_GET}")
    return by_severity[0]
