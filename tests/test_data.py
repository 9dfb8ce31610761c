"""Images and labels: the bundle, other sources, the checks on every file, the digests."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pickle
import struct
import sys
import types
import urllib.error
import urllib.request
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sap_art import cifar, data

GIVEN = os.environ.get(data.SOURCE_VARIABLE)
OFFICIAL_512 = "a846bc1acaa3fb635a55cfeafb701a57c40601ee50517724a8e13ced4ff4db51"
SCRIPT = Path(__file__).parents[1] / "benchmarks" / "scripts" / "make_bundle.py"


class Marker:
    """Unpickling it makes a folder: what a hostile file would do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.fixture(autouse=True)
def no_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(data.SOURCE_VARIABLE, raising=False)


@pytest.fixture
def whole() -> Path:
    """The directory of the whole data set."""
    if GIVEN is None or not Path(GIVEN).is_dir():
        pytest.skip(f"{data.SOURCE_VARIABLE} names no directory with the whole data set")
    return Path(GIVEN)


@pytest.fixture
def random_arrays() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8), np.arange(12, dtype=np.uint8) % 10


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of small files laid out as the official ones, with their MD5s in the table."""
    folder = tmp_path / cifar.FOLDER
    folder.mkdir()
    for i, name in enumerate(cifar.MD5):
        write_batch(folder / name, np.full((2, 3072), i, np.uint8), [i, i + 1])
        monkeypatch.setitem(cifar.MD5, name, hashlib.md5((folder / name).read_bytes()).hexdigest())
    return tmp_path


def write_batch(path: Path, pixels: np.ndarray, labels: list[int]) -> None:
    path.write_bytes(pickle.dumps({"data": pixels, "labels": labels, "batch_label": "of a test"}, protocol=4))


def write_npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def write_packed(folder: Path, numbers: range) -> None:
    for i in numbers:
        images, labels = np.full((3, 32, 32, 3), i, np.uint8), np.full(3, i, np.uint8)
        write_npz(folder / f"train_{i}.npz", images=images, labels=labels)


# --- the bundle


def test_bundle_is_the_default():
    """Without a source the 512 images of the package come, as float32 in [0, 1] with int64 labels."""
    x, y = data.load()

    assert (x.shape, x.dtype, x.is_contiguous()) == ((512, 3, 32, 32), torch.float32, True)
    assert (x.min(), x.max()) == (0, 1)
    assert (y.shape, y.dtype) == ((512,), torch.int64)
    assert [data.CLASS_NAMES["cifar10"][i] for i in y[:4].tolist()] == ["cat", "ship", "ship", "airplane"]


def test_bundle_is_what_it_was():
    """The bundled images are, bit for bit, the first 512 of the official test batch (digest taken from it)."""
    assert data.ids_sha256(*data.load()) == OFFICIAL_512


def test_n_takes_the_first():
    """load(n) is a prefix of load()."""
    x, y = data.load("cifar10", n=5)

    assert len(x) == len(y) == 5
    assert torch.equal(x, data.load()[0][:5])


def test_bundle_is_the_official_beginning(whole: Path):
    """The bundle equals the first 512 images of the official file."""
    x, y = data.load(n=512, source=whole)

    assert torch.equal(x, data.load()[0])
    assert torch.equal(y, data.load()[1])


# --- the script that makes the bundle


def run_script(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    spec = importlib.util.spec_from_file_location("make_bundle", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    module.main()


def test_script_stores_images_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What the script writes reads back exactly; two runs give the same bytes and no date is stored."""
    images = np.random.default_rng(1).integers(0, 256, (600, 32, 32, 3), dtype=np.uint8)
    source = write_npz(tmp_path / "in.npz", images=images, labels=np.arange(600) % 10)
    outputs = [tmp_path / "a.npz", tmp_path / "b.npz"]
    for output in outputs:
        run_script(monkeypatch, "--data", str(source), "--output", str(output))

    assert np.array_equal(np.load(outputs[0])["images"], images[:512])
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    assert {m.date_time for m in zipfile.ZipFile(outputs[0]).infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_script_makes_the_bundle_again(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """From the official file the script gives the file that ships (headers and contents; zlib may differ)."""
    run_script(monkeypatch, "--data", str(whole), "--output", str(tmp_path / "again.npz"))

    def parts(path: Path) -> list[tuple[object, ...]]:
        archive = zipfile.ZipFile(path)
        return [(m.filename, m.date_time, m.external_attr, archive.read(m)) for m in archive.infolist()]

    assert parts(tmp_path / "again.npz") == parts(Path(data.__file__).parent / "assets" / data.BUNDLE)


# --- where images come from


def test_source_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, random_arrays: Any):
    """SAP_ART_DATA is used, an explicit source goes before it, an empty one counts as none."""
    images, labels = random_arrays
    write_npz(tmp_path / "a.npz", images=images, labels=labels)
    write_npz(tmp_path / "b.npz", images=images[:3], labels=labels[:3])

    monkeypatch.setenv(data.SOURCE_VARIABLE, str(tmp_path / "a.npz"))
    assert len(data.load()[0]) == 12
    assert len(data.load(source=tmp_path / "b.npz")[0]) == 3

    monkeypatch.setenv(data.SOURCE_VARIABLE, "")
    assert len(data.load()[0]) == 512


def test_both_layouts_of_a_file_agree(tmp_path: Path, random_arrays: Any):
    """uint8 (N, H, W, 3) and float32 (N, 3, H, W) of the same images give the same tensor."""
    images, labels = random_arrays
    planes = images.transpose(0, 3, 1, 2).astype(np.float32) / 255
    a = data.load(source=write_npz(tmp_path / "a.npz", images=images, labels=labels))
    b = data.load(source=str(write_npz(tmp_path / "b.npz", images=planes, labels=labels.astype(">i2"))))

    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])
    assert a[0][1, 2, 3, 4] == images[1, 3, 4, 2] / np.float32(255)


