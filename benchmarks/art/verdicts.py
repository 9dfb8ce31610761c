"""How the four runs of ART's tests have to agree, and the page that says test by test how they ended.

``off`` ends as ``plain``, failures with the same message, but for FLOAT64. ``fixed`` ends as ``off``, up to the numbers
in messages: a function of one image has to pass what the net passes, and may pass more (PASSES). ``on`` ends as
``off``, or so does ``fixed``: then nothing but randomness makes the difference. Both may differ by what the defence
says (REFUSALS), by equality with what the net gives without it (UNDEFENDED), and where a mask that moves with the image
is enough (STEPS).
"""

from __future__ import annotations

import json
import platform
import re
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

Outcome = tuple[str, str]
Run = dict[str, Outcome]
Results = dict[str, Run]
RUNS = ("plain", "off", "on", "fixed")
ABSENT: Outcome = ("absent", "")
PACKAGES = (
    *("adversarial-robustness-toolbox", "torch", "numpy", "scipy", "scikit-learn", "pytest"),
    *("numba", "kornia", "multiprocess", "opencv-python-headless", "cma"),
)

HEAD = """# ART's own tests on SAPClassifier

Written by `python benchmarks/art/own_tests.py TREE --output benchmarks/art/results`, TREE being ART's source
distribution. `plain` is ART's own classifier; `off` is `defend(classifier, policy="none")`; `on` is SAP at 100 % as a
user gets it; `fixed` is SAP at 100 % with random numbers that never change, so that only what is random differs from
`on`; it also answers outside `clip_values`. MNIST and ART's weights are not in its source distribution: stand-ins take
their place, and comparisons with stored numbers fail everywhere. `error` is a failure in a fixture.
"""

FLOAT64 = re.compile(r"^RuntimeError: (Input type \(double\)|mat1 and mat2 must have the same dtype, but got Double)")
BEHIND = re.compile(r"^AttributeError: `np\.\w+` was removed in the NumPy 2.0 release")
"""What a test may fail by further on, of itself."""
CAST = "ART's own classifier fails: numpy 2 makes float64 of its images, which are cast here"
REFUSALS = {
    "no activation was met": "refused: the net has no activation, there is nothing to defend",
    "the net cannot take an image of input_shape": "refused: the net does not take the declared input_shape",
    "outside clip_values": "refused: the attack leaves clip_values, the defence names its attack view",
    "NaN or inf": "refused: the attack asks about NaN, the defence names its attack view",
}
WITHOUT = "has to equal what the net's layers give without the defence"
EQUAL_ANSWERS = "random: two answers, or an answer and a number, have to be equal"
SINGLE_ANSWERS = "random: what is asserted of a single answer or a single run of an attack"
PASSES = (
    "passes where ART's own classifier fails alike: what is asserted of the stand-in net happens to hold of another"
)
STEPS = "asserts that no step raises the class's probability: SAP's mask moves with the image, so it may, in steps"
UNEXPECTED = "UNEXPECTED"
UNDEFENDED = re.compile(r"test_(get_activation|custom_loss_gradient)_(sequential|modular)")
EQUALITY = re.compile(r"not (almost )?equal|!=|comparison failed|within|\(ACTUAL\)")


def read_results(folder: Path | None) -> tuple[dict[str, str], Results]:
    """The versions and the runs that ``write_results`` wrote; nothing if there is nothing."""
    if folder is None or not (folder / "own-tests.json").exists():
        return {}, {}
    found = json.loads((folder / "own-tests.json").read_text(encoding="utf-8"))
    return found["versions"], {
        name: {test: (kind, message) for test, (kind, message) in found["runs"][name].items()}
        for name in RUNS
        if name in found["runs"]
    }


def write_results(folder: Path | None, results: Results) -> None:
    """Outcome and message of each test in each run, and the versions of all that took part."""
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"schema": 1, "versions": versions(), "runs": results}, indent=1, sort_keys=True)
    (folder / "own-tests.json").write_text(text + "\n", encoding="utf-8")


def versions() -> dict[str, str]:
    """Of Python and of the packages that are installed."""
    there = {found.metadata["Name"].lower(): found.version for found in metadata.distributions()}
    return {"python": platform.python_version(), **{name: there[name] for name in PACKAGES if name in there}}


def judge(results: Results) -> int:
    """Print how each run ended and what differs, with the reason; how many have none, or 1 if nothing passes."""
    for name, run in results.items():
        print(f"{name}: {summary(run)}")
    unexplained = 0
    for test, ends in by_test(results):
        for name, why in reasons(test, ends).items():
            unexplained += why == UNEXPECTED
            print(f"{name} {test}: {why}\n    {ends['plain' if name == 'off' else 'off']}\n    {ends[name]}")
    return unexplained or int(not any(kind == "passed" for kind, _ in results["plain"].values()))


