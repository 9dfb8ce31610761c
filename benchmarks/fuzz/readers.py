"""What reads files of strangers, one function a kind of file, and whether a file was taken, refused, or did harm.

A reader takes a path. It is right if it returns, or raises ValueError or OSError with the file's name in the message.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.lib.format import write_array
from safetensors.torch import save
from torch import nn

from sap_art import data, game, per_image, suites, table, zoo
from sap_art.corruptions import files as corruptions
from sap_art.explain import explain
from sap_art.record import Record
from sap_art.site import exports, ranking, reading, rows
from sap_art.site.command import command_of
from sap_art.threat import ThreatModel

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "leaderboard" / "records"
CARD = Path(data.__file__).parent / "assets" / "preact-resnet20.json"
IMAGES = 8
SHAPE = (4, 2)


class Reader(NamedTuple):
    """``read`` a file that ends in ``suffix``; ``seeds`` are good ones; ``words`` help a fuzzer to write others."""

    suffix: str
    read: Callable[[Path], object]
    seeds: Callable[[], Iterator[bytes]]
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Harm:
    """What a reader did that it must not do."""

    error: str


def check(name: str, content: bytes) -> Harm | None:
    """Write ``content`` into a folder of its own and have it read there; None if that went as it should."""
    reader = READERS[name]
    with tempfile.TemporaryDirectory(prefix="sap-art-fuzz-") as folder:
        path = Path(folder) / f"file{reader.suffix}"
        path.write_bytes(content)
        try:
            reader.read(path)
        except (ValueError, OSError) as error:
            if str(path) not in str(error):
                return Harm(f"{type(error).__name__} that does not name the file: {str(error)[:500]}")
            if len(str(error)) > 20_000:
                return Harm(f"a message of {len(str(error)):,} characters")
        except Exception as error:  # noqa: BLE001  anything else is what is looked for
            return Harm(f"{type(error).__name__}: {str(error)[:500]}")
        if sorted(path.parent.iterdir()) != [path]:
            return Harm(f"wrote {sorted(path.parent.iterdir())}")
    return None


def _suite(path: Path) -> None:
    for entry in suites.load(str(path)).entries:
        assert Path(entry.name).name == entry.name, entry


def _record(path: Path) -> None:
    """And what is shown of it, but for the plots."""
    record = reading.read_record(path)
    entry = reading.Entry(reading.slugs_of([record.entry])[record.entry], record, path, None, None)
    made = rows.rows_of([entry], ranking.rank_entries([entry]))
    exports.csv_text(made), exports.json_text(made), exports.bib_text([entry]), command_of(record), explain(record)
    if {"clean", "adversarial"} <= set(record.calibration):
        table.terminal([record]), table.markdown([record])
    Record.read(path)


def _images(path: Path) -> None:
    per_image.PerImage.read(path, images=IMAGES, counts_sha256=None)


def _sidecar(path: Path) -> None:
    reading._run(path.with_name("file.json"))


def _checkpoint(path: Path) -> None:
    net = nn.Linear(SHAPE[1], SHAPE[0])
    before = [p.clone() for p in net.parameters()]
    try:
        zoo.load_weights(net, path)
    except ValueError:
        assert all(map(torch.equal, before, net.parameters()))
        raise


def _payoff(path: Path) -> None:
    game.read(path)


def _corrupted(path: Path) -> None:
    corruptions._mapped(path, (3, 2))


# Good files.


def _suites() -> Iterator[bytes]:
    for path in sorted((ROOT / "benchmarks" / "suites").glob("*.toml")):
        yield path.read_bytes()
    yield b'name = "mine"\ntier = "smoke"\nentries = [{model = "a.safetensors", policy = "sap:50:bernoulli@0-9,12"}]\n'
    yield b'name="m"\ntier="full"\nnorm="L2"\neps="1/2"\nimages=8\nseed=7\n[[entries]]\nmodel="robustbench:Standard"\n'


def _records() -> Iterator[bytes]:
    for path in sorted(RECORDS.glob("*.json")):
        if not path.name.endswith(reading.RUN):
            yield path.read_bytes()


def _sidecars() -> Iterator[bytes]:
    yield from (path.read_bytes() for path in sorted(RECORDS.glob(f"*{reading.RUN}")))


def _image_files() -> Iterator[bytes]:
    votes = torch.tensor([[3, 1], [0, 4]])
    pixels = torch.arange(2 * 3 * 2 * 2, dtype=torch.uint8).reshape(2, 3, 2, 2)
    places, labels = torch.tensor([5, 1]), torch.tensor([0, 1])
    examples = per_image.Examples(places, labels, pixels, 255 - pixels, votes, votes.flip(1))
    right = torch.arange(4 * IMAGES).reshape(4, IMAGES) % 3 == 0
    with tempfile.TemporaryDirectory() as folder:
        yield per_image.PerImage(right, ~right, examples).write(Path(folder) / "x").read_bytes()


def _cards() -> Iterator[bytes]:
    yield CARD.read_bytes()


def _state() -> dict[str, torch.Tensor]:
    return {"weight": torch.arange(8.0).reshape(SHAPE), "bias": torch.ones(SHAPE[0])}


def _safetensors() -> Iterator[bytes]:
    yield save(_state())
    yield save({name: value.half() for name, value in _state().items()})


def _pickled(*, zipped: bool) -> Iterator[bytes]:
    for content in (_state(), {"state_dict": _state()}, {f"module.{k}": v for k, v in _state().items()}):
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
        yield buffer.getvalue()


def _npz() -> Iterator[bytes]:
    images, labels = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3), np.array([0, 9])
    for write in (np.savez, np.savez_compressed):
        for pixels in (images, images.transpose(0, 3, 1, 2).astype(np.float32) / 255):
            buffer = io.BytesIO()
            write(buffer, images=pixels, labels=labels)
            yield buffer.getvalue()


def _npy() -> Iterator[bytes]:
    buffer = io.BytesIO()
    write_array(buffer, np.zeros((3, 2), np.uint8))
    yield buffer.getvalue()


def _payoffs() -> Iterator[bytes]:
    payoffs = game.Payoffs(("none", "sap:100"), ("noise", "apgd"), 4, np.arange(12).reshape(2, 2, 3) % 5)
    with tempfile.TemporaryDirectory() as folder:
        yield game.write(payoffs, ThreatModel("Linf", 8 / 255), Path(folder)).read_bytes()


def _manifests() -> Iterator[bytes]:
    for suite in (suites.load("smoke"), replace(suites.load("quick"), norm="L2", eps="0.5")):
        yield json.dumps({**asdict(suite), "models": {}, "device": "cpu"}).encode()


def _keys(*kinds: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(field for kind in kinds for field in kind.__dataclass_fields__))


READERS = {
    "suite": Reader(".toml", _suite, _suites, (*_keys(suites.Suite, suites.SuiteEntry), "[[entries]]", "1e9", "../")),
    "manifest": Reader(".json", suites.read_manifest, _manifests, _keys(suites.Suite, suites.SuiteEntry)),
    "record": Reader(".json", _record, _records, (*_keys(Record), "NaN", "1e999", "\\ud800", "\\u001b")),
    "images": Reader(per_image.SUFFIX, _images, _image_files, ("dtype", "shape", "data_offsets", *per_image.EXAMPLES)),
    "sidecar": Reader(reading.RUN, _sidecar, _sidecars, ("seconds", "finished", "NaN", "\\ud800")),
    "card": Reader(".json", zoo.read_card, _cards, (*_keys(zoo.Card), "NaN", "1e999", "\\ud800")),
    "safetensors": Reader(".safetensors", _checkpoint, _safetensors, ("dtype", "shape", "data_offsets", "BF16", "F8")),
    "torch": Reader(".pt", _checkpoint, partial(_pickled, zipped=True), ("PK", "weight", "bias")),
    "torch-legacy": Reader(".pt", _checkpoint, partial(_pickled, zipped=False), ("weight", "bias", "cposix\nsystem\n")),
    "npz": Reader(".npz", lambda path: data.load(source=path), _npz, ("PK", "NUMPY", "descr", "shape", "|O", "<f4")),
    "npy": Reader(".npy", _corrupted, _npy, ("NUMPY", "descr", "fortran_order", "shape", "|O")),
    "payoff": Reader(".json", _payoff, _payoffs, ("schema", "policies", "attacks", "draws", "correct", "draw_correct")),
}
