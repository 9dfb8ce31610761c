"""What an evaluation saw image by image: kept to the bit, bound to its record, eight images by rule."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sap_art import per_image
from sap_art.evaluation import Evaluation
from sap_art.store import tensor_sha256


def evaluation(right: torch.Tensor, labels: torch.Tensor) -> Evaluation:
    """Draws (m, B) that are right, or name the next of three classes."""
    named = torch.where(right, labels, (labels + 1) % 3)
    return Evaluation(torch.nn.functional.one_hot(named, 3).float().mul(5).log_softmax(-1), labels)


@pytest.fixture
def seen(generator: torch.Generator) -> per_image.PerImage:
    """Eleven images, five draws."""
    labels = torch.randint(0, 3, (11,), generator=generator)
    clean = evaluation(torch.rand(5, 11, generator=generator) < 0.8, labels)
    worst = evaluation(torch.rand(5, 11, generator=generator) < 0.3, labels)
    x = torch.rand(11, 3, 4, 4, generator=generator)
    return per_image.collect(x, (x + 8 / 255).clamp(max=1), clean=clean, worst=worst)


def test_what_is_written_is_what_is_read(tmp_path: Path, seen: per_image.PerImage) -> None:
    """Every draw of every image, and the same bytes each time."""
    path = seen.write(tmp_path / "net.images.safetensors")
    first = path.read_bytes()
    again = per_image.PerImage.read(path, images=11, counts_sha256=tensor_sha256(seen.worst.sum(0)))

    assert torch.equal(again.clean, seen.clean)
    assert torch.equal(again.worst, seen.worst)
    assert all(
        torch.equal(a, b) for a, b in zip(vars(again.examples).values(), vars(seen.examples).values(), strict=True)
    )
    assert again.write(path).read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["net.images.safetensors"]


def test_the_examples_are_the_images_and_their_votes(generator: torch.Generator) -> None:
    """Rounded to 1/255; votes are draws a class."""
    labels = torch.tensor([0, 1])
    clean, worst = (
        evaluation(torch.tensor([[True, True], [True, False]]), labels),
        evaluation(torch.zeros(2, 2) > 0, labels),
    )
    x = torch.tensor([0.2, 0.6]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    shown = per_image.collect(x, x + 1 / 255, clean=clean, worst=worst).examples

    assert shown.index.tolist() == [0, 1]
    assert shown.label.tolist() == [0, 1]
    assert shown.clean[:, 0, 0, 0].tolist() == [51, 153]
    assert shown.worst[:, 0, 0, 0].tolist() == [52, 154]
    assert shown.clean_votes.tolist() == [[2, 0, 0], [0, 1, 1]]
    assert shown.worst_votes.tolist() == [[0, 2, 0], [0, 0, 2]]


@pytest.mark.parametrize(
    ("clean", "worst", "expected"),
    [
        ([10] * 12, [0] * 12, [0, 1, 2, 3, 4, 5, 6, 7]),  # none stands: the first to fall
        ([10] * 12, [0] * 8 + [6, 6, 9, 5], [0, 1, 2, 3, 4, 5, 10, 8]),  # those that stand, the firmest first
        ([10] * 12, [0] * 9 + [9, 5, 5], [0, 1, 2, 3, 4, 5, 6, 9]),  # half of the draws is not standing
        ([9, 10, 3] + [0] * 9, [0] * 12, [1, 0, 2, 3, 4, 5, 6, 7]),  # the largest drop first, not the lowest count
        ([10, 10, 10], [10, 0, 9], [1, 2, 0]),  # all of them where there are few
        ([10] * 9, [10] * 9, [0, 1, 2, 3, 4, 5, 6, 7]),  # all stand
    ],
)
def test_the_most_instructive_come_by_rule(clean: list[int], worst: list[int], expected: list[int]) -> None:
    """Six that fall furthest, two that stand, ties by index."""
    assert per_image.instructive(torch.tensor(clean), torch.tensor(worst), draws=10).tolist() == expected


def test_results_of_another_record_are_refused(tmp_path: Path, seen: per_image.PerImage) -> None:
    """By the counts that the record vouches for, and by the number of images."""
    path = seen.write(tmp_path / "net.images.safetensors")

    with pytest.raises(ValueError, match=r"net\.images\.safetensors: worst_right is that of another record"):
        per_image.PerImage.read(path, images=11, counts_sha256="0" * 64)
    with pytest.raises(ValueError, match="clean_right must be bits of 64 images"):
        per_image.PerImage.read(path, images=64, counts_sha256=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"index": torch.full((8,), 11)}, "index must be from 0 to 10"),
        ({"label": torch.zeros(8)}, "whole numbers"),
        ({"worst_image": torch.zeros(8, 3, 4, 5, dtype=torch.uint8)}, r"worst_image must be uint8 \(8, 3, H, W\)"),
        ({"worst_right": torch.zeros(5, 2)}, "worst_right must be bits of 11 images"),
        ({"worst_votes": torch.zeros(8, 3, dtype=torch.int64)}, "worst_votes must be .* draws over .* classes"),
        ({"label": torch.full((8,), 99)}, "label must be from 0 to"),
        ({"surprise": torch.zeros(1)}, "must hold clean_image, .* got .*surprise"),
    ],
)
def test_damaged_results_are_refused(
    tmp_path: Path, seen: per_image.PerImage, change: dict[str, torch.Tensor], message: str
) -> None:
    """The message names file and field."""
    path = seen.write(tmp_path / "net.images.safetensors")
    save_file({**load_file(path), **change}, path)

    with pytest.raises(ValueError, match=message) as caught:
        per_image.PerImage.read(path, images=11, counts_sha256=None)
    assert str(path) in str(caught.value)


def test_half_a_file_is_refused(tmp_path: Path, seen: per_image.PerImage) -> None:
    """And what is no such file at all."""
    path = seen.write(tmp_path / "net.images.safetensors")
    for content in (path.read_bytes()[:-10], json.dumps({}).encode()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cut short or no safetensors file"):
            per_image.PerImage.read(path, images=11, counts_sha256=None)
