"""Files from strangers: read within bounds, and whatever is odd about one is a ValueError that names it."""

from __future__ import annotations

import json
import math
import os
import re
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 64 * 2**20
"""Bytes that a record, a card, a suite, or what lies beside them may have."""
LARGEST_TOML = 2**20
MOST_DOTS = 5000
"""In a TOML file: tomllib keeps each beginning of a key a.b.c..., so that one of 100,000 parts takes 40 GB."""
MOST_PACKED = 100
"""Times its size that an archive above ``LARGEST`` may unpack to; images pack to a half, zeros to a thousandth."""
LONGEST_NAME = 200
"""Bytes of an entry's name; file systems take 255, and what lies beside a record has a longer one."""
WHOLE_BITS = 64
DEEPEST = 32
"""Lists and objects in each other; a record has six."""
SHOWN = 60
SURROGATE = re.compile("[\ud800-\udfff]")
Kind = TypeVar("Kind")


def read_bytes(path: Path, *, what: str, most: int | None = LARGEST) -> bytes:
    """All bytes of a regular file, at most ``most``; ``what`` it should be is said in the error.

    Raises:
        ValueError: no regular file, for a pipe or a device may never end; or too large.
        OSError: it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not {what}: it is no regular file")
    with path.open("rb") as file:
        content = file.read() if most is None else file.read(most + 1)
    if most is not None and len(content) > most:
        raise ValueError(f"{path} is not {what}: it has {path.stat().st_size:,} bytes, at most {most:,} are allowed")
    return content


def read_json(path: Path, *, what: str) -> Any:
    """A JSON file as ``parse_json`` has it, of at most ``LARGEST`` bytes; raises as ``read_bytes``."""
    content = read_bytes(path, what=what)
    try:
        return parse_json(content)
    except ValueError as error:
        raise ValueError(f"{path} is not {what}: {error}") from error


def parse_json(content: bytes) -> Any:
    """JSON that every reader understands alike: UTF-8, each key once, numbers that are finite and of up to 64 bits.

    >>> parse_json(b'{"a": [1, 2.5]}')
    {'a': [1, 2.5]}

    Raises:
        ValueError: anything else, or more than ``DEEPEST`` values in each other; the message names the field.
    """
    try:
        found = json.loads(content.decode("utf-8"), object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if problem := next(_odd(found), None):
        raise ValueError(problem)
    return found


def read_toml(path: Path, *, what: str) -> dict[str, Any]:
    """A TOML file of at most ``LARGEST_TOML`` bytes and ``MOST_DOTS`` dots; raises as ``read_bytes``."""
    content = read_bytes(path, what=what, most=LARGEST_TOML)
    if (dots := content.count(b".")) > MOST_DOTS:
        raise ValueError(f"{path} is not {what}: it has {dots:,} dots, at most {MOST_DOTS:,} are allowed")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # a number may have too many digits, a list be nested too deeply
        raise ValueError(f"{path} is not {what}: {visible(error)}") from error


def read_tensors(path: Path, *, what: str, most: int | None = LARGEST) -> dict[str, Tensor]:
    """The tensors of a safetensors file on the CPU, by name; raises as ``read_bytes``, ValueError if it is damaged."""
    from safetensors.torch import load  # and with it torch, which the command line's help does without

    content = read_bytes(path, what=what, most=most)
    try:
        return load(content)
    except Exception as error:  # SafetensorError, and whatever the conversion makes of a strange header
        raise ValueError(f"{path} is not {what}: cut short or no safetensors file: {shortened(error, 200)}") from error


def require_no_bomb(path: Path, *, what: str) -> None:
    """Raise ValueError for a zip archive that unpacks to far more than it has, or to members that hide each other."""
    try:
        if not zipfile.is_zipfile(path):  # which may raise too: of an archive on several disks
            return
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise ValueError(f"{path} is not {what}: a damaged archive: {shortened(error, 200)}") from error
    size, unpacked = path.stat().st_size, sum(member.file_size for member in members)
    if unpacked > max(LARGEST, MOST_PACKED * size):
        raise ValueError(f"{path} is not {what}: {size:,} bytes that would unpack to {unpacked:,}")
    names = Counter(member.filename for member in members)
    if names and names.most_common(1)[0][1] > 1:
        raise ValueError(f"{path} is not {what}: '{shortened(names.most_common(1)[0][0])}' is in it twice")


def validated(kind: type[Kind], found: Any) -> Kind:
    """What was found in a file as JSON or TOML, as a ``kind``; raises ValueError with the first fields that are off."""
    from pydantic import TypeAdapter, ValidationError

    try:
        # As JSON, where strict types do not mean that the parts must be dataclasses already.
        return TypeAdapter(kind).validate_json(json.dumps(found, default=_named))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        said = [f"{_place(e['loc'])}: {visible(e['msg'])[:400]}" for e in errors[:5]]
        more = [f"and {len(errors) - 5} more"] if len(errors) > 5 else []
        raise ValueError("; ".join([*said, *more])) from error


def file_name(name: str, suffix: str) -> str:
    """``name + suffix`` as the name of a file in a folder, out of which it cannot lead.

    >>> file_name("net-sap-100", ".json")
    'net-sap-100.json'

    Raises:
        ValueError: a name that is empty, too long or unprintable, that has a separator in it or starts with a dot.
    """
    plain = name.isprintable() and not name.startswith(".") and not set(name) & set("/\\:")
    if not name or not plain or len(os.fsencode(name)) > LONGEST_NAME:
        raise ValueError(f"'{shortened(name)}' must be the name of a file or folder, without a path")
    return f"{name}{suffix}"


def is_inside(path: Path, *folders: Path) -> bool:
    """Whether ``path`` is below one of the folders, wherever symbolic links lead."""
    real = Path(os.path.realpath(path))
    return any(real.is_relative_to(os.path.realpath(folder)) for folder in folders)


def visible(text: object) -> str:
    r"""``text`` with everything spelled out that is not printable, but for line ends and tabs: no terminal obeys it.

    >>> visible("red: \x1b[31m")
    'red: \\x1b[31m'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in str(text))