def test_official_directory(official: Path):
    """The official files are found in the directory or one below it, in order, with channels first."""
    x, y = data.load(split="train", source=official)

    assert y.tolist() == [1, 2, 2, 3, 3, 4, 4, 5, 5, 6]
    assert torch.equal(x[:, 0, 0, 0] * 255, torch.arange(1.0, 6).repeat_interleave(2))
    assert torch.equal(x, data.load(split="train", source=official / cifar.FOLDER)[0])
    assert data.load(source=official)[1].tolist() == [0, 1]


def test_official_pixels_are_planes(official: Path, monkeypatch: pytest.MonkeyPatch):
    """A row of the official file is three planes of 32 rows."""
    path = official / cifar.FOLDER / "test_batch"
    row = (np.arange(3072) % 251).astype(np.uint8)
    write_batch(path, row[None], [7])
    monkeypatch.setitem(cifar.MD5, "test_batch", hashlib.md5(path.read_bytes()).hexdigest())
    x, _ = data.load(source=official)

    assert x[0, 2, 5, 9] * 255 == row[2 * 1024 + 5 * 32 + 9]


def test_packed_train_split(tmp_path: Path):
    """train_1.npz ... train_5.npz serve as the train split, in that order, across file borders."""
    write_packed(tmp_path, range(1, 6))
    x, y = data.load(n=7, split="train", source=tmp_path)

    assert y.tolist() == [1, 1, 1, 2, 2, 2, 3]
    assert torch.equal(x[:, 1, 2, 3] * 255, y.float())


def test_official_goes_before_packed(official: Path):
    """Packed train files are not looked at where the official ones are."""
    write_packed(official, range(1, 6))
    assert len(data.load(split="train", source=official)[0]) == 10


