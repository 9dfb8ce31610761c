"""The evaluator beside what other people use: the table of README.md, from records alone.

    python benchmarks/controls/table.py --records DIR --references DIR

``--records`` holds the controls.json of run.py and gets comparison.md; ``--references`` holds the ``<control>.json`` of
references.py, which may be fewer. Exit status: 0 done, 2 bad input.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from expectations import Result, Results
from libraries import PGD, RAND, STANDARD
from references import Outcome, Reference

from sap_art.table import ABSENT, VERDICTS

COLUMNS = ("control", "AutoAttack-rand reports", "ART PGD reports", "sap_art reports", "truth")
RULE = ("---", "---:", "---:", "---", "---:")
ERRORS = (
    "Errors, which are no accuracies. A FloatingPointError is sap_art's, which stops a library at NaN; left to itself, "
    "the library goes on and reports a number:"
)
ORDER = (RAND, PGD, STANDARD)
SAME = ("dataset", "norm", "eps", "seed")
References = Mapping[str, Reference]
Read = TypeVar("Read")


def main() -> int:
    arguments = parse()
    try:
        text = markdown(*read(arguments.records, arguments.references))
        (arguments.records / "comparison.md").write_text(text, encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"table: {error}", file=sys.stderr)
        return 2
    print(text)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare what the libraries and sap_art report of the controls.")
    parser.add_argument("--records", type=Path, required=True, metavar="DIR", help="of controls.json")
    parser.add_argument("--references", type=Path, required=True, metavar="DIR", help="of <control>.json")
    return parser.parse_args()


def read(records: Path, references: Path) -> tuple[Results, dict[str, Reference]]:
    """What run.py found, and the records of references.py by control.

    Raises:
        FileNotFoundError: no controls.json.
        ValueError: no reference, files that are no such records, or records of runs that cannot be compared.
    """
    ours = _read(Results, records / "controls.json")
    theirs = {path.stem: _read(Reference, path) for path in sorted(references.glob("*.json"))}
    if not theirs:
        raise ValueError(f"{references} holds no <control>.json; references.py leaves them in its records/")
    first = next(iter(theirs.values()))
    for name, found in theirs.items():
        differing = [key for key in SAME if getattr(found, key) != getattr(ours, key)]
        differing += [key for key in ("ids_sha256", "budget", "versions") if getattr(found, key) != getattr(first, key)]
        if differing:
            raise ValueError(f"{references / name}.json is of another run than the rest: {', '.join(differing)} differ")
    return ours, theirs


def markdown(ours: Results, theirs: References) -> str:
    """Caption, a line a control, and what crashed."""
    rows = [_row(result, theirs) for result in ours.results]
    lines = ["| " + " | ".join(cells) + " |" for cells in (COLUMNS, RULE, *rows)]
    crashes = _crashes(ours, theirs)
    below = ["", ERRORS, "", *crashes] if crashes else []
    return "\n".join([_caption(ours, next(iter(theirs.values()))), "", *lines, *below]) + "\n"


def _caption(ours: Results, theirs: Reference) -> str:
    budget = theirs.budget
    return (
        f"{ours.dataset}, {ours.norm} eps = {ours.eps * 255:.4g}/255, seed {ours.seed}; accuracy in %. "
        f"AutoAttack-rand ({budget.autoattack_steps} steps, {budget.autoattack_draws} draws) and ART's PGD "
        f"({budget.pgd_steps} steps, {budget.pgd_draws} draws) on {theirs.images} images: what the library prints and, "
        f"in brackets, what {budget.report_draws} fresh draws an image say of the points that it returned. "
        f"sap_art: tier {ours.tier}, {ours.images} images, T1 with its 95 % interval, verdict and raised R flags."
    )


def _crashes(ours: Results, theirs: References) -> list[str]:
    """A line each, in the order of the table."""
    known = [(result.control, theirs[result.control].outcomes) for result in ours.results if result.control in theirs]
    errors = [(name, key, outcomes[key].error) for name, outcomes in known for key in ORDER if key in outcomes]
    return [f"- {name}, {key}: {' '.join(error.split())}" for name, key, error in errors if error is not None]


def _row(result: Result, theirs: References) -> tuple[str, ...]:
    outcomes = theirs[result.control].outcomes if result.control in theirs else {}
    return (
        result.control,
        _outcome(outcomes.get(RAND)),
        _outcome(outcomes.get(PGD)),
        _ours(result),
        _truth(result.truth, theirs),
    )


def _outcome(outcome: Outcome | None) -> str:
    if outcome is None:
        return ABSENT
    if outcome.reported is None or outcome.fresh is None:
        return "error"
    return f"{100 * outcome.reported:.1f} ({100 * outcome.fresh:.1f})"


def _ours(result: Result) -> str:
    if result.T1 is None or result.verdict is None:
        return "not run"
    flags = [code for code, level in result.raised.items() if level == "R"]
    worst = f"{100 * result.T1.value:.1f} [{100 * result.T1.low:.1f}, {100 * result.T1.high:.1f}]"
    return f"{worst}, {VERDICTS[result.verdict]}" + (f": {', '.join(flags)}" if flags else "")


def _truth(truth: float | str, theirs: References) -> str:
    """The number, or what that library reports of that control; the name of both until it is there."""
    if not isinstance(truth, str):
        return f"{100 * truth:.1f}"
    library, _, control = truth.partition(" of ")
    outcome = theirs[control].outcomes.get(library) if control in theirs else None
    if outcome is None or outcome.reported is None:
        return truth
    return f"{100 * outcome.reported:.1f} ({truth})"


def _read(kind: type[Read], path: Path) -> Read:
    from pydantic import TypeAdapter

    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no record of this version's scripts: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
