"""A folder of records, read and checked: what is wrong is an error that names file and field."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sap_art.per_image import SUFFIX, PerImage
from sap_art.record import Record
from sap_art.site.checks import TEXT_LENGTH, UNPRINTABLE, problems
from sap_art.untrusted import is_inside, read_json, read_toml, shortened

RUN = ".run.json"
CONTROLS = "controls.toml"
"""Beside records, if any of them are controls: their entries, each with what is known of it beforehand."""
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Entry:
    """One record and what lies beside it; ``slug`` names its files in the site.

    ``control``: what is known of it beforehand, if it is no submission but puts the evaluation to the test.
    """

    slug: str
    record: Record
    path: Path
    run: dict[str, Any] | None
    images: PerImage | None
    control: str | None = None


def read_folder(folder: Path) -> list[Entry]:
    """All entries of a folder, in the order of their names.

    Raises:
        ValueError: no records there, an invalid one, two of one name, or a control that has no record; the message
            names file and field.
    """
    paths = sorted(p for p in folder.glob("*.json") if not p.name.endswith(RUN)) if folder.is_dir() else []
    if not paths:
        inside = folder / "records"
        hint = f"did you mean {inside}?" if inside.is_dir() else "sap-art bench writes them into OUTPUT/records"
        raise ValueError(f"no records (*.json) in {folder}; {hint}")
    for path in paths:
        _require_own(path, folder)
    found = [(path, read_record(path)) for path in paths]
    _require_distinct(found)
    slugs = slugs_of([record.entry for _, record in found])
    controls = read_controls(folder, [record.entry for _, record in found])
    entries = [
        Entry(slugs[r.entry], r, path, _run(path), read_images(path, r), controls.get(r.entry)) for path, r in found
    ]
    return sorted(entries, key=lambda entry: entry.record.entry)


def read_record(path: Path) -> Record:
    """Read one record and check all that the site shows of it.

    Raises:
        ValueError: it is no record, or holds what no evaluation writes; the message names file and field.
    """
    record = Record.read(path)
    if wrong := list(problems(record)):
        raise ValueError(f"{path} is not a valid record: {'; '.join(wrong[:5])}")
    return record


def read_images(path: Path, record: Record) -> PerImage | None:
    """What lies beside a record's file, image by image; None if nothing does."""
    beside = path.with_name(path.name.removesuffix(".json") + SUFFIX)
    if not beside.exists():
        return None
    _require_own(beside, path.parent)
    found = PerImage.read(beside, images=record.data.n, counts_sha256=record.counts_sha256)
    if record.precision is not None and len(found.worst) != record.precision.m:
        raise ValueError(f"{beside}: worst_right has {len(found.worst)} draws, precision.m is {record.precision.m}")
    return found


def read_controls(folder: Path, entries: Sequence[str]) -> dict[str, str]:
    """Which of the entries of a folder are controls, and what is known of each; none without ``controls.toml``.

    Raises:
        ValueError: not TOML, no text, or an entry that is not there; the message names file and entry.
    """
    path = folder / CONTROLS
    if not path.exists():
        return {}
    _require_own(path, folder)
    found = read_toml(path, what="valid TOML")
    for entry, known in found.items():
        if not isinstance(known, str) or not known.strip() or len(known) > TEXT_LENGTH or UNPRINTABLE.search(known):
            raise ValueError(f"{path}: '{shortened(entry)}' must have a text that says what is known of it")
        if entry not in entries:
            raise ValueError(f"{path}: no record of the entry '{shortened(entry)}' is in {folder}")
    return found


def slugs_of(names: Sequence[str]) -> dict[str, str]:
    """A file name for each entry, distinct wherever case counts or not: the entry's own where that is plain."""
    slugs: dict[str, str] = {}
    for name in sorted(names):
        slug = name if PLAIN.fullmatch(name) else re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:60]
        if slug != name or slug.casefold() in {taken.casefold() for taken in slugs.values()}:
            slug = f"{slug}-{hashlib.sha256(name.encode()).hexdigest()[:8]}".removeprefix("-")
        slugs[name] = slug
    return slugs


def _require_distinct(found: Sequence[tuple[Path, Record]]) -> None:
    first: dict[str, Path] = {}
    for path, record in found:
        if record.entry in first:
            raise ValueError(f"{path}: entry '{shortened(record.entry)}' is that of {first[record.entry]} too")
        first[record.entry] = path


def _run(path: Path) -> dict[str, Any] | None:
    """The sidecar: seconds, machine, versions, as texts, numbers and lists of these."""
    beside = path.with_name(path.name.removesuffix(".json") + RUN)
    if not beside.exists():
        return None
    _require_own(beside, path.parent)
    found = read_json(beside, what="a sidecar of a record")
    if not isinstance(found, dict):
        raise ValueError(f"{beside} is not a sidecar of a record: must be an object, got {type(found).__name__}")
    if wrong := list(_odd(found)):
        raise ValueError(f"{beside} is not a sidecar of a record: {wrong[0]}")
    return found


def _odd(found: dict[str, Any]) -> Iterator[str]:
    for key, value in found.items():
        parts = value if isinstance(value, list) else [value]
        if odd := [part for part in parts if not isinstance(part, str | int | float | None)]:
            yield f"{shortened(key)} must be text, a number or a list of these, got {type(odd[0]).__name__}"
        elif len(key) > 100 or len(str(value)) > 1000:
            yield f"{shortened(key)} is too long"
        elif not all(str(text).isprintable() for text in (key, *parts)):
            yield f"{shortened(key)} holds an unprintable character"


def _require_own(path: Path, folder: Path) -> None:
    """A record of a stranger's must not publish a file of the reader's, under the name of a record."""
    if not is_inside(path, folder):
        raise ValueError(f"{path} is a symbolic link out of its folder; put the file there instead")
