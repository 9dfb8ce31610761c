"""What a stranger's file may not do: run code, leave its folder, stand for another, fill memory, or take for ever."""

from __future__ import annotations

import io
import json
import os
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import site_records
import torch
from rich.console import Console
from test_cli import run
from torch import nn

from sap_art import data, suites, table, training, untrusted, zoo
from sap_art.corruptions.record import CorruptionRecord
from sap_art.policies import parse_policy
from sap_art.record import DefenceInfo, ModelInfo, Record, Value
from sap_art.site import build
from sap_art.site.reading import read_folder

SUITE = 'name = "mine"\ntier = "smoke"\nentries = [{{model = "{}"}}]\n'
MEMORY = 300 * 2**20
SECONDS = 2.0


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory is an empty one beside that of the files."""
    monkeypatch.delenv("SAP_ART_DATA", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """The folder of a stranger's files."""
    (tmp_path / "stranger").mkdir()
    return tmp_path / "stranger"


def bounded(call: Callable[[], object], message: str) -> None:
    """It raises ValueError, soon, and without much memory."""
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(ValueError, match=message) as caught:
        call()
    took, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert (took < SECONDS, peak < MEMORY) == (True, True), (took, peak)
    assert len(str(caught.value)) < 2000


# JSON.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' is there twice"),
        (b'{"a": [{"\\u001b": 1, "\\u001b": 1}]}', r"the key '\\x1b' is there twice"),
        (b'{"a": [1, NaN]}', r"a\[1\] must be a finite number, got nan"),
        (b'{"a": {"b": -Infinity}}', r"a\.b must be a finite number, got -inf"),
        (b'{"a": 1e999}', "a must be a finite number, got inf"),
        (b'{"a": 36893488147419103232}', "a must be a number of at most 64 bits, got one of 66"),
        (b'{"a": ' + b"9" * 5000 + b"}", "4300 digits"),
        (b'{"a": "\\udc00"}', "a has half of a surrogate pair"),
        (b'{"\\udc00": 1}', "a key of the whole has half of a surrogate pair"),
        (b"[" * 40 + b"]" * 40, "is nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": "\xff"}', "utf-8"),
        (b"", "Expecting value"),
        (b"{} {}", "Extra data"),
    ],
)
def test_json_that_readers_understand_differently_is_refused(content: bytes, message: str) -> None:
    """Or that they do not survive; the message names the field."""
    bounded(lambda: untrusted.parse_json(content), message)


