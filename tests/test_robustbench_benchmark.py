"""RobustBench's own benchmark: end to end and offline, the number that it gives, and nothing is left changed."""

from __future__ import annotations

import copy
import importlib
import logging
import pickle
import re
import sys
import threading
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_attacks_query import global_states
from torch import Tensor, nn

from sap_art import SAP, DefendedModel, data, wrap, zoo
from sap_art.attacks.isolation import isolated
from sap_art.integrations import robustbench as bridge
from sap_art.integrations.robustbench import BenchmarkResult, benchmark, benchmarking, installed, loading, repaired
from sap_art.integrations.robustbench.repairs import IMAGES, REPAIRS

EPS = 8 / 255


@pytest.fixture(autouse=True)
def _bundled_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only what ships with the package, and a working directory in which nothing may appear."""
    monkeypatch.delenv("SAP_ART_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tracing() -> Generator[object]:
    """A trace function, as coverage and debuggers set one."""
    before = sys.gettrace()

    def trace(*_: object) -> None:
        return None

    sys.settrace(trace)
    yield trace
    sys.settrace(before)


def linear() -> nn.Sequential:
    """Ten classes, logits W x + b."""
    return random_weights(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)))


def random_weights(net: nn.Sequential) -> nn.Sequential:
    """Standard normal numbers, always the same, in eval mode."""
    generator = torch.Generator().manual_seed(5)
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return net.eval()


@torch.no_grad()
def own_labels(net: nn.Module, n: int, folder: Path) -> tuple[str, Tensor]:
    """A FILE.npz of bundled images with the classes that ``net`` gives them, and its logits (n, 10)."""
    x, _ = data.load(n=n)
    logits = net(x)
    np.savez(folder / "own.npz", images=x.numpy(), labels=logits.argmax(1).numpy())
    return str(folder / "own.npz"), logits


def patched() -> list[Any]:
    """Everything that a repair may put its hands on, as it is now."""
    checks, evaluation, images = map(
        importlib.import_module, ("pyautoattack.checks", "robustbench.eval", "robustbench.data")
    )
    stand_ins = [name for name in ("autoattack", "autoattack.state", "pkg_resources") if name in sys.modules]
    logger = logging.getLogger("auto-attack")
    return [
        stand_ins,
        torch.load,
        torch.Tensor.cuda,
        {repr(allowed) for allowed in torch.serialization.get_safe_globals()},
        checks.check_dynamic,
        dict(checks.funcs),
        evaluation.AutoAttack,
        dict(images._clean_dataset_loaders),
        list(warnings.filters),
        (list(logger.handlers), logger.level),
    ]


# What it gives.


def test_the_shipped_net_on_the_bundled_images(
    net: nn.Module, images: tuple[Tensor, Tensor], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What RobustBench prints and returns when it is called by hand; no folder, no file, no download."""
    x, y = images[0][:8], images[1][:8]
    clean, robust = result = benchmark(net, n_examples=8, eps=EPS)
    printed = capsys.readouterr().out
    with repaired() as robustbench, IMAGES.apply(x, y):
        by_hand = robustbench.benchmark(net, n_examples=8, eps=EPS)

    assert result == by_hand
    assert (clean, robust) == (result.clean, result.robust) == ((net(x).argmax(1) == y).double().mean().item(), 0.0)
    assert printed == "Clean accuracy: 100.00%\nAdversarial accuracy: 0.00%\n"
    assert str(result) == "clean 100.00 %, AutoAttack standard 0.00 %"
    assert list(tmp_path.iterdir()) == []


def test_on_a_linear_classifier_the_known_accuracy(tmp_path: Path) -> None:
    """On a user's images; of four, the two with the greater margin withstand."""
    net = linear()
    source, logits = own_labels(net, 4, tmp_path)
    y, weight = logits.argmax(1), net[1].weight.detach()
    length = (weight[y][:, None] - weight).abs().sum(-1)
    radius = ((logits.gather(1, y[:, None]) - logits) / length).scatter(1, y[:, None], torch.inf).amin(1)
    eps = radius.sort().values[1:3].mean().item()

    assert benchmark(net, n_examples=4, eps=eps, source=source) == (1.0, 0.5)


def test_a_random_model_s_number_is_called_no_evaluation(tmp_path: Path) -> None:
    """Before the work and in the result; the seed decides the draws, the model's own noise goes on untouched."""
    net = random_weights(nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)))
    source, _ = own_labels(net, 8, tmp_path)
    model, twin = (DefendedModel(net, SAP(100), seed=1) for _ in range(2))
    x = data.load(n=4)[0]
    results: list[BenchmarkResult] = []
    for seed in (1, 1, 2):
        with pytest.warns(UserWarning, match="no evaluation"):
            results.append(benchmark(model, n_examples=8, eps=0.25, source=source, seed=seed))
    lent = IMAGES.apply(*data.load(n=8, source=source))
    with isolated(model, seed=1), repaired() as robustbench, lent, benchmarking._seeded(1):
        by_hand = robustbench.benchmark(model.eval(), n_examples=8, eps=0.25)

    assert all(result.random and "no evaluation" in str(result) for result in results)
    assert results[0] == results[1] != results[2]
    assert all(0 < result.clean < 1 for result in results)
    assert results[0] == by_hand
    assert torch.equal(model(x), twin(x))


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


