"""What is installed: version, data files, and a command that starts without torch."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest

import sap_art

ROOT = Path(__file__).parents[1]
INSTALLED = Path(sap_art.__file__).parent
SLOW = {"art", "numpy", "robustbench", "scipy", "torch"}


def files_below(folder: Path) -> set[str]:
    """Relative paths, without what Python leaves behind."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.suffix != ".pyc"}


def test_version_is_that_of_the_metadata() -> None:
    """One place says the version."""
    assert sap_art.__version__ == metadata.version("sap-art")


def test_tests_run_on_the_installed_package() -> None:
    """The source folder beside the tests does not hide the wheel."""
    distribution = metadata.distribution("sap-art")
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    editable = origin.get("dir_info", {}).get("editable", False)

    assert (ROOT / "sap_art" if editable else Path(str(distribution.locate_file("sap_art")))) == INSTALLED


def test_everything_in_the_source_folder_is_installed() -> None:
    """No suite, image, checkpoint or template is left out of the wheel."""
    assert files_below(ROOT / "sap_art") == files_below(INSTALLED)


@pytest.mark.parametrize(
    "pattern", ["py.typed", "record.schema.json", "suites/smoke.toml", "assets/*.npz", "assets/*.safetensors"]
)
def test_what_the_smoke_suite_and_type_checkers_need_is_there(pattern: str) -> None:
    """``sap-art bench --suite smoke`` finds its suite, images and checkpoint, a reader of records their schema."""
    assert list(INSTALLED.glob(pattern))


@pytest.mark.parametrize("arguments", [["--help"], ["bench", "--help"]], ids=" ".join)
def test_help_does_not_wait_for_torch(arguments: list[str], tmp_path: Path) -> None:
    """The installed command answers ``--help`` at once: none of the slow packages is imported."""
    command = shutil.which("sap-art", path=sysconfig.get_path("scripts"))
    assert command is not None
    done = subprocess.run(
        [command, *arguments],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"},
        text=True,
    )
    imported = set(re.findall(r"^import time:.*\| +(\w+)$", done.stderr, re.MULTILINE))

    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    assert "sap_art" in imported
    assert imported & SLOW == set()