def test_many_keys_take_no_square_of_time() -> None:
    """The one that is there twice is found all the same."""
    pairs = ",".join(f'"{i}": 0' for i in range(100_000))

    bounded(lambda: untrusted.parse_json(f'{{{pairs}, "77": 1}}'.encode()), "the key '77' is there twice")


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "large"])
def test_what_never_ends_is_not_read(stranger: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Pipes wait, devices give bytes without end."""
    monkeypatch.setattr(untrusted, "LARGEST", 1000)
    path = stranger / "net.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_text(" " * 1001)
    message = "1,001 bytes, at most 1,000 are allowed" if kind == "large" else "it is no regular file"

    bounded(lambda: untrusted.read_bytes(path, what="a card", most=1000), message)


# Names.


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc/x", "a\\b", "C:x", ".hidden", "a\x00", "a\n", "x" * 201]
)
def test_a_name_is_no_path(name: str, tmp_path: Path) -> None:
    """For whatever writes files by the name of an entry."""
    with pytest.raises(ValueError, match="must be the name of a file or folder"):
        untrusted.file_name(name, ".json")
    record, _ = site_records.synthetic("net", images=8)
    value = Value(0.5, 0.4, 0.6)
    corrupted = CorruptionRecord(
        name, ModelInfo("n", "N", "0"), DefenceInfo("none", "", True, "", 1), "", 1, 1, 0, value, 1, value, {}
    )
    for one in (replace(record, entry=name), corrupted):
        with pytest.raises(ValueError, match="must be the name of a file or folder"):
            one.write(tmp_path / "records")
    assert not (tmp_path / "records").exists()


def test_links_are_followed_before_it_is_said_what_is_inside(stranger: Path, tmp_path: Path) -> None:
    """Also those that lead round in a circle."""
    (stranger / "out").symlink_to(tmp_path)
    (stranger / "in").symlink_to(stranger / "x")
    (stranger / "a").symlink_to(stranger / "b")
    (stranger / "b").symlink_to(stranger / "a")

    assert untrusted.is_inside(stranger / "x" / "y", stranger)
    assert untrusted.is_inside(stranger / "in", stranger)
    assert untrusted.is_inside(stranger / "a", stranger)
    assert not untrusted.is_inside(stranger / "out" / "y", stranger)
    assert not untrusted.is_inside(stranger / ".." / "y", stranger)
    assert not untrusted.is_inside(tmp_path / "stranger-not", stranger)
    assert untrusted.is_inside(tmp_path / "y", stranger, tmp_path)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\x1b[2Jb\r", "a\\x1b[2Jb\\r"), ("\u202egnp\ud800", "\\u202egnp\\ud800"), ("line\n\té 8 %", "line\n\té 8 %")],
)
def test_a_terminal_obeys_no_text(text: str, shown: str) -> None:
    """Neither escapes, nor a turn of direction, nor half a character that cannot be printed at all."""
    assert untrusted.visible(text) == shown


# Suites.


def suite(folder: Path, model: str) -> str:
    """A file that names this model."""
    path = folder / "suite.toml"
    path.write_text(SUITE.format(model))
    return str(path)


@pytest.mark.parametrize(
    "model",
    [
        "os:abort",
        "evil.py:net",
        "../stranger/evil.py:net",
        "a.safetensors:net",
        "robustbench.evil:net",
        "evil.pt:net",
    ],
)
def test_a_suite_s_code_is_not_run(
    stranger: Path, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unless whoever runs it says so; with a model of one's own its entries do not matter."""
    ran = tmp_path / "ran"
    (stranger / "evil.py").write_text(f"open({str(ran)!r}, 'w').close()\ndef net(): return 1\n")
    monkeypatch.chdir(stranger)
    for command in (["bench", "--output", str(tmp_path / "out"), "--suite"], ["forecast"]):
        assert run(monkeypatch, *command, suite(stranger, model)) == 2
        assert f"entries.0.model: {model} is code that would be run; read it" in capsys.readouterr().err
    assert not ran.exists()
    assert not (tmp_path / "out").exists()
    assert suites.load(suite(stranger, model), trust_code=True).entries[0].model == model
    assert run(monkeypatch, "forecast", suite(stranger, "evil.py:net"), "--trust-code") == 2
    assert "must return a torch.nn.Module" in capsys.readouterr().err
    assert ran.exists()


def test_a_model_of_one_s_own_replaces_those_of_a_suite(
    stranger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that nothing has to be trusted; the model is looked for, and nothing of the suite's."""
    output = ["--output", str(tmp_path / "out")]

    assert run(monkeypatch, "bench", *output, "--suite", suite(stranger, "evil.py:net"), "--model", "nobody") == 2
    assert "unknown net 'nobody'" in capsys.readouterr().err


def test_a_suite_s_checkpoints_lie_beside_it_or_here(stranger: Path, tmp_path: Path) -> None:
    """Not wherever a path or a link leads; a card that is a link elsewhere counts as much."""
    (tmp_path / "secret.safetensors").touch()
    (stranger / "link.safetensors").symlink_to(tmp_path / "secret.safetensors")
    (stranger / "card.json").symlink_to(tmp_path / "secret.json")
    (stranger / "down").symlink_to(tmp_path)
    inside = [stranger / "a.safetensors", "a.pt", "below/a.pth", tmp_path / "here" / "a.th"]
    outside = ["../secret.safetensors", tmp_path / "secret.pt", "/dev/x.pt", "~/../../x.pt"]
    outside += [stranger / name for name in ("link.safetensors", "card.safetensors", "down/secret.pt", "../secret.th")]

    for model in inside:
        assert suites.load(suite(stranger, str(model))).entries[0].model == str(model)
    for model in outside:
        with pytest.raises(ValueError, match=r"entries\.0\.model: .* lies neither below its folder nor below this one"):
            suites.load(suite(stranger, str(model)))
        assert suites.load(suite(stranger, str(model)), trust_code=True)


@pytest.mark.parametrize(
    "eps", ["1e999999999", "1e400", "1" * 10**5, "1/" + "3" * 10**5, "1e99/1e-99", "0x1", "1_0", "nan", "\u0663"]
)
def test_numbers_are_not_worked_out_for_ever(eps: str) -> None:
    """A billion digits in ten characters, and what only Python takes for a number."""
    bounded(lambda: suites.parse_eps(eps), "eps must be a number or a fraction")


@pytest.mark.parametrize(
    ("eps", "value"), [("8/255", 8 / 255), (" 0.5 ", 0.5), ("5e-1", 0.5), ("-1", -1.0), ("+.5", 0.5)]
)
def test_numbers_are_what_they_were(eps: str, value: float) -> None:
    """As Python's fractions have them."""
    assert suites.parse_eps(eps) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 100_000, "is not a suite in TOML"),
        (".".join("a" * 100_000) + " = 1", "99,999 dots, at most 5,000 are allowed"),
        (".".join("a" * 5000) + " = 1", "it is nested too deeply"),
        ("seed = " + "9" * 5000, "is not a suite in TOML"),
        (SUITE.format("net") + "seed = 9223372036854775808", "seed must have at most 63 bits"),
        (SUITE.format("net").replace('"mine"', "1979-05-27"), "name: Input should be a valid string"),
        (SUITE.format("net").replace('"net"', '"a\\u001bb"'), r"entries.0.model must be .* printable .*a\\x1bb"),
        (SUITE.format("n" * 300), "must be the name of a file"),
        (SUITE.format(""), "must be the name of a file"),
        (SUITE.format("net") + "#" * 2**20, "at most 1,048,576 are allowed"),
        ('"\\u001b[2J" = 1', r"\\x1b\[2J: Unexpected|\\x1b\[2J"),
        ("\n".join(f"k{i} = 1" for i in range(3000)), "and 29.. more"),
    ],
)
def test_suites_that_are_large_deep_or_odd_are_refused(stranger: Path, text: str, message: str) -> None:
    """In time, by file and field, in few words."""
    path = stranger / "suite.toml"
    path.write_text(text)

    bounded(lambda: suites.load(str(path)), message)


