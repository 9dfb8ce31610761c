"""Every evasion attack of ART meets the real defence, or fails on ART's own classifier too (the table art_attacks)."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import multiprocessing
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from art_attacks import CLASSES, SHAPES, TABLE, Row, TinyNet, markdown, points
from torch import Tensor, nn

from sap_art import AttackerView
from sap_art.attacks.cost import Passes, count_passes
from sap_art.attacks.isolation import isolated
from sap_art.integrations.art import SAPClassifier, evaluate_art

evasion = importlib.import_module("art.attacks.evasion")
PyTorchClassifier: Any = importlib.import_module("art.estimators.classification").PyTorchClassifier
PAGE = Path(__file__).parents[1] / "docs" / "art-attacks.md"
DRAWS = 2
OFF = {"percent": 1e9, "sampler": "bernoulli"}  # keeps every unit
pytestmark = [pytest.mark.filterwarnings("ignore:::art\\."), pytest.mark.filterwarnings("ignore:function_values")]
numpy2 = pytest.mark.skipif(int(np.__version__.split(".")[0]) < 2, reason="ART's faults with numpy 2")


def rows(*outcomes: str) -> list[Any]:
    """Those rows of the table, as parameters."""
    return [pytest.param(row, id=str(row)) for row in TABLE if row.outcome in outcomes]


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GeoDA writes into it. AutoAttack asks for ``multiprocess``, but without a pool does nothing with it."""
    monkeypatch.chdir(tmp_path)
    if importlib.util.find_spec("multiprocess") is None:
        monkeypatch.setitem(sys.modules, "multiprocess", multiprocessing)


def plain(row: Row) -> PyTorchClassifier:
    """ART's own classifier of the row's net."""
    net: nn.Module = TinyNet(row.inputs)
    if row.probabilities:
        net.head = nn.Sequential(net.head, nn.Softmax(-1))
    return PyTorchClassifier(net, device_type="cpu", clip_values=(0.0, 1.0), **settings(row))


def settings(row: Row) -> dict[str, Any]:
    """What ART's classifiers and ours are told alike."""
    first = row.inputs != "channels last"
    return {
        "loss": nn.CrossEntropyLoss(),
        "input_shape": SHAPES[row.inputs],
        "nb_classes": CLASSES,
        "channels_first": first,
    }


def defended(row: Row, **defence: Any) -> SAPClassifier:
    """The same net with SAP."""
    return SAPClassifier(TinyNet(row.inputs), **settings(row), seed=1, **(defence or {"percent": 100}))


@dataclass
class Run:
    """What came of an attack: its points, and the rows that passed through the estimator's module and the net."""

    x: Any
    x_adv: Any
    module: Passes
    net: Passes


def run(row: Row, estimator: PyTorchClassifier, *, seed: int = 0) -> Run:
    """One attack on one of our estimators, from fixed seeds."""
    x, y, guides = points(TinyNet(row.inputs), row.labels, row.images)
    view = AttackerView(estimator.defence)
    with isolated(view, seed=seed), counted(estimator.model) as module, count_passes(estimator.defence) as net:
        out = row.attack(evasion, estimator).generate(x.copy(), y, **row.call(guides))
    return Run(x, out, module, net)


@contextmanager
def counted(module: nn.Module) -> Generator[Passes]:
    """Within, count the rows of images that pass through the module, forwards and backwards."""
    passes = Passes()

    def forward(_: nn.Module, inputs: Any, out: Tensor) -> None:
        passes.forwards += len(out)
        if out.requires_grad:
            out.register_hook(backward)

    def backward(gradient: Tensor) -> None:
        passes.backwards += len(gradient)

    handle = module.register_forward_hook(forward)
    try:
        yield passes
    finally:
        handle.remove()


def require_points(row: Row, result: Run) -> None:
    """Of the right shape, in range, within the ball, and moved; a patch and its mask where it is one."""
    if row.norm == "patch":
        patch, mask = result.x_adv
        assert patch.shape == mask.shape == SHAPES[row.inputs]
        assert 0 <= patch.min() < patch.max() <= 1
        assert mask.any()
        return
    x, x_adv = result.x, result.x_adv
    assert x_adv.shape == x.shape
    assert np.isfinite(x_adv).all()
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    change = (x_adv - x).reshape(len(x), -1).astype(np.float64)
    assert change.any(), "no point was moved"
    if row.ball is not None:
        norm, eps = row.ball
        assert np.linalg.norm(change, norm, axis=1).max() <= eps * (1 + 1e-5)


def test_the_table_names_every_attack() -> None:
    """A new one in ART has to be tried; BrendelBethgeAttack is there only where numba is."""
    there = {name for name, value in vars(evasion).items() if inspect.isclass(value)}

    assert {row.name for row in TABLE} - {"BrendelBethgeAttack"} == there - {"BrendelBethgeAttack"}


def test_rows_have_names_of_their_own() -> None:
    """Two rows of one attack differ in their variant."""
    assert len({str(row) for row in TABLE}) == len(TABLE)