def test_the_seed_is_autoattack_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """RobustBench gives none, and AutoAttack would take the time of day."""
    seeds: list[int | None] = []

    class Idle:
        def __init__(self, *_: object, seed: int | None = None, **__: object) -> None:
            seeds.append(seed)

        def run_standard_evaluation(self, x: Tensor, *_: object, **__: object) -> Tensor:
            return x

    source, _ = own_labels(linear(), 4, tmp_path)
    with repaired():
        monkeypatch.setattr("robustbench.eval.AutoAttack", Idle)
    for seed in (1, 1, 2):
        assert benchmark(linear(), 4, EPS, source=source, seed=seed) == (1.0, 1.0)

    assert None not in seeds
    assert seeds[0] == seeds[1] != seeds[2]


def test_whether_a_model_is_random_is_seen(tmp_path: Path) -> None:
    """Dropout in training mode, brought in by ``wrap``; noise in eval mode; a defence that is declared, though weak."""
    net = linear()
    source, _ = own_labels(net, 4, tmp_path)
    noisy = nn.Sequential(nn.Dropout(0.5), net).train()
    with pytest.warns(UserWarning, match="no evaluation"):
        assert benchmark(wrap(noisy), 4, eps=1.0, source=source).random

    assert noisy.training
    with pytest.warns(UserWarning, match="no evaluation"):
        assert benchmark(nn.Sequential(Noise(), net).eval(), 4, eps=1.0, source=source).random
    weak = DefendedModel(nn.Sequential(nn.ReLU(), net).eval(), SAP(1e9, "bernoulli"), seed=1)
    with pytest.warns(UserWarning, match="no evaluation"):
        assert benchmark(weak, 4, eps=1.0, source=source).random
    assert not benchmark(wrap(net, dense=net), 4, eps=1.0, source=source).random


def test_a_model_in_double_precision(tmp_path: Path) -> None:
    """It gets its own type, RobustBench its float32."""
    source, _ = own_labels(linear(), 4, tmp_path)

    assert benchmark(linear().double(), 4, eps=1.0, source=source) == (1.0, 0.0)


def test_a_result_is_a_pair_that_survives_pickle() -> None:
    """Unpacked like RobustBench's."""
    result = BenchmarkResult(0.5, 0.25, random=True)
    copied = pickle.loads(pickle.dumps(result))

    assert copied == result == (0.5, 0.25)
    assert copied.random
    assert copy.deepcopy(result).random


# What it leaves.


@pytest.mark.parametrize("fails", [False, True], ids=["done", "failed"])
def test_nothing_stays_changed(fails: bool, tracing: object, tmp_path: Path) -> None:
    """Modules, RobustBench, AutoAttack and its counters, torch, warnings, tracing, generators, the model."""
    source, _ = own_labels(linear(), 4, tmp_path)
    with repaired():
        pass  # from here on it is imported
    net = linear()
    parameter = next(net.parameters())
    parameter.grad = torch.full_like(parameter, 3.0)

    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if fails and x.requires_grad:
                raise RuntimeError("broken")
            return net(x)

    before, states = patched(), global_states()
    model = Failing().eval()
    if fails:
        with pytest.raises(RuntimeError, match="broken"):
            benchmark(model, 4, eps=1.0, source=source)
    else:
        benchmark(model, 4, eps=1.0, source=source)

    assert sys.gettrace() is tracing
    assert patched() == before
    assert global_states() == states
    assert torch.equal(parameter.grad, torch.full_like(parameter, 3.0))


