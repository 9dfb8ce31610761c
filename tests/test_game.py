"""The game: solutions that nothing beats, intervals that hold the truth, counts that survive the file."""

from __future__ import annotations

import json
import math
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sap_art import wrap
from sap_art.cli import main
from sap_art.game import Payoffs, analyse, analysis, cross_evaluate, describe, exploitability, read, solve, write
from sap_art.game.payoffs import HALVES
from sap_art.threat import ThreatModel

Floats = NDArray[np.float64]
PENNIES = np.array([[1.0, -1.0], [-1.0, 1.0]])
ROCK_PAPER_SCISSORS = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])


@pytest.mark.parametrize(
    ("payoff", "defender", "attacker", "value"),
    [
        (PENNIES, [0.5, 0.5], [0.5, 0.5], 0.0),
        (ROCK_PAPER_SCISSORS, [1 / 3] * 3, [1 / 3] * 3, 0.0),
        ([[3, 0], [1, 2]], [0.25, 0.75], [0.5, 0.5], 1.5),
        ([[3, 0], [1, 2], [0.9, -0.5]], [0.25, 0.75, 0], [0.5, 0.5], 1.5),  # the last policy is dominated
        ([[3, 0, 3], [1, 2, 2.5]], [0.25, 0.75], [0.5, 0.5, 0], 1.5),  # so is the last attack
        ([[0.6, 0.5], [0.4, 0.45]], [1, 0], [0, 1], 0.5),
        ([[0.0, 0.0], [0.0, 0.0]], [1, 0], [1, 0], 0.0),  # the first of equals
        ([[0.3]], [1], [1], 0.3),
    ],
)
def test_games_with_known_solutions(payoff: Floats, defender: Floats, attacker: Floats, value: float) -> None:
    """To the solver's precision."""
    found = solve(payoff)

    assert found.defender == pytest.approx(defender, abs=1e-9)
    assert found.attacker == pytest.approx(attacker, abs=1e-9)
    assert found.value == pytest.approx(value, abs=1e-9)
    assert exploitability(payoff, found.defender, found.attacker) == pytest.approx((0, 0), abs=1e-9)


@pytest.mark.parametrize("shape", [(2, 2), (3, 3), (4, 3), (2, 5), (4, 4)])
def test_random_games_against_a_second_solver(shape: tuple[int, int]) -> None:
    """Values are those of an enumeration of supports, on [0, 1], shifted and scaled; strategies lose nothing."""
    rng = np.random.default_rng(shape[0] * 10 + shape[1])
    for _ in range(12):
        payoff = rng.random(shape).round(1 if rng.random() < 0.5 else 9)
        value = reference.game_value(payoff)
        for factor, shift in ((1.0, 0.0), (1e-7, 0.0), (1.0, 5.0), (1e6, -3.0)):
            found = solve(factor * payoff + shift)
            assert found.value == pytest.approx(factor * value + shift, rel=1e-9, abs=1e-9 * factor)
            lost = exploitability(factor * payoff + shift, found.defender, found.attacker)
            assert max(lost) <= 1e-8 * factor + 1e-15
            assert found.defender.sum() == pytest.approx(1)
            assert found.attacker.min() >= 0


def test_a_large_game_is_certified_by_its_own_strategies() -> None:
    """No row gets more than the value out of the attacker, no column leaves the defender less."""
    payoff = np.random.default_rng(5).random((30, 40))
    x, y, value = solve(payoff)

    assert (payoff @ y).max() == pytest.approx(value, abs=1e-9)
    assert (x @ payoff).min() == pytest.approx(value, abs=1e-9)
    assert solve(-payoff.T).value == pytest.approx(-value, abs=1e-9)


def test_exploitability_by_hand() -> None:
    """Heads against a coin that falls heads 3 times of 4: the defender loses 1, the attacker 1/2."""
    assert exploitability(PENNIES, [1, 0], [0.75, 0.25]) == pytest.approx((1.0, 0.5))


@pytest.mark.parametrize("payoff", [[1, 2], [[]], [[float("nan")]], [[float("inf"), 0]], [[[1]]]])
def test_what_is_no_matrix_is_refused(payoff: list[object]) -> None:
    """With its shape."""
    with pytest.raises(ValueError, match=r"must be a matrix \(P, A\) of finite numbers"):
        solve(payoff)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("strategy", [[1], [0.5, 0.6], [1.5, -0.5], [float("nan"), 1], [[0.5, 0.5]]])