def shortened(text: object, most: int = SHOWN) -> str:
    """A text as an error message can show it within quotes: at most ``most`` characters of it, in ASCII."""
    text = str(text)
    return ascii(text if len(text) <= most else f"{text[: most - 3]}...")[1:-1]


def _named(value: object) -> dict[str, str]:
    """A date of TOML as what fits nowhere, so that the field is named."""
    return {type(value).__name__: str(value)}


def _place(loc: tuple[int | str, ...]) -> str:
    return ".".join(shortened(part) for part in loc) or "the whole"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key '{shortened(twice)}' is there twice")
    return found


def _odd(found: Any) -> Iterator[str]:
    """What is wrong with values that JSON can say and other readers may not, each with its place."""
    left: list[tuple[str, Any, int]] = [("", found, 1)]
    while left:
        place, value, depth = left.pop()
        if depth > DEEPEST:
            yield f"{place[:SHOWN]}... is nested too deeply"
        elif isinstance(value, dict):
            left += ((f"{place}.{shortened(key)}".removeprefix("."), item, depth + 1) for key, item in value.items())
            left += ((f"a key of {place or 'the whole'}", key, depth) for key in value)
        elif isinstance(value, list):
            left += ((f"{place}[{number}]", item, depth + 1) for number, item in enumerate(value))
        elif problem := _problem(value):
            yield f"{place or 'the whole'} {problem}"


def _problem(value: Any) -> str | None:
    if isinstance(value, str) and SURROGATE.search(value):
        return "has half of a surrogate pair, which is no character"
    if isinstance(value, float) and not math.isfinite(value):
        return f"must be a finite number, got {value}"
    if isinstance(value, int) and value.bit_length() > WHOLE_BITS:
        return f"must be a number of at most {WHOLE_BITS} bits, got one of {value.bit_length()}"
    return None