def by_test(results: Results) -> Iterator[tuple[str, dict[str, Outcome]]]:
    """Each test, and how it ended in each run."""
    for test in sorted({test for run in results.values() for test in run}):
        yield test, {name: run.get(test, ABSENT) for name, run in results.items()}


def reasons(test: str, ends: dict[str, Outcome]) -> dict[str, str]:
    """Why ``off`` ends otherwise than ``plain``, and ``fixed`` and ``on`` otherwise than ``off``, for those that do."""
    found: dict[str, str] = {}
    if "off" in ends and ends["off"] != ends["plain"]:
        cast = FLOAT64.search(ends["plain"][1]) and (ends["off"][0] == "passed" or BEHIND.search(ends["off"][1]))
        found["off"] = CAST if cast else UNEXPECTED
    for name in ("on", "fixed"):
        if name in ends and not alike(ends[name], ends["off"]):
            found[name] = (
                refused(ends[name])
                or undefended(test, ends[name])
                or stepwise(test, ends[name])
                or passes(ends[name], ends)
                or UNEXPECTED
            )
    if found.get("on") == UNEXPECTED and alike(ends.get("fixed", ABSENT), ends["off"]):
        found["on"] = EQUAL_ANSWERS if EQUALITY.search(ends["on"][1]) else SINGLE_ANSWERS
    return found


def alike(one: Outcome, other: Outcome) -> bool:
    """The same up to the numbers: the kind of outcome and of error."""
    return (one[0], one[1].split(" ")[0].rstrip(":")) == (other[0], other[1].split(" ")[0].rstrip(":"))


def refused(end: Outcome) -> str:
    """Which refusal it is, if it is one."""
    return next((why for words, why in REFUSALS.items() if end[1].startswith("ValueError") and words in end[1]), "")


def undefended(test: str, end: Outcome) -> str:
    """Whether the test compares with what the net gives without the defence."""
    return WITHOUT if UNDEFENDED.search(test) and EQUALITY.search(end[1]) else ""


def stepwise(test: str, end: Outcome) -> str:
    """Whether the test needs a function without steps."""
    return STEPS if "test_newtonfool" in test and end[1].startswith("AssertionError: np.False_ is not true") else ""


def passes(end: Outcome, ends: dict[str, Outcome]) -> str:
    """Whether it passes where nothing does without a defence, both times by the same assertion."""
    alone = ends["plain"] == ends["off"] and ends["off"][1].startswith("AssertionError")
    return PASSES if end[0] == "passed" and alone else ""


def summary(run: Run) -> str:
    """How many ended in which way."""
    kinds = [kind for kind, _ in run.values()]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))


def page(packages: dict[str, str], results: Results) -> str:
    """Versions and results as Markdown."""
    rows = list(by_test(results))
    why = {test: reasons(test, ends) for test, ends in rows}
    counts = [f"- `{name}`: {summary(results[name])}" for name in results]
    installed = ", ".join(f"{name} {version}" for name, version in packages.items())
    lines = [HEAD, *counts, "", "| | tests |", "| --- | --- |", *_tally(why), "", f"With {installed}.", ""]
    lines += ["| test | " + " | ".join(results) + " | reason |", "| --- " * (len(results) + 2) + "|"]
    lines += [
        f"| {_text(test)} | {' | '.join(e[0] for e in ends.values())} | {_why(why[test], ends)} |"
        for test, ends in rows
    ]
    return "\n".join(lines) + "\n"


def _tally(why: dict[str, dict[str, str]]) -> list[str]:
    """Rows: how often each reason is given."""
    given = Counter((name, text) for found in why.values() for name, text in found.items())
    same = sum(not found for found in why.values())
    return [f"| all runs end alike | {same} |"] + [f"| {n}: {text} | {k} |" for (n, text), k in sorted(given.items())]


def _why(found: dict[str, str], ends: dict[str, Outcome]) -> str:
    """The reasons of what differs, else what is said of what did not pass anywhere."""
    if found:
        return "; ".join(
            f"{'/'.join(n for n in found if found[n] == text)}: {text}" for text in dict.fromkeys(found.values())
        )
    return "" if ends["plain"][0] == "passed" else _text(ends["plain"][1][:90])


def _text(text: str) -> str:
    return text.replace("|", "\\|").replace("[", "\\[").replace("<", "&lt;")
