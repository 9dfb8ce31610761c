"""``sap-art paper``: figures on disk, resumed to the same bytes, missing nets named, a page side by side."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sap_art import data, zoo
from sap_art.bench import Watch
from sap_art.cli import main
from sap_art.defended import DefendedModel
from sap_art.paper import run as running
from sap_art.paper import work
from sap_art.paper.budgets import BUDGETS
from sap_art.paper.figures import (
    ADV,
    DENSE,
    DENSE_FGSM,
    FIGURES,
    NOISE,
    ONE_FGSM,
    SAP_100,
    Curve,
    Defender,
    Figure,
)
from sap_art.paper.game import Game
from sap_art.paper.nets import Absent, Net, find_net, roles_of
from sap_art.paper.page import BEATEN, page
from sap_art.paper.plots import plot
from sap_art.paper.results import FigureResult, Score
from sap_art.paper.run import run_figures
from sap_art.policies import DWP
from sap_art.record_parts import Value
from sap_art.store import Store
from sap_art.tiers import TIERS

TINY = replace(BUDGETS["quick"], images=4, report_draws=3, lambdas=(0, 16), iterative_lambda=16)


def compute(
    output: Path, *names: str, watch: Watch | None = None, checkpoints: Path | None = None
) -> list[FigureResult]:
    """Figures of four bundled images at two radii."""
    return run_figures(
        list(names), budget=TINY, seed=0, output=output, device="cpu", source=None, checkpoints=checkpoints, watch=watch
    )


def without_adv(role: str, *, checkpoints: Path | None = None) -> Net | Absent:
    """The zoo of somebody who has not trained ADV."""
    return Absent("preact-resnet20-adv", "sap-art train --recipe adv") if role == "adv" else find_net(role)


@pytest.fixture(autouse=True, scope="module")
def anywhere() -> Generator[None]:
    """The images that ship with the package, short climbs, and a rate that need not be measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SAP_ART_DATA", raising=False)
        patch.setattr(work, "measure_rate", lambda model, x, y: 1000.0)
        patch.setitem(work.TIERS, "smoke", replace(TIERS["smoke"], steps=4))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Figures 1b, 3 and 4, without ADV."""
    output = tmp_path_factory.mktemp("paper") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "find_net", without_adv)
        results = compute(output, "1b", "3", "4")
    assert results == [figure(output, name) for name in ("1b", "3", "4")]
    return output


def figure(made: Path, name: str) -> FigureResult:
    """As it lies on disk."""
    return FigureResult.read(made / "figures" / f"{name}.json")


def test_a_figure_on_disk(made: Path) -> None:
    """Each line at each radius, with intervals that hold their values, settings and seed."""
    result = figure(made, "1b")

    assert [c.defender for c in result.curves] == [c.defender.name for c in FIGURES["1b"].curves]
    assert [[p.lam for p in c.points] for c in result.curves] == [[0, 16]] * 3
    assert [c.report_draws for c in result.curves] == [1, 3, 3]
    for point in (p for c in result.curves for p in c.points):
        for score in (point.attacked, point.worst):
            assert all(0 <= v.low <= v.value <= v.high <= 1 for v in (score.single, score.mean, score.every))
            assert score.every.value <= score.single.value
    assert (result.settings.seed, result.settings.data.n, result.schema) == (0, 4, 1)
    assert all(c.points[0].attacked == c.points[0].worst for c in result.curves)
    assert result.nets[0].accuracy == zoo.load_card("preact-resnet20").accuracy


def test_round_trip(made: Path, tmp_path: Path) -> None:
    """What is written is what is read."""
    result = figure(made, "4")

    assert FigureResult.read(result.write(tmp_path)) == result
    assert (tmp_path / "4.json").read_bytes() == (made / "figures" / "4.json").read_bytes()


def test_a_file_of_something_else(tmp_path: Path) -> None:
    """Named, with what is wrong about it."""
    (tmp_path / "1a.json").write_text('{"schema": 99}')
    with pytest.raises(ValueError, match=r"1a\.json is not a figure of ours: schema must be 1, got 99"):
        FigureResult.read(tmp_path / "1a.json")


def test_what_figures_share_is_computed_once(made: Path) -> None:
    """Dense and SAP-100 are the same lines in 1b, 3 and 4, number by number; clean images have one score."""
    lines = {n: {c.defender: [p.attacked for p in c.points] for c in figure(made, n).curves} for n in ("1b", "3", "4")}

    assert lines["3"] == lines["4"] == {name: lines["1b"][name] for name in ("dense", "SAP-100")}


def test_calibration_has_the_error_that_the_paper_did_not_print(made: Path) -> None:
    """In figure 4 alone: bins, and an ECE with its interval at each radius."""
    assert all(p.calibration is None for c in figure(made, "3").curves for p in c.points)
    for curve in figure(made, "4").curves:
        for point in curve.points:
            assert point.calibration is not None
            assert point.calibration.intervals is not None
            assert point.calibration.draws == curve.report_draws
            assert sum(b.count for b in point.calibration.bins) == 4
            assert point.calibration.intervals["ece"].value == pytest.approx(point.calibration.ece)


def test_differences_that_the_paper_prints(made: Path) -> None:
    """SAP-100 minus dense where both are there, paired."""
    result = figure(made, "1b")
    means = {c.defender: {p.lam: p.attacked.mean.value for p in c.points} for c in result.curves}

    assert [(d.first, d.second, d.lam) for d in result.differences] == [
        ("SAP-100", "dense", 0),
        ("SAP-100", "dense", 16),
    ]
    for d in result.differences:
        assert d.value.value == pytest.approx(means[d.first][d.lam] - means[d.second][d.lam])
        assert d.value.low <= d.value.value <= d.value.high


def test_missing_nets_are_named(made: Path) -> None:
    """With the command that trains them, in the file and on the page."""
    missing = figure(made, "3").missing

    assert [m.defender for m in missing] == ["ADV", "ADV+SAP-100"]
    assert {m.net for m in missing} == {"preact-resnet20-adv"}
    assert "Missing: ADV+SAP-100" in (made / "paper.md").read_text()


def test_the_page(made: Path) -> None:
    """Side by side: the paper's number, ours, the worst case; and what differs."""
    text = (made / "paper.md").read_text()
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| dense")
    ]

    assert rows[0][:4] == ["dense", "FGSM, own gradient, 4 images", "0", "89.8"]
    assert all("(" in cell and "to" in cell for cell in rows[0][4:])
    assert "| SAP-100 − dense | 16 | -5.2 |" in text
    assert "The paper's dense net has 89.8 % clean after 150 epochs with steps of the rate; ours has 91.68 % " in text
    assert "28 × 28" in text
    assert text == page([figure(made, name) for name in ("1b", "3", "4")])


