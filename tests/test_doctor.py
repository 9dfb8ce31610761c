"""``sap-art doctor``: what is there, what is missing, the command that mends it, and the exit status."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest
from test_cli import run

from sap_art import data, zoo
from sap_art.integrations.robustbench import REPAIRS


@pytest.fixture(autouse=True)
def _no_data_of_the_user_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAP_ART_DATA", raising=False)


def hide_packages(monkeypatch: pytest.MonkeyPatch, *names: str, version: str | None = None) -> None:
    """Make packages look as if they were not installed, or installed in that version."""
    installed = metadata.version

    def pretended(name: str) -> str:
        if name not in names:
            return installed(name)
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(metadata, "version", pretended)


def test_a_complete_installation(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 0; versions, repairs, devices with their kernels, data, checkpoints."""
    status = run(monkeypatch, "doctor")
    lines = capsys.readouterr().out.splitlines()

    assert status == 0
    assert lines[0].startswith(f"sap-art {metadata.version('sap-art')}, Python 3.")
    assert lines[-1] == "The core is complete."
    for expected in (f"  torch {metadata.version('torch')}", "  bundled: 512 test images of cifar10"):
        assert expected in lines
    assert [line for line in lines if line.startswith("  SAP_ART_DATA: not set; for more, set")]
    assert [line for line in lines if line.startswith("  cpu: ") and "draws by" in line]
    assert [line for line in lines if line.startswith("  preact-resnet20: 91.68 % clean")]
    assert len([line for line in lines if line.startswith(("  needed: ", "  not needed: "))]) == len(REPAIRS)


def test_a_repair_that_is_not_needed_is_called_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where an old setuptools brings pkg_resources."""
    monkeypatch.setitem(sys.modules, "pkg_resources", type(sys)("pkg_resources"))
    run(monkeypatch, "doctor")
    out = capsys.readouterr().out

    assert "  not needed: robustbench imports pkg_resources" in out
    assert "  needed: robustbench imports and calls autoattack" in out


@pytest.mark.parametrize(
    ("version", "line"), [(None, "scipy: missing, needs >=1.12"), ("1.2", "scipy: 1.2 does not fit, needs >=1.12")]
)
def test_a_core_package_is_missing(
    version: str | None, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 1 and the command."""
    hide_packages(monkeypatch, "scipy", version=version)
    status = run(monkeypatch, "doctor")
    out = capsys.readouterr().out

    assert status == 1
    assert line in out
    assert "To mend\n  pip install 'scipy>=1.12'\n" in out
    assert out.endswith("The core is NOT complete.\n")


def test_an_extra_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The core is complete without it; its command is there."""
    hide_packages(monkeypatch, "robustbench")
    monkeypatch.setitem(sys.modules, "robustbench", None)
    status = run(monkeypatch, "doctor")
    out = capsys.readouterr().out

    assert status == 0
    assert "robustbench: missing, needs <2,>=1.1.1" in out
    assert "RobustBench\n  needs robustbench: pip install" in out
    assert "To mend\n  pip install 'sap-art[robustbench]'\n" in out


def test_not_installed_at_all(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A source folder on the path is no installation."""
    hide_packages(monkeypatch, "sap-art")

    assert run(monkeypatch, "doctor") == 1
    assert "sap-art itself is not installed" in capsys.readouterr().out


def test_what_ships_is_damaged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A checkpoint that is not the one of its card, a bundle that is not there: status 1, one command."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is damaged")

    monkeypatch.setattr(zoo, "load", refuse)
    monkeypatch.setattr(data, "BUNDLE", "nothing.npz")
    status = run(monkeypatch, "doctor")
    out = capsys.readouterr().out

    assert status == 1
    assert "  preact-resnet20: preact-resnet20 is damaged" in out
    assert "  bundled: " in out
    assert out.count("--force-reinstall") == 1


@pytest.mark.parametrize("exists", [False, True])
def test_data_of_the_user_s(
    exists: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A folder without the files is said to lack them, and the core is complete all the same."""
    place = tmp_path / "data"
    if exists:
        place.mkdir()
    monkeypatch.setenv("SAP_ART_DATA", str(place))
    status = run(monkeypatch, "doctor")
    out = capsys.readouterr().out

    assert status == 0
    for split in data.SPLITS:
        assert (
            f"SAP_ART_DATA, {split}: {f'{place} lacks the {split} split' if exists else f'no data at {place}'}" in out
        )
