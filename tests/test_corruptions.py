"""Corrupted images: the files and what may be wrong with them, accuracies of known models, records, the export."""

from __future__ import annotations

import colorsys
import json
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sap_art import corruptions, data, models, wrap
from sap_art.cli import main
from sap_art.corruptions import CORRUPTIONS, CorruptedImages, cifar10_c, corruption_accuracy, files, run_corruptions
from sap_art.corruptions.closed_forms import brightness, contrast
from sap_art.integrations.robustbench import generate_leaderboard
from sap_art.integrations.robustbench.corruptions import export_corruptions

IMAGES = 20


@pytest.fixture(autouse=True)
def _bundled_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAP_ART_DATA", raising=False)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 images a severity where the real files have 10,000."""
    shapes = {name: (5 * IMAGES, *shape[1:]) for name, shape in files._SHAPES.items()}
    monkeypatch.setattr(files, "IMAGES", IMAGES)
    monkeypatch.setattr(files, "_SHAPES", shapes)


@pytest.fixture
def folder(few: None, tmp_path: Path) -> Path:
    """A small CIFAR-10-C; the first value of row i of corruption j is i + j."""
    folder = tmp_path / "data" / "CIFAR-10-C"
    folder.mkdir(parents=True)
    for j, name in enumerate(CORRUPTIONS):
        images = np.zeros((5 * IMAGES, 32, 32, 3), np.uint8)
        images[:, 0, 0, 0] = np.arange(5 * IMAGES) + j
        images[:, 0, 0, 1] = 7
        np.save(folder / f"{name}.npy", images)
    np.save(folder / "labels.npy", np.tile(data.load(n=IMAGES)[1].numpy().astype(np.uint8), 5))
    return folder


def test_files_are_read_as_they_are_made(folder: Path) -> None:
    """10,000 rows a severity, channels last, of which the first n count; the folder or the one above it."""
    for place in (folder, folder.parent, str(folder)):
        images = cifar10_c(place, n=3)
        x = images.read("shot_noise", 4)

        assert (images.source, images.corruptions) == ("CIFAR-10-C", CORRUPTIONS)
        assert x.shape == (3, 3, 32, 32)
        assert (255 * x[:, 0, 0, 0]).round().tolist() == [3 * IMAGES + 1, 3 * IMAGES + 2, 3 * IMAGES + 3]
        assert (255 * x[:, 1, 0, 0]).round().tolist() == [7, 7, 7]
        assert torch.equal(images.labels, data.load(n=3)[1])
        assert len(images.cells) == 75
    other = np.load(folder / "fog.npy")
    other[2 * IMAGES, 5, 5] = 1
    np.save(folder / "fog.npy", other)
    assert cifar10_c(folder, n=3).digest != images.digest
    assert len(cifar10_c(folder).labels) == IMAGES
    for n in (0, IMAGES + 1):
        with pytest.raises(ValueError, match=f"n must be from 1 to {IMAGES}"):
            cifar10_c(folder, n=n)


def test_the_real_shapes(tmp_path: Path) -> None:
    """50,000 images a file, 10,000 a severity; the files are not loaded to look at them."""
    for name in CORRUPTIONS:
        np.lib.format.open_memmap(tmp_path / f"{name}.npy", "w+", np.uint8, (50_000, 32, 32, 3))[20_000, 0, 0] = 255
    np.save(tmp_path / "labels.npy", np.zeros(50_000, np.int64))
    images = cifar10_c(tmp_path)

    assert len(CORRUPTIONS) == 15
    assert len(images.labels) == 10_000
    assert images.read("fog", 3)[0, :, 0, 0].tolist() == [1, 1, 1]
    assert images.read("fog", 2).sum() == 0


def test_all_missing_files_are_named_at_once(folder: Path) -> None:
    """With the place and where they come from."""
    for name in ("fog", "labels"):
        (folder / f"{name}.npy").unlink()

    with pytest.raises(FileNotFoundError, match=r"lacks fog.npy, labels.npy of CIFAR-10-C; .*zenodo.2535967"):
        cifar10_c(folder)
    with pytest.raises(FileNotFoundError, match=r"lacks gaussian_noise\.npy, shot_noise\.npy"):
        cifar10_c(folder / "nowhere")


