"""The evasion attacks of ART, at least one row each: what they need, how to build them cheaply, what is to happen.

``python tests/art_attacks.py`` prints them as the page docs/art-attacks.md.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

CLASSES = 5
EPS, STEP = 0.1, 0.03
DOUBLE = "Input type (double) and bias type (float)"

Outcome = Literal["works", "mended", "fails", "refuses"]
Inputs = Literal["image", "large", "channels last", "video", "features"]
Labels = Literal["own", "own index", "other", "guides"]
SHAPES: dict[Inputs, tuple[int, ...]] = {
    "image": (3, 8, 8),
    "large": (3, 12, 12),
    "channels last": (8, 8, 3),
    "video": (2, 8, 8, 3),
    "features": (6,),
}


@dataclass(frozen=True)
class Row:
    """One attack with one set of arguments.

    Attributes:
        name: its class in ``art.attacks.evasion``.
        norm: what it bounds or makes small.
        needs: what it asks of an estimator.
        outcome: ``works``; ``mended`` (not on ART's own classifier, but here); ``fails`` on any classifier;
            ``refuses`` classifiers of images in PyTorch.
        note: for users, in the page.
        settings: arguments of the class; ``build`` takes its place where more is needed.
        call: images of the classes of ``other`` -> arguments of ``generate``.
        labels: what its ``y`` is: the model's labels, other ones, or images to come near to.
        images: how many are attacked.
        probabilities: it wants these instead of logits.
        leaves: it asks about points outside ``clip_values`` or of NaN, which the defence refuses and its view answers.
        ball: norm and radius that its points keep to.
        package: what has to be there and is not among ART's requirements.
        error: a part of the message where it fails or refuses; of ART's own classifier where it is mended.
    """

    name: str
    norm: str
    needs: str
    outcome: Outcome = "works"
    variant: str = ""
    note: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    build: Callable[[Any, Any], Any] | None = None
    call: Callable[[Any], dict[str, Any]] = lambda guides: {}
    inputs: Inputs = "image"
    labels: Labels = "own"
    images: int = 4
    probabilities: bool = False
    leaves: bool = False
    ball: tuple[float, float] | None = None
    package: str = ""
    error: str = ""

    def __str__(self) -> str:
        return f"{self.name}-{self.variant}" if self.variant else self.name

    @property
    def installed(self) -> bool:
        """Whether the package that it needs is there."""
        return not self.package or importlib.util.find_spec(self.package) is not None

    def attack(self, evasion: Any, estimator: Any) -> Any:
        """The attack on that estimator; ``evasion`` is ART's module."""
        if self.build is not None:
            return self.build(evasion, estimator)
        return getattr(evasion, self.name)(estimator, **self.settings)


class TinyNet(nn.Module):
    """One convolution (or a layer for features), ReLU, one linear layer: any of SHAPES -> (B, CLASSES) logits."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        shape = SHAPES[inputs]
        self.inputs: Inputs = inputs
        self.body = nn.Linear(6, 16) if inputs == "features" else nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.relu = nn.ReLU()
        self.head = nn.Linear(16 if inputs == "features" else 8 * math.prod(shape) // 12, CLASSES)
        self._set_weights(torch.Generator().manual_seed(1))

    @torch.no_grad()
    def _set_weights(self, generator: torch.Generator) -> None:
        """Random, then so that each class is met and logits have standard deviation 2."""
        for parameter in self.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        x = torch.rand(256, *SHAPES[self.inputs], generator=generator)
        self.head.weight.mul_(2 / self(x).std(0).mean())
        self.head.bias.sub_(self(x).mean(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        images = len(x)
        if self.inputs == "channels last":
            x = x.permute(0, 3, 1, 2)
        elif self.inputs == "video":
            x = x.flatten(0, 1).permute(0, 3, 1, 2)
        return self.head(self.relu(self.body(x)).reshape(images, -1))


def points(net: TinyNet, labels: Labels, n: int) -> tuple[Any, Any, Any]:
    """Images (n, ...) float32 in (0, 1), what the attack is given as y, and guides (n, ...).

    Image i is the one that is surest to be of class i, guide i of class i + 1, which is the label ``other``.
    """
    x = torch.rand(64, *SHAPES[net.inputs], generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        x = x[net(x).softmax(-1).argmax(0)].numpy()
    own, one_hot, guides = np.arange(n), np.eye(CLASSES, dtype=np.float32), x[1 : n + 1]
    given = {"own": one_hot[own], "own index": own, "other": one_hot[own + 1], "guides": guides}
    return x[:n], given[labels], guides


def _quiet(**settings: Any) -> dict[str, Any]:
    return {**settings, "verbose": False}


def _stepwise(eps: float = EPS, *, step: float = STEP, **more: Any) -> dict[str, Any]:
    return _quiet(eps=eps, eps_step=step, max_iter=3, **more)


def _auto(eps: float = EPS, *, loss: str | None = "cross_entropy", **more: Any) -> dict[str, Any]:
    return _stepwise(eps, nb_random_init=1, loss_type=loss, **more)


def _autoattack(evasion: Any, estimator: Any) -> Any:
    """With the losses of its standard set, and less of each."""
    attacks = [
        *(evasion.AutoProjectedGradientDescent(estimator, **_auto(loss=loss)) for loss in ("cross_entropy", DLR)),
        evasion.DeepFool(estimator, **_quiet(max_iter=2, nb_grads=CLASSES)),
        evasion.SquareAttack(estimator, **_quiet(eps=EPS, max_iter=3)),
    ]
    return evasion.AutoAttack(estimator, eps=EPS, eps_step=STEP, attacks=attacks)


def _frames(evasion: Any, estimator: Any) -> Any:
    inner = evasion.ProjectedGradientDescent(estimator, **_stepwise())
    return evasion.FrameSaliencyAttack(estimator, inner, verbose=False)


def _laser(evasion: Any, estimator: Any) -> Any:
    from art.attacks.evasion.laser_attack.laser_attack import LaserBeam, LaserBeamGenerator

    least, most = LaserBeam.from_array([380, 0, 1, 1]), LaserBeam.from_array([780, 3.14, 8, 3])
    return evasion.LaserAttack(estimator, 3, LaserBeamGenerator(least, most))


DLR = "difference_logits_ratio"
INF = math.inf
GRADIENTS, SCORES, DECISIONS = "gradients", "scores", "decisions"
DETECTOR, SPEECH = "an object detector", "a speech recogniser"
WANTS = "derived from"  # how ART says which estimators an attack takes
PATCH = _quiet(max_iter=2, scale_min=0.4, scale_max=0.8, batch_size=4, targeted=False)
CARLINI = _quiet(max_iter=5, learning_rate=0.2, batch_size=4)
ASKS_TENSORFLOW = "needs a TensorFlow classifier"

TABLE = (
    # gradients of a loss
    Row("FastGradientMethod", "Linf", GRADIENTS, settings={"eps": EPS}, ball=(INF, EPS)),
    Row("FastGradientMethod", "L2", GRADIENTS, variant="L2", settings={"eps": 1.0, "norm": 2}, ball=(2, 1.0)),
    Row("FastGradientMethod", "L1", GRADIENTS, variant="L1", settings={"eps": 2.0, "norm": 1}, ball=(1, 2.0)),
    Row(
        "FastGradientMethod",
        "Linf",
        GRADIENTS,
        variant="minimal",
        note="each step is decided by one prediction",
        settings={"eps": EPS, "eps_step": STEP, "minimal": True},
        ball=(INF, EPS),
    ),
    Row("BasicIterativeMethod", "Linf", GRADIENTS, settings=_stepwise(), ball=(INF, EPS)),
    Row("MomentumIterativeMethod", "Linf", GRADIENTS, settings=_stepwise(), ball=(INF, EPS)),
    Row("ProjectedGradientDescent", "Linf", GRADIENTS, settings=_stepwise(num_random_init=2), ball=(INF, EPS)),
    Row("ProjectedGradientDescent", "L2", GRADIENTS, variant="L2", settings=_stepwise(1.0, norm=2), ball=(2, 1.0)),
    Row("ProjectedGradientDescent", "L1", GRADIENTS, variant="L1", settings=_stepwise(2.0, norm=1), ball=(1, 2.0)),
    Row(
        "ProjectedGradientDescent",
        "Linf",
        GRADIENTS,
        variant="targeted",
        settings=_stepwise(targeted=True),
        labels="other",
        ball=(INF, EPS),
    ),
    Row("ProjectedGradientDescentNumpy", "Linf", GRADIENTS, settings=_stepwise(num_random_init=2), ball=(INF, EPS)),
    Row("ProjectedGradientDescentPyTorch", "Linf", GRADIENTS, settings=_stepwise(num_random_init=2), ball=(INF, EPS)),
    Row(
        "ProjectedGradientDescentTensorFlowV2",
        "Linf",
        "a TensorFlow classifier",
        "refuses",
        note=ASKS_TENSORFLOW + "; use ProjectedGradientDescentPyTorch",
        settings=_stepwise(),
        error="tensorflow",
    ),
    Row("AutoProjectedGradientDescent", "Linf", GRADIENTS, variant="ce", settings=_auto(), ball=(INF, EPS)),
    Row("AutoProjectedGradientDescent", "Linf", GRADIENTS, variant="dlr", settings=_auto(loss=DLR), ball=(INF, EPS)),
    Row("AutoProjectedGradientDescent", "Linf", GRADIENTS, variant="loss", settings=_auto(loss=None), ball=(INF, EPS)),
    Row("AutoProjectedGradientDescent", "L2", GRADIENTS, variant="L2", settings=_auto(1.0, norm=2), ball=(2, 1.0)),
    Row("AutoProjectedGradientDescent", "L1", GRADIENTS, variant="L1", settings=_auto(2.0, norm=1), ball=(1, 2.0)),
    Row("AutoConjugateGradient", "Linf", GRADIENTS, variant="ce", settings=_auto(), ball=(INF, EPS)),
    Row("AutoConjugateGradient", "Linf", GRADIENTS, variant="dlr", settings=_auto(loss=DLR), ball=(INF, EPS)),
    Row("RescalingAutoConjugateGradient", "Linf", GRADIENTS, variant="ce", settings=_auto(), ball=(INF, EPS)),
    Row("RescalingAutoConjugateGradient", "Linf", GRADIENTS, variant="dlr", settings=_auto(loss=DLR), ball=(INF, EPS)),
    Row(
        "AutoAttack",
        "Linf",
        GRADIENTS,
        build=_autoattack,
        note="asks for the package `multiprocess`, which ART does not require; PGD, APGD and Square decide by single "
        "predictions who is attacked any further",
        ball=(INF, INF),
        package="multiprocess",
        error="multiprocess",
    ),
    Row("DeepFool", "L2", GRADIENTS, settings=_quiet(max_iter=3, nb_grads=CLASSES)),
    Row("CarliniL0Method", "L0", GRADIENTS, settings=CARLINI | {"initial_const": 10.0, "binary_search_steps": 2}),
    Row("CarliniL2Method", "L2", GRADIENTS, settings=CARLINI | {"initial_const": 10.0, "binary_search_steps": 2}),
    Row("CarliniLInfMethod", "Linf", GRADIENTS, settings=CARLINI | {"initial_const": 1.0, "largest_const": 4.0}),
    Row(
        "ElasticNet",
        "L1",
        GRADIENTS,
        settings=CARLINI | {"initial_const": 10.0, "binary_search_steps": 2},
        leaves=True,
    ),
    Row(
        "NewtonFool",
        "L2",
        GRADIENTS,
        note="takes logits for probabilities; those of an attack view are made so that it seeks p = 1 / C all the same",
        settings=_quiet(max_iter=3, batch_size=4),
        leaves=True,
    ),
    Row("SaliencyMapMethod", "L0", GRADIENTS, settings=_quiet(theta=0.3, gamma=0.1, batch_size=4), labels="other"),
    Row(
        "VirtualAdversarialMethod",
        "L2",
        "probabilities",
        note="takes nothing but probabilities: `attack_view(probabilities=True)`",
        settings=_quiet(eps=1.0, max_iter=1, batch_size=4),
        probabilities=True,
        ball=(2, 1.0),
    ),
    Row(
        "ShadowAttack",
        "smoothness",
        GRADIENTS,
        note="one image at a time; with `y` given it is targeted, whatever `targeted` says",
        settings=_quiet(nb_steps=3, batch_size=4),
        leaves=True,
        labels="other",
        images=1,
    ),
    Row(
        "Wasserstein",
        "Wasserstein",
        GRADIENTS,
        note="keeps the iterate that most single predictions got wrong",
        settings=_quiet(max_iter=6, kernel_size=3, batch_size=4, regularization=100, eps=2.0)
        | {"conjugate_sinkhorn_max_iter": 5, "projected_sinkhorn_max_iter": 5},
    ),
    Row(
        "UniversalPerturbation",
        "Linf",
        GRADIENTS,
        note="its attackers `simba` and `vat` want `attack_view(probabilities=True)`",
        leaves=True,
        settings=_quiet(attacker="fgsm", attacker_params={"eps": EPS}, eps=0.2, max_iter=2),
        ball=(INF, 0.2),
    ),
    Row(
        "TargetedUniversalPerturbation",
        "Linf",
        GRADIENTS,
        settings={"attacker": "fgsm", "attacker_params": {"eps": 0.3, "targeted": True}, "eps": 0.3, "max_iter": 2},
        labels="other",
        leaves=True,
        ball=(INF, 0.3),
    ),
    Row(
        "LowProFool",
        "weighted L2",
        GRADIENTS,
        note="for feature vectors",
        settings={"n_steps": 5, "eta": 2.0, "eta_decay": 1.0, "threshold": None, "importance": np.ones(6) / 6},
        inputs="features",
        labels="other",
    ),
    # inner layers
    Row(
        "FeatureAdversariesNumpy",
        "Linf",
        "activations",
        note="numerical derivatives of a random function: their error is the noise over 1e-3",
        settings={"delta": EPS, "layer": 0},
        call=lambda guides: {"maxiter": 1, "maxfun": 1},
        labels="guides",
        ball=(INF, EPS),
    ),
    Row(
        "FeatureAdversariesPyTorch",
        "Linf",
        "activations",
        settings=_quiet(delta=EPS, layer="relu", max_iter=3, step_size=STEP),
        labels="guides",
        ball=(INF, EPS),
    ),
    Row(
        "FeatureAdversariesPyTorch",
        "none",
        "activations",
        variant="optimizer",
        settings=_quiet(delta=EPS, layer=0, max_iter=3, optimizer=torch.optim.Adam, optimizer_kwargs={"lr": 0.05}),
        labels="guides",
    ),
    Row(
        "FeatureAdversariesTensorFlowV2",
        "Linf",
        "a TensorFlow classifier",
        "refuses",
        note=ASKS_TENSORFLOW + "; use FeatureAdversariesPyTorch",
        settings=_quiet(delta=EPS, layer=0, max_iter=3, step_size=STEP),
        labels="guides",
        error="tensorflow",
    ),
    # patches and changes of the scene
    Row("AdversarialPatch", "patch", GRADIENTS, settings=PATCH | {"patch_shape": (3, 8, 8)}),
    Row("AdversarialPatchPyTorch", "patch", GRADIENTS, settings=PATCH | {"patch_shape": (3, 8, 8)}),
    Row(
        "AdversarialPatchNumpy",
        "patch",
        GRADIENTS,
        "fails",
        note="takes its first patch value for an array, because ART's clip values are numpy.float32 and no float; "
        "use AdversarialPatchPyTorch",
        settings=_quiet(max_iter=2),
        error="'patch'",
    ),
    Row(
        "AdversarialPatchTensorFlowV2",
        "patch",
        "a TensorFlow classifier",
        "refuses",
        note=ASKS_TENSORFLOW + "; use AdversarialPatchPyTorch",
        settings=_quiet(patch_shape=(3, 8, 8), max_iter=2),
        error="tensorflow",
    ),
    Row(
        "CompositeAdversarialAttackPyTorch",
        "Linf, colour, rotation",
        GRADIENTS,
        note="asks for the package `kornia`, which ART does not require",
        settings=_quiet(max_iter=1, max_inner_iter=1, batch_size=4),
        package="kornia",
        error="kornia",
    ),
    Row(
        "GRAPHITEWhiteboxPyTorch",
        "sticker",
        GRADIENTS,
        note="asks for the package `opencv-python`, which ART does not require",
        settings={"net_size": (8, 8), "num_xforms": 2, "steps": 5, "first_steps": 9, "min_tr": 0.5}
        | {"step_size": 0.3, "num_patches_to_remove": 1},
        labels="other",
        images=1,
        package="cv2",
        error="cv2",
    ),
    Row(
        "GRAPHITEBlackbox",
        "sticker",
        DECISIONS,
        note="asks for the package `opencv-python`, which ART does not require",
        settings={"noise_size": (8, 8), "net_size": (8, 8), "num_xforms_mask": 2, "num_xforms_boost": 2}
        | {"num_boost_queries": 10, "heat_patch_stride": (4, 4), "tr_lo": 0.1, "tr_hi": 0.2}
        | {"rotation_range": (-1.0, 1.0), "gamma_range": (1.0, 1.1), "blur_kernels": (0, 0)},
        call=lambda guides: {"x_tar": guides},
        labels="other",
        images=1,
        package="cv2",
        error="cv2",
    ),
    Row(
        "LaserAttack",
        "beam of light",
        SCORES,
        "fails",
        note="channels last only; its LaserBeamGenerator asks for np.asfarray, which numpy 2 has not",
        build=_laser,
        inputs="channels last",
        labels="own index",
        error="asfarray",
    ),
    Row(
        "SpatialTransformation",
        "shift and rotation",
        DECISIONS,
        settings=_quiet(max_translation=20, num_translations=2, max_rotation=20, num_rotations=2),
    ),
    # videos
    Row("FrameSaliencyAttack", "Linf, few frames", GRADIENTS, build=_frames, inputs="video", ball=(INF, EPS)),
    Row(
        "OverTheAirFlickeringPyTorch",
        "flicker",
        GRADIENTS,
        settings=_quiet(max_iter=2, batch_size=4),
        inputs="video",
    ),
    # scores
    Row("SquareAttack", "Linf", SCORES, settings=_quiet(eps=EPS, max_iter=5), ball=(INF, EPS)),
    Row(
        "SquareAttack",
        "L2",
        SCORES,
        variant="L2",
        note="divides by zero where it has not moved an image yet, and may then be refused as below",
        settings=_quiet(eps=1.0, norm=2, max_iter=5),
        inputs="large",
        ball=(2, 1.0),
    ),
    Row(
        "SquareAttack",
        "L2",
        SCORES,
        variant="L2, sides below 10",
        note="its first candidates are 0 / 0: an attack view predicts NaN for them, and the attack drops them",
        settings=_quiet(eps=1.0, norm=2, max_iter=20),
        ball=(2, 1.0),
        leaves=True,
    ),
    Row(
        "SimBA",
        "Linf",
        "probabilities",
        variant="px",
        note="takes nothing but probabilities: `attack_view(probabilities=True)`",
        settings=_quiet(attack="px", max_iter=20),
        probabilities=True,
    ),
    Row(
        "SimBA",
        "L2",
        "probabilities",
        variant="dct",
        settings=_quiet(attack="dct", max_iter=20),
        probabilities=True,
    ),
    Row(
        "ZooAttack",
        "L2",
        SCORES,
        note="differences of two noisy scores 1e-4 apart: an attack view needs very many draws",
        settings=_quiet(max_iter=5, learning_rate=0.2, initial_const=10.0, nb_parallel=8)
        | {"use_resize": False, "use_importance": False},
        leaves=True,
    ),
    Row("PixelAttack", "L0", SCORES, settings=_quiet(th=3, es=1, max_iter=1)),
    Row(
        "PixelAttack",
        "L0",
        SCORES,
        variant="cma",
        note="`es=0` asks for the package `cma`, which ART does not require",
        settings=_quiet(th=3, es=0, max_iter=1),
        package="cma",
        error="cma",
    ),
    Row("ThresholdAttack", "Linf", SCORES, settings=_quiet(th=20, es=1, max_iter=1)),
    Row(
        "ThresholdAttack",
        "Linf",
        SCORES,
        variant="cma",
        note="`es=0`, the default, asks for the package `cma`, which ART does not require",
        settings=_quiet(th=20, es=0, max_iter=1),
        package="cma",
        error="cma",
    ),
    # decisions
    Row(
        "HopSkipJump",
        "L2",
        DECISIONS,
        "mended",
        note="float64 images, cast here; give it many draws, or `sap_art.attacks.hopskipjump`",
        settings=_quiet(max_iter=1, max_eval=20, init_eval=5, init_size=20),
        error=DOUBLE,
    ),
    Row(
        "HopSkipJump",
        "Linf",
        DECISIONS,
        "mended",
        variant="Linf",
        settings=_quiet(max_iter=1, max_eval=20, init_eval=5, init_size=20, norm=INF),
        error=DOUBLE,
    ),
    Row(
        "BoundaryAttack",
        "L2",
        DECISIONS,
        "mended",
        note="float64 images, cast here",
        settings=_quiet(targeted=False, max_iter=2, num_trial=3, sample_size=3, init_size=20),
        error=DOUBLE,
    ),
    Row(
        "BrendelBethgeAttack",
        "Linf",
        "decisions and gradients",
        note="there only where `numba` is; give it `starting_points` that every noisy prediction gets wrong: those "
        "that it finds for itself are float64 (cast here), and it asserts that the next prediction gets them wrong too",
        settings={"norm": INF, "steps": 2, "binary_search_steps": 3},
        call=lambda guides: {"starting_points": guides},
    ),
    Row(
        "SignOPTAttack",
        "L2",
        DECISIONS,
        settings={"targeted": False, "num_trial": 5, "max_iter": 2, "k": 3, "query_limit": 100},
    ),
    Row(
        "GeoDA",
        "L2",
        DECISIONS,
        "fails",
        note="asks for np.mat, which numpy 2 has not; writes a file into the working directory",
        settings=_quiet(max_iter=500, sub_dim=3),
        error="np.mat",
    ),
    # not for classifiers of images
    Row("DPatch", "patch", DETECTOR, "refuses", error=WANTS),
    Row("RobustDPatch", "patch", DETECTOR, "refuses", error=WANTS),
    Row(
        "OverloadPyTorch",
        "Linf",
        DETECTOR,
        "refuses",
        note="asks the detector's inner model for boxes",
        settings={"eps": EPS, "max_iter": 1, "num_grid": 2, "batch_size": 1, "threshold": 0.1},
        error="no attribute 'model'",
    ),
    Row(
        "SNAL",
        "Linf",
        DETECTOR,
        "refuses",
        note="collects boxes of a detector",
        settings={"candidates": [torch.ones(3, 4, 4)], "collector": lambda estimator, x: estimator.predict(x.numpy())}
        | {"eps": EPS, "max_iter": 1, "num_grid": 1},
        error="to unpack",
    ),
    Row(
        "AdversarialTexturePyTorch",
        "texture",
        "an object tracker",
        "refuses",
        settings={"patch_height": 2, "patch_width": 2},
        error=WANTS,
    ),
    Row("CarliniWagnerASR", "Linf", SPEECH, "refuses", error=WANTS),
    Row("ImperceptibleASR", "loudness", SPEECH, "refuses", settings={"masker": None}, error=WANTS),
    Row("ImperceptibleASRPyTorch", "loudness", SPEECH, "refuses", error=WANTS),
    Row("DecisionTreeAttack", "none", "a decision tree of scikit-learn", "refuses", inputs="features", error=WANTS),
    Row(
        "HighConfidenceLowUncertainty",
        "Linf",
        "a Gaussian process of GPy",
        "refuses",
        inputs="features",
        error=WANTS,
    ),
    Row(
        "MalwareGDTensorFlow",
        "appended bytes",
        "a TensorFlow classifier",
        "refuses",
        note=ASKS_TENSORFLOW + " of program files",
        settings={"embedding_weights": np.zeros((2, 2)), "param_dic": {}},
        inputs="features",
        error="tensorflow",
    ),
)

NOT = "—"
RESULTS = {
    "works": ("works", "works"),
    "mended": ("fails", "works"),
    "fails": ("fails", "fails"),
    "refuses": (NOT, NOT),
}
HEAD = """# ART's evasion attacks on a defended classifier

`tests/test_art_attacks.py` tries each row with ART 1.20.1 and numpy 2, on ART's own `PyTorchClassifier`, on the attack
view (`SAPClassifier(...).attack_view(...)`, which is what to give to an attack) and on the defence itself; the table is
that of `tests/art_attacks.py`, which prints this page. "works" says that the attack reaches the defence with all its
draws, gradients included, moves points and keeps to its ball; not that it is a good attack on a random model. Most of
ART's attacks decide by single predictions which points to keep: give them a view of many draws, and score their points
with `evaluate_art`.

The defence itself answers for images only. On their way the attacks that are **refused** ask about points outside
`clip_values` or of NaN, and their numbers alone do not tell them from images that were scaled wrongly: for both the
defence raises a ValueError that says how to scale, and names the attack view. The view answers them, as ART's own
classifier does and as `defend(classifier, policy="none")` does, where nothing is defended. Attacks that want
probabilities refuse logits themselves, with an error: give them `attack_view(probabilities=True)`, which has no
gradient. "—" is for other models. How ART's own tests end on the defence, test by test and
why: [`own-tests.md`](../benchmarks/art/results/own-tests.md), by `benchmarks/art/own_tests.py`.

| attack | norm or kind | needs | on ART's own classifier | on the attack view | on the defence itself | remark |
| --- | --- | --- | --- | --- | --- | --- |
"""


def markdown() -> str:
    """The page for users."""
    return HEAD + "".join(f"| {' | '.join(_cells(row))} |\n" for row in TABLE)


def _cells(row: Row) -> tuple[str, ...]:
    own, here = RESULTS[row.outcome]
    name = f"{row.name} ({row.variant})" if row.variant else row.name
    itself = "refused" if row.leaves else NOT if row.probabilities else here
    return (name, row.norm, row.needs, own, here, itself, row.note)


if __name__ == "__main__":
    print(markdown(), end="")  # noqa: T201