def test_whole_test_split(whole: Path):
    """The test split equals what a plain unpickler reads from the same file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy 2.4 on the old form of the dtype
        batch = pickle.loads((whole / cifar.FOLDER / "test_batch").read_bytes(), encoding="latin1")
    x, y = data.load(source=whole)

    assert y.tolist() == batch["labels"]
    assert np.array_equal((x * 255).round().byte().reshape(10_000, -1).numpy(), batch["data"])


def test_whole_train_split(whole: Path):
    """The train split has 50,000 images, 5,000 a class."""
    _, y = data.load(split="train", source=whole)
    assert y.bincount().tolist() == [5_000] * 10


# --- what is refused


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"name": "cifar11"}, "unknown data set 'cifar11'; known: cifar10"),
        ({"split": "val"}, "unknown split 'val'; known: test, train"),
        ({"n": 0}, "at least 1, got 0"),
        ({"n": -3}, "at least 1, got -3"),
        ({"n": 2.0}, "at least 1, got 2.0"),
        ({"n": True}, "at least 1, got True"),
        ({"split": "train"}, "the bundle has test images only"),
    ],
)
def test_bad_request(request_: dict[str, Any], message: str):
    """A request that makes no sense says what was given and what is allowed."""
    with pytest.raises(ValueError, match=message):
        data.load(**request_)


def test_more_than_there_is():
    """Asking for too much names what there is and three ways to more."""
    with pytest.raises(ValueError, match="asked for 513 images, the bundle has 512") as caught:
        data.load(n=513)

    for way in ("SAP_ART_DATA", "--data DIR", "--data FILE.npz", "download=True"):
        assert way in str(caught.value)


def images(shape: tuple[int, ...] = (2, 32, 32, 3), dtype: Any = np.uint8, fill: float = 0) -> np.ndarray:
    return np.full(shape, fill, dtype)


PLANES = (2, 3, 8, 8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": images()}, "must have the keys images and labels, got \\['images'\\]"),
        ({"labels": [1, 2], "x": images()}, "must have the keys images and labels, got \\['labels', 'x'\\]"),
        ({"images": images(dtype=np.float64), "labels": [1, 2]}, "must be uint8 .* got float64"),
        ({"images": images(PLANES), "labels": [1, 2]}, "must be uint8 .* got uint8 \\(2, 3, 8, 8\\)"),
        ({"images": images((2, 8, 8, 3), np.float32), "labels": [1, 2]}, "must be uint8 .* got float32"),
        ({"images": images((32, 32, 3)), "labels": [1, 2]}, "must be uint8 .* got uint8 \\(32, 32, 3\\)"),
        ({"images": images((0, 32, 32, 3)), "labels": []}, "at least one image"),
        ({"images": images(PLANES, np.float32, np.nan), "labels": [1, 2]}, "NaN"),
        ({"images": images(PLANES, np.float32, np.inf), "labels": [1, 2]}, "infinite"),
        ({"images": images(PLANES, np.float32, 1.001), "labels": [1, 2]}, "in \\[0, 1\\], got \\[1.001, 1.001\\]"),
        ({"images": images(PLANES, np.float32, -0.5), "labels": [1, 2]}, "in \\[0, 1\\], got \\[-0.5, -0.5\\]"),
        ({"images": images(), "labels": [1, -1]}, "labels must be in 0 ... 9, got -1 ... 1"),
        ({"images": images(), "labels": [1, 10]}, "labels must be in 0 ... 9, got 1 ... 10"),
        ({"images": images(), "labels": [1.0, 2.0]}, "labels must be integers"),
        ({"images": images(), "labels": [True, False]}, "labels must be integers"),
        ({"images": images(), "labels": [[1, 2]]}, "labels must be integers \\(N,\\), got int64 \\(1, 2\\)"),
        ({"images": images(), "labels": [1, 2, 3]}, "2 images and 3 labels"),
    ],
)
def test_bad_file(tmp_path: Path, arrays: dict[str, Any], message: str):
    """A file whose content is not as promised is refused, with the file and the fault in the message."""
    with pytest.raises(ValueError, match=message) as caught:
        data.load(source=write_npz(tmp_path / "mine.npz", **arrays))

    assert str(tmp_path / "mine.npz") in str(caught.value)


@pytest.mark.parametrize("keep", [0, 10, 100, 0.5, 0.99])
def test_truncated_file(tmp_path: Path, keep: float):
    """A file cut short anywhere is refused as damaged."""
    path = write_npz(tmp_path / "a.npz", images=images(), labels=[1, 2])
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])

    with pytest.raises(ValueError, match="damaged"):
        data.load(source=path)


def test_altered_file(tmp_path: Path):
    """A single altered pixel is noticed by the checksum in the file."""
    path = write_npz(tmp_path / "a.npz", images=images(), labels=[1, 2])
    content = bytearray(path.read_bytes())
    content[3000] ^= 1
    path.write_bytes(content)

    with pytest.raises(ValueError, match="damaged"):
        data.load(source=path)


def test_pickle_in_a_file_is_not_run(tmp_path: Path):
    """An npz with pickled objects is refused and nothing in it runs."""
    marker = tmp_path / "marker"
    path = write_npz(tmp_path / "a.npz", images=np.array([Marker(marker)], dtype=object), labels=[1])

    with pytest.raises(ValueError, match="damaged"):
        data.load(source=path)
    assert not marker.exists()
    _ = np.load(path, allow_pickle=True)["images"]
    assert marker.exists(), "the payload of this test is not live"


def test_no_such_source(tmp_path: Path):
    """A source that is not there, or no directory and no npz, is an error that says what a source is."""
    with pytest.raises(FileNotFoundError, match=r"no data at .*gone.*cifar-10-batches-py"):
        data.load(source=tmp_path / "gone")
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match=r"cannot read .*a.png; a data source is a directory"):
        data.load(source=tmp_path / "a.png")


def test_file_has_no_train_split(tmp_path: Path):
    """A FILE.npz never passes for a train split."""
    path = write_npz(tmp_path / "a.npz", images=images(), labels=[1, 2])
    with pytest.raises(ValueError, match=r"a.npz has test images only, asked for split 'train'"):
        data.load(split="train", source=path)


def test_incomplete_directory(tmp_path: Path):
    """A directory without all the files of a split is refused and the missing ones are named."""
    with pytest.raises(FileNotFoundError, match=r"lacks the test split .* missing .*test_batch"):
        data.load(source=tmp_path)
    write_packed(tmp_path, range(1, 5))
    with pytest.raises(FileNotFoundError, match=r"missing .*data_batch_1.*train_5\.npz"):
        data.load(n=1, split="train", source=tmp_path)


def test_packed_train_split_of_another_size(tmp_path: Path):
    """Packed train files must hold CIFAR-10's image size."""
    write_packed(tmp_path, range(1, 6))
    write_npz(tmp_path / "train_1.npz", images=images((2, 16, 16, 3)), labels=[1, 2])
    with pytest.raises(ValueError, match=r"train_1.npz: images must be uint8 \(N, 32, 32, 3\)"):
        data.load(split="train", source=tmp_path)


