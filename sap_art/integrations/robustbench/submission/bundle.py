"""Bundles to hand in: for each honest path of an entry its files, checked, and the words that go with them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from sap_art import zoo
from sap_art.integrations.robustbench.submission import rules, texts
from sap_art.integrations.robustbench.submission.rules import PATHS
from sap_art.integrations.robustbench.submission.writers import WRITERS, Case
from sap_art.record import Record, write_text


@dataclass(frozen=True)
class Submission:
    """What was written where: a path -> one line on it; and each path that is not in it, with the reason."""

    folder: Path
    written: dict[str, str]
    left_out: dict[str, str]


def find_record(entry: str, records: Path | None) -> Path:
    """The record file that ``sap-art submit`` means: FILE.json, or an entry's name in the output folder of a run.

    Raises:
        ValueError: a name without a folder, or no such file; the message says what is there.
    """
    if entry.endswith(".json"):
        path = Path(entry).expanduser()
    elif records is None:
        raise ValueError(f"where is {entry!r}? give --records OUTPUT of sap-art bench, or the record's file itself")
    else:
        path = records.expanduser() / "records" / f"{entry}.json"
    if not path.is_file():
        there = sorted(p.stem for p in path.parent.glob("*.json") if not p.name.endswith(".run.json"))
        raise ValueError(f"no record {path}; there: {', '.join(there) or 'none'}")
    return path


def submit(
    path: Path,
    to: Path,
    *,
    paths: Sequence[str] | None = None,
    force: bool = False,
    source: str | None = None,
    device: str = "cpu",
    load_model: Callable[[str], nn.Module] = zoo.load_model,
    trust_code: bool = False,
) -> Submission:
    """Write the bundle of one entry into the new folder ``to``, all of it or nothing.

    ``table``: the record and its RobustBench-style JSON, for our own table. ``new-model``: a deterministic net as one
    file of Python with its weights, and the text of RobustBench's issue. ``fixed-mask``: the same of the deterministic
    relative of a net under SAP, with numbers of its own. ``external``: the adversarial images, checked, the accuracy of
    every draw on them, and the text of RobustBench's issue.

    Args:
        path: of the record; for all but ``table`` it lies in ``records/`` of an output folder of ``sap-art bench``.
        to: must not exist, or be empty.
        paths: of ``PATHS``; None takes all that are honest for this entry.
        force: hand in an evaluation that cannot be trusted, with a footnote that says so.
        source: of the images of the run, as in ``sap_art.data.load``. The mask is drawn from training images where it
            is a directory, else from test images behind those of the run.
        device: where the model is to be run.
        load_model: gives the net of a reference, as the run did; ``sap_art.models.Loader()`` knows RobustBench's too.
        trust_code: whether the run may name code, which is run; see ``sap_art.suites.load``.

    Raises:
        Refused: rules forbid a path that was asked for, or the evaluation cannot be trusted and is not forced.
        ValueError: the record, the run, the images or ``to`` are not as said here; a model that cannot be written.
        FileNotFoundError: images, or a user's file that makes the net, are not there.
    """
    record = Record.read(path)
    rules.require_reliable(record, force=force)
    if unknown := [name for name in paths or () if name not in PATHS]:
        raise ValueError(f"unknown path {unknown[0]!r}; known: {', '.join(PATHS)}")
    for name in paths or ():
        rules.require_allowed(name, record)
    chosen = list(dict.fromkeys(paths or rules.allowed_paths(record)))
    case = Case(path, record, source, device, load_model, trust_code)
    with _new_folder(to) as folder:
        written = {name: WRITERS[name](case, folder / name) for name in chosen}
        reasons = {name: rules.reason_against(name, record) or "not asked for" for name in PATHS if name not in chosen}
        write_text(texts.overview(record, written, reasons), folder / "README.md")
    return Submission(to, written, reasons)


@contextmanager
def _new_folder(to: Path) -> Generator[Path]:
    """A folder beside ``to`` that takes its name if all went well, and is gone if not."""
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ValueError(f"{to} is there already and is not empty; choose another --to")
    to.absolute().parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{to.name}-", dir=to.absolute().parent))
    try:
        yield folder
        folder.chmod(0o755)
        if to.exists():
            to.rmdir()
        os.replace(folder, to)
    except BaseException:
        shutil.rmtree(folder)
        raise