@pytest.mark.parametrize("row", rows("works", "mended"))
def test_attacks_reach_the_defence_with_all_their_draws(row: Row) -> None:
    """What passes through the module passes through the net once a draw, gradients too, rebuilt classifiers too."""
    require_attack(row)
    view = defended(row).attack_view(draws=DRAWS, probabilities=row.probabilities)

    result = run(row, view)

    require_points(row, result)
    assert result.net.forwards == DRAWS * result.module.forwards > 0
    assert result.net.backwards == DRAWS * result.module.backwards
    assert (result.net.backwards > 0) == ("gradients" in row.needs)


@pytest.mark.parametrize("row", [case for case in rows("works", "mended") if not case.values[0].probabilities])
def test_attacks_on_the_defence_itself(row: Row) -> None:
    """Without an attack view, one draw at a time: not what we advise. What it does not answer it refuses in words.

    Whether an attack that may leave the range of images does depends on the draws that it meets.
    """
    require_attack(row)
    if row.leaves:
        with pytest.raises(ValueError, match=r"(outside clip_values|NaN).*give attacks .* \.attack_view\(\)"):
            [run(row, defended(row), seed=seed) for seed in range(5)]
        return

    result = run(row, defended(row))

    require_points(row, result)
    assert result.net.forwards == result.module.forwards > 0


@pytest.mark.parametrize("row", [case for case in rows("works") if case.values[0].leaves])
def test_what_the_defence_refuses_is_answered_where_there_is_none(row: Row) -> None:
    """The very points that the attack makes on ART's own classifier."""
    made = [plain(row), defended(row, policy="none")]
    x, y, guides = points(TinyNet(row.inputs), row.labels, row.images)
    found: list[Any] = []
    for estimator in made:
        with isolated(AttackerView(made[0].model, gradient="autograd"), seed=0):
            found.append(row.attack(evasion, estimator).generate(x.copy(), y, **row.call(guides)))

    np.testing.assert_array_equal(found[1], found[0])
    assert (found[0] != x).any()


@pytest.mark.parametrize("row", [case for case in rows("works") if case.values[0].probabilities])
def test_attacks_that_want_probabilities_say_so(row: Row) -> None:
    """Of logits, the defence's or the view's, they make no points: ART's own errors, and one that names the view."""
    classifier = defended(row)
    for estimator in (classifier, classifier.attack_view(draws=DRAWS)):
        assert "probabilities" in failure(row, estimator)
    attack = row.attack(evasion, classifier.attack_view(draws=DRAWS))
    x, _, _ = points(TinyNet("image"), "own", 4)

    with pytest.raises(ValueError, match=rf"{row.name} .* \.attack_view\(probabilities=True\)"):
        evaluate_art(classifier, attack, x, np.arange(4), draws=1)


@pytest.mark.parametrize("row", rows("works"))
def test_what_works_here_works_on_arts_own_classifier(row: Row) -> None:
    """As the page says."""
    require_attack(row)
    own = plain(row)
    x, y, guides = points(TinyNet(row.inputs), row.labels, row.images)

    with isolated(AttackerView(own.model, gradient="autograd"), seed=0):
        x_adv = row.attack(evasion, own).generate(x.copy(), y, **row.call(guides))

    require_points(row, Run(x, x_adv, Passes(), Passes()))


@numpy2
@pytest.mark.parametrize("row", rows("mended"))
def test_what_is_mended_here_fails_on_arts_own_classifier(row: Row) -> None:
    """Else the page says too much."""
    require_attack(row)

    assert row.error in failure(row, plain(row))


@numpy2
@pytest.mark.parametrize("row", rows("fails", "refuses"))
def test_what_fails_here_fails_on_arts_own_classifier_alike(row: Row) -> None:
    """The same error: it is not our doing."""
    if row.needs == "a TensorFlow classifier" and importlib.util.find_spec("tensorflow") is not None:
        pytest.skip("with TensorFlow the messages are others")
    theirs, ours = failure(row, plain(row)), failure(row, defended(row).attack_view(draws=DRAWS))

    assert row.error in theirs
    assert row.error in ours


