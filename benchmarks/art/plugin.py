"""A pytest plugin for ART's own tests: their fixtures for PyTorch, stand-ins for what they download, and the defence.

ART_TESTS_DEFENCE says on what they run: ``plain`` (ART's classifiers as they are), ``off`` (defended by a SAP that
keeps every unit) or ``on`` (percent 100). What attacks ask outside ``clip_values`` or of NaN a defence refuses and its
views answer; here it answers too, for its numbers are what is compared. ART_TESTS_DATA is a folder for the stand-ins.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

DEFENCES = {"off": {"percent": 1e9, "sampler": "bernoulli", "seed": 1}, "on": {"percent": 100, "seed": 1}}
DEFENCE = os.environ["ART_TESTS_DEFENCE"]
DATA = Path(os.environ["ART_TESTS_DATA"])
BUILDERS = ("get_image_classifier_pt", "get_image_classifier_pt_functional", "get_cifar10_image_classifier_pt")
SHAPE, N_TRAIN, N_TEST = (1, 28, 28), 1000, 100


def _absent(name: str, **content: Any) -> None:
    """Modules that tests of other frameworks import at their top, never used where the framework is PyTorch."""
    if name not in sys.modules:
        module = ModuleType(name)
        vars(module).update(content, __version__="2.0", __path__=[], __spec__=ModuleSpec(name, None))
        sys.modules[name] = module


def defended(classifier: Any) -> Any:
    """By ``defend``, the one line; a classifier of a module that is defended already keeps its defence."""
    from sap_art.integrations.art import defend
    from sap_art.integrations.art.module import EstimatorModule

    if DEFENCE == "plain":
        return classifier
    made = defend(classifier, **({} if isinstance(classifier.model, EstimatorModule) else DEFENCES[DEFENCE]))
    made.tolerant = True
    return made


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--framework", default="pytorch")


def pytest_configure(config: pytest.Config) -> None:
    import_module("torch._dynamo")  # it looks for TensorFlow, which is really not there
    for name in ("keras", "keras.backend", "tensorflow", "tensorflow.keras"):
        _absent(name)
    _absent("tensorflow.keras.callbacks", LearningRateScheduler=None)
    sys.modules["keras"].backend = sys.modules["keras.backend"]  # type: ignore[attr-defined]
    from art import config as art_config

    art_config.ART_DATA_PATH = str(DATA)
    _write_digits(DATA / "mnist.npz")
    from tests import utils

    _write_weights(Path(utils.__file__).parents[1] / "utils" / "resources" / "models")
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


def _write_digits(path: Path) -> None:
    """scikit-learn's digits, 8 x 8, as images of 28 x 28 in the place of MNIST."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = torch.from_numpy(digits.images / 16 * 255)[:, None]
    x = torch.nn.functional.interpolate(x, 28, mode="bilinear").clamp(0, 255).byte()[:, 0].numpy()
    y = digits.target.astype(np.uint8)
    np.savez(path, x_train=x[:1300], y_train=y[:1300], x_test=x[1300:], y_test=y[1300:])


def _write_weights(folder: Path) -> None:
    """Weights of the tests' convolution, pooling and linear layer, trained on the digits, with names that they load."""
    if (folder / "W_CONV2D_MNIST.npy").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(DATA / "mnist.npz") as digits:
        x, y = torch.from_numpy(digits["x_train"])[:, None].float() / 255, torch.from_numpy(digits["y_train"]).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251  of this process alone
        convolution, head = torch.nn.Conv2d(1, 1, 7), torch.nn.Linear(25, 10)
    parameters = [*convolution.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    for _ in range(300):
        features = torch.nn.functional.max_pool2d(convolution(x).relu(), 4)
        loss = torch.nn.functional.cross_entropy(head(features.flatten(1)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if loss > 0.2:
        raise RuntimeError(f"the stand-in net has not learnt the digits: its loss is {float(loss):.3g}")
    values = [convolution.weight.reshape(7, 7, 1, 1), convolution.bias, head.weight.T, head.bias]
    for name, value in zip(("W_CONV2D", "B_CONV2D", "W_DENSE", "B_DENSE"), values, strict=True):
        np.save(folder / f"{name}_MNIST.npy", value.detach().numpy())


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
    """ART's net for it has no activation: nothing to defend."""
    return lambda **_: pytest.skip("a net without activations")


@pytest.fixture
def supported_losses_types() -> Any:
    return lambda: pytest.skip("not for PyTorch")


supported_losses_proba = supported_losses_logit = supported_losses_types
