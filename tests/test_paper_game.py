"""``sap-art paper --game``: real attacks on every defender, scored on every defender, as ``sap-art game`` reads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sap_art import DefendedModel, data, zoo
from sap_art.bench import Watch
from sap_art.cli import main
from sap_art.game import cross_evaluate, read
from sap_art.paper import game, work
from sap_art.paper.attacks import radius
from sap_art.paper.budgets import BUDGETS
from sap_art.paper.figures import DENSE, DENSE_FGSM, ITERATIVE, NOISE, Defender
from sap_art.paper.game import run_game
from sap_art.paper.players import DEFENDERS, PER_LAYER, STRATEGIES, Strategy, spec_of
from sap_art.paper.work import WORST, model_of
from sap_art.policies import AtSites, parse_policy
from sap_art.randomness import derive_seed
from sap_art.tiers import TIERS

LAM = 16
TINY = replace(BUDGETS["quick"], images=5, report_draws=3, lambdas=(0, 8, LAM), iterative_lambda=8)
SAP, WEIGHTS = (Defender(spec, policy=spec) for spec in ("sap:50@0-9", "rnw:0.05"))
SENT = (Strategy(WORST, DENSE), Strategy(WORST, SAP), Strategy(NOISE, DENSE), Strategy(ITERATIVE, SAP))
NAMES = ("rdp-1 on none", "rdp-1 on sap:50@0-9", "noise", "iterative-defended-10 on sap:50@0-9")


def play(output: Path, lam: int = LAM, *, role: str = "dense", checkpoints: Path | None = None, seed: int = 0,
         watch: Watch | None = None) -> Path:  # fmt: skip
    """The game of five bundled images."""
    return run_game(
        lam, role=role, budget=TINY, seed=seed, output=output, device="cpu", source=None, checkpoints=checkpoints,
        watch=watch,
    )  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def few() -> Generator[None]:
    """Bundled images in blocks of two, three defenders, four strategies, short climbs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SAP_ART_DATA", raising=False)
        patch.setattr(work, "measure_rate", lambda model, x, y: 1000.0)
        patch.setitem(work.TIERS, "smoke", replace(TIERS["smoke"], steps=3, drop_draws=3))
        patch.setattr(game, "BLOCK", 2)
        patch.setattr(work, "BLOCK", 2)
        patch.setattr(game, "DEFENDERS", (DENSE, SAP, WEIGHTS))
        patch.setattr(game, "STRATEGIES", SENT)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """At 8/255."""
    output = tmp_path_factory.mktemp("game") / "out"
    assert play(output, 8) == output / "game" / "lambda-8" / "payoff.json"
    return output


def points(output: Path, sent: Strategy) -> Tensor:
    """What was kept of a strategy's points (B, 3, 32, 32)."""
    place = f"{(sent.against.policy or 'none').replace(':', '-')}/{work.name_of(sent.attack)}"
    files = sorted((output / "work" / "game" / "lambda-8").glob(f"*/{place}/points/*.safetensors"))
    return torch.cat([load_file(file)["points"] for file in files])


def test_every_strategy_is_scored_on_every_defender(made: Path, net: nn.Module) -> None:
    """Unit by unit what one cross-evaluation of the points makes of it, draws that images share included."""
    found, threat = read(made / "game" / "lambda-8")
    _, y = data.load("cifar10", n=5)
    models = {spec_of(d): model_of(net, d.policy, seed=9) for d in (DENSE, SAP, WEIGHTS)}
    sent = {name: points(made, strategy) for name, strategy in zip(NAMES, SENT, strict=True)}
    whole = cross_evaluate(models, sent, y, draws=3, seed=derive_seed(0, "game", "lambda-8", "report"))

    assert threat == radius(8)
    assert (found.policies, found.attacks, found.draws) == (whole.policies, whole.attacks, 3)
    assert (found.correct == whole.correct).all()
    assert set(found.draw_correct) == set(whole.draw_correct) == {"rnw:0.05"}
    assert (found.draw_correct["rnw:0.05"] == whole.draw_correct["rnw:0.05"]).all()
    assert len(np.unique(whole.draw_correct["rnw:0.05"].sum((1, 2)))) > 1
    assert len(np.unique(found.correct)) > 2


