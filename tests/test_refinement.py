"""What follows the plan: more of the best attacks, other budgets, planted examples, library numbers, known seeds."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sap_art import ThreatModel, portfolio, protocol, wrap
from sap_art.attacks import hopskipjump, known_seed
from sap_art.attacks.cost import count_passes
from sap_art.entries import Entry
from sap_art.portfolio import PlannedAttack, again, plan
from sap_art.portfolio.planned import apgd
from sap_art.protocol import budgets, checks, planting
from sap_art.protocol.campaign import run_attacks
from sap_art.protocol.job import Call, InProcess, Job, finish
from sap_art.protocol.outcome import Outcome, points_in
from sap_art.protocol.refinement import refine, strongest
from sap_art.protocol.scoring import choose, score, score_columns, told_right
from sap_art.record import DefenceInfo, ModelInfo
from sap_art.stochastic import StochasticModel
from sap_art.store import Store, Stored, Unit
from sap_art.tiers import TIERS, Refinement, Tier
from sap_art.workers import pack

IMAGES = 10
EPS = 0.1
SMALL = replace(
    TIERS["smoke"],
    draws=2,
    steps=4,
    long_steps=0,
    selection_draws=4,
    report_draws=20,
    noise_points=2,
    converged=True,
    refinement=Refinement(best=1, restarts=2, targets=2, above=0.5),
)


class Steps(nn.Module):
    """Two classes by the mean pixel: wrong above ``threshold`` over the start, right below; noise on the logits."""

    def __init__(self, rise: float, noise: float) -> None:
        super().__init__()
        self.rise, self.noise = rise, noise

    def forward(self, x: Tensor) -> Tensor:
        score = 40 * (x.flatten(1).mean(1) - 0.5 - self.rise)
        score = score + self.noise * torch.randn_like(score)
        return torch.stack([-score, score, -score - 9, -score - 9], 1)


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Job]:
    """A job for a module on grey images of class 0."""

    def make(module: nn.Module, tier: Tier = SMALL, model: StochasticModel | None = None, **changes: Any) -> Job:
        info = ModelInfo("steps", type(module).__name__, "0" * 64)
        ready = model or wrap(module.eval())
        entry = Entry("steps", ready, 4, info, DefenceInfo("foreign", "module", True, "single", 1), lambda: ready)
        x = torch.full((IMAGES, 3, 4, 4), 0.5)
        root = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        root.mkdir()  # so that the next job has another
        y = torch.zeros(IMAGES, dtype=torch.long)
        settings: dict[str, Any] = {"threat": ThreatModel("Linf", EPS), "tier": tier, "seed": 0, "store": Store(root)}
        return Job(entry=entry, x=x, y=y, **(settings | changes))

    return make


def outcome(name: str, points: Tensor, *, first: int = 0) -> Outcome:
    """Points of a finished attack through the defence, on the images from ``first`` on."""
    planned = apgd(name, "autograd", "ce", draws=2, steps=4)
    return Outcome(planned, {0: stored(name, points, first=first)}, images=len(points) - first)


def stored(name: str, points: Tensor, *, first: int = 0) -> Stored:
    """The unit of one block."""
    return Stored(name, {"index": torch.arange(first, len(points)), "x_adv": points[first:]})


def attacked(outcome: Outcome, x: Tensor, number: int) -> list[bool]:
    """Which images of a block it has points for."""
    return points_in(outcome.units.get(number), x.split(64)[number], number).done.tolist()


def test_the_strongest_attack_comes_first(job: Callable[..., Job]) -> None:
    """By what it leaves; one that crashed is none."""
    made = job(Steps(rise=0.05, noise=0.1))
    weak, strong, crashed = (outcome(n, (made.x + d).clamp(0, 1)) for n, d in (("a", 0.0), ("b", 0.1), ("c", 0.1)))
    crashed.error = "it crashed"

    assert [planned.id for planned in strongest(made, [weak, strong, crashed])] == ["b", "a"]


def test_refinement_is_of_images_that_still_stand(job: Callable[..., Job]) -> None:
    """None where the plan has broken all, all where it broke none; the best climb with restarts and with targets."""
    broken, standing = job(Steps(rise=0.05, noise=0.1)), job(Steps(rise=0.5, noise=0.1))
    of_broken, of_standing = (refine(j, run_attacks(j)) for j in (broken, standing))

    assert [o.planned.id for o in of_standing] == ["eot-apgd-ce-autograd-restarts", "eot-apgd-ce-autograd-targeted"]
    assert [o.images for o in of_broken] == [0, 0]
    assert [o.images for o in of_standing] == [IMAGES, IMAGES]
    assert [o.planned.passes for o in of_standing] == [2 * 2 * 4 * 2 + 4 * 2 * 2, 2 * 2 * 4 * 2 + 4 * 2 * 2 + 2]
    assert refine(replace(standing, tier=replace(SMALL, refinement=None)), []) == []


def test_broken_images_are_left_alone_beyond_those_that_all_attacks_share(job: Callable[..., Job]) -> None:
    """By all but the first attack; a first attack that crashes spares nobody."""
    x = torch.full((70, 3, 4, 4), 0.5)
    x[[3, 66, 68]] = 0.3  # out of reach
    y = torch.zeros(70, dtype=torch.long)
    broken = Crashing()
    broken.broken = True
    done: dict[str, list[list[bool]]] = {}
    for name, module in (("sound", Steps(rise=0.05, noise=0.1)), ("crashing", broken)):
        first, noise = run_attacks(replace(job(module), x=x, y=y))
        done[name] = [attacked(first, x, 1), attacked(noise, x, 1)]
        assert all(attacked(noise, x, 0))
        assert (first.error is None) == (name == "sound")

    assert done["sound"] == [[True] * 6, [False, False, True, False, True, False]]
    assert done["crashing"][1] == [True] * 6


def test_selection_draws_go_to_points_that_exist(job: Callable[..., Job]) -> None:
    """An image that few attacks have run on costs few draws; each image gets its worst point, under its own name."""
    made = job(Steps(rise=0.05, noise=0.01), replace(SMALL, selection_draws=8))
    rare = (outcome(str(d), (made.x + d).clamp(0, 1), first=IMAGES - 1) for d in (0.1, 0.02, 0.0))
    strong, *others = rare
    weak = outcome("weak", (made.x + 0.06).clamp(0, 1))
    with count_passes(made.model) as spent:
        chosen = choose(made, [strong, weak, *others])

    assert chosen.candidate.tolist() == [2] * (IMAGES - 1) + [1]
    assert torch.equal(chosen.points, torch.cat([weak.alone(made.x)[:-1], strong.alone(made.x)[-1:]]))
    assert spent.forwards <= 8 * (2 * (IMAGES - 1) + 5)


class Elsewhere(InProcess):
    """Computes each unit in a store that has no other, from a call that has travelled."""

    def result(self, job: Job, call: Call) -> Unit:
        there = Store(job.store.root / "elsewhere" / call.key)
        return finish(replace(job, store=there), pickle.loads(pack(call)))


def test_points_travel_to_where_the_worst_are_chosen(job: Callable[..., Job]) -> None:
    """They are read here, where they lie, and what is chosen is the same."""
    made = job(Steps(rise=0.05, noise=0.1))
    outcomes = run_attacks(made)
    there = choose(replace(made, executor=Elsewhere()), outcomes)
    here = choose(made, outcomes)

    assert (made.store.root / "elsewhere").exists()
    assert torch.equal(there.points, here.points)
    assert torch.equal(there.candidate, here.candidate)


def vary(made: Job) -> dict[str, str]:
    """States of the convergence flags."""
    outcomes = run_attacks(made)
    return {f.code: f.state for f in budgets.vary(made, outcomes, score(made, made.x, "worst case"))[1]}


class Delayed(nn.Module):
    """Errs only near one corner of the ball, to which a gradient of constant size leads."""

    def forward(self, x: Tensor) -> Tensor:
        score = 100 * ((x - 0.5).flatten(1).sum(1) - 0.5 * 48 * EPS) / 48
        return torch.stack([0 * score, score + 0.01 * torch.randn_like(score)], 1)


def test_budgets_that_are_enough_are_clear(job: Callable[..., Job]) -> None:
    """An attack that breaks everything with half of its budget."""
    made = job(Steps(rise=0.03, noise=0.1))
    outcomes = run_attacks(made)
    worst = outcomes[0].alone(made.x)
    curves, flags = budgets.vary(made, outcomes, score(made, worst, "worst case"))

    assert {f.code: f.state for f in flags} == dict.fromkeys(
        ["steps-not-converged", "draws-not-converged", "restarts-not-converged", "selection-not-converged"], "clear"
    )
    assert {name: sorted(values) for name, values in curves.items()} == {
        "steps": [1, 2, 4, 8],
        "draws": [1, 2, 4],
        "restarts": [1, 5, 10],
        "first_step": [0.5, 1, 2],
    }
    assert budgets.vary(replace(made, tier=TIERS["quick"]), outcomes, score(made, worst, "again")) == ({}, [])


def test_too_few_steps_are_flagged(job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    """A first step so small that the corner is out of reach with the tier's steps, and in reach with twice as many."""
    short = replace(SMALL, steps=4)
    made = job(Delayed(), short, model=wrap(Delayed().eval()))
    original = budgets.budgets

    def small_steps(best: PlannedAttack) -> dict[str, dict[float, PlannedAttack]]:
        found = original(best)
        found["steps"] = {n: again(best, f"steps-{n}", steps=int(n), first_step=0.1) for n in found["steps"]}
        return found

    monkeypatch.setattr(budgets, "budgets", small_steps)

    assert vary(made)["steps-not-converged"] == "raised"