def test_what_is_no_strategy_is_refused(strategy: list[float]) -> None:
    """Numbers >= 0 with sum 1, one for each choice."""
    with pytest.raises(ValueError, match="a strategy must be 2 numbers >= 0 with sum 1"):
        exploitability(PENNIES, [0.5, 0.5], strategy)


def payoffs_of(truth: Floats, *, images: int, draws: int, seed: int, shared: bool = False) -> Payoffs:
    """Counts whose expectation is ``truth``: beta-distributed images, or draws that move all images of a half alike."""
    rng = np.random.default_rng(seed)
    halves = [len(range(images)[half]) for half in HALVES]
    size = [(*truth.shape, draws, 1 if shared else n) for n in halves]
    rates = [rng.beta(10 * truth[..., None, None], 10 * (1 - truth[..., None, None]), s) for s in size]
    if not shared:
        rates = [rng.beta(truth[..., None, None], 1 - truth[..., None, None], (*s[:2], 1, s[3])) for s in size]
    right = [rng.random((*truth.shape, draws, n)) < rate for n, rate in zip(halves, rates, strict=True)]
    correct = np.empty((*truth.shape, images), dtype=np.int64)
    for half, found in zip(HALVES, right, strict=True):
        correct[..., half] = found.sum(2)
    names = tuple(f"sap:{100 * (i + 1)}" if i else "none" for i in range(len(truth)))
    per_draw = np.stack([found.sum(-1) for found in right], 2)  # (P, A, 2, m)
    return Payoffs(
        policies=names,
        attacks=tuple(f"attack-{j}" for j in range(truth.shape[1])),
        draws=draws,
        correct=correct,
        draw_correct=dict(zip(names, per_draw, strict=True)) if shared else {},
    )


MIXED = np.array([[0.7, 0.3, 0.5], [0.3, 0.6, 0.5], [0.5, 0.5, 0.4]])


@pytest.mark.parametrize(
    ("truth", "shared"),
    [(MIXED, False), (np.full((4, 6), 0.4), False), (np.array([[0.6, 0.5], [0.4, 0.45]]), False), (MIXED, True)],
    ids=["mixed", "all equal", "pure", "draws shared"],
)
def test_the_intervals_hold_the_truth(truth: Floats, shared: bool) -> None:
    """In 95 % less five s.e. or more of 40 data sets: the value, what randomising buys, what one policy alone loses."""
    value = solve(truth).value
    true = {"value": value, "gain": value - truth.min(1).max(), "alone": value - truth[1].min()}
    hits = dict.fromkeys(true, 0)
    for seed in range(40):
        report = analyse(payoffs_of(truth, images=48, draws=8, seed=seed, shared=shared), seed=seed)
        found = {"value": report.value, "gain": report.gain, "alone": report.exploitability[1]}
        for name, estimate in found.items():
            hits[name] += estimate.low - 1e-12 <= true[name] <= estimate.high + 1e-12

    assert min(hits.values()) / 40 > 0.95 - 5 * math.sqrt(0.95 * 0.05 / 40)


def test_intervals_are_what_one_half_s_choices_are_worth_on_the_other() -> None:
    """Images that are all alike within a half: no sampling error, so the bounds themselves, computed by hand."""
    even, odd = (np.array(m) for m in ([[6, 2], [2, 6], [1, 0]], [[2, 6], [4, 5], [0, 1]]))
    correct = np.stack([even, odd] * 200, -1)  # of the one half 1/2 and 1/2, of the other the second, the first
    report = analyse(Payoffs(("none", "rna:1", "sap:1"), ("a", "b"), 10, correct), seed=1)

    assert report.value == pytest.approx((0.4, (0.3 + 0.2) / 2, (0.45 + 0.6) / 2))
    assert report.exploitability[0] == pytest.approx((0, 0, (0.25 + 0.4) / 2))
    assert report.exploitability[1] == pytest.approx((0.1, 0, (0.05 + 0.4) / 2))
    assert report.exploitability[2] == pytest.approx((0.35, (0.2 + 0.1) / 2, (0.45 + 0.6) / 2))
    assert report.gain == pytest.approx((0, 0, (0.25 + 0.4) / 2))
    assert report.gain_over_sap == report.exploitability[2]
    assert report.held_out_defender == pytest.approx((0.15, 0, 0.275))
    assert report.held_out_attacker == pytest.approx((0.125, 0, 0.275))


