from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from art.attacks.evasion import (
    AutoProjectedGradientDescent,
    CarliniL2Method,
    DeepFool,
    HopSkipJump,
    ProjectedGradientDescent,
    SquareAttack,
)
from art.defences.preprocessor import SpatialSmoothing
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from sap_art import SAP, AttackerView, DefendedModel, evaluate, wrap
from sap_art.integrations.art import AttackView, SAPClassifier, SAPPreprocessor, defend
from sap_art.policies import parse_policy
from sap_art.sites import DEFAULT_SITES

SHAPE, CLASSES = (3, 8, 8), 4
OFF: dict[str, Any] = {"percent": 1e9, "sampler": "bernoulli"}
NONE: dict[str, Any] = {"policy": "none"}


def tiny_net(seed: int = 0) -> nn.Module:
    """Two convolutions with batch normalisation, and a linear head."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, CLASSES))
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3, generator=generator)
    return net.eval()


def plain(net: nn.Module | None = None, **settings: Any) -> PyTorchClassifier:
    """ART's own classifier."""
    settings = {"clip_values": (0, 1), "device_type": "cpu", **settings}
    return PyTorchClassifier(tiny_net() if net is None else net, nn.CrossEntropyLoss(), SHAPE, CLASSES, **settings)


def sap(net: nn.Module | None = None, **settings: Any) -> SAPClassifier:
    """Ours, with the same weights."""
    return SAPClassifier(tiny_net() if net is None else net, nn.CrossEntropyLoss(), SHAPE, CLASSES, **settings)


@pytest.fixture
def x(generator: torch.Generator) -> Tensor:
    """Six images in [0, 1]."""
    return torch.rand(6, *SHAPE, generator=generator)


@pytest.fixture
def y() -> Tensor:
    """Their labels."""
    return torch.tensor([0, 1, 2, 3, 0, 1])


def one_hot(y: Tensor) -> np.ndarray[Any, Any]:
    return np.eye(CLASSES, dtype=np.float32)[y.numpy()]


# What it computes.

QUESTIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "predict": lambda e, x, y: e.predict(x),
    "loss_gradient": lambda e, x, y: e.loss_gradient(x, y),
    "class_gradient": lambda e, x, y: e.class_gradient(x),
    "class_gradient of one class": lambda e, x, y: e.class_gradient(x, label=2),
    "class_gradient of each label": lambda e, x, y: e.class_gradient(x, label=y.argmax(1)),
    "compute_loss": lambda e, x, y: e.compute_loss(x, y),
    "compute_loss, mean": lambda e, x, y: e.compute_loss(x, y, reduction="mean"),
    "activations by place": lambda e, x, y: e.get_activations(x, 2, batch_size=4),
    "activations by name": lambda e, x, y: e.get_activations(x, "4"),
    "activations from the end": lambda e, x, y: e.get_activations(x, -2),
}
PREPROCESSING = {"none": (0.0, 1.0), "standardised": (np.full(3, 0.4), np.full(3, 0.3))}


@pytest.mark.parametrize("preprocessing", PREPROCESSING)
@pytest.mark.parametrize("question", QUESTIONS)
def test_switched_off_it_is_the_plain_classifier(question: str, preprocessing: str, x: Tensor, y: Tensor) -> None:
    """With a policy that keeps everything, all answers are ART's own."""
    settings = {"preprocessing": PREPROCESSING[preprocessing]}
    expected = QUESTIONS[question](plain(**settings), x.numpy(), one_hot(y))
    actual = QUESTIONS[question](sap(**OFF, **settings), x.numpy(), one_hot(y))

    assert isinstance(actual, type(expected))
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("preprocessing", PREPROCESSING)
@pytest.mark.parametrize("question", QUESTIONS)
def test_without_a_defence_every_bit_is_the_plain_classifier_s(
    question: str, preprocessing: str, x: Tensor, y: Tensor
) -> None:
    """Outside ``clip_values`` too."""
    settings = {"preprocessing": PREPROCESSING[preprocessing]}
    images = 9 * x.numpy() - 4
    expected = QUESTIONS[question](plain(**settings), images, one_hot(y))
    actual = QUESTIONS[question](sap(**NONE, **settings), images, one_hot(y))

    assert isinstance(actual, type(expected))
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("defence", [OFF, NONE], ids=["keeps all", "none"])
@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("kind", ["tensor", "float64", "batch of one"])
def test_any_kind_of_input_gives_the_same_numbers(
    question: str, kind: str, defence: dict[str, Any], x: Tensor, y: Tensor
) -> None:
    """Tensors in, tensors out; but predictions are arrays, as ART's attacks take for granted."""
    changed: dict[str, Callable[[], tuple[Any, Any]]] = {
        "tensor": lambda: (x, torch.from_numpy(one_hot(y))),
        "float64": lambda: (x.double().numpy(), one_hot(y)),
        "batch of one": lambda: (x[:1].numpy(), one_hot(y)[:1]),
    }
    images, labels = changed[kind]()
    actual = QUESTIONS[question](sap(**defence), images, labels)
    expected = QUESTIONS[question](sap(**defence), x.numpy(), one_hot(y))

    assert isinstance(actual, Tensor) == (kind == "tensor" and question != "predict")
    if kind == "batch of one":
        if "mean" in question:
            return
        expected = (6 if question == "loss_gradient" else 1) * expected[:1]  # of the mean loss
    actual = actual.detach().numpy() if isinstance(actual, Tensor) else actual
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_switched_off_its_gradient_of_a_layer_is_that_of_the_plain_classifier(x: Tensor) -> None:
    """What FeatureCollision asks for."""
    both = sap(**OFF), plain()
    gradients = [e.custom_loss_gradient(torch.norm, x[:1].numpy(), x[1:2].numpy(), e.layer_names[2]) for e in both]

    np.testing.assert_allclose(*gradients, atol=1e-5)
    assert np.abs(gradients[0]).max() > 1e-3


