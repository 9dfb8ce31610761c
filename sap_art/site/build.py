"""Builds the site: records in, files out, nothing else looked at; and says whether one that is there is stale."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sap_art.integrations.robustbench.export import model_info
from sap_art.site import exports, plots
from sap_art.site.entry_page import entry_page
from sap_art.site.pages import compare_page, index_page
from sap_art.site.plots import Plot
from sap_art.site.ranking import rank_entries
from sap_art.site.reading import RUN, Entry, read_folder
from sap_art.site.rows import Row, rows_of
from sap_art.untrusted import is_inside, read_json

MANIFEST = "manifest.json"
COMPARED = ("accuracy-eps", "reliability-adversarial")
Files = dict[str, bytes]


def render(records: Path, *, watch: Callable[[str], None] = lambda entry: None) -> Files:
    """All files of the site by their path in it: the same records give the same bytes, with the same matplotlib.

    Raises:
        ValueError: an invalid record; the message names file and field.
        ImportError: matplotlib or jinja2 is missing.
    """
    entries = read_folder(records)
    ranking = rank_entries(entries)
    rows = rows_of(entries, ranking)
    files = _exports(entries, rows)
    drawn: dict[str, list[dict[str, Any]]] = {}
    by_slug = {row["slug"]: row for row in rows}
    for entry in entries:
        watch(entry.record.entry)
        found = list(_drawn(entry))
        page = entry_page(entry, by_slug[entry.slug], entries, ranking, found)
        files[f"entries/{entry.slug}.html"] = page.encode()
        files |= _data(entry)
        drawn[entry.slug] = [plot for plot in found if plot["name"] in COMPARED]
    files["compare.html"] = compare_page(entries, rows, ranking, drawn).encode()
    files[MANIFEST] = (json.dumps(sorted([*files, MANIFEST]), indent=2) + "\n").encode()
    return dict(sorted(files.items()))


def write(files: Mapping[str, bytes], output: Path) -> None:
    """Make ``output`` hold these files; what an earlier build left there goes, what is not ours stays.

    Raises:
        ValueError: the folder is not empty and holds no site of ours; nothing in it is touched.
    """
    before = _listed(output)
    for name, content in files.items():
        path = output / name
        if not is_inside(path.parent, output):
            raise ValueError(f"{path.parent} is a symbolic link out of {output}; choose another --output")
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_bytes(content)
        os.replace(part, path)
    for name in before - set(files):
        (output / name).unlink(missing_ok=True)


def stale(files: Mapping[str, bytes], output: Path) -> list[str]:
    """The files of a site that are missing, differ from these, or should not be there any more."""
    differing = [name for name, content in files.items() if _content(output / name) != content]
    return sorted([*differing, *(name for name in _listed(output) - set(files) if (output / name).exists())])


def _exports(entries: Sequence[Entry], rows: Sequence[Row]) -> Files:
    fragments = exports.robustbench_fragments([entry.record for entry in entries if entry.control is None])
    words = {name: name.removeprefix("robustbench-").removesuffix(".html") for name in fragments}
    ordered = {entry.slug: entry for entry in entries}
    texts = {
        "index.html": index_page(entries, rows, words),
        "leaderboard.csv": exports.csv_text(rows),
        "leaderboard.json": exports.json_text(rows),
        "leaderboard.bib": exports.bib_text([ordered[row["slug"]] for row in rows]),
        **fragments,
    }
    return {name: text.encode() for name, text in texts.items()}


def _data(entry: Entry) -> Files:
    """The record, its run and what RobustBench would read, to download."""
    info = json.dumps(model_info(entry.record), indent=2, sort_keys=True, allow_nan=False) + "\n"
    files = {f"records/{entry.slug}.json": entry.path.read_bytes(), f"model_info/{entry.slug}.json": info.encode()}
    run = entry.path.with_name(entry.path.name.removesuffix(".json") + RUN)
    return {**files, f"records/{entry.slug}{RUN}": run.read_bytes()} if entry.run is not None else files


def _drawn(entry: Entry) -> Iterator[dict[str, Any]]:
    from markupsafe import Markup

    from sap_art.site.svg import inline

    for plot in plots.plots_of(entry.record, entry.images):
        svg = Markup(inline(plot, salt=entry.slug))
        yield {**_described(plot), "svg": svg}


def _described(plot: Plot) -> dict[str, Any]:
    return {"name": plot.name, "title": plot.title, "says": plot.says, "header": plot.header, "rows": plot.rows}


def _listed(output: Path) -> set[str]:
    """What an earlier build says that it left there; raises ValueError if there is something else instead."""
    manifest = output / MANIFEST
    if not manifest.exists():
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise ValueError(f"{output} is not empty and holds no site of ours; choose another --output")
        return set()
    names = read_json(manifest, what=f"the list of a site's files; delete {output}")
    if not isinstance(names, list) or not all(isinstance(n, str) and _is_plain(n, output) for n in names):
        raise ValueError(f"{manifest} must list the site's files; delete {output}")
    return set(names)


def _is_plain(name: str, output: Path) -> bool:
    """Whether it can be the name of a file of a site: renewing one removes what its list names."""
    return name.isprintable() and is_inside(output / name, output) and not (output / name).is_dir()


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
