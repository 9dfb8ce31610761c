"""Suites: shipped ones load, and a mistake in a file is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from sap_art import suites

GOOD = 'name = "mine"\ntier = "smoke"\nentries = [{model = "preact-resnet20", policy = "sap:50"}]\n'


def test_the_shipped_smoke_suite() -> None:
    """The main job: dense, SAP-100, SAP-200 on 64 images at 8/255."""
    suite = suites.load("smoke")

    assert [e.name for e in suite.entries] == [
        "preact-resnet20", "preact-resnet20-sap-100", "preact-resnet20-sap-200"
    ]  # fmt: skip
    assert (suite.images, suite.norm, suite.threat().eps) == (64, "Linf", 8 / 255)


def test_a_suite_file(tmp_path: Path) -> None:
    """Defaults are those of the main job."""
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)

    assert suites.load(str(path)).entries == [suites.SuiteEntry("preact-resnet20", "sap:50")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "imagse = 3\n", "imagse"),
        (GOOD.replace("policy", "polcy"), "polcy"),
        (GOOD.replace("sap:50", "sap:-1"), "above 0"),
        (GOOD.replace("sap:50", "dropout:1"), "unknown policy 'dropout:1'"),
        (GOOD.replace('"smoke"', '"huge"'), "unknown tier 'huge'; known: smoke"),
        (GOOD + "images = 0\n", "images must be at least 1"),
        (GOOD + 'images = "64"\n', "images"),
        (GOOD + 'eps = "eight"\n', "eps must be a number or a fraction"),
        (GOOD + 'eps = "1/0"\n', "eps must be a number or a fraction"),
        (GOOD + 'norm = "L1"\n', "unknown norm 'L1'"),
        ('name = "x"\ntier = "smoke"\nentries = []\n', "needs entries"),
        ('name = "x"\ntier = "smoke"\nentries = [{model = "a"}, {model = "a"}]\n', "distinct names"),
        ('tier = "smoke"\n', "name"),
        ("name = ", "is not a suite in TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    """Together with the file."""
    path = tmp_path / "bad.toml"
    path.write_text(text)

    with pytest.raises(ValueError, match=message) as caught:
        suites.load(str(path))
    assert "bad.toml" in str(caught.value)


def test_unknown_suites_are_named() -> None:
    """With what there is."""
    with pytest.raises(ValueError, match=r"unknown suite 'smok'; shipped: full, quick, smoke, or give a FILE\.toml"):
        suites.load("smok")
    with pytest.raises(ValueError, match=r"no suite file nowhere\.toml"):
        suites.load("nowhere.toml")


def test_entry_names_are_file_names() -> None:
    """Also for a user's own file, whose folders are nobody's business."""
    assert suites.SuiteEntry("/models/my.py:net", "sap:12.5:bernoulli").name == "my.py-net-sap-12.5-bernoulli"
    assert suites.SuiteEntry("nets/net-1.5.safetensors", "sap:100").name == "net-1.5-sap-100"
    assert suites.SuiteEntry("net-1.5").name == "net-1.5"
    names = [suites.SuiteEntry("net", f"sap:100@{sites}").name for sites in ("0,5", "0-5")]
    assert names == ["net-sap-100-0_5", "net-sap-100-0-5"]