def test_labels_may_be_indices(x: Tensor, y: Tensor) -> None:
    """(B,) or (B, 1), arrays or tensors, beside images of the other kind."""
    classifier = sap(**OFF)
    for question in (classifier.loss_gradient, classifier.compute_loss):
        expected = question(x.numpy(), one_hot(y))
        for labels in (y, y.numpy(), y.numpy()[:, None], y.double().numpy(), one_hot(y), torch.from_numpy(one_hot(y))):
            np.testing.assert_allclose(question(x.numpy(), labels), expected, atol=1e-6)
            np.testing.assert_allclose(question(x, labels).detach().numpy(), expected, atol=1e-6)


def test_the_class_of_a_gradient_may_be_said_in_any_way(x: Tensor, y: Tensor) -> None:
    """One for all images, or as labels are; what is no class is refused, where ART would take -1 for the last."""
    classifier, images = sap(**OFF), x.numpy()
    every = classifier.class_gradient(images)
    for labels in (y, y.numpy(), y.tolist(), y.numpy()[:, None], y.double().numpy(), one_hot(y)):
        np.testing.assert_allclose(classifier.class_gradient(images, labels)[:, 0], every[range(6), y], atol=1e-6)
    for label in (2, np.int64(2), torch.tensor(2)):
        np.testing.assert_allclose(classifier.class_gradient(images, label), every[:, 2:3], atol=1e-6)
    for wrong in (-1, 4, 0.5, np.full(6, -1), np.full(6, 0.5), y[:5], np.eye(7)[:6]):
        with pytest.raises(ValueError, match="labels must be"):
            classifier.class_gradient(images, wrong)


def test_mirrored_arrays_are_images(x: Tensor, y: Tensor) -> None:
    """Which torch does not take as they are."""
    mirrored = x.numpy()[..., ::-1]
    for name, question in QUESTIONS.items():
        expected = question(sap(**OFF), mirrored.copy(), one_hot(y))
        np.testing.assert_allclose(question(sap(**OFF), mirrored, one_hot(y)), expected, atol=1e-6, err_msg=name)


def test_bytes_are_numbers(x: Tensor, y: Tensor) -> None:
    """Images of 0 to 255 as uint8, for an estimator whose clip values say so."""
    images = (255 * x).byte().numpy()
    classifier = sap(**OFF, clip_values=(0, 255))

    np.testing.assert_allclose(classifier.predict(images), classifier.predict(images.astype(np.float32)), atol=1e-5)
    np.testing.assert_allclose(
        classifier.loss_gradient(images, y.numpy()),
        classifier.loss_gradient(images.astype(np.float32), y.numpy()),
        atol=1e-5,
    )


def test_the_defence_is_on() -> None:
    """Two predictions differ, and so do two gradients; its default is SAP-100 with one draw."""
    x = np.full((2, *SHAPE), 0.5, dtype=np.float32)
    classifier = sap(seed=1)

    assert (classifier.predict(x) != classifier.predict(x)).any()
    assert (classifier.loss_gradient(x, np.zeros(2)) != classifier.loss_gradient(x, np.zeros(2))).any()
    assert (classifier.policy, classifier.predictor, classifier.draws, classifier.gradient) == (
        SAP(),
        "single",
        1,
        "bpda",
    )


def test_predictions_are_those_of_the_defended_model(x: Tensor) -> None:
    """The same seed gives the same draws as DefendedModel alone, also for K draws."""
    for settings in ({}, {"predictor": "mean_prob", "draws": 5}):
        model = DefendedModel(tiny_net(), SAP(50), seed=3, **settings)
        classifier = sap(percent=50, seed=3, **settings)
        classifier.defence.reseed(3)

        torch.testing.assert_close(torch.from_numpy(classifier.predict(x.numpy())), model(x))


def test_the_seed_decides(x: Tensor) -> None:
    """Also after ART's global generators were seeded, and over several calls."""
    first, second, other = sap(seed=7), sap(seed=7), sap(seed=8)
    for _ in range(2):
        expected = first.predict(x.numpy())

        np.testing.assert_array_equal(second.predict(x.numpy()), expected)
        assert (other.predict(x.numpy()) != expected).any()


