"""What other people's tools say of the controls: AutoAttack and ART's PGD, run as they usually are.

    python benchmarks/controls/references.py --output DIR [--images N] [--only NAME,...]

From the repository's root. Interrupted, the same command goes on. Leaves ``records/<control>.json``: for each library
the accuracy that it would print, and that of fresh draws on the points that it returned. Exit status: 0 done, 2 bad
input. A library that crashes on a control is an error in its record, never a number.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from libraries import FULL, Budget, attack, libraries, passes
from suite import control, load

from sap_art.process import prepare

if TYPE_CHECKING:
    from torch import Tensor

    from sap_art.bench import Watch
    from sap_art.store import Store, Unit
    from sap_art.suites import Suite


class CrashError(Exception):
    """A library died on a control."""


@dataclass(frozen=True)
class Outcome:
    """What a library ``reported`` and what ``fresh`` draws on its points give, both in [0, 1]; or its ``error``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    reported: float | None = None
    fresh: float | None = None
    error: str | None = None

    def __str__(self) -> str:
        if self.error is not None or self.reported is None or self.fresh is None:
            return f"error: {self.error}"
        return f"reports {100 * self.reported:.1f} %, its points are worth {100 * self.fresh:.1f} %"


@dataclass(frozen=True)
class Reference:
    """The record of one control: images, threat model, budget, versions of what ran, and what came out by library."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    control: str
    dataset: str
    images: int
    ids_sha256: str
    norm: str
    eps: float
    seed: int
    budget: Budget
    versions: dict[str, str]
    outcomes: dict[str, Outcome]


def main() -> int:
    arguments = parse()
    prepare()  # before torch is loaded, as in the command line of sap-art
    try:
        suite, _ = load(images=arguments.images, tier=None)
        run(suite, output=arguments.output, only=arguments.only, budget=FULL)
    except (ValueError, OSError, ImportError) as error:
        print(f"references: {error}", file=sys.stderr)
        return 2
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run AutoAttack and ART's PGD on the controls of RDP-1.")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--images", type=int, metavar="N", help="first N test images; default: the suite's")
    parser.add_argument("--only", type=lambda text: text.split(","), metavar="NAME,...", help="default: all controls")
    return parser.parse_args()


def run(suite: Suite, *, output: Path, only: Sequence[str] | None, budget: Budget) -> None:
    """Leave a record of each control in ``output``; what is there already is not computed again.

    Raises:
        ValueError: unknown controls, bad images, an output folder of another run; before any work.
        ImportError: pyautoattack is not installed.
    """
    from rich.console import Console

    from sap_art import data
    from sap_art.progress import bar

    if find_spec("pyautoattack") is None:  # now, or it would be taken for a crash on each control
        raise ImportError("AutoAttack needs pyautoattack: pip install 'sap_art[robustbench]'")
    models = {control(entry.model): entry.model for entry in suite.entries}
    names = list(dict.fromkeys(models if only is None else only))
    if unknown := [name for name in names if name not in models]:
        raise ValueError(f"unknown controls: {', '.join(unknown)}; known: {', '.join(models)}")
    x, y = data.load(suite.dataset, n=suite.images)
    opened = _open(output, suite, models, budget=budget, xy=(x, y))
    with opened as store, bar(Console(stderr=True, soft_wrap=True)) as watch:
        left = [name for name in names if not store.finished(name)]
        watch.expect(sum(passes(library, budget) * len(x) for name in left for library in libraries(name)))
        for name in left:
            trial = Trial(name, models[name], suite, budget, store=store, watch=watch)
            trial.record(x, y)


def versions() -> dict[str, str]:
    """Of the libraries and of what runs them."""
    from sap_art import __version__

    others = {name: version(name) for name in ("pyautoattack", "adversarial-robustness-toolbox", "torch")}
    return {**others, "sap-art": __version__}


@dataclass(frozen=True)
class Trial:
    """One control before the libraries; each has a net of its own, so that none depends on what ran before."""

    name: str
    model: str
    suite: Suite
    budget: Budget
    store: Store
    watch: Watch

    def record(self, x: Tensor, y: Tensor) -> None:
        """Run what has not been run and write the record."""
        from sap_art import data
        from sap_art.record import write_json

        reference = Reference(
            self.name,
            dataset=self.suite.dataset,
            images=len(x),
            ids_sha256=data.ids_sha256(x, y),
            norm=self.suite.norm,
            eps=self.suite.threat().eps,
            seed=self.suite.seed,
            budget=self.budget,
            versions=versions(),
            outcomes={library: self.outcome(library, x, y) for library in libraries(self.name)},
        )
        write_json(_without_none(asdict(reference)), self.store.records / f"{self.name}.json")

    def outcome(self, library: str, x: Tensor, y: Tensor) -> Outcome:
        """What the library says, and what its points are worth; read if it was computed before."""
        self.watch.announce(f"{self.name}: {library}")
        left = passes(library, self.budget) * len(x)

        def advance(done: int) -> None:
            nonlocal left
            left -= done
            self.watch.advance(done)

        try:
            unit = self.store.unit(f"{self.name}/{library}", lambda: self.unit(library, x, y, advance=advance))
        except CrashError as crash:
            found = Outcome(error=str(crash))
        else:
            draws = self.budget.report_draws
            found = Outcome(unit["right"].double().mean().item(), unit["correct"].double().mean().item() / draws)
        self.watch.advance(left)
        self.watch.announce(f"{self.name}: {library} {found}")
        return found

    def unit(self, library: str, x: Tensor, y: Tensor, *, advance: Callable[[int], None]) -> Unit:
        """Points (B, ...), which images (B,) the library counts as right, and how often (B,) fresh draws are.

        Raises:
            CrashError: the library, or the model on its points, raised something.
        """
        from sap_art import evaluate, wrap, zoo
        from sap_art.attacks.cost import count_passes
        from sap_art.randomness import derive_seed

        seed = derive_seed(self.suite.seed, self.name, library)
        model, threat = wrap(zoo.load_model(self.model), seed=seed), self.suite.threat()
        try:
            with count_passes(model, advance):
                result = attack(library, model, x, y, threat=threat, budget=self.budget, seed=seed)
                score = derive_seed(seed, "report")
                correct = evaluate(model, result.x_adv, y, draws=self.budget.report_draws, seed=score).correct
        except Exception as error:  # whatever it dies of is reported, never taken for robustness
            raise CrashError(f"{type(error).__name__}: {error}") from error
        return {"x_adv": result.x_adv, "right": result.right, "correct": correct}


def _open(
    output: Path, suite: Suite, models: dict[str, str], *, budget: Budget, xy: tuple[Tensor, Tensor]
) -> AbstractContextManager[Store]:
    """The output folder, for these images, nets and budgets alone."""
    from sap_art import data, wrap, zoo
    from sap_art.entries import fingerprint
    from sap_art.store import Store

    manifest = {
        **{key: value for key, value in asdict(suite).items() if key not in ("tier", "entries")},
        "ids_sha256": data.ids_sha256(*xy),
        "budget": asdict(budget),
        "versions": versions(),
        "models": {name: fingerprint(wrap(zoo.load_model(model)), xy[0]) for name, model in models.items()},
    }
    return Store.open(output, manifest)


def _without_none(found: dict[str, Any]) -> dict[str, Any]:
    outcomes = {name: {k: v for k, v in o.items() if v is not None} for name, o in found["outcomes"].items()}
    return {**found, "outcomes": outcomes}


if __name__ == "__main__":
    sys.exit(main())
