"""The store: finished units are read, a killed run loses at most one, another run's results are never touched."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from sap_art.store import Store, tensor_sha256, weights_sha256


def test_a_finished_unit_is_read_not_computed_again(tmp_path: Path) -> None:
    """And its tensors are the same bits."""
    store = Store.open(tmp_path / "out", {"seed": 1})
    unit = store.unit("a/b", lambda: {"x": torch.arange(3.0), "n": torch.tensor(7)})

    def never() -> dict[str, torch.Tensor]:
        raise AssertionError("computed again")

    again = Store.open(tmp_path / "out", {"seed": 1}).unit("a/b", never)
    assert torch.equal(again["x"], unit["x"])
    assert int(again["n"]) == 7


def test_a_unit_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """It is computed again at the next call."""
    store = Store.open(tmp_path / "out", {})

    def fails() -> dict[str, torch.Tensor]:
        raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        store.unit("u", fails)
    assert torch.equal(store.unit("u", lambda: {"x": torch.ones(2)})["x"], torch.ones(2))


def test_a_damaged_unit_is_an_error(tmp_path: Path) -> None:
    """Not silently recomputed: somebody should know."""
    store = Store.open(tmp_path / "out", {})
    store.unit("u", lambda: {"x": torch.ones(200)})
    path = tmp_path / "out" / "work" / "u.safetensors"
    path.write_bytes(path.read_bytes()[:50])

    with pytest.raises(ValueError, match="is damaged"):
        store.unit("u", lambda: {"x": torch.ones(200)})


def test_another_run_s_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    """The message names what differs."""
    Store.open(tmp_path / "out", {"seed": 1, "images": 64})
    before = (tmp_path / "out" / "suite.json").read_bytes()

    with pytest.raises(ValueError, match="another run, which differs in: images"):
        Store.open(tmp_path / "out", {"seed": 1, "images": 65})
    assert (tmp_path / "out" / "suite.json").read_bytes() == before


def test_a_folder_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    """A file, or a folder with something in it."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")

    for name in ("file", "full"):
        with pytest.raises(ValueError, match="is not empty and holds no results of ours"):
            Store.open(tmp_path / name, {})
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "suite.json.part").write_text("killed in the first write")
    Store.open(tmp_path / "empty", {})


def test_digests_see_values_types_shapes_and_names() -> None:
    """And nothing else: memory layout does not count."""
    x = torch.arange(6.0).view(2, 3)
    digests = {tensor_sha256(t) for t in (x, x.double(), x.view(3, 2), x + 1, x.bfloat16())}
    net, same, other = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
    same.load_state_dict(net.state_dict())

    assert len(digests) == 5
    assert tensor_sha256(x.t().contiguous().t()) == tensor_sha256(x)
    assert weights_sha256(net) == weights_sha256(same) != weights_sha256(other)