def test_activations_are_those_that_follow_the_pruning(x: Tensor) -> None:
    """Of the ReLU about (1 - 1/e) of the live units at most are left; of a view the mean over draws."""
    classifier = sap(seed=0)
    dense = plain().get_activations(x.numpy(), "2")
    pruned = classifier.get_activations(x.numpy(), "2")
    mean = classifier.attack_view(draws=400).get_activations(x.numpy(), "2")

    assert (pruned[dense > 0] == 0).mean() > 0.2
    assert (pruned[dense == 0] == 0).all()
    assert abs(mean - dense).mean() < 0.1 * abs(pruned - dense).mean()


def test_activations_can_be_differentiated(x: Tensor) -> None:
    """As FeatureAdversaries does, and no hook stays behind."""
    classifier = sap(seed=0)
    x = x.clone().requires_grad_()
    classifier.get_activations(x, "0", framework=True).sum().backward()

    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in classifier.model.modules())


# Attacks.


@pytest.fixture(scope="module")
def passes() -> Callable[[SAPClassifier | AttackView, type, dict[str, Any]], int]:
    """How many images the net is run on with gradients while an attack makes adversarial examples of four images."""

    def count(estimator: Any, attack: type, settings: dict[str, Any]) -> int:
        rows: list[int] = []

        def note(module: nn.Module, inputs: tuple[Tensor]) -> None:
            if inputs[0].requires_grad:
                rows.append(len(inputs[0]))

        handle = estimator.module.net[0].register_forward_pre_hook(note)
        x = np.random.default_rng(0).random((4, *SHAPE), dtype=np.float32)
        y = plain(copy.deepcopy(estimator.module.net)).predict(x).argmax(1)
        attack(estimator, **settings).generate(x, np.eye(CLASSES, dtype=np.float32)[y])
        handle.remove()
        return sum(rows)

    return count