def test_bytes_that_are_no_text_are_no_suite(stranger: Path) -> None:
    """The file is named."""
    path = stranger / "suite.toml"
    path.write_bytes(b'name = "\xff"')

    bounded(lambda: suites.load(str(path)), f"{path} is not a suite in TOML")


def test_sites_are_not_listed_for_ever() -> None:
    """Ranges of ten thousand each, a hundred thousand times."""
    bounded(lambda: parse_policy("sap:100@" + ",".join(["0-9999"] * 100_000)), "sites must be numbers")
    start = time.process_time()
    assert parse_policy("sap:100@0-9999").spec == "sap:100@0-9999"
    assert time.process_time() - start < SECONDS


# Records in a folder.


def records(folder: Path) -> Path:
    """A folder with one record and all that lies beside it."""
    record, found = site_records.synthetic("net", tier="quick", images=8)
    return site_records.write(folder, record, found)


@pytest.mark.parametrize("suffix", [".json", ".run.json", ".images.safetensors"])
def test_a_record_publishes_no_file_from_elsewhere(stranger: Path, tmp_path: Path, suffix: str) -> None:
    """A link in a folder of records must not bring a file of the reader's into the site; one inside may stay."""
    path = records(stranger).with_name(f"net{suffix}")
    kept = stranger / "kept"
    path.rename(kept)
    path.symlink_to(kept)
    assert len(read_folder(stranger)) == 1
    kept.rename(tmp_path / "secret")
    path.unlink()
    path.symlink_to(tmp_path / "secret")

    with pytest.raises(ValueError, match=rf"net{suffix} is a symbolic link out of its folder"):
        read_folder(stranger)