def test_a_dynamic_defence_is_told_of_once(tracing: object, caplog: pytest.LogCaptureFixture) -> None:
    """AutoAttack's counters are of one model, whatever ran before, and tracing goes on between its checks."""

    class Dynamic(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.enable_grad():
                torch.autograd.grad(x.clone().requires_grad_().sum(), x.clone().requires_grad_(), allow_unused=True)
            return x

    x, logger = torch.zeros(1, 2), logging.getLogger("auto-attack")
    with repaired():
        checks = importlib.import_module("pyautoattack.checks")
        checks.funcs["grad"] = 1  # as somebody else's run without a repair leaves it
        said = []
        for model in (nn.Identity(), Dynamic()):
            caplog.clear()
            checks.check_dynamic(model, x, False, logger=logger)
            said.append("dynamic" in caplog.text)
            assert sys.gettrace() is tracing

    assert said == [False, True]
    assert set(checks.funcs.values()) == {0}


def test_warnings_of_robustbench_s_own_code_are_not_the_user_s() -> None:
    """Its Swish, with the user's filters at their strictest; other warnings come through."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with repaired():
            swish = importlib.import_module("robustbench.model_zoo.architectures.dm_rn")._Swish.apply
            swish(torch.ones(1, requires_grad=True)).backward()
            with pytest.raises(DeprecationWarning, match="something else"):
                warnings.warn("something else", DeprecationWarning, stacklevel=1)
        with pytest.raises(DeprecationWarning, match="saved_variables"):
            swish(torch.ones(1, requires_grad=True)).backward()


def test_a_repair_that_is_not_needed_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a release that mended it."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with repaired():
        mending = patched()
    before = patched()
    needed = [repair.needed() for repair in REPAIRS]
    monkeypatch.setattr(installed, "says", lambda package, file, text: text == "safe_globals")
    with repaired():
        within = patched()

    assert needed == [True] * len(REPAIRS)
    assert not any(repair.needed() for repair in REPAIRS)
    assert mending != before == within


def test_threads_take_turns() -> None:
    """Or the first to leave would take the repairs away from the second, and the second put them back for good."""
    inside = threading.Event()

    def enter() -> None:
        with repaired():
            inside.set()

    with repaired():
        before = torch.load
        thread = threading.Thread(target=enter)
        thread.start()
        assert not inside.wait(0.2)
        assert torch.load is before
    thread.join()

    assert inside.is_set()
    assert patched()[0] == []


# What it refuses.


class Untouchable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise AssertionError("work began")


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"n_examples": 0}, ValueError, "n_examples must be a whole number of images, at least 1, got 0"),
        ({"n_examples": True}, ValueError, "n_examples must be a whole number"),
        ({"n_examples": 4.0}, ValueError, "n_examples must be a whole number"),
        ({"n_examples": 513}, ValueError, "asked for 513 images, the bundle has 512"),
        ({"batch_size": 0}, ValueError, "batch_size must be"),
        ({"eps": 0}, ValueError, "above 0"),
        ({"eps": -1.0}, ValueError, "above 0"),
        ({"eps": float("nan")}, ValueError, "eps must be a number above 0"),
        ({"eps": "8/255"}, ValueError, "eps must be a number above 0"),
        ({"norm": "L1"}, ValueError, "unknown norm 'L1'"),
        ({"source": "nowhere"}, FileNotFoundError, "nowhere"),
        ({"model": "Standard"}, TypeError, "must be a torch.nn.Module, got str"),
        ({"model": Untouchable().train()}, ValueError, r"training mode: call \.eval\(\)"),
        ({"model": DefendedModel(nn.BatchNorm2d(3), SAP(100))}, ValueError, "batch normalisation is in training"),
    ],
)
def test_bad_arguments(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    """Refused before the model is asked anything."""
    arguments = {"model": Untouchable().eval(), "n_examples": 4, "eps": EPS, **changed}

    with pytest.raises(error, match=message):
        benchmark(**arguments)


def test_a_model_of_other_classes() -> None:
    """AutoAttack standard aims at nine wrong classes."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 9)).eval()

    with pytest.raises(ValueError, match=r"must return \(4, 10\) logits, got \(4, 9\)"):
        benchmark(net, 4, EPS)


def test_nan_is_an_error_and_never_robustness(tmp_path: Path) -> None:
    """AutoAttack takes the sign of a NaN gradient for zero and reports the image as robust."""

    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = linear()

        def forward(self, x: Tensor) -> Tensor:
            hole = (x - x.detach()).flatten(1)[:, :1]
            return self.net(x) + torch.where(hole == 0, torch.zeros_like(hole), hole.sqrt() / hole)

    source, _ = own_labels(linear(), 4, tmp_path)
    with pytest.raises(FloatingPointError, match="gradient is NaN"):
        benchmark(Broken().eval(), 4, EPS, source=source)


def test_a_missing_package_is_named_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "robustbench", None)

    with pytest.raises(ImportError, match=r"needs robustbench: pip install 'sap_art\[robustbench\]'"):
        benchmark(Untouchable().eval(), 4, EPS)


def test_the_public_names() -> None:
    """Where the contract says they are."""
    assert all(callable(getattr(bridge, name)) for name in ("register", "load_model", "benchmark", "export"))


def test_the_readme_s_lines_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On the bundled net, for a checkpoint of the zoo is not there: what RobustBench prints is what comes back."""
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    section = text.partition("## With RobustBench\n")[2].partition("\n## ")[0]
    example = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    asked: list[str] = []

    def load_model(name: str) -> nn.Module:
        asked.append(name)
        return zoo.load("preact-resnet20")

    monkeypatch.setattr(bridge, "load_model", load_model)
    assert example is not None
    names: dict[str, Any] = {}
    exec(compile(example[1], "README.md", "exec"), names)

    policy, zoo_id = loading._parsed(asked[0])  # pyright: ignore[reportPrivateUsage]
    with repaired():
        assert zoo_id in loading._zoo()  # pyright: ignore[reportPrivateUsage]
    assert (policy, names["robust"]) == (SAP(100), 0)
    assert f"Clean accuracy: {names['clean']:.2%}" in capsys.readouterr().out
    assert len(section.strip().splitlines()) <= 15
