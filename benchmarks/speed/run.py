"""Speed of SAP beside its peers, as ratios: python benchmarks/speed/run.py --output DIR [--device cpu|cuda] [--quick].

All contestants of a comparison are timed in turn, in one process; see README.md for what is measured.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from sap_art.process import prepare

SECTIONS = ("draw", "forward", "eot", "layer", "memory", "growth")


def main() -> None:
    arguments = parse()
    prepare()  # before torch is loaded, as in the command line of sap-art
    from session import run

    run(arguments.only, arguments.output, device=arguments.device, threads=arguments.threads, quick=arguments.quick)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time SAP beside its peers and print the ratios.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    parser.add_argument("--threads", type=count, metavar="N", help="default: as many as torch takes")
    parser.add_argument("--quick", action="store_true", help="few rounds and small sizes: does it run?")
    parser.add_argument("--only", type=sections, default=SECTIONS, metavar="A,B", help=f"of {','.join(SECTIONS)}")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="for the .md, .json and .svg")
    arguments = parser.parse_args()
    if "growth" in arguments.only and find_spec("matplotlib") is None:
        parser.error("growth is drawn by matplotlib: pip install sap-art[plots], or name other sections with --only")
    return arguments


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 1, got {text!r}")
    return int(text)


def sections(text: str) -> tuple[str, ...]:
    names = text.split(",")
    if unknown := set(names) - set(SECTIONS):
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(SECTIONS)}")
    return tuple(name for name in SECTIONS if name in names)


if __name__ == "__main__":
    main()