def test_a_text_is_what_it_seems_to_be(stranger: Path) -> None:
    """Characters that turn the direction of what follows would show another command than is copied."""
    path = records(stranger)
    content = json.loads(path.read_text())
    content["model"]["name"] = "net\u202etxt.py:f"
    path.write_text(json.dumps(content))

    with pytest.raises(ValueError, match=r"model\.name holds the unprintable character U\+202E"):
        read_folder(stranger)


@pytest.mark.parametrize(
    "names", [["../secret"], ["/etc/passwd"], ["link/secret"], ["."], [""], ["entries"], ["a\x00b"], [1], {}]
)
def test_a_site_s_list_removes_nothing_else(tmp_path: Path, stranger: Path, names: Any) -> None:
    """What it names must be a file in the site's folder."""
    (tmp_path / "secret").write_text("mine")
    (stranger / "link").symlink_to(tmp_path)
    (stranger / "entries").mkdir()
    (stranger / "manifest.json").write_text(json.dumps(names))

    with pytest.raises(ValueError, match="must list the site's files"):
        build.write({"index.html": b"x"}, stranger)
    assert (tmp_path / "secret").read_text() == "mine"
    assert not (stranger / "index.html").exists()


def test_a_site_is_written_into_its_own_folder(tmp_path: Path, stranger: Path) -> None:
    """Not through a link that somebody left there."""
    (tmp_path / "mine").mkdir()
    (stranger / "entries").symlink_to(tmp_path / "mine")
    (stranger / "manifest.json").write_text("[]")

    with pytest.raises(ValueError, match="entries is a symbolic link out of"):
        build.write({"entries/x.html": b"x"}, stranger)
    assert not list((tmp_path / "mine").iterdir())


def test_names_are_no_markup_of_the_terminal() -> None:
    """A bracket is a bracket, an escape is spelled out."""
    record, _ = site_records.synthetic("net", tier="quick", images=8)
    attacks = [replace(record.attacks[0], id="[/a]"), *record.attacks[1:]]
    odd = replace(record, entry="[/red][link=x]\x1b[2J", data=replace(record.data, set="[/b]"), attacks=attacks)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table.terminal([odd]))
    text = console.export_text()

    assert "[/red][link=x]\\x1b[2J" in text
    assert "[/b], 8 images" in text
    assert "[/a]" in text


@pytest.mark.parametrize(
    "change", [{"\x1b[31mred": 1}, {"entry": "../../x"}, {"tier": "\x1b[31m"}, {"schema": "\x1b[31m" * 10_000}]
)
def test_the_command_names_file_and_field_and_writes_nothing(
    stranger: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, Any],
) -> None:
    """Status 2, a short line, no escape in it."""
    path = records(stranger)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    commands = [["submit", str(path), "--to", str(tmp_path / "out"), "--path", "table", "--force"]]
    if "entry" not in change:
        commands.append(["site", "--records", str(stranger), "--output", str(tmp_path / "out")])
    for command in commands:
        if command[0] == "submit" and "tier" in change:
            continue
        assert run(monkeypatch, *command) == 2
        said = capsys.readouterr().err
        assert said.startswith("sap-art: ")
        assert "\x1b" not in said
        assert len(said) < 1000
    assert not (tmp_path / "out").exists()


# Archives and tensors.


