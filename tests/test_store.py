"""The store: finished units are read, damage is found, another run's results are never touched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from sap_art.files import is_locked, locked, replacing
from sap_art.store import (
    Failure,
    Store,
    Unit,
    read_manifest,
    sealed,
    tensor_sha256,
    unsealed,
    weights_sha256,
)


def never() -> Unit:
    """A unit that must not be computed."""
    raise AssertionError("computed again")


def test_a_finished_unit_is_read_not_computed_again(tmp_path: Path) -> None:
    """And its tensors are the same bits."""
    with Store.open(tmp_path / "out", {"seed": 1}) as store:
        unit = store.unit("a/b", lambda: {"x": torch.arange(3.0), "n": torch.tensor(7)})

    with Store.open(tmp_path / "out", {"seed": 1}) as store:
        again = store.unit("a/b", never)
    assert torch.equal(again["x"], unit["x"])
    assert int(again["n"]) == 7


def test_a_unit_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """It is computed again at the next call."""
    store = Store(tmp_path)

    def fails() -> Unit:
        assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".part"]  # a unit in work
        raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        store.unit("u", fails)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert torch.equal(store.unit("u", lambda: {"x": torch.ones(2)})["x"], torch.ones(2))


def test_any_flipped_bit_and_any_truncation_is_found(tmp_path: Path) -> None:
    """In the header, in the digest, in the tensors: of this file all of them are tried."""
    content, path = b"".join(sealed({"x": torch.arange(3.0), "n": torch.tensor([True, False])})), tmp_path / "unit"
    flipped = [
        content[:i] + bytes([content[i] ^ 1 << bit]) + content[i + 1 :] for i in range(len(content)) for bit in range(8)
    ]

    path.write_bytes(content)
    assert torch.equal(unsealed(path)["x"], torch.arange(3.0))
    for damaged in [*flipped, *(content[:n] for n in range(len(content))), content + b" "]:
        path = tmp_path / "damaged"
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"its content is not that of its SHA-256|it has no SHA-256"):
            unsealed(path)


def test_a_damaged_unit_is_told_of_and_computed_again(tmp_path: Path) -> None:
    """Once, and never used; ``read``, which cannot compute it, says so."""
    told: list[str] = []
    store = Store(tmp_path, tell=told.append)
    store.unit("a/u", lambda: {"x": torch.ones(200)})
    path = store.path("a/u")
    path.write_bytes(path.read_bytes()[:50])

    with pytest.raises(ValueError, match="is damaged"):
        store.read("a/u")
    for compute in (lambda: {"x": torch.zeros(2)}, never):
        assert torch.equal(store.unit("a/u", compute)["x"], torch.zeros(2))
    assert told == ["unit a/u was damaged (its content is not that of its SHA-256): computed again"]


def test_what_failed_is_remembered_until_it_is_to_be_retried(tmp_path: Path) -> None:
    """In one place only; a note that is damaged is none."""
    store = Store(tmp_path)
    for key in ("a/u", "b/u"):
        store.fail(key, Failure("OSError", "no"))

    assert Store(tmp_path).failure("a/u") == Failure("OSError", "no")
    assert store.failure("a/other") is None
    assert store.forget_failures("a") == 1
    assert (store.failure("a/u"), store.failure("b/u")) == (None, Failure("OSError", "no"))
    store.path("b/u", ".failed.json").write_text('{"kind": "OSErr')
    assert store.failure("b/u") is None


def test_another_run_s_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    """The message names what differs; entries may come and go, and stay where they were."""
    with Store.open(tmp_path / "out", {"seed": 1, "images": 64, "entries": ["a", "b"]}):
        pass
    before = (tmp_path / "out" / "suite.json").read_bytes()

    with pytest.raises(ValueError, match="another run, which differs in: images;"):
        Store.open(tmp_path / "out", {"seed": 1, "images": 65, "entries": ["a"]}).__enter__()
    assert (tmp_path / "out" / "suite.json").read_bytes() == before
    with Store.open(tmp_path / "out", {"seed": 1, "images": 64, "entries": ["c", "b"]}):
        assert read_manifest(tmp_path / "out")["entries"] == ["c", "b", "a"]


def test_a_folder_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    """A file, or a folder with something in it; what a killed run left is swept."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    (tmp_path / "empty" / "work").mkdir(parents=True)

    for name in ("file", "full"):
        with pytest.raises(ValueError, match="is not empty and holds no results of ours"):
            Store.open(tmp_path / name, {}).__enter__()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.tex"]
    (tmp_path / "empty" / "work").rmdir()
    (tmp_path / "empty" / "suite.json.part").write_text("killed in the first write")
    with Store.open(tmp_path / "empty", {}):
        assert sorted(path.name for path in (tmp_path / "empty").iterdir()) == [".lock", "suite.json"]


@pytest.mark.parametrize("content", [b'{"seed": 1', b"\xff\xfe", b"[1]", b""])
def test_a_damaged_manifest_is_said(tmp_path: Path, content: bytes) -> None:
    """Nobody knows which run this was, so nothing is touched."""
    with Store.open(tmp_path, {"seed": 1}) as store:
        store.unit("u", lambda: {"x": torch.ones(2)})
    (tmp_path / "suite.json").write_bytes(content)

    with pytest.raises(ValueError, match=r"suite\.json is damaged .*: put a copy back, or choose another --output"):
        Store.open(tmp_path, {"seed": 1}).__enter__()
    assert (tmp_path / "suite.json").read_bytes() == content


def test_two_at_once_in_one_folder(tmp_path: Path) -> None:
    """The second one is refused and says who is there; a process that is gone, however, locks nothing."""
    hold = "import sys; from pathlib import Path; from sap_art.files import locked\n"
    hold += "with locked(Path(sys.argv[1])): print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert is_locked(tmp_path)
        with pytest.raises(ValueError, match=f"another run is at work in .*process {other.pid} on "):
            locked(tmp_path).__enter__()
        other.kill()
    assert (tmp_path / ".lock").exists()
    assert not is_locked(tmp_path)
    with locked(tmp_path):
        assert is_locked(tmp_path)
        assert f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()
    assert not is_locked(tmp_path)
    assert not is_locked(tmp_path / "nowhere")


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """Whatever happens while it is written; a place that cannot be written to is found before the work."""
    (tmp_path / "file").write_text("mine")
    with replacing(tmp_path / "a") as write:
        write(b"old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a") as write:
        raise ZeroDivisionError

    assert (tmp_path / "a").read_bytes() == b"old"
    with pytest.raises(OSError, match="file"), replacing(tmp_path / "file" / "b"):
        raise AssertionError("begun where nothing can be written")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "file"]


def test_digests_see_values_types_shapes_and_names() -> None:
    """And nothing else: memory layout does not count."""
    x = torch.arange(6.0).view(2, 3)
    digests = {tensor_sha256(t) for t in (x, x.double(), x.view(3, 2), x + 1, x.bfloat16())}
    net, same, other = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
    same.load_state_dict(net.state_dict())

    assert len(digests) == 5
    assert tensor_sha256(x.t().contiguous().t()) == tensor_sha256(x)
    assert weights_sha256(net) == weights_sha256(same) != weights_sha256(other)