@pytest.mark.parametrize("row", [case for case in rows("works") if case.values[0].package])
def test_a_missing_package_is_named(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    """On ART's own classifier as on ours."""
    monkeypatch.setitem(sys.modules, row.package, None)

    assert row.error in failure(row, plain(row))
    assert row.error in failure(row, defended(row).attack_view(draws=DRAWS))


def failure(row: Row, estimator: PyTorchClassifier) -> str:
    """The message of the error that ends the attack."""
    x, y, guides = points(TinyNet(row.inputs), row.labels, row.images)
    with pytest.raises(Exception) as error:  # noqa: PT011  whichever it is: the message says
        row.attack(evasion, estimator).generate(x.copy(), y, **row.call(guides))
    return str(error.value)


def chosen(*names: str) -> list[Any]:
    """The rows of that name."""
    return [case for name in names for case in rows("works") if str(case.values[0]) == name]


@pytest.mark.parametrize("draws", [1, 4])
@pytest.mark.parametrize(
    "row",
    chosen(
        "FastGradientMethod",
        "ProjectedGradientDescent",
        "ProjectedGradientDescentNumpy",
        "ProjectedGradientDescentPyTorch",
        "AutoProjectedGradientDescent-ce",
        "AutoProjectedGradientDescent-dlr",
        "AutoConjugateGradient-ce",
        "AutoConjugateGradient-dlr",
        "RescalingAutoConjugateGradient-ce",
        "RescalingAutoConjugateGradient-dlr",
        "AutoAttack",
        "DeepFool",
        "CarliniL2Method",
        "AdversarialPatchPyTorch",
        "OverTheAirFlickeringPyTorch",
    ),
)
def test_k_draws_take_k_times_the_passes(row: Row, draws: int) -> None:
    """With a defence that keeps every unit an attack takes the same way as on ART's own classifier, k times as dear.

    APGD, AutoAttack and the conjugate gradients build a classifier of their own from ``.model`` for these losses.
    """
    own = plain(row)
    x, y, _ = points(TinyNet(row.inputs), row.labels, row.images)
    with isolated(AttackerView(own.model, gradient="autograd"), seed=0), counted(own.model) as theirs:
        expected = row.attack(evasion, own).generate(x.copy(), y)

    result = run(row, defended(row, **OFF).attack_view(draws=draws))

    assert theirs.backwards > 0
    assert result.net == Passes(draws * theirs.forwards, draws * theirs.backwards)
    assert np.abs(np.asarray(result.x_adv[0]) - np.asarray(expected[0])).max() < 1e-4


def test_attacks_that_rebuild_the_classifier_are_among_those_counted() -> None:
    """So that the counts above prove something: these attacks hold another estimator than the one they were given."""
    for name in ("AutoProjectedGradientDescent-ce", "AutoConjugateGradient-dlr"):
        [case] = chosen(name)
        row: Row = case.values[0]
        view = defended(row).attack_view(draws=DRAWS)

        attack = row.attack(evasion, view)

        assert type(attack.estimator) is not type(view)
        assert attack.estimator.model is view.model


def test_probabilities_are_those_of_the_logits() -> None:
    """And have no gradient, from which a loss of logits would make next to nothing; by a rebuilt classifier neither."""
    row = next(row for row in TABLE if row.name == "SimBA")
    x, y, _ = points(TinyNet("image"), "own", 4)
    logits, shares = (defended(row, **OFF).attack_view(probabilities=flag) for flag in (False, True))

    p = shares.predict(x)

    assert np.allclose(p, np.exp(logits.predict(x) - math.log(CLASSES) - 1 / CLASSES), atol=1e-6)
    assert p.max() <= 1
    for estimator in (shares, PyTorchClassifier(shares.model, device_type="cpu", **settings(row))):
        for ask in (lambda e: e.loss_gradient(x, y), lambda e: e.class_gradient(x)):
            with pytest.raises(ValueError, match=r"attack \.attack_view\(\) instead"):
                ask(estimator)


def test_square_takes_the_way_that_it_takes_on_arts_own_classifier() -> None:
    """In L2 on small images, where its first candidates are 0 / 0."""
    row = next(row for row in TABLE if str(row) == "SquareAttack-L2, sides below 10")
    own = plain(row)
    x, y, _ = points(TinyNet("image"), "own", 4)
    with isolated(AttackerView(own.model, gradient="autograd"), seed=0):
        expected = row.attack(evasion, own).generate(x.copy(), y)

    result = run(row, defended(row, **OFF).attack_view(draws=1))

    assert np.abs(result.x_adv - expected).max() < 1e-5


def test_newtonfool_seeks_the_point_where_the_class_is_one_of_many() -> None:
    """Its goal with probabilities, p = 1 / C, is that with the view's logits; of log p alone it would climb."""
    row = next(row for row in TABLE if row.name == "NewtonFool")
    classifier = defended(row, **OFF)
    x, y, _ = points(TinyNet("image"), "own", 4)
    attack = evasion.NewtonFool(classifier.attack_view(draws=1), max_iter=30, eta=0.1, verbose=False)

    x_adv = attack.generate(x.copy(), y)

    judge = classifier.attack_view(draws=1, probabilities=True)
    before, after = (judge.predict(z)[range(4), range(4)] for z in (x, x_adv))
    assert (before > 2 / CLASSES).all()
    assert np.abs(after - 1 / CLASSES).max() < 0.02


def test_the_page_is_that_of_the_table() -> None:
    """``python tests/art_attacks.py > docs/art-attacks.md`` writes it."""
    assert PAGE.read_text(encoding="utf-8") == markdown()


def require_attack(row: Row) -> None:
    """Skip where it is not installed."""
    if not (row.installed or row.package == "multiprocess") or not hasattr(evasion, row.name):
        pytest.skip(f"{row} needs {row.package or 'numba'}, which is not installed")
