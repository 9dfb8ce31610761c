"""The note "What SAP is worth", from the figures that ``sap-art paper`` left: text and two plots.

    python benchmarks/paper/note.py --results benchmarks/paper/results --output docs

Reads the figures 1c, 3 and 6 and the game within 1/255, fills ``note.template.md``, and writes
``what-sap-is-worth.md`` and two plots (SVG). What the words say is checked against the numbers first: if it is not so,
nothing is written.
Exit status: 0 done, 2 bad input, or numbers that contradict the words.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from note_readings import Readings
from note_words import TEMPLATE, claims, fields

NAME = "what-sap-is-worth"
PLOTS = {"attacks": "SAP-100 under the iterative attack", "nets": "Worst case of RDP-1"}


def main() -> int:
    arguments = parse()
    try:
        readings = Readings.read(arguments.results)
        text = note(readings)
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / f"{NAME}.md").write_text(text, encoding="utf-8")
        plot(readings, arguments.output)
    except (ValueError, OSError, ImportError) as error:
        print(f"note: {error}", file=sys.stderr)
        return 2
    print(arguments.output / f"{NAME}.md")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Write the note on what SAP is worth, from results alone.")
    parser.add_argument("--results", type=Path, required=True, metavar="DIR", help="--output of sap-art paper")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the note and its plots")
    return parser.parse_args()


def note(readings: Readings) -> str:
    """The note in Markdown.

    Raises:
        ValueError: the results say otherwise than the words.
    """
    wrong = [words for words, holds in claims(readings) if not holds]
    if wrong:
        raise ValueError(f"these results do not bear out what the note says: {'; '.join(wrong)}")
    return TEMPLATE.read_text(encoding="utf-8").format(**fields(readings))


def plot(readings: Readings, folder: Path) -> None:
    """Write both plots; the same results give the same bytes with one matplotlib.

    Raises:
        ImportError: without matplotlib.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'sap-art[plots]'") from error
    for (name, title), lines in zip(PLOTS.items(), (readings.attack_lines(), readings.net_lines()), strict=True):
        with mpl.rc_context({"svg.hashsalt": name}):
            figure = Figure(figsize=(7, 4), layout="constrained")
            _draw(figure.subplots(), title, lines)
            figure.savefig(folder / f"{NAME}-{name}.svg", metadata={"Date": None})


def _draw(axes: Any, title: str, lines: dict[str, dict[int, tuple[float, float, float]]]) -> None:
    """Each line by name: at lambda, percent with the ends of its interval; all lambdas equally far apart."""
    lambdas = sorted({lam for line in lines.values() for lam in line})
    for label, line in lines.items():
        x = [lambdas.index(lam) for lam in line]
        y, down, up = zip(*((v, max(0.0, v - low), max(0.0, high - v)) for v, low, high in line.values()), strict=True)
        style = "x:" if label.startswith("paper") else "o-"
        axes.errorbar(x, y, [down, up], fmt=style, markersize=4, capsize=2, label=label)
    axes.set(xlabel="lambda, in 1/255", ylabel="accuracy in %", title=title, ylim=(0, 100))
    axes.set_xticks(range(len(lambdas)), [str(lam) for lam in lambdas])
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


if __name__ == "__main__":
    sys.exit(main())
