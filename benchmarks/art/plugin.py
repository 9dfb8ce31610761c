"""A pytest plugin for ART's own tests: their fixtures for PyTorch, stand-ins for what they download, and the defence.

ART_TESTS_DEFENCE says on what they run: ``plain`` (ART's classifiers as they are), ``off`` (``defend`` without a
policy), ``on`` (SAP at 100 %) or ``fixed`` (the same with random numbers that never change: ``OneMask``).
ART_TESTS_DATA is a folder for the stand-ins.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from one_mask import OneMask
from stand_ins import write_digits, write_weights

DEFENCES: dict[str, dict[str, Any]] = {
    "off": {"policy": "none"},
    "on": {"percent": 100, "seed": 1},
    "fixed": {"policy": OneMask(), "seed": 1},
}
DEFENCE = os.environ["ART_TESTS_DEFENCE"]
DATA = Path(os.environ["ART_TESTS_DATA"])
BUILDERS = (
    *("get_image_classifier_pt", "get_image_classifier_pt_functional", "get_cifar10_image_classifier_pt"),
    "get_tabular_classifier_pt",
)
SHAPE, N_TRAIN, N_TEST = (1, 28, 28), 1000, 100


def _absent(name: str, **content: Any) -> None:
    """Modules that tests of other frameworks import at their top, never used where the framework is PyTorch."""
    if name not in sys.modules:
        module = ModuleType(name)
        vars(module).update(content, __version__="2.0", __path__=[], __spec__=ModuleSpec(name, None))
        sys.modules[name] = module


def defended(classifier: Any) -> Any:
    """By ``defend``, the one line; a classifier of a module that is defended already keeps its defence.

    What attacks ask outside ``clip_values`` or of NaN a defence refuses, and its views answer. One that does not change
    answers here too, so that no such question hides how a test would have ended.
    """
    from sap_art.integrations.art import defend
    from sap_art.integrations.art.module import EstimatorModule

    if DEFENCE == "plain":
        return classifier
    made = defend(classifier, **({} if isinstance(classifier.model, EstimatorModule) else DEFENCES[DEFENCE]))
    made.tolerant = made.tolerant or DEFENCE == "fixed"
    return made


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--framework", default="pytorch")


def pytest_configure(config: pytest.Config) -> None:
    import_module("torch._dynamo")  # it looks for TensorFlow, which is really not there
    for name in ("keras", "keras.backend", "tensorflow.keras"):
        _absent(name)
    _absent("tensorflow", random=SimpleNamespace(set_seed=lambda seed: None))  # some tests seed it before they begin
    _absent("tensorflow.keras.callbacks", LearningRateScheduler=None)
    sys.modules["keras"].backend = sys.modules["keras.backend"]  # type: ignore[attr-defined]
    from art import config as art_config

    art_config.ART_DATA_PATH = str(DATA)
    write_digits(DATA / "mnist.npz")
    from tests import utils

    write_weights(Path(utils.__file__).parents[1] / "utils" / "resources" / "models", DATA / "mnist.npz")
    utils.master_seed(1234)
    for name in BUILDERS:
        setattr(utils, name, _after(getattr(utils, name)))


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Tests that build a classifier themselves get a defended one."""
    for module in {item.module for item in items}:
        if hasattr(module, "PyTorchClassifier"):
            module.PyTorchClassifier = _after(module.PyTorchClassifier)


def _after(build: Any) -> Any:
    def built(*args: Any, **kwargs: Any) -> Any:
        return defended(build(*args, **kwargs))

    return built


@pytest.fixture(scope="session")
def framework() -> str:
    return "pytorch"


@pytest.fixture(autouse=True)
def _where_it_runs(request: pytest.FixtureRequest) -> None:
    """ART's markers: tests for some frameworks, or without some."""
    only, others, modules = (
        getattr(request.node.get_closest_marker(name), "args", ())
        for name in ("only_with_platform", "skip_framework", "skip_module")
    )
    if (only and "pytorch" not in only) or {"pytorch", "dl_frameworks"} & set(others):
        pytest.skip("not for PyTorch")
    for name in modules:
        pytest.importorskip(name, reason=f"ART's test needs {name}")


@pytest.fixture(autouse=True)
def _same_randomness() -> None:
    """Of each test, whatever those before it drew from the global generators."""
    from tests import utils

    utils.master_seed(1234)


@pytest.fixture
def art_warning() -> Any:
    from tests.utils import ARTTestFixtureNotImplemented

    def raised(error: Exception) -> None:
        if isinstance(error, ARTTestFixtureNotImplemented):
            pytest.skip(f"no estimator for it: {error}")
        raise error

    return raised