def test_a_policy_chosen_by_luck_does_not_make_randomising_worth_something() -> None:
    """Where all is equal the measured gain is above 0 in every data set, and its interval begins at 0 in nearly all."""
    reports = [analyse(payoffs_of(np.full((4, 6), 0.4), images=48, draws=8, seed=s), seed=s) for s in range(25)]

    assert sum(report.gain.value > 0.005 for report in reports) > 20
    assert sum(report.gain.low > 0 for report in reports) <= 2
    assert all(report.held_out_defender.value > 0 for report in reports)


def test_a_true_gain_is_seen_and_intervals_shrink() -> None:
    """Two policies that fail at different attacks: .45 alone would be .3, and 16 times the images quarter the width."""
    truth = np.array([[0.3, 0.6], [0.6, 0.3]])
    few, many = (analyse(payoffs_of(truth, images=n, draws=8, seed=3), seed=1) for n in (100, 1600))

    assert few.gain.low > 0.03
    assert many.gain.low < 0.15 < many.gain.high
    assert many.gain_over_sap is not None
    assert many.gain_over_sap.value == pytest.approx(many.exploitability[1].value)
    assert (many.value.high - many.value.low) / (few.value.high - few.value.low) == pytest.approx(0.25, abs=0.08)


def test_shared_draws_widen_the_interval() -> None:
    """The same counts, once with the knowledge that a draw moves all images."""
    payoffs = payoffs_of(np.array([[0.5]]), images=200, draws=8, seed=1, shared=True)
    shared, plain = (analyse(p, seed=1).value for p in (payoffs, replace(payoffs, draw_correct={})))

    assert shared.value == plain.value
    truth = math.sqrt(0.25 / 11 / 16 + 0.25 * 10 / 11 / 1600)  # two halves of eight draws, Beta(5, 5); 1,600 tosses
    assert (shared.high - shared.low) / 2 == pytest.approx(1.96 * truth, rel=0.3)
    assert plain.high - plain.low < 0.6 * (shared.high - shared.low)