def test_a_worst_case_that_is_none(made: Path) -> None:
    """Where the row's own attack leaves less, the page says so, for each way to score by itself."""
    found = figure(made, "1b")
    curve = found.curves[0]
    low, high = Value(0.25, 0.1, 0.4), Value(0.5, 0.3, 0.7)
    for attacked, worst, marks in (
        (Score(low, high, low), Score(high, high, low), ["", BEATEN]),
        (Score(high, low, low), Score(low, high, low), [BEATEN, ""]),
    ):
        curves = [replace(curve, points=[replace(curve.points[1], attacked=attacked, worst=worst)])]
        row = next(line for line in page([replace(found, curves=curves)]).splitlines() if line.startswith("| dense"))
        assert [BEATEN if BEATEN in cell else "" for cell in row.split("|")[-3:-1]] == marks


def test_the_page_of_the_repository_is_what_its_figures_say() -> None:
    """All eight, with the same settings, no line left out."""
    folder = Path(__file__).parents[1] / "benchmarks" / "paper" / "results"
    figures = [FigureResult.read(folder / "figures" / f"{name}.json") for name in FIGURES]

    assert (folder / "paper.md").read_text(encoding="utf-8") == page(figures)
    assert not any(found.missing for found in figures)
    assert {str(found.settings) for found in figures} == {str(figures[0].settings)}


