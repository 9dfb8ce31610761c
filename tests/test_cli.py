"""The command line: bad input is refused with a reason and status 2, before any work."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from sap_art import data, zoo
from sap_art.cli import main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """``sap-art`` in this process; its exit status."""
    monkeypatch.setattr("sys.argv", ["sap-art", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


def npz(path: Path, *, images: np.ndarray, labels: np.ndarray | None = None) -> str:
    """A data file of a user's."""
    np.savez(path, images=images, labels=np.zeros(len(images), dtype=np.int64) if labels is None else labels)
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "smok"], "unknown suite 'smok'"),
        (["--tier", "huge"], "unknown tier 'huge'"),
        (["--model", "robustbench:Standart"], "unknown model 'Standart' of the 76"),
        (["--model", "preact-resnet20", "--policy", "dropout:3"], "unknown policy 'dropout:3'"),
        (["--model", "preact-resnet20", "--policy", "sap:0"], "above 0"),
        (["--model", "preact-resnet20", "--policy", "sap:-100"], "above 0"),
        (["--model", "preact-resnet20", "--policy", "rna:-1"], "RNA's sd must be a finite number above 0"),
        (["--model", "preact-resnet20", "--policy", "swp"], "policy 'swp' must be swp:PERCENT"),
        (["--policy", "sap:100"], "--policy needs --model"),
        (["--model", "resnet-1000"], "unknown net 'resnet-1000'"),
        (["--model", "nowhere.py:net"], "nowhere.py"),
        (["--model", "sap_art.zoo:nothing"], "nothing"),
        (["--eps", "a lot"], "eps must be a number"),
        (["--eps", "-1"], "above 0"),
        (["--images", "0"], "images must be at least 1"),
        (["--images", "1000"], "512"),
        (["--device", "cuda:99"], "device 'cuda:99' is not available"),
        (["--device", "abacus"], "device 'abacus' is not available"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_bad_arguments(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Status 2, one clear message, nothing written."""
    monkeypatch.delenv("SAP_ART_DATA", raising=False)
    status = run(monkeypatch, "bench", "--output", str(tmp_path / "out"), *arguments)

    assert status == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


GOOD = np.zeros((64, 3, 32, 32), dtype=np.float32)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (GOOD + 1.5, None, "[0, 1]"),
        (GOOD * np.nan, None, "NaN"),
        (GOOD[:, :2], None, "(64, 2, 32, 32)"),
        (GOOD[:, :, :9, :2], None, "must have shape (3, 32, 32), got (3, 9, 2)"),
        (GOOD, np.full(64, 10), "label"),
        (GOOD, np.full(64, -1), "label"),
        (GOOD, np.zeros(63, dtype=np.int64), "63"),
        (GOOD[:5], None, "64"),
    ],
)
def test_bad_images_and_labels(
    images: np.ndarray,
    labels: np.ndarray | None,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """A user's file is checked before any work."""
    path = npz(tmp_path / "mine.npz", images=images, labels=labels)
    status = run(monkeypatch, "bench", "--data", path, "--output", str(tmp_path / "out"))

    assert status == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_truncated_checkpoint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Its checksum is not that of its card."""
    for suffix in (".safetensors", ".json"):
        (tmp_path / f"mine{suffix}").write_bytes((zoo.ASSETS / f"preact-resnet20{suffix}").read_bytes())
    path = tmp_path / "mine.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    status = run(monkeypatch, "bench", "--model", str(path), "--output", str(tmp_path / "out"))

    assert status == 2
    assert "damaged" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_pickle_that_would_execute_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As test_batch: refused by its MD5 before it is read."""

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "executed",)

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes(pickle.dumps(Hostile()))
    status = run(monkeypatch, "bench", "--data", str(tmp_path), "--output", str(tmp_path / "out"))

    assert status == 2
    assert "MD5" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()


def test_train_refuses_bad_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Unknown recipe; no training set in the bundle."""
    monkeypatch.delenv("SAP_ART_DATA", raising=False)
    out = str(tmp_path / "out")
    assert run(monkeypatch, "train", "--arch", "preact-resnet20", "--recipe", "sam", "--output", out) == 2
    assert "unknown recipe 'sam'" in capsys.readouterr().err
    assert run(monkeypatch, "train", "--arch", "preact-resnet20", "--output", out) == 2
    assert "SAP_ART_DATA" in capsys.readouterr().err


def test_unknown_options_and_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2 as well."""
    assert run(monkeypatch, "bench", "--outptu", "x") == 2
    assert run(monkeypatch, "bnech") == 2
    assert "bnech" in capsys.readouterr().err


def test_an_output_that_cannot_be_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A folder below a file: status 2 with the system's words, no traceback."""
    (tmp_path / "file").write_text("mine")

    assert run(monkeypatch, "bench", "--output", str(tmp_path / "file" / "out")) == 2
    assert "file" in capsys.readouterr().err


def test_an_interrupted_run_says_that_it_can_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Status 130."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "load", interrupt)

    assert run(monkeypatch, "bench", "--output", str(tmp_path / "out")) == 130
    assert "goes on where it stopped" in capsys.readouterr().err


def test_a_run_that_was_begun_before_can_be_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Before any work, and what is there stays; a folder without a run is new."""
    asked: list[object] = []
    monkeypatch.setattr("sap_art.bench.run_suite", lambda *_, **__: asked.append("run") or [])
    (tmp_path / "suite.json").write_text("{}")

    assert run(monkeypatch, "bench", "--no-resume", "--output", str(tmp_path)) == 2
    assert "holds a run that was begun before; leave out --no-resume, or choose another" in capsys.readouterr().err
    assert (tmp_path / "suite.json").read_text() == "{}"
    assert asked == []
    monkeypatch.setattr("sap_art.bench.run_suite", lambda *_, **__: (_ for _ in ()).throw(ValueError("it is begun")))
    assert run(monkeypatch, "bench", "--no-resume", "--output", str(tmp_path / "new")) == 2
    assert run(monkeypatch, "bench", "--resume", "--output", str(tmp_path)) == 2
    assert capsys.readouterr().err.count("it is begun") == 2


def test_the_zoo_lists_the_shipped_net(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With its accuracy, and RobustBench's with what is published, which need a checkpoint."""
    assert run(monkeypatch, "zoo") == 0
    out = capsys.readouterr().out
    assert "preact-resnet20: preact-resnet20, 91.68 % clean" in out
    assert "robustbench:Standard: WideResNet-28-10, 94.78 % clean, 0.00 % under AutoAttack, 36.5 M parameters" in out
    assert f"25 activations, missing: {Path('models/cifar10/Linf/Standard.pt')}" in out
