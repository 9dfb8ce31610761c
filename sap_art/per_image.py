"""What an evaluation saw image by image: beside the record, ``records/<entry>.images.safetensors``.

The right draws of every image, by which entries are compared in pairs, and eight images to look at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from sap_art.evaluation import Evaluation
from sap_art.files import write_file
from sap_art.store import tensor_sha256
from sap_art.untrusted import read_tensors, shortened

SUFFIX = ".images.safetensors"
SHOWN = 8
STANDING = 2
EXAMPLES = ("clean_image", "clean_votes", "index", "label", "worst_image", "worst_votes")


@dataclass(frozen=True)
class Examples:
    """k images to look at, clean and at their worst point.

    Args:
        index: (k,) their places in the data; ``label`` (k,) their classes.
        clean: (k, 3, H, W) uint8; ``worst`` the same, rounded to whole steps of 1/255.
        clean_votes: (k, C) how many of the m report draws name each class; ``worst_votes`` the same.
    """

    index: Tensor
    label: Tensor
    clean: Tensor
    worst: Tensor
    clean_votes: Tensor
    worst_votes: Tensor


@dataclass(frozen=True)
class PerImage:
    """(m, B) bool: which report draws are right on each clean image and on its chosen worst point; and examples."""

    clean: Tensor
    worst: Tensor
    examples: Examples

    @property
    def counts_sha256(self) -> str:
        """What the record calls the counts of right draws at the worst points."""
        return tensor_sha256(self.worst.sum(0))

    def write(self, path: Path) -> Path:
        """Write by rename; the same results give the same bytes."""
        shown = self.examples
        images = (shown.clean, shown.clean_votes, shown.index, shown.label, shown.worst, shown.worst_votes)
        tensors = dict(zip(EXAMPLES, images, strict=True))
        return write_file(save({"clean_right": _pack(self.clean), "worst_right": _pack(self.worst), **tensors}), path)

    @classmethod
    def read(cls, path: Path, *, images: int, counts_sha256: str | None) -> PerImage:
        """Read those of the record that has so many images, and these counts.

        Raises:
            ValueError: a damaged file, or one of another record; the message names file and field.
        """
        found = read_tensors(path, what="what an evaluation saw image by image")
        _require_fit(path, found, images)
        clean, worst = (_unpack(found[name], images) for name in ("clean_right", "worst_right"))
        clean_image, clean_votes, index, label, worst_image, worst_votes = (found[name] for name in EXAMPLES)
        read = cls(clean, worst, Examples(index, label, clean_image, worst_image, clean_votes, worst_votes))
        if counts_sha256 not in (None, read.counts_sha256):
            raise ValueError(f"{path}: worst_right is that of another record: counts_sha256 is {read.counts_sha256}")
        return read


def collect(x: Tensor, points: Tensor, *, clean: Evaluation, worst: Evaluation) -> PerImage:
    """From images (B, 3, H, W) in [0, 1], their chosen worst points, and the report draws on both."""
    index = instructive(clean.correct, worst.correct, draws=worst.draws)
    examples = Examples(
        index=index,
        label=worst.labels[index].long(),
        clean=_bytes(x, index),
        worst=_bytes(points, index),
        clean_votes=_votes(clean, index),
        worst_votes=_votes(worst, index),
    )
    return PerImage(clean.right, worst.right, examples)


def instructive(clean: Tensor, worst: Tensor, *, draws: int) -> Tensor:
    """The up to eight images to look at, from right draws (B,) on clean images and at worst points: (k,) indices.

    First those that lose most right draws, up to six of them; then two that stand, right in more than half of the
    draws, those with most right draws first; where fewer stand, more of the first kind. Ties go by index.
    """
    fallen = torch.argsort(worst - clean, stable=True).tolist()
    most = fallen[: SHOWN - STANDING]
    stand = [i for i in torch.argsort(-worst, stable=True).tolist() if 2 * worst[i] > draws and i not in most]
    chosen = [*most, *stand[:STANDING]]
    rest = [i for i in fallen if i not in chosen]
    return torch.tensor([*most, *rest[: SHOWN - len(chosen)], *stand[:STANDING]])


def _votes(found: Evaluation, index: Tensor) -> Tensor:
    log_probabilities = found.draw_log_probabilities[:, index]
    return torch.nn.functional.one_hot(log_probabilities.argmax(-1), log_probabilities.shape[-1]).sum(0)


def _bytes(x: Tensor, index: Tensor) -> Tensor:
    return (x.detach().cpu()[index] * 255).round().to(torch.uint8)


def _pack(right: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(right.numpy(), axis=1))


def _unpack(bits: Tensor, images: int) -> Tensor:
    right: NDArray[np.uint8] = np.unpackbits(bits.numpy(), axis=1, count=images)
    return torch.from_numpy(right.astype(bool))


def _require_fit(path: Path, found: dict[str, Tensor], images: int) -> None:
    """Everything is there, in the shapes and types that ``collect`` gives; raises ValueError."""
    expected = {"clean_right", "worst_right", *EXAMPLES}
    if expected != set(found):
        got = shortened(", ".join(sorted(found)) or "nothing", 400)
        raise ValueError(f"{path}: must hold {', '.join(sorted(expected))}, got {got}")
    for name, problem in chain(_of_draws(found, images), _of_examples(found, images)):  # the first ends it
        raise ValueError(f"{path}: {name} must be {problem}, got {found[name].dtype} {tuple(found[name].shape)}")
    for name, problem in _of_votes(found):
        raise ValueError(f"{path}: {name} must be {problem}")


def _of_draws(found: dict[str, Tensor], images: int) -> Iterator[tuple[str, str]]:
    for name in ("clean_right", "worst_right"):
        bits = found[name]
        if bits.dtype != torch.uint8 or bits.ndim != 2 or not len(bits) or bits.shape[1] != -(-images // 8):
            yield name, f"bits of {images} images"


def _of_examples(found: dict[str, Tensor], images: int) -> Iterator[tuple[str, str]]:
    whole = {"index": 1, "label": 1, "clean_votes": 2, "worst_votes": 2}
    if odd := [name for name, ndim in whole.items() if found[name].dtype != torch.int64 or found[name].ndim != ndim]:
        yield odd[0], f"{whole[odd[0]]}-d whole numbers"
        return
    k, shape = len(found["index"]), tuple(found["clean_image"].shape)
    for name in ("label", "clean_votes", "worst_votes"):
        if len(found[name]) != k:
            yield name, f"those of {k} images"
    for name in ("clean_image", "worst_image"):
        pixels = found[name]
        like = tuple(pixels.shape) == shape and shape[:2] == (k, 3)
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or not like or not all(shape[2:]):
            yield name, f"uint8 ({k}, 3, H, W)"
    for name, most in (("index", images), ("label", found["clean_votes"].shape[1])):
        if k and not 0 <= found[name].min() <= found[name].max() < most:
            yield name, f"from 0 to {most - 1}"


def _of_votes(found: dict[str, Tensor]) -> Iterator[tuple[str, str]]:
    classes = found["clean_votes"].shape[1]
    for name, right in (("clean_votes", "clean_right"), ("worst_votes", "worst_right")):
        votes, draws = found[name], len(found[right])
        if votes.shape[1] != classes or (votes < 0).any() or (votes.sum(1) != draws).any():
            yield name, f"{draws} draws over {classes} classes for each image"