# --- pickles


@pytest.mark.parametrize("cut", [False, True])
def test_wrong_md5(official: Path, cut: bool):
    """An official file that was cut short or altered is refused before it is unpickled."""
    path = official / cifar.FOLDER / "test_batch"
    content = path.read_bytes()
    path.write_bytes(content[:-1] if cut else content[:-2] + b"\0" + content[-1:])

    with pytest.raises(ValueError, match=r"test_batch is damaged .* must be [0-9a-f]{32}"):
        data.load(source=official)


def test_hostile_batch_is_not_run(official: Path, tmp_path: Path):
    """A hostile pickle in the place of an official file does not run."""
    marker = tmp_path / "marker"
    (official / cifar.FOLDER / "test_batch").write_bytes(pickle.dumps(Marker(marker)))

    with pytest.raises(ValueError, match="MD5"):
        data.load(source=official)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_restricted_unpickler_runs_nothing(tmp_path: Path, protocol: int):
    """Even past the MD5 check a hostile pickle does not run."""
    marker = tmp_path / "marker"
    content = pickle.dumps({"data": Marker(marker)}, protocol=protocol)

    with pytest.raises(pickle.UnpicklingError, match=r"refused to load .*mkdir"):
        cifar.restricted_loads(content)
    assert not marker.exists()
    pickle.loads(content)
    assert marker.exists(), "the payload of this test is not live"


@pytest.mark.parametrize("value", [np.zeros(2, np.float32), np.array([None]), np.float64(1), print, Path("x")])
def test_restricted_unpickler_knows_uint8_arrays_only(value: object):
    """No other type of array, no scalar, no function and no object can be named."""
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        cifar.restricted_loads(pickle.dumps(value, protocol=4))


# --- downloads


@pytest.fixture
def downloads(official: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path, str]]:
    """Stands in for torchvision: puts the small official files where they are wanted; lists what was asked for."""
    calls: list[tuple[str, Path, str]] = []
    files = {path.name: path.read_bytes() for path in (official / cifar.FOLDER).iterdir()}

    def fetch(url: str, root: Path, *, md5: str, remove_finished: bool) -> None:
        calls.append((url, root, md5))
        (root / cifar.FOLDER).mkdir(parents=True)
        for name, content in files.items():
            (root / cifar.FOLDER / name).write_bytes(content)

    fake: Any = types.ModuleType("torchvision.datasets.utils")
    fake.download_and_extract_archive = fetch
    monkeypatch.setitem(sys.modules, "torchvision.datasets.utils", fake)
    return calls