def test_a_worst_case_that_misses_points_is_flagged(job: Callable[..., Job]) -> None:
    """Clean images scored as if they were the worst ones: more restarts, and a proper choice, find more."""
    states = vary(job(Steps(rise=0.03, noise=0.1)))

    assert (states["restarts-not-converged"], states["selection-not-converged"]) == ("raised", "raised")


class Crashing(nn.Module):
    """Gives NaN gradients once it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = False

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1).mean(1) + 0.01 * torch.randn(len(x))
        return torch.stack([score, -score], 1) * (torch.tensor(float("nan")) if self.broken and x.requires_grad else 1)


def test_a_crash_is_not_checked_and_says_so(job: Callable[..., Job]) -> None:
    """In the repetition and in planting; without a finished climb there is nothing to repeat."""
    module = Crashing()
    made = job(module, replace(SMALL, planted=8))
    outcomes = run_attacks(made)
    module.broken = True
    flags = budgets.vary(made, outcomes, score(made, made.x, "worst case"))[1]

    assert {f.state for f in flags} == {"not-checked"}
    assert all(f.evidence.startswith("the attack crashed: FloatingPointError") for f in flags)
    assert {f.evidence for f in budgets.vary(made, [], score(made, made.x, "w"))[1]} == {
        "no attack through the defence has finished"
    }


class Readout(nn.Module):
    """Noise, a hidden layer, a linear one."""

    def __init__(self, masked: bool) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(48, 100), nn.ReLU(), nn.Linear(100, 4))
        for p in self.net.parameters():
            p.data = torch.randn(p.shape, generator=generator) / p.shape[-1] ** 0.5
        self.masked = masked

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x.detach() if self.masked else x + 0.005 * torch.randn_like(x))
        return logits + 0 * x.sum()


@pytest.mark.parametrize(("masked", "state"), [(False, "clear"), (True, "raised")])
def test_planted_examples_are_looked_for_with_the_best_attack(
    job: Callable[..., Job], masked: bool, state: str
) -> None:
    """Found through noise, missed behind a gradient of zero; once more from what was kept."""
    tier = replace(SMALL, planted=IMAGES, steps=10, refinement=Refinement(best=1, restarts=4, targets=0, above=0.5))
    made = job(Readout(masked), tier)
    outcomes = run_attacks(made)
    first, second = (planting.planted_examples(made, outcomes) for _ in range(2))

    assert [flag.state for flag in first] == [state], first[0].evidence
    assert first == second
    assert planting.planted_examples(replace(made, tier=SMALL), outcomes) == []


def test_a_loss_that_two_classes_cannot_have_plants_nothing(job: Callable[..., Job]) -> None:
    """The strongest attack climbs the DLR loss; the strongest of the others takes its place."""
    tier = replace(SMALL, planted=8, steps=10, losses=("ce",))
    made = job(Readout(masked=False), tier)
    outcomes = run_attacks(made)
    dlr = apgd("eot-apgd-dlr-autograd", "autograd", "dlr", draws=2, steps=4)
    best = next(o for o in outcomes if o.planned.climbs_the_defence)
    (found,) = planting.planted_examples(made, [replace(best, planned=dlr), best])
    (alone,) = planting.planted_examples(made, [replace(best, planned=dlr)])

    assert found.state != "not-checked", found.evidence
    assert (alone.state, alone.evidence) == ("not-checked", "no attack through the defence has finished")


def test_decisions_on_the_boundary_are_a_black_box_and_refinement_no_estimator(job: Callable[..., Job]) -> None:
    """HopSkipJump beats the white box; what has no column of its own is not missed in a comparison."""
    made = job(Steps(rise=0.05, noise=0.1))
    white = outcome("eot-apgd-ce-autograd", made.x)
    more = replace(white, planned=replace(white.planned, id="eot-apgd-ce-autograd-restarts", partial=True))
    queries = replace(white, planned=replace(white.planned, id="hopskipjump", attack=hopskipjump))
    queries.units = {0: stored("hopskipjump", (made.x + EPS).clamp(0, 1))}
    outcomes = [white, queries, more]
    flags = {f.code: f.state for f in checks.of_the_attacks(made, outcomes, score_columns(made, outcomes))}

    assert flags["black-box-beats-white-box"] == "raised"
    assert flags["estimator-spread"] == "clear"


def test_a_net_without_a_last_linear_layer_is_not_checked(job: Callable[..., Job]) -> None:
    """With the reason, and not as a crash."""
    made = job(Steps(rise=0.5, noise=0.1), replace(SMALL, planted=8))
    (flag,) = planting.planted_examples(made, run_attacks(made))

    assert (flag.state, "ends in torch.nn.Linear" in flag.evidence) == ("not-checked", True)


def test_what_a_library_reports_is_kept_beside_what_its_points_are_worth(job: Callable[..., Job]) -> None:
    """A coin that is right in 70 % of the draws: AutoAttack counts whom it saw right every time."""

    class Coin(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            right = torch.rand(len(x)) < 0.7
            logits = torch.where(right[:, None], torch.tensor([2.0, 0, 0, 0]), torch.tensor([0, 2.0, 0, 0]))
            return logits + 0 * x.flatten(1).sum(1, keepdim=True)

    made = job(Coin(), replace(SMALL, references=True, refinement=None, report_draws=100))
    many = torch.full((64, 3, 4, 4), 0.5)
    made = replace(made, x=many, y=torch.zeros(64, dtype=torch.long))
    outcomes = {o.planned.id: o for o in run_attacks(made)}
    columns = score_columns(made, list(outcomes.values()))

    assert outcomes["autoattack-rand"].reported is not None
    assert outcomes["autoattack-rand"].reported < 0.5
    assert abs(columns["autoattack-rand"].accuracy - 0.7) < 5 * (0.21 / 6400) ** 0.5
    assert outcomes["eot-apgd-ce-autograd"].reported is None


def test_a_known_seed_counts_every_attack_that_was_told_it(job: Callable[..., Job]) -> None:
    """An image is right under a seed if no attack under that seed breaks it."""
    tier = replace(SMALL, known_seeds=2, told_all=True, square_iterations=2, square_draws=1)
    made = job(Steps(rise=0.05, noise=0.1), tier)
    outcomes = run_attacks(made)
    told = [o for o in outcomes if o.planned.attack is known_seed]
    for o in told:
        o.units = {}
    assert told_right(made, outcomes).all()  # pyright: ignore[reportOptionalMemberAccess]
    told[1].units = {0: stored("known-seed-0-t", (made.x + EPS).clamp(0, 1))}

    right = told_right(made, outcomes)
    assert right is not None
    assert right.shape == (2, IMAGES)
    assert not right[0].any()
    assert right[1].all()
    assert len(told) == 6


def test_the_plan_names_every_attack_once(job: Callable[..., Job]) -> None:
    """Keys of work and columns of tables."""
    made = job(Steps(rise=0.05, noise=0.1))
    for tier in TIERS.values():
        names = [planned.id for planned in plan(made.model, tier, made.threat, classes=4)]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["smoke", "quick", "full"])
def test_the_forecast_is_an_upper_bound_and_a_near_one(job: Callable[..., Job], name: str) -> None:
    """All passes of an entry, probes and choices included, where every image stands to the end."""
    tier = replace(TIERS[name], draws=2, steps=4, selection_draws=8, report_draws=20, noise_points=4, long_steps=0)
    tier = replace(tier, curve=tier.curve[:1], references=False, boundary_queries=0, planted=min(8, tier.planted))
    tier = replace(tier, stops=False)
    if tier.square_iterations:
        tier = replace(tier, square_iterations=4, square_draws=2)
    if tier.refinement:
        tier = replace(tier, refinement=Refinement(best=1, restarts=2, targets=2, above=-1.0))
    made = job(Readout(masked=False), tier)
    with count_passes(made.model) as spent:
        protocol.run(made)
    expected = portfolio.expected_passes(made.model, tier, made.threat, images=IMAGES, classes=4)

    assert 0.6 * expected < spent.forwards + spent.backwards <= expected


class DrawnGradient(torch.autograd.Function):
    """The identity, whose gradient comes back with random signs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * (2 * torch.randint(0, 2, gradients[0].shape) - 1)


class SignFlips(Readout):
    """Values without noise, gradients that are nothing else."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(DrawnGradient.apply(x))
        return logits


@pytest.mark.parametrize(("flips", "state"), [(True, "raised"), (False, "clear")])
def test_a_deterministic_model_may_have_a_gradient_that_is_noise(
    job: Callable[..., Job], flips: bool, state: str
) -> None:
    """It is its own dense counterpart, as a suite makes it; the values say nothing of the gradient."""
    module = SignFlips(masked=False) if flips else Readout(masked=False).net
    made = job(module, replace(TIERS["quick"], signal_draws=8), model=wrap(module.eval(), dense=module))
    made = replace(made, x=torch.full((64, 3, 4, 4), 0.5), y=torch.zeros(64, dtype=torch.long))
    flags = {f.code: f for f in checks.of_the_gradient(made, checks.signals(made, checks.signal_calls(made, [])), [])}

    assert made.model.deterministic
    assert flags["low-gradient-signal"].state == state, flags["low-gradient-signal"].evidence
