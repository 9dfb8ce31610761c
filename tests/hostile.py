"""Hypothesis strategies for files that were good before somebody changed them."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from hypothesis import strategies as st
from safetensors.torch import load, save

NUMBERS = (0, -1, 1.5, 10**30, -(2**63), 1e308, float("nan"), float("inf"))
TEXTS = (
    "",
    " ",
    "x" * 300,
    "\x1b[2J",
    "\ud800",
    "a\nb",
    "../../x",
    "/etc/passwd",
    "a\x00b",
    "\u202egnp.exe",
    "[/bold]",
)
NESTED: tuple[Any, ...] = ([], {}, [[]], [None] * 50, {"a": {"b": []}})
ODD = (None, True, *NUMBERS, *TEXTS, *NESTED)
"""What a field may hold that should not."""
TOML = (
    *("nan", "-inf", "1979-05-27", "true", "[]", "{}", "-1", "0x10", "[[[[1]]]]", '"""x"""', '""'),
    *('"../../x.safetensors"', '"/etc/passwd.pt"', '"os:abort"', '"robustbench:nobody"', r'"a\u0000b"', r'"\u001b[2J"'),
    *('"1e999999999"', '"1e400"', '"sap:1e400"', '"sap:nan"', '"sap:"', '"sap:100@0-9999,0-9999"'),
    *("9" * 5000, "1" + "0" * 30, "[" * 3000),
)


@st.composite
def changed_json(draw: st.DrawFn, good: Any) -> bytes:
    """JSON with one to three of its values replaced, removed, doubled or put elsewhere."""
    tree = json.loads(json.dumps(good))
    for _ in range(draw(st.integers(1, 3))):
        if places := _places(tree):
            _change(draw, tree, draw(st.sampled_from(places)))
    return json.dumps(tree, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


@st.composite
def changed_bytes(draw: st.DrawFn, good: bytes) -> bytes:
    """Bytes cut, flipped, put in or taken out in up to four places."""
    content = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        kind = draw(st.sampled_from(["cut", "flip", "insert", "remove", "repeat"]))
        if kind == "cut":
            del content[at:]
        elif kind == "flip" and content:
            content[at] ^= draw(st.integers(1, 255))
        elif kind == "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif kind == "remove":
            del content[at : at + draw(st.integers(1, 64))]
        else:
            content[at:at] = content[at : at + 40] * draw(st.integers(1, 20))
    return bytes(content)


@st.composite
def changed_toml(draw: st.DrawFn, good: str) -> bytes:
    """A suite with values, keys and lines that are not its own."""
    lines = good.splitlines()
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        key = lines[at].partition("=")[0].strip() or "x"
        kind = draw(st.sampled_from(["value", "value", "value", "key", "twice", "without", "text"]))
        if kind == "value":
            lines[at] = f"{key} = {draw(st.sampled_from(TOML))}"
        elif kind == "key":
            lines[at] = f'"{draw(st.sampled_from(["x", ".".join("abc"), "a" * 300]))}" = 1'
        elif kind == "twice":
            lines[at:at] = [lines[at]]
        elif kind == "without":
            lines[at] = ""
        else:
            lines[at] = draw(st.text(max_size=30))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


@st.composite
def changed_safetensors(draw: st.DrawFn, good: bytes) -> bytes:
    """Its header changed as JSON and put back with its own length, or with another; or bytes changed anywhere."""
    (size,) = struct.unpack("<Q", good[:8])
    header, body = json.loads(good[8 : 8 + size]), good[8 + size :]
    kind = draw(st.sampled_from(["bytes", "header", "tensor", "tensor"]))
    if kind == "bytes":
        return draw(changed_bytes(good))
    name = draw(st.sampled_from(sorted(header)))
    if kind == "tensor":
        tensors = load(good)
        tensors[name] = draw(st.sampled_from(_in_its_place(tensors[name])))
        return save(tensors)
    field, value = draw(st.sampled_from(HEADER))
    header[name][field] = value
    if field in ("dtype", "shape") and draw(st.booleans()):  # of a size that fits
        header[name]["shape"] = draw(st.sampled_from([[0], [1], [], [0, 7], header[name].get("shape")]))
    if draw(st.booleans()):
        header[draw(st.sampled_from(["x", "__metadata__", "\x1b[2J", "k" * 10_000]))] = header[name]
    text = json.dumps(header).encode()
    length = draw(st.sampled_from([len(text), len(text), len(text) - 1, 2**63, 100_000_001, 0]))
    return struct.pack("<Q", length) + text + body


@st.composite
def changed_zip(draw: st.DrawFn, good: bytes) -> bytes:
    """An archive with members renamed, doubled, left out, changed inside, or packed; or bytes changed anywhere."""
    if draw(st.integers(0, 3)) == 0:
        return draw(changed_bytes(good))
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    at = draw(st.integers(0, len(members) - 1))
    name, content = members[at]
    kind = draw(st.sampled_from(["rename", "double", "without", "inside", "inside", "zeros"]))
    if kind == "rename":
        members[at] = (draw(st.sampled_from(["../x", "/x", "x" * 300, "images", "images.npy", ""])), content)
    elif kind == "double":
        members.append((name + draw(st.sampled_from(["", "/", ".npy"])), content))
    elif kind == "without":
        del members[at]
    elif kind == "inside":
        members[at] = (name, draw(changed_bytes(content)))
    else:
        members[at] = (name, content + bytes(2**20))
    buffer = io.BytesIO()
    packing = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    with zipfile.ZipFile(buffer, "w", packing) as archive, warnings.catch_warnings(action="ignore"):
        for inside, what in members:  # two of one name are meant
            archive.writestr(zipfile.ZipInfo(inside), what)
    return buffer.getvalue()


HEADER: list[tuple[str, Any]] = [
    *(("dtype", kind) for kind in ("F64", "I64", "BOOL", "F8_E4M3", "C64", "U16", "F4", "none", 1)),
    *(("shape", shape) for shape in ([], [0], [1], [2**40], [0, 2**62], [2**62, 2**62], [-1], 3)),
    *(("data_offsets", ends) for ends in ([0, 0], [0, 2**50], [8, 0])),
    ("more", 1),
]


def _in_its_place(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Tensors that are not what this one should be: one axis too few or many, empty, of another type, out of range."""
    shapes = [tensor.sum(), tensor[:0], tensor[:1].clone(), tensor[None], tensor[..., :0], torch.zeros(3, 0, 3)]
    types = [
        tensor.to(t) for t in (torch.float64, torch.int64, torch.uint8, torch.bool, torch.complex64, torch.bfloat16)
    ]
    values = [-tensor, tensor + 100, torch.full_like(tensor, 255)]
    return [t.contiguous() for t in (*shapes, *types, *values)]


