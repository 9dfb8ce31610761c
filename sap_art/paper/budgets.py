"""How much is spent on the paper's figures: ``quick`` for two cores, ``full`` for a GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sap_art.paper.figures import LAMBDAS, Attacker


@dataclass(frozen=True)
class Budget:
    """What a run of the figures may cost.

    Args:
        name: as the command line has it.
        images: first test images; None for all that there are.
        report_draws: m, fresh draws an image for every number, and K of the mean prediction (the authors take 100).
        lambdas: radii in units of 1/255: 0, which is the clean image, and others from small to large.
        iterative_lambda: largest radius of the iterative attack through a defence.
        many_draws: a gradient of more draws is computed for the first ``many_draws_images`` images alone.
        tier: of RDP-1, for the worst case.
    """

    name: str
    images: int | None
    report_draws: int
    iterative_lambda: int
    many_draws_images: int
    tier: str
    many_draws: int = 100
    lambdas: tuple[int, ...] = LAMBDAS

    def __post_init__(self) -> None:
        if self.lambdas[0] != 0 or len(self.lambdas) < 2 or list(self.lambdas) != sorted(set(self.lambdas)):
            raise ValueError(f"lambdas must be 0 and others above it that rise, got {list(self.lambdas)}")
        if self.iterative_lambda < self.lambdas[1]:
            raise ValueError(f"iterative_lambda must reach the radius {self.lambdas[1]}, got {self.iterative_lambda}")

    def lambdas_of(self, attacker: Attacker) -> tuple[int, ...]:
        """The radii at which an attacker is run."""
        bounded = attacker.kind == "iterative" and attacker.source == "defended"
        return tuple(lam for lam in self.lambdas if not bounded or lam <= self.iterative_lambda)

    def images_of(self, attacker: Attacker, images: int) -> int:
        """How many of ``images`` images it is run on."""
        return min(images, self.many_draws_images) if attacker.draws > self.many_draws else images

    def over(self, images: int | None) -> Budget:
        """The same with another number of images, unless None is given."""
        return self if images is None else replace(self, images=images)


BUDGETS = {
    "quick": Budget("quick", images=256, report_draws=10, iterative_lambda=8, many_draws_images=32, tier="smoke"),
    "full": Budget("full", images=None, report_draws=100, iterative_lambda=64, many_draws_images=1024, tier="quick"),
}


def budget_named(name: str) -> Budget:
    """The budget of that name; raises ValueError for one that is not in ``BUDGETS``."""
    if name not in BUDGETS:
        raise ValueError(f"unknown budget {name!r}; known: {', '.join(BUDGETS)}")
    return BUDGETS[name]