@pytest.mark.parametrize("name", ["1b", "4"])
def test_plots(name: str, made: Path, tmp_path: Path) -> None:
    """PNG and SVG, the same bytes each time."""
    first, second = (plot(figure(made, name), tmp_path / folder) for folder in ("a", "b"))

    assert [path.name for path in first] == [f"{name}.png", f"{name}.svg"]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_interrupted_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes as without; finished units are read, not computed again."""
    compute(tmp_path / "whole", "1a")
    calls = 0

    def interrupted(*args: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return whole(*args, **options)  # type: ignore[arg-type]

    whole = work.points
    monkeypatch.setattr(work, "points", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compute(tmp_path / "cut", "1a")
    assert not (tmp_path / "cut" / "paper.md").exists()
    compute(tmp_path / "cut", "1a")

    assert calls == 4  # three lines, the last of them twice
    for file in ("figures/1a.json", "paper.md", "suite.json"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_another_run_keeps_out(made: Path) -> None:
    """A folder has the results of one budget and one seed."""
    with pytest.raises(ValueError, match="results of another run, which differs in: seed"):
        run_figures(["1a"], budget=TINY, seed=1, output=made, device="cpu", source=None)


def test_progress_adds_up(tmp_path: Path) -> None:
    """What was announced is what is done in the end; the forecast holds what is left to do."""
    expected: list[int] = []
    done: list[int] = []
    forecasts: list[int] = []
    watch = Watch(
        forecast=lambda left: forecasts.append(sum(f.passes for f in left)),
        expect=expected.append,
        advance=done.append,
    )
    compute(tmp_path / "out", "1a", watch=watch)

    assert forecasts == expected
    assert sum(done) == sum(expected) > 0
    units = list((tmp_path / "out" / "work").rglob("*.safetensors"))
    assert len(units) == 9  # of three lines: clean, attacked, at worst
    compute(tmp_path / "out", "1a", watch=watch)
    assert len(forecasts) == 1


def test_the_readme_has_the_forecast_of_the_full_form(tmp_path: Path) -> None:
    """Passes of all figures, and of a game, on all 10,000 test images."""
    net = find_net(DENSE.role)
    assert isinstance(net, Net)
    figures = list(FIGURES.values())
    expected: list[int] = []
    full = work.Work(
        dict.fromkeys(roles_of(figures), net),
        torch.zeros(10_000, 1),
        torch.zeros(10_000),
        BUDGETS["full"],
        seed=0,
        store=Store(tmp_path),
        watch=Watch(expect=expected.append),
    )
    full.announce_all([curve for figure in figures for curve in figure.curves])
    full.announce(Game(full, DENSE.role, 2).tasks())
    readme = " ".join((Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8").split())

    assert f"{expected[0] / 1e6:,.0f} million passes, a game {expected[1] / 1e6:,.0f} million" in readme


def test_a_net_is_looked_for_where_it_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the folder that is given, then in the zoo; missing, the command that trains it is said."""
    monkeypatch.chdir(tmp_path)
    absent = find_net(ADV.role)
    assert isinstance(absent, Absent)
    assert "sap-art train --arch preact-resnet20 --recipe adv " in absent.command
    assert absent.command.endswith(" --output benchmarks/checkpoints/preact-resnet20-adv")

    for folder in ("flat", "nested/preact-resnet20-adv", "benchmarks/checkpoints/preact-resnet20-adv"):
        put_adv(Path(folder))
    for checkpoints in (Path("flat"), Path("nested"), None):
        found = find_net(ADV.role, checkpoints=checkpoints)
        assert isinstance(found, Net)
        assert (found.name, found.recipe, found.epochs) == ("preact-resnet20-adv", "fast", 24)


def test_the_repository_is_not_looked_into_where_another_folder_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a net taken from a folder that is called otherwise."""
    monkeypatch.chdir(tmp_path)
    put_adv(Path("benchmarks/checkpoints/preact-resnet20-adv"))
    put_adv(Path("other/adv"))

    assert isinstance(find_net(ADV.role, checkpoints=Path("other")), Absent)


def put_adv(folder: Path) -> None:
    """The shipped net of ``fast`` under the name of ADV."""
    folder.mkdir(parents=True)
    for suffix in (".json", ".safetensors"):
        shutil.copy(zoo.ASSETS / f"preact-resnet20-fast{suffix}", folder / f"preact-resnet20-adv{suffix}")


def use_figures(patch: pytest.MonkeyPatch, lines: dict[str, tuple[Curve, ...]]) -> None:
    """Other figures in the place of the paper's."""
    figures = {name: Figure(name, name, curves) for name, curves in lines.items()}
    patch.setattr(running, "FIGURES", figures)
    patch.setattr(running, "figure_named", figures.__getitem__)