class Payload:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def overwrite(array: Any, **options: Any) -> Callable[[Path], None]:
    return lambda path: np.save(path, array, **options)


def pack(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, images=np.zeros(3))


DAMAGES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "cut": ("snow", cut, "truncated"),
    "cut in the header": ("snow", lambda path: path.write_bytes(path.read_bytes()[:40]), "truncated"),
    "empty": ("snow", lambda path: path.write_bytes(b""), "truncated"),
    "longer": ("snow", lengthen, "4 bytes too many"),
    "text": ("snow", lambda path: path.write_text("<html>" * 99), "no array"),
    "zip": ("snow", pack, "no array"),
    "pickle": ("snow", lambda path: path.write_bytes(pickle.dumps(np.zeros(3))), "no array"),
    "header is no literal": ("snow", lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\x04\x00(1 ("), "no array"),
    "float": ("snow", overwrite(np.zeros((5 * IMAGES, 32, 32, 3), np.float32)), "uint8 images, got float32"),
    "channels first": ("snow", overwrite(np.zeros((5 * IMAGES, 3, 32, 32), np.uint8)), "must hold an array"),
    "one severity": ("snow", overwrite(np.zeros((IMAGES, 32, 32, 3), np.uint8)), "must hold an array"),
    "labels too large": ("labels", overwrite(np.full(5 * IMAGES, 10)), "from 0 to 9"),
    "labels below 0": ("labels", overwrite(np.full(5 * IMAGES, -1)), "from 0 to 9"),
    "labels float": ("labels", overwrite(np.zeros(5 * IMAGES)), "from 0 to 9"),
    "labels shuffled": ("labels", overwrite(np.arange(5 * IMAGES) % 7), "same 20 labels"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_and_foreign_files_are_refused_by_name(damage: str, folder: Path) -> None:
    """Before an image is read, with what to do."""
    name, spoil, message = DAMAGES[damage]
    spoil(folder / f"{name}.npy")

    with pytest.raises(ValueError, match=f"{name}.npy.*{message}.*zenodo"):
        cifar10_c(folder)


def test_nothing_is_unpickled(folder: Path, tmp_path: Path) -> None:
    """An array of objects is refused, its objects are not made."""
    touched = tmp_path / "touched"
    np.save(folder / "snow.npy", np.array([Payload(touched)] * 5 * IMAGES, dtype=object), allow_pickle=True)

    with pytest.raises(ValueError, match=r"snow\.npy"):
        cifar10_c(folder)
    assert not touched.exists()


# Accuracy.


class Reader(nn.Module):
    """Right with the probability that the first value of an image says; its label is in the second, in tenths."""

    def forward(self, x: Tensor) -> Tensor:
        label = (10 * x[:, 1, 0, 0]).round().long()
        right = torch.rand(len(x)) < x[:, 0, 0, 0]
        return nn.functional.one_hot(torch.where(right, label, (label + 1) % 10), 10).float()


def readable(probability: Callable[[int, int], Tensor], n: int, corruptions: int = 3) -> CorruptedImages:
    """Images for ``Reader``; ``probability`` gives (n,) for corruption number and severity."""
    names, labels = tuple("abcdef"[:corruptions]), torch.arange(n) % 10

    def read(corruption: str, severity: int) -> Tensor:
        x = torch.zeros(n, 3, 32, 32)
        x[:, 0, 0, 0], x[:, 1, 0, 0] = probability(names.index(corruption), severity), labels / 10
        return x

    return CorruptedImages("test", names, "", labels, read)


def test_accuracy_of_each_cell_and_their_mean_are_the_known_ones() -> None:
    """A corruption and severity for each probability of being right, within five standard errors."""
    n, m = 200, 10
    truth = {(i, s): 0.1 + 0.05 * i + 0.15 * (s - 1) for i in range(3) for s in range(1, 6)}
    images = readable(lambda i, s: torch.full((n,), truth[i, s]), n)
    found = corruption_accuracy(Reader(), images, draws=m, seed=1)

    for (i, s), p in truth.items():
        cell = found.cells["abc"[i]][s - 1]
        assert abs(cell.value - p) < 5 * math.sqrt(p * (1 - p) / (n * m))
        assert cell.low < cell.value < cell.high
    mean = sum(truth.values()) / 15
    variance = sum(p * (1 - p) for p in truth.values()) / 15**2 / (n * m)
    assert abs(found.mean.value - mean) < 5 * math.sqrt(variance)
    values = [cell.value for cells in found.cells.values() for cell in cells]
    assert found.mean.value == pytest.approx(sum(values) / 15)


def test_the_mean_s_interval_counts_images_and_not_cells() -> None:
    """Every second image always right, under all corruptions: as wide as for n images, whatever the cells."""
    n = 100
    found = corruption_accuracy(Reader(), readable(lambda *_: torch.arange(n) % 2.0, n), draws=4, seed=1)
    half_width = 1.96 * 0.5 / math.sqrt(n - 1)

    assert found.mean.value == 0.5
    assert found.mean.high - found.mean.value == pytest.approx(half_width, rel=0.01)


def test_cells_have_draws_of_their_own() -> None:
    """Two cells with equal images of probability .5 agree on an image no more often than by chance."""
    n = 2000
    images = readable(lambda *_: torch.full((n,), 0.5), n, corruptions=1)
    first, second, again = (
        corruptions.scoring.right(Reader(), images, ("a", severity), draws=1, seed=1)[0] for severity in (1, 2, 1)
    )
    agree = (first == second).double().mean().item()

    assert torch.equal(first, again)
    assert abs(agree - 0.5) < 5 * math.sqrt(0.25 / n)


def test_noise_that_images_share_widens_the_interval() -> None:
    """All images of a call are right together, or none."""

    class Together(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            label = (10 * x[:, 1, 0, 0]).round().long()
            return nn.functional.one_hot((label + int(torch.rand(()) < 0.5)) % 10, 10).float()

    images = readable(lambda *_: torch.ones(100), 100, corruptions=1)
    shared, own = (
        corruption_accuracy(wrap(Together(), per_example=per_example), images, draws=8, seed=1).mean
        for per_example in (False, True)
    )

    assert shared.high - shared.low > 0.15 > own.high - own.low


# Closed forms.


def pixels() -> Tensor:
    """Colours of all kinds, greys and black: (4, 3, 3, 3) in [0, 1]."""
    x = torch.rand((4, 3, 3, 3), generator=torch.Generator().manual_seed(1))
    x[0, :, 0], x[0, :, 1] = 0, 0.3
    return x


def test_brightness_raises_the_value_of_hsv() -> None:
    """Pixel by pixel through the standard library's colorsys."""
    x, none = pixels(), torch.Generator()
    for severity, c in zip(range(1, 6), (0.05, 0.1, 0.15, 0.2, 0.3), strict=True):
        expected = torch.empty_like(x)
        for i, row, column in np.ndindex(4, 3, 3):
            h, s, v = colorsys.rgb_to_hsv(*x[i, :, row, column].tolist())
            expected[i, :, row, column] = torch.tensor(colorsys.hsv_to_rgb(h, s, min(1, v + c)))

        torch.testing.assert_close(brightness(x, severity, none), expected)


def test_contrast_shrinks_towards_the_mean_of_each_channel() -> None:
    x, none = pixels(), torch.Generator()
    for severity, c in zip(range(1, 6), (0.75, 0.5, 0.4, 0.3, 0.15), strict=True):
        out = contrast(x, severity, none)
        for i, channel in np.ndindex(4, 3):
            plane = x[i, channel].double().numpy()
            expected = np.clip((plane - plane.mean()) * c + plane.mean(), 0, 1)
            np.testing.assert_allclose(out[i, channel].numpy(), expected, atol=1e-6)


def test_closed_forms_are_whole_steps_of_255_and_noise_has_its_size() -> None:
    """Grey images: the standard deviation within five standard errors; one seed gives the same images."""
    x, y = torch.full((20, 3, 32, 32), 0.5), torch.arange(20) % 10
    images, same, other = (corruptions.closed_forms(x, y, seed=seed) for seed in (1, 1, 2))

    for severity, c in zip(range(1, 6), (0.04, 0.06, 0.08, 0.09, 0.1), strict=True):
        noisy = images.read("gaussian_noise", severity)
        sd = (noisy - noisy.mean()).std().item()
        assert abs(sd - math.sqrt(c**2 + 1 / 12 / 255**2)) < 5 * c / math.sqrt(2 * noisy.numel())
        assert torch.equal(noisy, same.read("gaussian_noise", severity))
        assert not torch.equal(noisy, other.read("gaussian_noise", severity))
    for cell in images.cells:
        steps = 255 * images.read(*cell)
        assert (steps - steps.round()).abs().max() < 1e-4
        assert 0 <= steps.min() <= steps.max() <= 255
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        corruptions.closed_forms(x + 1, y, seed=1)


# The whole way.

NETS = """
import torch
from torch import nn

class Random(nn.Module):
    def forward(self, x):
        return torch.rand(len(x), 10) + 0 * x.sum()

def random():
    return Random()

class Pixel(nn.Module):
    def forward(self, x):
        return -(10 * x[:, :1, 0, 0] - torch.arange(10.0)) ** 2

def pixel():
    return Pixel().eval()

def plain():
    net = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 10), nn.ReLU(), nn.Linear(10, 10)).eval()
    for parameter in net.parameters():
        parameter.data = torch.linspace(-1, 1, parameter.numel()).sin().view(parameter.shape)
    return net
"""


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    path = tmp_path / "nets.py"
    path.write_text(NETS, encoding="utf-8")
    return path


def prepared(model: str, policy: str | None = None, *, source: Path | None, images: int | None = 8) -> Any:
    return corruptions.prepare(model, policy, source=source, images=images, seed=1, device="cpu")


def test_an_interrupted_run_goes_on_and_another_one_is_refused(folder: Path, nets: Path, tmp_path: Path) -> None:
    """After 5 cells the rest is left, the record is that of one run and survives the disk; clean images count too."""
    inputs, output = prepared(f"{nets}:plain", "sap:100", source=folder), tmp_path / "out"
    told: list[str] = []

    def stop(line: str) -> None:
        told.append(line)
        if len(told) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_corruptions(inputs, draws=3, seed=1, output=output, announce=stop)
    work = sorted((output / "corruptions").rglob("*.safetensors"))
    times = {path: path.stat().st_mtime_ns for path in work}
    record = run_corruptions(inputs, draws=3, seed=1, output=output)
    whole = run_corruptions(prepared(f"{nets}:plain", "sap:100", source=folder), draws=3, seed=1, output=tmp_path / "2")

    assert len(work) == 1 + 5
    assert times == {path: path.stat().st_mtime_ns for path in work}
    assert record == whole
    assert corruptions.CorruptionRecord.read(output / "corruptions" / f"{record.entry}.json") == record
    assert (record.images, record.draws, record.clean_images, record.published) == (8, 3, 8, True)
    assert not replace(record, source="closed forms").published
    assert record.mean.value == pytest.approx(np.mean([c.value for cells in record.cells.values() for c in cells]))
    assert {name: len(cells) for name, cells in record.cells.items()} == dict.fromkeys(CORRUPTIONS, 5)
    with pytest.raises(ValueError, match="another run, which differs in: draws"):
        run_corruptions(inputs, draws=4, seed=1, output=output)
    fewer = prepared(f"{nets}:plain", "sap:100", source=folder, images=7)
    with pytest.raises(ValueError, match="differs in: clean, images, model"):
        run_corruptions(fewer, draws=3, seed=1, output=output)
    with pytest.raises(ValueError, match="draws must be at least 1"):
        run_corruptions(inputs, draws=0, seed=1, output=output)


def test_a_run_scores_each_cell_and_the_clean_images(folder: Path, nets: Path, tmp_path: Path) -> None:
    """Image by image: which are right under each corruption and severity, and as they are."""
    rng = np.random.default_rng(1)
    for name in CORRUPTIONS:
        np.save(folder / f"{name}.npy", rng.integers(0, 256, (5 * IMAGES, 32, 32, 3), np.uint8))
    inputs = prepared(f"{nets}:pixel", source=folder, images=None)
    record = run_corruptions(inputs, draws=1, seed=1, output=tmp_path / "out")
    x, y = data.load(n=IMAGES)

    def accuracy(images: Tensor) -> float:
        return ((10 * images[:, 0, 0, 0]).round().clamp(max=9) == y).double().mean().item()

    assert record.clean.value == pytest.approx(accuracy(x))
    for name in CORRUPTIONS:
        found = torch.from_numpy(np.load(folder / f"{name}.npy")).permute(0, 3, 1, 2) / 255
        expected = [accuracy(found[s * IMAGES : (s + 1) * IMAGES]) for s in range(5)]
        assert [cell.value for cell in record.cells[name]] == pytest.approx(expected)
    assert len({cell.value for cells in record.cells.values() for cell in cells}) > 2


def test_a_net_without_randomness_takes_one_draw(folder: Path, nets: Path, tmp_path: Path) -> None:
    record = run_corruptions(prepared(f"{nets}:plain", source=folder), draws=9, seed=1, output=tmp_path / "out")

    assert record.draws == 1
    assert record.defence.spec == "none"


def test_labels_of_other_images_are_refused(folder: Path, nets: Path, tmp_path: Path) -> None:
    """Those of CIFAR-10-C are CIFAR-10's, in its order; and clean images are CIFAR-10's."""
    y = np.roll(data.load(n=IMAGES)[1].numpy(), 1)
    np.save(folder / "labels.npy", np.tile(y, 5))

    with pytest.raises(ValueError, match="not those of CIFAR-10's test images"):
        prepared(f"{nets}:plain", source=folder)


def test_clean_images_of_a_user_are_refused(nets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, images=np.zeros((64, 32, 32, 3), np.uint8), labels=np.zeros(64, np.int64))
    monkeypatch.setenv("SAP_ART_DATA", str(path))

    with pytest.raises(ValueError, match="SAP_ART_DATA names a file of other images"):
        prepared(f"{nets}:plain", source=None)


def test_the_check_without_files_is_no_corruptions_acc(nets: Path, tmp_path: Path) -> None:
    """Its record says so, and cannot be exported."""
    record = run_corruptions(prepared(f"{nets}:random", source=None), draws=2, seed=1, output=tmp_path)

    assert not record.published
    assert list(record.cells) == ["brightness", "contrast", "gaussian_noise"]
    assert str(record).endswith("no corruptions_acc")
    for changed in (record, replace(record, source="CIFAR-10-C")):
        with pytest.raises(ValueError, match="only check that all runs"):
            export_corruptions(changed, tmp_path)
    assert not (tmp_path / "model_info").exists()


def test_the_export_keeps_what_was_there(folder: Path, nets: Path, tmp_path: Path) -> None:
    """Percent as strings, ours under one key; authors and the like that a user filled in stay."""
    record = run_corruptions(prepared(f"{nets}:plain", "sap:100", source=folder), draws=2, seed=1, output=tmp_path)
    path = tmp_path / "model_info" / "cifar10" / "corruptions" / f"{record.entry}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"authors": "Ada", "corruptions_acc": "1", "sap_art": {"tier": "full"}}))

    assert export_corruptions(record, tmp_path) == path
    found = json.loads(path.read_bytes())
    assert found["corruptions_acc"] == found["reported"] == f"{100 * record.mean.value:.2f}"
    assert found["clean_acc"] == f"{100 * record.clean.value:.2f}"
    assert found["authors"] == "Ada"
    assert (found["sap_art"]["tier"], found["sap_art"]["corruptions"]["images"]) == ("full", 8)
    assert "first 8 test images, 2 draws an image. Random forward pass (sap:100" in found["footnote"]
    assert {"autoattack_acc", "external", "corruptions_mce", "eps"} & set(found) == set()
    path.write_text("[]")
    with pytest.raises(ValueError, match="no entry in RobustBench's schema"):
        export_corruptions(record, tmp_path)
    path.write_text("{")
    with pytest.raises(ValueError, match="is not JSON; delete it"):
        export_corruptions(record, tmp_path)


def test_the_export_stays_in_its_folder(folder: Path, nets: Path, tmp_path: Path) -> None:
    """Whatever a record calls its entry."""
    record = run_corruptions(prepared(f"{nets}:plain", source=folder), draws=1, seed=1, output=tmp_path / "out")

    with pytest.raises(ValueError, match="name of a file"):
        export_corruptions(replace(record, entry="../../../outside"), tmp_path / "a" / "b")
    assert not list(tmp_path.rglob("*outside*"))


def test_robustbench_reads_the_export(
    folder: Path, nets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its list of models of the threat model corruptions."""
    from sap_art.integrations.robustbench import repaired

    record = run_corruptions(prepared(f"{nets}:plain", source=folder), draws=1, seed=1, output=tmp_path)
    record = replace(record, entry="Hendrycks2020AugMix_ResNeXt")  # it lists only what is in its zoo
    export_corruptions(record, tmp_path)
    monkeypatch.chdir(tmp_path)
    with repaired() as robustbench:
        robustbench.utils.list_available_models(dataset="cifar10", threat_model="corruptions")
    shown = capsys.readouterr().out

    assert "Hendrycks2020AugMix_ResNeXt" in shown
    assert f"{record.mean.value:.2%}" in shown


def test_a_model_of_robustbench_s_zoo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    """By the name that it has in suites."""
    net = nn.Sequential(nn.AvgPool2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(48, 10)).eval()
    monkeypatch.setattr(models.robustbench, "load_model", lambda zoo_id: net)
    arguments = ["--model", "robustbench:Standard", "--policy", "sap:100", "--images", "2", "--draws", "2"]
    monkeypatch.setattr("sys.argv", ["sap-art", "corruptions", *arguments, "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        main()

    assert caught.value.code == 0
    assert "robustbench-Standard-sap-100, closed forms, 2 images, 2 draws" in capsys.readouterr().out


def test_robustbench_s_table_calls_it_what_it_is(folder: Path, nets: Path, tmp_path: Path) -> None:
    """No number of AutoAttack's."""
    record = run_corruptions(prepared(f"{nets}:plain", source=folder), draws=1, seed=1, output=tmp_path)
    export_corruptions(record, tmp_path)
    table = generate_leaderboard(tmp_path / "model_info", norm="corruptions")

    assert "<th>Accuracy on corrupted images</th>" in table
    assert f"<td>{100 * record.mean.value:.2f} %</td>" in table
    assert "AutoAttack" not in table
    assert "robust" not in table
    assert table.count("<th>") == table.count("<td>") == 8


@pytest.mark.parametrize("given", [True, False])
def test_the_command(
    given: bool, folder: Path, nets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """With the files an export, without them a check that says it is one."""
    output = tmp_path / "out"
    arguments = ["--model", f"{nets}:plain", "--policy", "sap:100", "--images", "4", "--draws", "2"]
    arguments += ["--output", str(output), *(["--data", str(folder)] if given else [])]
    monkeypatch.setattr("sys.argv", ["sap-art", "corruptions", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    shown = capsys.readouterr().out

    assert caught.value.code == 0
    assert ("corruptions_acc: " in shown) == given == (output / "model_info").exists()
    assert ("a check that all runs" in shown) != given
    assert shown.count("\n") == (75 + 2 if given else 15 + 1)