def test_the_bootstrap_is_cut_without_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit by bit, wherever the cuts are; and memory does not grow with the resamples of many draws."""
    small = payoffs_of(MIXED, images=9, draws=70, seed=1, shared=True)
    found: list[Floats] = []
    for at_once in (10**9, 4000, 1):
        monkeypatch.setattr(analysis, "AT_ONCE", at_once)
        found.append(analysis.matrices_of(small, 1, seed=3))
    assert all(np.array_equal(found[0], other) for other in found[1:])

    monkeypatch.undo()
    many = np.random.default_rng(1).integers(0, 2, (10, 2, 600))
    attacks = tuple(map(str, range(10)))
    payoffs = Payoffs(("swp:1",), attacks, 600, many.sum(-1)[None], {"swp:1": many})
    monkeypatch.setattr(analysis, "AT_ONCE", 100_000)
    tracemalloc.start()
    analysis.matrices_of(payoffs, 0, seed=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 8_000_000  # 96 MB in one piece


def test_resampled_draws_move_their_own_cell() -> None:
    """2,000 games a half. Where images are all alike only the draws move a cell: by p (1 - p) / m, each by itself."""
    right = {"a": (4, 20), "b": (20, 36)}  # of 40 draws that the even and the odd images share
    together = np.array([[[n] * k + [0] * (40 - k) for n, k in ((5, even), (4, odd))] for even, odd in right.values()])
    correct = np.full((2, 2, 9), 30)
    for number, half in enumerate(HALVES):
        correct[1, :, half] = [[counts[number]] for counts in right.values()]
    payoffs = Payoffs(("none", "swp:1"), tuple(right), 40, correct, {"swp:1": together})
    for number in range(len(HALVES)):
        found = analysis.matrices_of(payoffs, number, seed=3)
        p = np.array([counts[number] / 40 for counts in right.values()])
        error = np.sqrt(p * (1 - p) / 40)

        assert found.shape == (1 + 2000, 2, 2)
        assert found[0] == pytest.approx(np.array([[0.75, 0.75], p]))
        assert np.abs(found[1:, 0] - 0.75).max() < 1e-12
        assert found[1:, 1].std(0) == pytest.approx(error, rel=5 / math.sqrt(2 * 2000))
        assert (np.abs(found[1:, 1].mean(0) - p) < 5 * error / math.sqrt(2000)).all()
        assert abs(((found[1:, 1] - p) / error).prod(1).mean()) < 5 / math.sqrt(2000)


def test_certain_images_leave_uncertainty() -> None:
    """Nothing was ever right: the value's interval is Wilson's, as everywhere; the seed decides the bootstrap alone."""
    zero = Payoffs(("sap:100",), ("pgd",), 16, np.zeros((1, 1, 64), dtype=np.int64))
    mixed = payoffs_of(MIXED, images=48, draws=8, seed=1)

    assert analyse(zero, seed=1).value == pytest.approx((0, 0, 0.0566), abs=1e-4)
    assert analyse(mixed, seed=1).gain == analyse(mixed, seed=1).gain != analyse(mixed, seed=2).gain


def two_attacks(x: Tensor) -> dict[str, Tensor]:
    """Points at which ``Switch`` is right with its first or its second probability."""
    return {"left": x, "right": x.index_fill(3, torch.tensor([3]), 1.0)}


class Switch(nn.Module):
    """A coin whose probability of being right depends on the last pixel; ``shared``: one toss for all images."""

    def __init__(self, left: float, right: float, *, shared: bool = False) -> None:
        super().__init__()
        self.left, self.right, self.shared = left, right, shared

    def forward(self, x: Tensor) -> Tensor:
        label = (x.flatten(1)[:, 0] > 0.5).long()
        p = torch.where(x.flatten(1)[:, -1] > 0.9, self.right, self.left)
        right = (torch.rand(()).expand(len(x)) if self.shared else torch.rand(len(x))) < p
        return nn.functional.one_hot(torch.where(right, label, 1 - label), 2).float()


def test_cross_evaluation_is_that_of_the_coins() -> None:
    """Each cell within five standard errors; cells, images and halves have draws of their own; the seed decides."""
    x, y = reference.coin_data(41)
    models = {"a": wrap(Switch(0.9, 0.2), seed=1), "b": wrap(Switch(0.3, 0.6), seed=1)}
    found = cross_evaluate(models, two_attacks(x), y, draws=200, seed=7)
    truth = np.array([[0.9, 0.2], [0.3, 0.6]])

    assert (found.policies, found.attacks, found.images) == (("a", "b"), ("left", "right"), 41)
    z = (found.matrix - truth) / np.sqrt(truth * (1 - truth) / (200 * 41))
    assert np.abs(z).max() < 5
    each = (found.correct - 200 * truth[..., None]) / np.sqrt(200 * truth * (1 - truth))[..., None]
    assert np.abs(each).max() < 5
    assert each.std() == pytest.approx(1, abs=5 / math.sqrt(2 * each.size))
    again = cross_evaluate(models, two_attacks(x), y, draws=200, seed=7)
    other = cross_evaluate(models, two_attacks(x), y, draws=200, seed=8)
    assert (again.correct == found.correct).all()
    assert (other.correct != found.correct).any()
    assert found.draw_correct == {}


def test_cross_evaluation_keeps_the_draws_that_images_share() -> None:
    """All images of a half are right together; the other half, and the other attack, has draws of its own."""
    x, y = reference.coin_data(9)
    found = cross_evaluate(
        {"shared": wrap(Switch(0.5, 0.5, shared=True), per_example=False), "coin": wrap(Switch(0.5, 0.5))},
        two_attacks(x),
        y,
        draws=32,
        seed=1,
    )
    counts = found.draw_correct["shared"]

    assert set(found.draw_correct) == {"shared"}
    assert counts.shape == (2, 2, 32)
    assert set(np.unique(counts[:, 0])) == {0, 5}
    assert set(np.unique(counts[:, 1])) == {0, 4}
    patterns = {tuple((counts[j, half] > 0).tolist()) for j in range(2) for half in range(2)}
    assert len(patterns) == 4


def test_a_deterministic_model_is_run_once() -> None:
    """And counts as right in all draws or in none."""

    class Counting(Switch):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x)

    x, y = reference.coin_data(10)
    net = Counting(1.0, 0.0)
    found = cross_evaluate({"none": wrap(net, dense=net, per_example=False)}, two_attacks(x), y, draws=5, seed=1)

    assert net.calls == 4
    assert found.correct.tolist() == [[[5] * 10, [0] * 10]]
    assert found.draw_correct == {}


@pytest.mark.parametrize(
    ("attacks", "labels", "draws", "message"),
    [
        ({}, 4, 3, "needs a model, an attack and two images, got 1, 0 and 4"),
        ({"a": 3}, 4, 3, "must be those of the 4 labelled images, got 3"),
        ({"a": 1}, 1, 3, "two images"),
        ({"a": 4}, 4, 0, "draws must be at least 1, got 0"),
    ],
)
def test_cross_evaluation_refuses(attacks: dict[str, int], labels: int, draws: int, message: str) -> None:
    """What cannot be a game."""
    points = {name: reference.coin_data(n)[0] for name, n in attacks.items()}
    with pytest.raises(ValueError, match=message):
        cross_evaluate({"coin": wrap(reference.Coin(0.5))}, points, reference.coin_data(labels)[1], draws=draws, seed=1)


@pytest.mark.parametrize("shared", [False, True])
def test_file_round_trip(tmp_path: Path, shared: bool) -> None:
    """What is written is what is read, by file or by folder, and the same bytes every time."""
    payoffs = payoffs_of(MIXED, images=7, draws=3, seed=1, shared=shared)
    path = write(payoffs, ThreatModel("L2", 0.5), tmp_path / "new")
    first = path.read_bytes()
    found, threat = read(path)

    assert path == tmp_path / "new" / "payoff.json"
    assert threat == ThreatModel("L2", 0.5)
    assert (found.policies, found.attacks, found.draws) == (payoffs.policies, payoffs.attacks, payoffs.draws)
    assert (found.correct == payoffs.correct).all()
    assert all((found.draw_correct[p] == counts).all() for p, counts in payoffs.draw_correct.items())
    assert len(found.draw_correct) == 3 * shared
    assert (read(tmp_path / "new")[0].correct == payoffs.correct).all()
    assert write(found, threat, tmp_path / "new").read_bytes() == first


GOOD = {
    "schema": 1,
    "policies": ["none", "rnw:0.1"],
    "attacks": ["pgd"],
    "images": 2,
    "draws": 2,
    "norm": "Linf",
    "eps": 0.03,
    "correct": [[[0, 2]], [[1, 2]]],
    "draw_correct": {"rnw:0.1": [[[1, 0], [1, 1]]]},
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema must be 1, got 2; a larger one needs a newer sap-art"),
        ({"schema": True}, "schema must be 1, got True"),
        ({"schema": None}, "schema must be 1, got None"),
        ({"surprise": 1}, "surprise: Unexpected"),
        ({"policies": ["none", "none"]}, "policies must be distinct printable names"),
        ({"policies": ["none", "\x1b[2J"]}, "policies must be distinct printable names"),
        ({"policies": [], "correct": []}, "policies must be distinct printable names, at least one"),
        ({"attacks": [""]}, "attacks must be distinct printable names"),
        ({"attacks": [7]}, "attacks.0: Input should be a valid string"),
        ({"attacks": ["pgd", "noise"]}, "correct must be 2 policies x 2 attacks x images"),
        ({"draws": 0}, "draws must be 1 to 1,000,000, got 0"),
        ({"draws": 10**30}, "draws must be 1 to 1,000,000"),
        ({"draws": 2.5}, "draws: Input should be a valid integer"),
        ({"draws": 1}, "correct must be whole numbers from 0 to 1"),
        ({"images": 3}, "images is 3, but correct holds 2 an attack"),
        ({"images": 1, "correct": [[[0]], [[1]]]}, "images, at least 2, got shape"),
        ({"correct": [[[0, 2]], [[-1, 2]]]}, "correct must be whole numbers from 0 to 2"),
        ({"correct": [[[0, 2]], [[1, 3]]]}, "correct must be whole numbers from 0 to 2"),
        ({"correct": [[[0, 2]], [[1]]]}, "correct must be lists of one length"),
        ({"correct": [[[0, 2]], [[10**30, 2]]]}, "correct must be lists of one length with whole numbers up to draws"),
        ({"correct": [[[0, 2]], [[True, 2]]]}, "correct.1.0.0: Input should be a valid integer"),
        ({"correct": [[["a"] * 9]]}, "and 6 more"),
        ({"correct": 5}, "correct: Input should be a valid"),
        ({"correct": []}, "correct must be 2 policies x 1 attacks"),
        ({"draw_correct": {"swp": [[[1, 0], [1, 1]]]}}, "names 'swp', which is not among the policies"),
        ({"draw_correct": {"rnw:0.1": [[[1, 1], [1, 1]]]}}, "does not add up"),
        ({"draw_correct": {"rnw:0.1": [[[2, -1], [1, 1]]]}}, "draw_correct of rnw:0.1 must be whole numbers"),
        ({"draw_correct": {"rnw:0.1": [[[1], [2]]]}}, "must be 1 attacks x 2 halves x 2 draws"),
        ({"norm": "L7"}, "unknown norm 'L7'"),
        ({"eps": -1}, "eps must be a finite number above 0"),
        ({"eps": "8/255"}, "eps: Input should be a valid number"),
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    """The message names the file and what is wrong with it; unchanged it would have been read."""
    path = tmp_path / "payoff.json"
    path.write_text(json.dumps(GOOD))
    read(path)
    path.write_text(json.dumps({**GOOD, **change}))

    with pytest.raises(ValueError, match=r"payoff\.json is not a payoff file") as caught:
        read(path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "[" * 100_000, '{"schema": 1, "eps": NaN}', '{"schema": 1}', "\ufeff{}", '"\\ud800"'],
)
def test_what_is_not_our_json_is_refused(tmp_path: Path, text: str) -> None:
    """Whatever else it is; with a ValueError."""
    (tmp_path / "payoff.json").write_text(text, encoding="utf-8")

    with pytest.raises(ValueError, match="is not a payoff file"):
        read(tmp_path)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """``sap-art`` in this process; its exit status."""
    monkeypatch.setattr("sys.argv", ["sap-art", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_the_command_says_who_should_play_what(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Weights, value, what each policy loses alone and what randomising buys; strategies of no weight are left out."""
    truth = np.array([[0.3, 0.7, 0.8], [0.5, 0.4, 0.8], [0.1, 0.2, 0.3]])  # 1/5 and 4/5; 3/5 and 2/5; .46
    correct = np.repeat((10 * truth).round().astype(np.int64)[..., None], 40, -1)
    write(Payoffs(("none", "sap:100", "sap:50"), ("a", "b", "c"), 10, correct), ThreatModel(), tmp_path)
    assert run(monkeypatch, "game", str(tmp_path), "--seed", "3") == 0
    shown = capsys.readouterr().out
    assert run(monkeypatch, "game", str(tmp_path / "payoff.json"), "--seed", "3") == 0

    assert capsys.readouterr().out == shown
    assert shown == describe(*read(tmp_path), analyse(read(tmp_path)[0], seed=3)) + "\n"
    for line in (
        "3 policies against 3 attacks, 40 images, 10 fresh draws an image, Linf eps = 8/255",
        "   80.0 %  sap:100\n   20.0 %  none\n\n",
        "   60.0 %  a\n   40.0 %  b\n\n",
        "Value of the game: 46.0 [",
        "  sap:50    10.0  loses 36.0 [36.0, 36.0]  (a)",
        "Randomising over policies buys 6.0 [6.0, 6.0] beyond the best of them alone, sap:100.",
        "Beyond SAP alone, sap:100, it buys 6.0 [6.0, 6.0].",
        "the best attack takes 0.0, at most 0.0, from the defender's mix",
    ):
        assert line in shown