def test_download_once(downloads: list[tuple[str, Path, str]], tmp_path: Path):
    """A download goes into the source with its MD5 given, and what is there is not fetched again."""
    for split in ("train", "train", "test"):
        data.load(split=split, source=tmp_path / "new", download=True)

    assert downloads == [(cifar.ARCHIVE_URL, tmp_path / "new", cifar.ARCHIVE_MD5)]


@pytest.mark.parametrize("variable", [data.SOURCE_VARIABLE, "XDG_CACHE_HOME"])
def test_download_folder(
    downloads: list[tuple[str, Path, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
):
    """Without a source the download goes where SAP_ART_DATA says, else into the user's cache."""
    monkeypatch.setenv(variable, str(tmp_path / "there"))
    x, _ = data.load(download=True)

    assert len(x) == 2
    assert downloads[0][1] == tmp_path / "there" / ("sap_art" if variable == "XDG_CACHE_HOME" else "")


def test_download_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Offline there is one error, chained, that says what to do instead."""

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(FileNotFoundError, match=r"could not download .*no network.* set SAP_ART_DATA") as caught:
        data.load(source=tmp_path, download=True)
    assert isinstance(caught.value.__cause__, urllib.error.URLError)


def test_download_without_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without torchvision the error is the command to run."""
    modules: Any = sys.modules
    monkeypatch.setitem(modules, "torchvision.datasets.utils", None)
    with pytest.raises(ImportError, match=r"pip install 'sap_art\[robustbench\]'"):
        data.load(source=tmp_path, download=True)


def test_download_into_a_file(tmp_path: Path):
    """A FILE.npz is no place for a download."""
    with pytest.raises(ValueError, match="goes into a directory, got the file"):
        data.load(source=tmp_path / "a.npz", download=True)


# --- digests


def test_image_ids_by_hand():
    """An id is SHA-256 over little-endian float32 pixels and the int64 label; one digest covers all."""
    x, y = torch.tensor([0.0, 0.25, 1.0, 0.5, 0.75, 1.0]).view(2, 3, 1, 1), torch.tensor([3, 9])
    expected = [
        hashlib.sha256(struct.pack("<3fq", 0.0, 0.25, 1.0, 3)).hexdigest(),
        hashlib.sha256(struct.pack("<3fq", 0.5, 0.75, 1.0, 9)).hexdigest(),
    ]

    assert data.image_ids(x, y) == expected
    assert data.ids_sha256(x, y) == hashlib.sha256(bytes.fromhex("".join(expected))).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        lambda x, y: (x.index_put((torch.tensor([1]), torch.tensor([2])), torch.tensor(0.1)), y),
        lambda x, y: (x, y.flip(0)),
        lambda x, y: (x.flip(0), y.flip(0)),
        lambda x, y: (x[:-1], y[:-1]),
    ],
)
def test_digest_changes(change: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]):
    """Another pixel, label, order or count gives another digest."""
    x, y = data.load(n=2)
    assert data.ids_sha256(*change(x, y)) != data.ids_sha256(x, y)


def test_digest_ignores_the_layout():
    """Memory layout and integer type are not part of an image."""
    x, y = data.load(n=4)
    assert data.ids_sha256(x.to(memory_format=torch.channels_last), y.int()) == data.ids_sha256(x, y)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (torch.zeros(2, 3, 4, 4).double(), torch.zeros(2).long()),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2)),
        (torch.zeros(2, 3, 4, 4), torch.zeros(3).long()),
    ],
)
def test_digest_of_something_else(x: torch.Tensor, y: torch.Tensor):
    """Only float32 images with one integer label each have ids."""
    with pytest.raises(ValueError, match="expected float32 images"):
        data.image_ids(x, y)


def test_images_of_a_user_are_not_called_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record says where its images come from."""
    monkeypatch.delenv("SAP_ART_DATA", raising=False)

    assert data.set_name() == data.set_name(source=tmp_path) == "cifar10"
    assert data.set_name(source="mine.npz") == "custom"
    monkeypatch.setenv("SAP_ART_DATA", "mine.npz")
    assert data.set_name() == "custom"