ATTACKS: dict[str, tuple[type, dict[str, Any]]] = {
    "PGD": (ProjectedGradientDescent, {"eps": 1e-5, "eps_step": 1e-5, "max_iter": 3, "verbose": False}),
    "APGD ce": (
        AutoProjectedGradientDescent,
        {
            "eps": 1e-5,
            "eps_step": 1e-5,
            "max_iter": 3,
            "nb_random_init": 1,
            "loss_type": "cross_entropy",
            "verbose": False,
        },
    ),
    "APGD dlr": (
        AutoProjectedGradientDescent,
        {
            "eps": 1e-5,
            "eps_step": 1e-5,
            "max_iter": 3,
            "nb_random_init": 1,
            "loss_type": "difference_logits_ratio",
            "verbose": False,
        },
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_the_draws_reach_the_attack(name: str, passes: Any) -> None:
    """With k draws in the view each gradient runs on k times as many images, also where ART rebuilds a classifier."""
    single = passes(sap(**OFF).attack_view(draws=1), *ATTACKS[name])
    ten = passes(sap(**OFF).attack_view(draws=10), *ATTACKS[name])

    assert single >= 4 * 3
    assert ten == 10 * single


def test_pgd_on_the_view_breaks_the_shipped_net(net: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    """Ten steps at 8/255, scored on fresh draws."""
    x, y = images[0][:16], images[1][:16]
    classifier = SAPClassifier(net, nn.CrossEntropyLoss(), (3, 32, 32), 10, seed=0)
    view = classifier.attack_view(draws=3)
    x_adv = ProjectedGradientDescent(view, eps=8 / 255, eps_step=2 / 255, max_iter=10, verbose=False).generate(
        x.numpy()
    )

    assert evaluate(classifier.defence, x, y, draws=4, seed=1).accuracy > 0.7
    assert evaluate(classifier.defence, torch.from_numpy(x_adv), y, draws=4, seed=1).accuracy < 0.1


@pytest.mark.parametrize("of_view", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda e: CarliniL2Method(e, max_iter=2, binary_search_steps=1, verbose=False),
        lambda e: DeepFool(e, max_iter=3, verbose=False),
        lambda e: SquareAttack(e, max_iter=5, verbose=False),
        lambda e: HopSkipJump(e, max_iter=1, max_eval=10, init_eval=5, init_size=20, verbose=False),
    ],
    ids=["C&W", "DeepFool", "Square", "HopSkipJump"],
)
def test_common_attacks_run(make: Any, of_view: bool, x: Tensor) -> None:
    """On the defence and on its view; HopSkipJump makes float64 of images."""
    classifier = sap(seed=0)
    x_adv = make(classifier.attack_view(draws=2) if of_view else classifier).generate(x[:2].numpy())

    assert x_adv.shape == (2, *SHAPE)
    assert np.isfinite(x_adv).all()


def test_the_view_averages_and_follows(x: Tensor) -> None:
    """It has the defence's weights and preprocessing, and goes along when the defence is changed."""
    classifier = sap(seed=0, preprocessing=(0.4, 0.3))
    view = classifier.attack_view(draws=500)
    far = abs(softmax(view.predict(x.numpy())) - softmax(plain(preprocessing=(0.4, 0.3)).predict(x.numpy()))).max()
    classifier.set_params(**OFF)
    near = abs(softmax(view.predict(x.numpy())) - softmax(plain(preprocessing=(0.4, 0.3)).predict(x.numpy()))).max()

    assert near < 1e-5 < far
    assert view.module.net is classifier.module.net


def softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return torch.from_numpy(logits).softmax(1).numpy()


# Copies.

COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda e: pickle.loads(pickle.dumps(e)),
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("of_view", [False, True])
def test_copies_continue_alike(how: str, of_view: bool, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, settings and noise; nothing is written to ART's folder; the optimizer is of the copy's weights."""
    monkeypatch.setattr("art.config.ART_DATA_PATH", "/nowhere/at/all")
    net = tiny_net()
    classifier: Any = sap(net, percent=50, seed=4, optimizer=torch.optim.SGD(net.parameters(), lr=0.1))
    classifier = classifier.attack_view(draws=2) if of_view else classifier
    classifier.predict(x.numpy())
    classifier.get_activations(x.numpy(), 0)
    copied = COPIES[how](classifier)

    assert type(copied) is type(classifier)
    np.testing.assert_array_equal(copied.predict(x.numpy()), classifier.predict(x.numpy()))
    assert copied.module.net[0].weight is not classifier.module.net[0].weight
    if not of_view:
        assert copied.optimizer.param_groups[0]["params"][0] is copied.module.net[0].weight


def test_clone_for_refitting(x: Tensor) -> None:
    """The same defence and settings, new weights, an optimizer of its own."""
    net = tiny_net()
    settings: dict[str, Any] = {"percent": 50, "predictor": "mean_prob", "draws": 3, "gradient": "frozen", "seed": 5}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    original = sap(net, optimizer=optimizer, clip_values=(0, 2), preprocessing=(0.4, 0.3), **settings)
    clone = original.clone_for_refitting()
    same = {name: value for name, value in original.get_params().items() if name not in ("model", "optimizer")}

    assert isinstance(clone, SAPClassifier)
    assert {name: clone.get_params()[name] for name in settings} == settings
    for name in set(same) - {"clip_values"}:
        assert clone.get_params()[name] == same[name], name
    np.testing.assert_array_equal(clone.clip_values, (0, 2))
    assert (clone.module.net[0].weight != net[0].weight).any()
    assert clone.optimizer.param_groups[0]["params"][0] is clone.module.net[0].weight


def test_saved_weights_can_be_loaded(x: Tensor, tmp_path: Path) -> None:
    """Into another estimator's model."""
    classifier, other = sap(tiny_net(0), seed=1), sap(tiny_net(1), seed=1)
    classifier.save("net", path=str(tmp_path))
    other.model.load_state_dict(torch.load(tmp_path / "net.model", weights_only=True))

    np.testing.assert_array_equal(other.predict(x.numpy()), classifier.predict(x.numpy()))


def test_params_round_trip() -> None:
    """What get_params gives is accepted and changes nothing."""
    classifier = sap(percent=50, sampler="poisson", seed=2)
    before = classifier.get_params()
    classifier.set_params(**before)

    for name, value in classifier.get_params().items():
        assert np.array_equal(value, before[name]), name


def test_params_change_the_defence(x: Tensor) -> None:
    """One at a time, the rest staying; a seed starts the noise afresh; a tuple standardises in PyTorch."""
    classifier = sap(percent=50, sampler="poisson", seed=2)
    classifier.set_params(percent=30)
    assert classifier.policy == SAP(30, "poisson")
    classifier.set_params(policy="sap:70")
    assert (classifier.percent, classifier.sampler) == (70, "multinomial")
    classifier.set_params(policy="sap:70@0")
    classifier.set_params(percent=40)
    assert classifier.policy == parse_policy("sap:40@0")
    classifier.set_params(policy="sap:70")
    classifier.set_params(predictor="mean_prob", draws=4)
    assert (classifier.predictor, classifier.draws, classifier.percent) == ("mean_prob", 4, 70)
    classifier.set_params(seed=9, preprocessing=(0.4, 0.3))
    first = classifier.predict(x.numpy())
    classifier.set_params(seed=9)

    np.testing.assert_array_equal(classifier.predict(x.numpy()), first)
    assert classifier.all_framework_preprocessing


def test_a_policy_for_another_place_is_at_its_own_sites(x: Tensor) -> None:
    """A rule for activations goes with a policy on activations, not with one on convolutions or weights."""
    rule = DEFAULT_SITES.extended(gates=("0",))
    for policy, kept, names in (("dro:0.5", rule, ["2"]), ("athalye:200", None, ["0"]), ("rnw:1", None, None)):
        classifier = sap(DefendedModel(tiny_net(), SAP(50), sites=rule, seed=1))
        classifier.set_params(policy=policy)
        classifier.predict(x.numpy())

        assert classifier.module.stochastic.rule is kept
        assert names is None or [site.name for site in classifier.defence.sites] == names


@pytest.mark.parametrize(
    "params",
    [
        {"percent": -1},
        {"percent": 5, "policy": "sap:6"},
        {"draws": 3},
        {"nb_classes": 7},
        {"model": nn.Identity()},
        {"device_type": "gpu"},
    ],
    ids=str,
)
def test_refused_params_change_nothing(params: dict[str, Any]) -> None:
    """Neither what is wrong nor what comes with it."""
    classifier = sap(seed=2)
    with pytest.raises(ValueError, match=r".+"):
        classifier.set_params(sampler="poisson", **params)

    assert classifier.policy == SAP()


# Training.


def test_fit_learns_without_the_defence() -> None:
    """The net is trained dense, as ART would train it, and left in eval mode."""
    rng = np.random.default_rng(0)
    x = rng.random((64, *SHAPE), dtype=np.float32)
    y = (4 * x.mean((1, 2, 3)).argsort().argsort() // 64).astype(np.int64)
    x += (0.2 * y - 0.3)[:, None, None, None].astype(np.float32)
    x = x.clip(0, 1)
    nets = tiny_net(), tiny_net()
    # A batch of all images, because ART shuffles by the global generator.
    ours, arts = (
        make(net, optimizer=torch.optim.SGD(net.parameters(), lr=0.2))
        for make, net in zip((lambda n, **k: sap(n, percent=5, seed=0, **k), plain), nets, strict=True)
    )
    before = (ours.predict(x).argmax(1) == y).mean()
    for classifier in (ours, arts):
        classifier.fit(x, np.eye(CLASSES, dtype=np.float32)[y], batch_size=64, nb_epochs=60)

    torch.testing.assert_close(nets[0].state_dict(), nets[1].state_dict(), atol=1e-3, rtol=1e-2)
    assert not any(module.training for module in ours.model.modules())
    ours.set_params(percent=1000)
    assert (ours.predict(x).argmax(1) == y).mean() > max(0.8, before + 0.3)
    assert (ours.predict(x) != ours.predict(x)).any()


def test_fit_takes_index_labels_and_ends_in_eval_mode_when_it_fails(x: Tensor, y: Tensor) -> None:
    """An optimizer that is missing is ART's error."""
    classifier = sap()
    with pytest.raises(ValueError, match="optimizer"):
        classifier.fit(x.numpy(), y.numpy())

    assert not any(module.training for module in classifier.model.modules())


def test_batch_statistics_never_leak(x: Tensor) -> None:
    """Training mode is refused where batch normalisation would mix images, also by a rebuilt classifier."""
    classifier = sap(seed=0)
    for estimator in (classifier, plain(classifier.model)):
        with pytest.raises(ValueError, match="batch normalisation is in training mode"):
            estimator.predict(x.numpy(), training_mode=True)

    classifier.predict(x.numpy())


# Which models.


def test_random_models_are_taken_as_they_are(x: Tensor) -> None:
    """DefendedModel and wrapped modules; neither can be given another defence."""
    model = DefendedModel(tiny_net(), SAP(30), seed=1)
    classifier = sap(model)
    noisy = sap(wrap(nn.Sequential(*tiny_net(), nn.Dropout(0.5).train()), seed=2))
    expected = copy.deepcopy(model)(x)

    assert classifier.defence is model
    assert classifier.percent == 30
    torch.testing.assert_close(torch.from_numpy(classifier.predict(x.numpy())), expected)
    assert noisy.policy is None
    assert noisy.attack_view(gradient="autograd", draws=2).loss_gradient(x.numpy(), np.zeros(6)).shape == x.shape
    for settings in ({"percent": 10}, {"predictor": "vote", "draws": 3}, {"seed": 3}):
        with pytest.raises(ValueError, match="leave out"):
            sap(model, **settings)
    with pytest.raises(ValueError, match="a random model of its own"):
        noisy.set_params(percent=10)


def test_any_policy() -> None:
    """By text or as an object, but not beside SAP's settings."""
    assert sap(policy="sap:50:bernoulli").policy == SAP(50, "bernoulli")
    assert sap(policy=SAP(20)).policy == SAP(20)
    with pytest.raises(ValueError, match="either a policy or percent"):
        sap(policy="sap:50", percent=20)


def test_views_are_no_defence() -> None:
    """Nor is a defence a view."""
    view = AttackerView(DefendedModel(tiny_net(), SAP()))
    for model in (view, sap().attack_view().model):
        with pytest.raises(TypeError, match="view is no defence"):
            sap(model)
    with pytest.raises(TypeError, match="AttackView is of an AttackerView"):
        AttackView(DefendedModel(tiny_net(), SAP()), nn.CrossEntropyLoss(), SHAPE, CLASSES)
    with pytest.raises(TypeError, match="must be a torch"):
        sap(lambda x: x)


@pytest.mark.parametrize("settings", [{}, {"predictor": "mean_prob", "draws": 2}], ids=str)
def test_a_view_of_a_softmax_is_refused(settings: dict[str, Any], x: Tensor) -> None:
    """A second softmax would leave next to no gradient; the defence itself goes on giving what the net gives."""
    classifier = sap(nn.Sequential(*tiny_net(), nn.Softmax(-1)).double(), **settings)
    with pytest.raises(ValueError, match="leave out the net's own"):
        classifier.attack_view()

    assert classifier.predict(x.numpy()).shape == (6, CLASSES)


def test_votes_have_no_gradient(x: Tensor, y: Tensor) -> None:
    """Said so, also by a rebuilt classifier; the view has one."""
    classifier = sap(predictor="vote", draws=3)
    for estimator in (classifier, plain(classifier.model)):
        with pytest.raises(ValueError, match=r"attack \.attack_view"):
            estimator.loss_gradient(x.numpy(), one_hot(y))

    assert abs(classifier.attack_view(draws=2).loss_gradient(x.numpy(), one_hot(y))).max() > 0


# No defence.


def test_without_a_defence_any_net_and_any_shape_will_do(x: Tensor) -> None:
    """No activation, another shape than is declared, other outputs than ``nb_classes``: as ART's own classifier."""
    net = nn.Linear(8, 3)
    theirs, ours = (make(net, nn.CrossEntropyLoss(), (1, 28, 28), 7) for make in (PyTorchClassifier, none))

    np.testing.assert_array_equal(ours.predict(x[:, 0, 0].numpy()), theirs.predict(x[:, 0, 0].numpy()))
    assert (ours.policy, ours.percent, ours.defence.dense) == (None, None, net)
    assert defend(PyTorchClassifier(net, nn.CrossEntropyLoss(), (8,), 3), **NONE).module.net is net


def none(*args: Any, **settings: Any) -> SAPClassifier:
    """Ours without a defence."""
    return SAPClassifier(*args, **NONE, **settings)


def test_without_a_defence_a_net_of_one_output_has_two_classes(x: Tensor) -> None:
    """And labels (B, 1), which ART takes as they are, arrays or tensors."""
    net, labels = nn.Sequential(tiny_net(), nn.Linear(CLASSES, 1), nn.Sigmoid()), np.array([[0], [1]] * 3)
    theirs, ours = (make(net, nn.BCELoss(), SHAPE, 2, device_type="cpu") for make in (PyTorchClassifier, none))

    for images, given in ((x.numpy(), labels), (x, torch.from_numpy(labels))):
        expected = theirs.loss_gradient(images, given)
        np.testing.assert_array_equal(ours.loss_gradient(images, given), expected)
        assert abs(expected).max() > 0
    np.testing.assert_array_equal(ours.compute_loss(x.numpy(), labels), theirs.compute_loss(x.numpy(), labels))


def test_without_a_defence_training_mode_is_the_user_s_choice(x: Tensor) -> None:
    """Batch statistics and all."""
    theirs, ours = plain(tiny_net()), sap(tiny_net(), **NONE)

    expected = theirs.predict(x.numpy(), training_mode=True)

    np.testing.assert_array_equal(ours.predict(x.numpy(), training_mode=True), expected)
    assert (expected != plain().predict(x.numpy())).any()


def test_without_a_defence_nan_is_predicted_and_not_differentiated(x: Tensor, y: Tensor) -> None:
    """As by an attack view."""
    spoiled = x.numpy().copy()
    spoiled[1] = np.nan

    assert np.isnan(sap(**NONE).predict(spoiled)).any(1).tolist() == [False, True, False, False, False, False]
    with pytest.raises(ValueError, match="NaN or inf"):
        sap(**NONE).loss_gradient(spoiled, one_hot(y))


def test_whether_there_is_a_defence_is_settled_at_the_start(x: Tensor) -> None:
    """What is given goes on: copies, params, clones."""
    classifier = sap(**NONE, seed=1, optimizer=torch.optim.SGD(tiny_net().parameters(), lr=0.1))
    classifier.set_params(**classifier.get_params())
    for same in (copy.deepcopy(classifier), pickle.loads(pickle.dumps(classifier)), sap(classifier.model)):
        np.testing.assert_array_equal(same.predict(9 * x.numpy()), classifier.predict(9 * x.numpy()))
    assert classifier.clone_for_refitting().policy is None
    with pytest.raises(ValueError, match="leaves the net as it is: leave out percent, gradient"):
        sap(**NONE, percent=50, gradient="frozen")
    for estimator, change in ((classifier, {"percent": 50}), (sap(), NONE)):
        with pytest.raises(ValueError, match="build another one"):
            estimator.set_params(**change)


def test_a_view_takes_the_gradient_that_there_is(x: Tensor, y: Tensor) -> None:
    """``bpda`` of a policy, ``autograd`` of whatever has none."""
    noisy = nn.Sequential(*tiny_net(), nn.Dropout(0.5).train())
    for classifier, gradient in ((sap(), "bpda"), (sap(**NONE), "autograd"), (sap(wrap(noisy, seed=2)), "autograd")):
        view = classifier.attack_view(draws=2)

        assert isinstance(view.module.inner, AttackerView)
        assert view.module.inner.gradient == gradient
        assert np.abs(view.loss_gradient(x.numpy(), one_hot(y))).max() > 0


# Bad input.


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.full((1, *SHAPE), np.nan, dtype=np.float32), "NaN or inf"),
        (np.full((1, *SHAPE), np.inf, dtype=np.float32), "NaN or inf"),
        (np.full((1, *SHAPE), 255, dtype=np.uint8), r"\[255, 255\], outside clip_values \[0, 1\]: scale .* by 1/255"),
        (np.full((1, *SHAPE), -0.1, dtype=np.float32), "outside clip_values .* preprocessing="),
        (torch.full((1, *SHAPE), 1.001), "outside clip_values"),
        (np.full((1, 8, 8, 3), 0.5, dtype=np.float32), r"inputs must be \('B', 3, 8, 8\)"),
        (np.zeros((0, *SHAPE), dtype=np.float32), "B > 0"),
        (np.array([None], dtype=object), "array of objects"),
    ],
)
def test_bad_images(images: Any, message: str, y: Tensor) -> None:
    """Refused by every question."""
    classifier = sap()
    for question in QUESTIONS.values():
        with pytest.raises(ValueError, match=message):
            question(classifier, images, one_hot(y)[: len(images)])
    with pytest.raises(TypeError, match="numpy array or a torch tensor"):
        classifier.predict([[0.5]])


def test_rounding_and_the_range_of_the_data_are_allowed(x: Tensor) -> None:
    """A float above 1, per-channel clip values, or none."""
    classifier = sap(**OFF)
    classifier.predict(np.nextafter(np.ones_like(x.numpy()), np.float32(2)))
    low, high = (np.array(ends, dtype=np.float32)[:, None, None] for ends in ((-2, -1, -2), (2, 2, 3)))
    sap(**OFF, clip_values=(low, high)).predict(5 * x.numpy() - 2)
    sap(**OFF, clip_values=None).predict(1000 * x.numpy())


def test_a_view_answers_wherever_an_attack_goes(x: Tensor, y: Tensor) -> None:
    """Outside clip_values all questions; of NaN predictions alone, which are NaN for those images and no others."""
    view = sap(**OFF).attack_view(draws=1)
    for name, question in QUESTIONS.items():
        far = question(plain(), 9 * x.numpy() - 4, one_hot(y))
        near = question(view, 9 * x.numpy() - 4, one_hot(y))
        assert near.shape == far.shape
        if "activations" in name:
            np.testing.assert_allclose(near, far, atol=1e-4)
    spoiled = x.numpy().copy()
    spoiled[1, 0, 0, 0], spoiled[4] = np.nan, np.inf
    others = [0, 2, 3, 5]

    predicted = view.predict(spoiled)
    assert np.isnan(predicted[[1, 4]]).all()
    np.testing.assert_allclose(predicted[others], view.predict(x.numpy())[others], atol=1e-6)
    assert np.isnan(view.predict(spoiled[1:2])).all()
    with pytest.raises(ValueError, match="NaN or inf"):
        sap().attack_view(gradient="dense").loss_gradient(spoiled, one_hot(y))


@pytest.mark.parametrize(
    "labels",
    [
        np.array([0, 1]),
        np.array([0, 1, 2, 3, 0, 4]),
        np.array([0, 1, 2, 3, 0, -1]),
        np.eye(7)[:6],
        np.full(6, 0.5),
        np.full((6, 4), np.nan),
    ],
    ids=["too few", "no such class", "negative", "too many classes", "fractions", "NaN"],
)
def test_bad_labels(labels: Any, x: Tensor) -> None:
    """Refused before the net runs."""
    classifier = sap()
    for question in (classifier.loss_gradient, classifier.compute_loss, classifier.fit):
        with pytest.raises(ValueError, match="labels"):
            question(x.numpy(), labels)


def test_what_the_net_cannot_do_is_said_when_it_is_built() -> None:
    """Classes, activations, devices, layers, keywords."""
    with pytest.raises(ValueError, match=r"nb_classes is 7, but the net gives \(1, 4\)"):
        SAPClassifier(tiny_net(), nn.CrossEntropyLoss(), SHAPE, 7)
    with pytest.raises(ValueError, match=r"cannot take an image of input_shape \(3, 9, 9\): .*shapes"):
        SAPClassifier(tiny_net(), nn.CrossEntropyLoss(), (3, 9, 9), CLASSES)
    with pytest.raises(ValueError, match="no activation was met"):
        sap(nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES)))
    with pytest.raises(ValueError, match="device_type must be"):
        sap(device_type="cuda:0")
    with pytest.raises(ValueError, match="no layer 9"):
        sap().get_activations(np.full((1, *SHAPE), 0.5), 9)
    with pytest.raises(TypeError, match="percnt"):
        sap(percnt=5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("make", [sap, lambda device_type: SAPPreprocessor(device_type=device_type)])
def test_no_gpu_is_an_error(make: Any) -> None:
    """Where ART goes on with the CPU in silence."""
    with pytest.raises(ValueError, match="no CUDA device"):
        make(device_type="gpu")


def test_building_draws_nothing(x: Tensor) -> None:
    """The image that the constructor runs leaves the model's noise and torch's generator where they were."""
    model = DefendedModel(tiny_net(), SAP(), seed=1)
    expected = copy.deepcopy(model)(x)
    state = torch.get_rng_state()
    sap(model)

    torch.testing.assert_close(model(x), expected)
    assert torch.equal(torch.get_rng_state(), state)


# defend.


def test_defend_keeps_everything_else(x: Tensor, y: Tensor) -> None:
    """Preprocessing, clip values, optimizer: switched off it answers as the classifier that it was made of."""
    net = tiny_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    settings: dict[str, Any] = {"preprocessing": (0.4, 0.3), "clip_values": (0, 1), "optimizer": optimizer}
    classifier = plain(net, preprocessing_defences=SpatialSmoothing(window_size=3), **settings)
    defended = defend(classifier, **OFF)

    for name in ("predict", "loss_gradient", "compute_loss"):
        expected = QUESTIONS[name](classifier, x.numpy(), one_hot(y))
        np.testing.assert_allclose(QUESTIONS[name](defended, x.numpy(), one_hot(y)), expected, atol=1e-5)
    assert defended.module.net is net
    assert defended.optimizer is optimizer
    assert defend(classifier, percent=20, seed=1).percent == 20
    assert defend(plain(clip_values=None)).clip_values is None


def test_defend_refuses_what_it_would_change() -> None:
    """Classes that add to PyTorchClassifier, our own among them."""
    for classifier in (sap(), sap().attack_view(), tiny_net()):
        with pytest.raises(TypeError, match="defend takes a PyTorchClassifier"):
            defend(classifier)


# The preprocessor.


def test_pruned_images_have_the_image_as_their_mean(x: Tensor) -> None:
    """Within five standard errors of the mean of 2,000 draws, whose variance is x^2 (1 / q - 1)."""
    draws = 2000
    images = x[:1].repeat(draws, 1, 1, 1)
    pruned, labels = SAPPreprocessor(percent=80, seed=1).forward(images, "labels")
    q = SAP(80).keep_probability(x[:1])
    error = (x[:1].square() * (1 / q - 1) / draws).sqrt()

    assert ((pruned.mean(0, keepdim=True) - x[:1]).abs() < 5 * error).all()
    assert labels == "labels"


def test_the_preprocessor_s_gradient_is_the_identity_in_chains(x: Tensor, y: Tensor) -> None:
    """The gradient with respect to the image is that with respect to the pruned one (ART asks for no other)."""
    net = tiny_net()
    chained = plain(net, preprocessing_defences=[SAPPreprocessor(50, seed=1)], preprocessing=(0.4, 0.3))
    gradient = chained.loss_gradient(x.numpy(), one_hot(y))
    pruned, _ = SAPPreprocessor(50, seed=1).forward(x)
    expected = plain(net, preprocessing=(0.4, 0.3)).loss_gradient(pruned.numpy(), one_hot(y))

    np.testing.assert_allclose(gradient, expected, atol=1e-6)
    assert (pruned == 0).float().mean() > 0.3
    assert abs(gradient[(pruned == 0).numpy()]).mean() > 0.5 * abs(gradient).mean()


def test_chains_that_art_does_not_run_are_refused_in_its_words(x: Tensor) -> None:
    """When it is built; two pruners in a row are a chain of PyTorch."""
    pruner = SAPPreprocessor(50, seed=1)
    with pytest.raises(NotImplementedError, match=r"^The current combination of preprocessing types"):
        sap(preprocessing_defences=[SpatialSmoothing(window_size=3), pruner])

    assert sap(preprocessing_defences=[pruner, SAPPreprocessor(50, seed=2)]).class_gradient(x.numpy()).any()


def test_when_the_preprocessor_is_applied(x: Tensor) -> None:
    """``apply_predict`` at prediction, ``apply_fit`` at training."""
    for fit, predict in ((True, False), (False, True)):
        classifier = plain(preprocessing_defences=SAPPreprocessor(50, seed=1, apply_fit=fit, apply_predict=predict))

        assert (classifier._apply_preprocessing(x.numpy(), None, fit=True)[0] != x.numpy()).any() == fit
        assert (classifier.predict(x.numpy()) != plain().predict(x.numpy())).any() == predict


def test_the_preprocessor_s_settings(x: Tensor) -> None:
    """A seed decides, copies continue alike, what is wrong is refused."""
    first, second = SAPPreprocessor(50, seed=3), SAPPreprocessor(seed=4)
    second.set_params(percent=50, seed=3, apply_fit=True)
    np.testing.assert_array_equal(first(x.numpy())[0], second(x.numpy())[0])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(first))(x.numpy())[0], first(x.numpy())[0])

    assert (first.apply_fit, second.apply_fit) == (False, True)
    assert first(np.ones((2, 5), dtype=np.uint8))[0].dtype == np.float32
    for refused in ({"percent": 0}, {"sampler": "none"}, {"rate": 1}):
        with pytest.raises(ValueError, match=r".+"):
            second.set_params(**refused)
    with pytest.raises(ValueError, match="NaN or inf"):
        first.forward(x * float("nan"))
    assert (second.percent, second.sampler) == (50, "multinomial")


# The package.


def test_without_art_the_error_says_what_to_install() -> None:
    """And the rest of sap_art does without."""
    code = (
        "import sys; sys.modules['art'] = None\n"
        "import sap_art, sap_art.integrations; sap_art.evaluate\n"
        "import sap_art.integrations.art"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "needs ART: pip install" in done.stderr.strip().splitlines()[-1]