@pytest.fixture
def image_dl_estimator() -> Any:
    from tests import utils

    def build(functional: bool = False, wildcard: bool = False, **settings: Any) -> tuple[Any, None]:
        if wildcard or "loss_name" in settings:
            pytest.skip("not for PyTorch")
        name = "get_image_classifier_pt_functional" if functional else "get_image_classifier_pt"
        return getattr(utils, name)(**settings), None

    return build


@pytest.fixture
def image_dl_estimator_defended(image_dl_estimator: Any) -> Any:
    """With ART's preprocessing defences."""
    from art.defences.preprocessor import FeatureSqueezing, JpegCompression, SpatialSmoothing

    def build(defenses: Any = ("FeatureSqueezing",), **settings: Any) -> tuple[Any, None]:
        kinds = {
            "FeatureSqueezing": lambda: FeatureSqueezing(bit_depth=2, clip_values=(0, 1)),
            "JpegCompression": lambda: JpegCompression(clip_values=(0, 1), apply_predict=True, channels_first=True),
            "SpatialSmoothing": lambda: SpatialSmoothing(channels_first=True),
        }
        classifier, _ = image_dl_estimator(**settings)
        classifier.set_params(preprocessing_defences=[kinds[name]() for name in kinds if name in defenses])
        return classifier, None

    return build


@pytest.fixture
def image_dl_estimator_for_attack(image_dl_estimator: Any, image_dl_estimator_defended: Any) -> Any:
    def build(attack: Any, defended: bool = False, **settings: Any) -> Any:
        classifier, _ = (image_dl_estimator_defended if defended else image_dl_estimator)(**settings)
        if not attack.is_estimator_valid(classifier, attack._estimator_requirements):
            pytest.skip("the attack does not take it")
        return classifier

    return build


@pytest.fixture(scope="session")
def default_batch_size() -> int:
    return 16


@pytest.fixture
def mnist_shape() -> tuple[int, ...]:
    return SHAPE


@pytest.fixture
def get_mnist_dataset() -> Any:
    """((train images, labels), (test images, labels)), channels first; unchanged afterwards."""
    from art.utils import load_dataset

    parts = [(np.reshape(x, (len(x), *SHAPE)).astype(np.float32), y) for x, y in (load_dataset("mnist")[:2])]
    before = [array.copy() for part in parts for array in part]
    yield tuple(parts)
    for was, now in zip(before, [array for part in parts for array in part], strict=True):
        np.testing.assert_array_almost_equal(was, now, decimal=3)


@pytest.fixture
def get_default_mnist_subset(get_mnist_dataset: Any) -> Any:
    return tuple((x[:n], y[:n]) for (x, y), n in zip(get_mnist_dataset, (N_TRAIN, N_TEST), strict=True))


@pytest.fixture
def image_iterator(get_default_mnist_subset: Any, default_batch_size: int) -> Any:
    (x, y), _ = get_default_mnist_subset
    data = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    return lambda: torch.utils.data.DataLoader(data, batch_size=default_batch_size, shuffle=True)


@pytest.fixture
def image_data_generator(image_iterator: Any, default_batch_size: int) -> Any:
    from art.data_generators import PyTorchDataGenerator

    return lambda **_: PyTorchDataGenerator(image_iterator(), size=N_TRAIN, batch_size=default_batch_size)


@pytest.fixture
def expected_values(request: pytest.FixtureRequest) -> Any:
    """Numbers of MNIST with weights of its own: not those of the stand-ins."""
    return lambda: pytest.skip("compares with numbers of MNIST and weights that are not here")


@pytest.fixture
def store_expected_values() -> Any:
    return lambda *_, **__: None


@pytest.fixture
def get_iris_dataset() -> Any:
    from art.utils import load_dataset

    return load_dataset("iris")[:2]


@pytest.fixture
def tabular_dl_estimator() -> Any:
    from tests import utils

    def build(clipped: bool = True) -> Any:
        return utils.get_tabular_classifier_pt() if clipped else pytest.skip("ART has no such net for PyTorch")

    return build


@pytest.fixture
def tabular_dl_estimator_for_attack(tabular_dl_estimator: Any) -> Any:
    return lambda attack, clipped=True: tabular_dl_estimator(clipped=clipped)


@pytest.fixture
def supported_losses_types() -> Any:
    return lambda: pytest.skip("not for PyTorch")


supported_losses_proba = supported_losses_logit = supported_losses_types