def test_without_sap_nothing_is_said_of_it(tmp_path: Path) -> None:
    """And with it, a SAP policy of another name than ``sap:`` does not count."""
    write(Payoffs(("none", "swp:100"), ("a",), 2, np.array([[[1, 2]], [[1, 1]]])), ThreatModel(), tmp_path)
    payoffs, threat = read(tmp_path)

    assert "SAP" not in describe(payoffs, threat, analyse(payoffs, seed=0))


def test_small_weights_are_not_printed() -> None:
    """A policy that should be played once in 2,000 predictions is left out."""
    correct = np.repeat(np.array([[10_000, 0], [0, 5]])[..., None], 4, -1)
    payoffs = Payoffs(("rare", "often"), ("a", "b"), 10_000, correct)
    report = analyse(payoffs, seed=0)
    shown = describe(payoffs, ThreatModel(), report)

    assert report.solution.defender == pytest.approx([5 / 10_005, 10_000 / 10_005])
    assert "%  often\n" in shown
    assert "%  rare\n" not in shown


@pytest.mark.parametrize("name", ["nowhere", "empty", "broken.json"])
def test_the_command_refuses(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Status 2 and the file's name, no traceback."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.json").write_text("{")

    assert run(monkeypatch, "game", str(tmp_path / name)) == 2
    assert name in capsys.readouterr().err