def _places(tree: Any) -> list[tuple[Any, ...]]:
    """Of the values in it the keys that lead there, from the outermost; of a list the first few only."""
    left: list[tuple[tuple[Any, ...], Any]] = [((), tree)]
    for place, value in left:
        items: Sequence[tuple[Any, Any]] = ()
        if isinstance(value, dict):
            items = list(value.items())
        elif isinstance(value, list):
            items = list(enumerate(value))[:3]
        left += [((*place, key), item) for key, item in items]
    return [place for place, _ in left[1:]]


def _change(draw: Callable[[Any], Any], tree: Any, place: tuple[Any, ...]) -> None:
    """At a place that is there still."""
    holder = tree
    for key in place[:-1]:
        holder = holder[key]
    key, odd = place[-1], deepcopy(draw(st.sampled_from(ODD)))
    if isinstance(holder, list):
        holder[key:] = draw(st.sampled_from([[], [odd], deepcopy(holder[key:]) * 2]))
        return
    kind = draw(st.sampled_from(["value", "value", "value", "without", "more", "key"]))
    if kind == "value":
        holder[key] = odd
    elif kind == "without":
        del holder[key]
    elif kind == "more":
        holder[draw(st.sampled_from(["x", "", "\x1b[2J", "k" * 300]))] = deepcopy(holder[key])
    else:
        holder[draw(st.sampled_from(["x", "clean", "\ud800"]))] = holder.pop(key)