def test_a_net_that_was_trained_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of one page have the same nets: one that would keep the old weights is named, before any work."""
    lines = {"3": (ADV,), "4": (DENSE, ADV), "1a": (DENSE,)}
    use_figures(monkeypatch, {name: tuple(Curve(d, DENSE_FGSM) for d in shown) for name, shown in lines.items()})
    put_adv(tmp_path / "nets")
    compute(tmp_path / "out", "3", checkpoints=tmp_path / "nets")
    for suffix in (".json", ".safetensors"):
        (tmp_path / "nets" / f"preact-resnet20-adv{suffix}").write_bytes(
            (zoo.ASSETS / f"preact-resnet20{suffix}").read_bytes()
        )
    with pytest.raises(ValueError, match=r"figure 3 .* other weights of preact-resnet20-adv; .* --figure 3"):
        compute(tmp_path / "out", "4", checkpoints=tmp_path / "nets")
    assert not (tmp_path / "out" / "figures" / "4.json").exists()
    compute(tmp_path / "out", "1a", checkpoints=tmp_path / "nets")  # which has no ADV


def test_a_missing_net_shows_in_the_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rest is done and on the page; status 1, and what to do on standard error."""
    monkeypatch.setattr(running, "find_net", without_adv)
    monkeypatch.setitem(BUDGETS, "quick", replace(TINY, images=2))
    monkeypatch.setattr("sys.argv", ["sap-art", "paper", "--figure", "3", "--output", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as caught:
        main()

    assert caught.value.code == 1
    assert "figure 3: no ADV+SAP-100: no checkpoint of preact-resnet20-adv: sap-art train" in capsys.readouterr().err
    assert "Missing: ADV+SAP-100" in (tmp_path / "out" / "paper.md").read_text()


def test_neither_order_nor_company_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures computed backwards, one by one or together, leave the same bytes, those of weight noise too."""
    curves = (Curve(DENSE, DENSE_FGSM), Curve(SAP_100, ONE_FGSM), Curve(Defender("RNW", policy="rnw:0.05"), ONE_FGSM))
    use_figures(monkeypatch, {"1a": curves, "1b": curves[:0:-1]})
    compute(tmp_path / "together", "1a", "1b")
    compute(tmp_path / "backwards", "1b", "1a")
    compute(tmp_path / "apart", "1b")
    compute(tmp_path / "apart", "1a")

    for folder in ("backwards", "apart"):
        for file in ("figures/1a.json", "figures/1b.json", "paper.md"):
            assert (tmp_path / folder / file).read_bytes() == (tmp_path / "together" / file).read_bytes()
        for unit in (tmp_path / "together" / "work").rglob("*.safetensors"):
            same = tmp_path / folder / unit.relative_to(tmp_path / "together")
            assert same.read_bytes() == unit.read_bytes(), unit
    lines = [{c.defender: c for c in figure(tmp_path / "together", name).curves} for name in ("1a", "1b")]
    assert lines[1].items() < lines[0].items()


def test_blocks_have_randomness_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same image in two blocks is perturbed by other noise and scored on other draws."""
    x, y = data.load("cifar10", n=1)
    monkeypatch.setattr(work, "BLOCK", 1)
    monkeypatch.setattr(running.data, "load", lambda *args, **options: (x.expand(2, -1, -1, -1), y.expand(2)))
    monkeypatch.setattr(work, "worst_points", lambda model, x, y, lambdas, **options: dict.fromkeys(lambdas, x))
    use_figures(monkeypatch, {"1a": (Curve(SAP_100, NOISE),)})
    scored: dict[bytes, int] = {}

    def draw_scores(model: object, points: Tensor, y: Tensor, *, draws: int, seed: int) -> tuple[Tensor, Tensor]:
        scored[points.numpy().tobytes()] = scored.get(points.numpy().tobytes(), 0) + 1
        seeds.append(seed)
        return torch.zeros(draws, 1, dtype=torch.bool), torch.zeros(1, 10)

    seeds: list[int] = []
    monkeypatch.setattr(work, "draw_scores", draw_scores)
    compute(tmp_path / "out", "1a")

    assert len(set(seeds)) == len(seeds) == 6  # of two blocks: clean, noise, at worst
    assert sorted(scored.values()) == [1, 1, 4]  # the noise of either; the image itself, as no attack was run


def test_pruned_weights_are_drawn_once() -> None:
    """DWP is a net like another: one report draw, its own gradient, bit by bit what the policy makes of the net."""
    net = zoo.load("preact-resnet20")
    x, _ = data.load("cifar10", n=4)
    model = work.model_of(net, "dwp:50", seed=0)

    assert model.deterministic
    assert torch.equal(model.single(x), DefendedModel(net, DWP(50), seed=3).single(x))
    assert not torch.equal(model.single(x), net(x))
    assert torch.equal(net(x), zoo.load("preact-resnet20")(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--figure", "7"], "unknown figure '7'; known: 1a, 1b, 1c, 2, 3, 4, 5, 6"),
        (["--budget", "huge"], "unknown budget 'huge'; known: quick, full"),
        (["--images", "0"], "at least 1"),
        (["--checkpoints", "nowhere"], "no such folder of checkpoints: nowhere"),
        (["--device", "abacus"], "device 'abacus' is not available"),
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
    monkeypatch.setattr("sys.argv", ["sap-art", "paper", "--output", str(tmp_path / "out"), *arguments])
    with pytest.raises(SystemExit) as caught:
        main()

    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