def test_points_stay_in_the_ball_and_do_damage(made: Path, images: tuple[Tensor, Tensor]) -> None:
    """Each strategy has its own; the adaptive one leaves nothing of its defender."""
    found = {strategy.name: points(made, strategy) for strategy in SENT}
    x = images[0][:5]
    for value in found.values():
        radius(8).require(x, value)
        assert (value - x).abs().amax((1, 2, 3)).min() > 0.9 * 8 / 255
    assert len({value.numpy().tobytes() for value in found.values()}) == 4
    payoffs, _ = read(made / "game" / "lambda-8")
    assert payoffs.matrix[0, 0] == payoffs.matrix[1, 1] == 0


def test_the_setting_is_kept_beside_the_payoffs(made: Path) -> None:
    """Net, images, seed and budget, which the payoffs do not say."""
    found = json.loads((made / "game" / "lambda-8" / "settings.json").read_text())

    assert (found["lam"], found["net"]["role"], found["net"]["name"]) == (8, "dense", "preact-resnet20")
    assert (found["settings"]["seed"], found["settings"]["data"]["n"]) == (0, 5)
    assert found["settings"]["budget"]["report_draws"] == 3


def test_report_draws_are_those_of_no_attack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One seed for each strategy and block, and one for the report that is none of them; another run has others."""
    seeds: list[int] = []
    reports: list[int] = []
    find, score = work.Work.find, game.cross_evaluate

    def found(self: work.Work, *args: object, lambdas: tuple[int, ...], seed: int) -> object:
        assert lambdas == (LAM,)
        seeds.append(seed)
        return find(self, *args, lambdas=lambdas, seed=seed)  # type: ignore[arg-type]

    def scored(*args: object, draws: int, seed: int) -> object:
        reports.append(seed)
        return score(*args, draws=draws, seed=seed)  # type: ignore[arg-type]

    monkeypatch.setattr(work.Work, "find", found)
    monkeypatch.setattr(game, "cross_evaluate", scored)
    monkeypatch.setattr(game, "DEFENDERS", (DENSE,))
    monkeypatch.setattr(game, "STRATEGIES", (Strategy(DENSE_FGSM, DENSE), Strategy(NOISE, DENSE)))
    for seed in (0, 1):
        play(tmp_path / str(seed), seed=seed)

    assert len(set(seeds)) == len(seeds) == 2 * 2 * 3
    assert len(reports) == 4
    assert len(set(reports)) == 2
    assert not set(seeds) & set(reports)


def test_interrupted_and_resumed(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes as without; finished units are read, not computed again."""
    calls, score = [0], game.cross_evaluate

    def interrupted(*args: object, **options: object) -> object:
        calls[0] += 1
        if calls[0] == 7:
            raise KeyboardInterrupt
        return score(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(game, "cross_evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        play(tmp_path / "cut", 8)
    assert not (tmp_path / "cut" / "game").exists()
    play(tmp_path / "cut", 8)

    assert calls == [3 * 4 + 1]
    for file in ("payoff.json", "settings.json"):
        assert (tmp_path / "cut/game/lambda-8" / file).read_bytes() == (made / "game/lambda-8" / file).read_bytes()


def test_progress_adds_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was announced is what is done in the end; the forecast holds what is left to do."""
    monkeypatch.setattr(game, "STRATEGIES", SENT[2:])
    expected: list[int] = []
    done: list[int] = []
    left: list[int] = []
    watch = Watch(forecast=lambda f: left.append(sum(e.passes for e in f)), expect=expected.append, advance=done.append)
    play(tmp_path / "out", 8, watch=watch)

    iterative, scores = 5 * 2 * 8 * 10, 2 * 5 * (1 + 3 + 3)
    assert expected == left == [iterative + scores]
    assert sum(done) == expected[0]
    play(tmp_path / "out", 8, watch=watch)
    assert len(left) == 1
    assert sum(done) == 2 * expected[0]


def test_another_net_and_radius(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own; beyond the budget's radius the iterative attack through a defence is left out."""
    monkeypatch.setattr(game, "STRATEGIES", SENT[2:])
    nets = tmp_path / "nets"
    nets.mkdir()
    for suffix in (".json", ".safetensors"):
        shutil.copy(zoo.ASSETS / f"preact-resnet20-fast{suffix}", nets / f"preact-resnet20-adv{suffix}")
    path = play(tmp_path / "out", role="adv", checkpoints=nets)
    payoffs, threat = read(path)

    assert path.parent == tmp_path / "out" / "game" / "adv-lambda-16"
    assert (payoffs.attacks, threat.eps) == (("noise",), 16 / 255)
    assert json.loads((path.parent / "settings.json").read_text())["net"]["recipe"] == "fast"


def test_who_plays(net: nn.Module) -> None:
    """Policies that can be had, each with an adaptive attack of its own; per layer, by the number of channels."""
    specs = [spec_of(defender) for defender in DEFENDERS]
    names = [strategy.name for strategy in STRATEGIES]
    model = DefendedModel(net, parse_policy("sap:100"), seed=0)
    model(torch.rand(1, 3, 32, 32))

    assert specs[0] == "none"
    assert [parse_policy(spec).spec for spec in specs[1:]] == specs[1:]
    families = {"none", "sap", "dro", "rna", "rsa", "rnw", "rsw", "dwp", "swp"}
    assert {spec.partition(":")[0] for spec in specs} == families
    assert len(set(specs)) == len(specs) == 15
    assert len(set(names)) == len(names) == 20
    assert names[:15] == [f"rdp-1 on {spec}" for spec in specs]
    assert names[15:] == ["noise", "fgsm-dense-1 on none", "iterative-dense-1 on none",
                          "fgsm-defended-100 on sap:100", "iterative-defended-10 on sap:100"]  # fmt: skip
    assert {strategy.against for strategy in STRATEGIES} == set(DEFENDERS)
    chosen = [parse_policy(spec) for spec in PER_LAYER]
    sites = [p.sites for p in chosen if isinstance(p, AtSites)]
    assert [i for run in sites for i in run] == list(range(19))
    assert [{model.sites[i].shape[0] for i in run} for run in sites] == [{16}, {32}, {64}]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """``sap-art`` in this process; its exit status."""
    monkeypatch.setattr("sys.argv", ["sap-art", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_the_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """One writes what the other reads."""
    monkeypatch.setitem(BUDGETS, "quick", TINY)
    monkeypatch.setattr(game, "STRATEGIES", SENT[2:3])
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "paper", "--game", "16", "--output", "out", "--images", "4") == 0
    assert "sap-art game out/game/lambda-16" in " ".join(capsys.readouterr().out.split())
    assert run(monkeypatch, "game", "out/game/lambda-16") == 0
    shown = capsys.readouterr().out

    assert "3 policies against 1 attacks, 4 images, 3 fresh draws an image, Linf eps = 16/255" in shown
    assert not (tmp_path / "out" / "paper.md").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--game", "3"], "lambda must be one of 1, 2, 4, 8, 16, 32, 64, got 3"),
        (["--game", "0"], "got 0"),
        (["--game", "1", "--figure", "1a"], "--game computes no figure; leave out --figure"),
        (["--net", "adv"], "--net needs --game"),
        (["--game", "1", "--net", "big"], "unknown net 'big'; known: dense, "),
        (["--game", "1", "--net", "adv", "--checkpoints", "."], "no checkpoint of preact-resnet20-adv: sap-art train"),
        (["--game", "1", "--images", "1"], "at least 2 images, got 1"),
        (["--game", "1", "--checkpoints", "nowhere"], "no such folder of checkpoints: nowhere"),
        (["--game", "1", "--device", "abacus"], "device 'abacus' is not available"),
    ],
)
def test_bad_arguments(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Status 2, one clear message, nothing written."""
    monkeypatch.chdir(tmp_path)

    assert run(monkeypatch, "paper", "--output", "out", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