def archive(path: Path, members: list[tuple[str, bytes]], *, packed: bool) -> Path:
    """A zip file with these members, names as they are."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as made:
        for name, content in members:
            made.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED if packed else None)
    return path


def packed_zeros(path: Path) -> Path:
    """100 MiB of images in 100 kB, twenty times."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        with made.open("images.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_2_0(
                member, {"descr": "|u1", "fortran_order": False, "shape": (100 * 2**10, 32, 32, 3)}
            )
            for _ in range(300):
                member.write(bytes(2**20))
        np.lib.format.write_array(made.open("labels.npy", "w"), np.zeros(100 * 2**10, np.int64))
    return path


def test_an_archive_does_not_grow_without_end(stranger: Path) -> None:
    """A small one of images, and one of weights, which torch unpacks too."""
    path = packed_zeros(stranger / "images.npz")
    assert path.stat().st_size < 2**20
    bounded(lambda: data.load(source=path), r"images\.npz is not an archive of images: .* would unpack to 31")
    path.rename(stranger / "net.pt")
    bounded(
        lambda: zoo.load_weights(nn.Linear(1, 1), stranger / "net.pt"), "net.pt is not a checkpoint: .* would unpack"
    )


def test_members_of_an_archive_have_a_name_each(stranger: Path) -> None:
    """Or one reader sees this member and another one that."""
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = archive(stranger / "a.npz", [("images.npy", b"1"), ("images.npy", b"2")], packed=False)

    bounded(lambda: data.load(source=path), "'images.npy' is in it twice")


def test_members_that_lead_elsewhere_are_not_unpacked(stranger: Path, tmp_path: Path) -> None:
    """Nothing is ever unpacked into a folder; a member is read by its name, or not at all."""
    np.savez(stranger / "good.npz", images=np.zeros((1, 2, 2, 3), np.uint8), labels=np.zeros(1, np.int64))
    with zipfile.ZipFile(stranger / "good.npz") as good:
        members = [(name, good.read(name)) for name in good.namelist()]
    members.append(("../../escaped", b"x"))
    path = archive(stranger / "bad.npz", members, packed=True)
    before = sorted(tmp_path.rglob("*"))

    assert len(data.load(source=path)[1]) == 1
    assert sorted(tmp_path.rglob("*")) == before
    path = archive(stranger / "worse.npz", [("images", b"x"), ("labels", b"x")], packed=True)
    with pytest.raises(ValueError, match="must have the keys images and labels"):
        data.load(source=path)


@pytest.mark.parametrize(
    "value",
    [
        torch.eye(2).to_sparse(),
        torch.empty(2, 2, device="meta"),
        torch.zeros(2, 2, dtype=torch.complex64),
    ],
    ids=["sparse", "meta", "complex"],
)
def test_weights_are_dense_tensors_with_values(stranger: Path, value: torch.Tensor) -> None:
    """A net is not half loaded."""
    net = nn.Linear(2, 2)
    before = net.weight.clone()
    torch.save({"weight": value, "bias": torch.ones(2)}, stranger / "net.pt")

    with pytest.raises(ValueError, match=r"must hold dense tensors .*: weight|refused to load .*net\.pt"):
        zoo.load_weights(net, stranger / "net.pt")
    torch.testing.assert_close(net.weight, before)


NET = {"settings": {"epochs": 1}, "epoch": 1, "net": {}}


@pytest.mark.parametrize("state", [[], {}, {"settings": 1}, 1, NET])
def test_a_state_to_resume_from_is_checked(stranger: Path, state: Any) -> None:
    """Whatever it is instead of what was written."""
    torch.save(state, stranger / "state.pt")
    fake: Any = SimpleNamespace(settings={"epochs": 1}, net=nn.Linear(1, 1))

    with pytest.raises(ValueError, match=r"state\.pt is damaged"):
        training._resume(fake, stranger / "state.pt")


def test_a_record_of_a_run_is_read_as_strictly(stranger: Path) -> None:
    """By ``Record.read`` itself, which every command uses."""
    path = records(stranger)
    path.write_text(path.read_text().replace('"eps"', '"eps": 1.0, "eps"', 1))

    with pytest.raises(ValueError, match=r"net\.json is not a valid record: the key 'eps' is there twice"):
        Record.read(path)
