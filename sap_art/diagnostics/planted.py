"""Planted adversarial examples: an attack that does not find what is known to be there is no evidence.

The binarisation test of Zimmermann et al. 2022 (arXiv:2206.13991): for one image the net's last linear layer is
replaced by a readout of two classes, 0 all around the image and 1 at one point on the boundary of the eps-ball. The
defence itself, its randomness and its gradients stay as they are, so a sound attack must find class 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from sap_art.diagnostics.binarised import Binarised, draw_features, last_linear
from sap_art.evaluation import evaluate
from sap_art.flags import flag, raised_if
from sap_art.metrics import proportion
from sap_art.randomness import derive_seed, make_generator
from sap_art.record import Flag
from sap_art.stochastic import StochasticModel
from sap_art.threat import ThreatModel, require_images

AROUND, SHRINK = 256, 0.95
"""Points around the image that must stay class 0, within 95 % of the radius."""
RIDGE = 0.1
CLOSENESS = 0.75
"""Where the decision lies on the way from the points around the image to the planted one."""
LOGIT = 5.0
"""Mean margin of the readout around the image, small enough for the cross-entropy to have a gradient."""
RANDOM_POINTS = 4
FOUND_SHARE, LEAST_PLANTED, EASY_SHARE = 0.95, 8, 0.05


class Attack(Protocol):
    """``attack(model, x, y, threat, *, seed) -> x_adv``, as ``portfolio.PlannedAttack.run``."""

    def __call__(self, model: StochasticModel, x: Tensor, y: Tensor, threat: ThreatModel, *, seed: int) -> Tensor: ...


@dataclass(frozen=True)
class PlantedResult:
    """What became of the images.

    Attributes:
        planted: (B,) bool, whether fresh draws confirmed the plant: the image is class 0, the point is class 1.
        found: (B,) bool, whether the attack's point is class 1; False where nothing was planted.
        random: share of random points of the planted images' balls, half of them at radius eps, that are class 1.
    """

    planted: Tensor
    found: Tensor
    random: float


class Plant(NamedTuple):
    """A readout for one image and the point (1, ...) at which it should be class 1."""

    model: Binarised
    point: Tensor


def plant_and_attack(
    model: StochasticModel, x: Tensor, threat: ThreatModel, attack: Attack, *, draws: int, seed: int
) -> PlantedResult:
    """Plant a point for each image of ``x`` (B, ...), attack image by image, and score on fresh draws.

    A point is of the class that most of its draws have. Some 260 + 8 ``draws`` passes an image besides the attack.

    Args:
        attack: gets a ``Binarised`` model, one image (1, ...), its label 0 and the threat model.
        draws: of the planted point's features and of each prediction; 1 is enough for a deterministic model.

    Raises:
        ValueError: a net without a last linear layer, draws < 1, or points outside of the threat model.
    """
    require_images(x)
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    head = last_linear(model, x[:1])
    planted, found = (torch.zeros(len(x), dtype=torch.bool) for _ in range(2))
    random: list[Tensor] = []
    for i, image in enumerate(x.split(1)):
        own = derive_seed(seed, "planted", i)
        binarised, point = plant(model, head, image, threat, draws=draws, seed=own)
        points = _random_points(image, threat, make_generator(x.device, own, "random"), count=RANDOM_POINTS)
        class_1 = _class_1(binarised, torch.cat([image, point, points]), draws=draws, seed=derive_seed(own, "plant"))
        planted[i] = class_1[1] & ~class_1[0]
        if planted[i]:
            random.append(class_1[2:])
            y = torch.zeros(1, dtype=torch.long, device=x.device)
            x_adv = attack(binarised, image, y, threat, seed=derive_seed(own, "attack"))
            threat.require(image, x_adv)
            found[i] = _class_1(binarised, x_adv, draws=draws, seed=derive_seed(own, "score"))[0]
    return PlantedResult(planted, found, torch.cat(random).double().mean().item() if random else 0.0)


def plant(
    model: StochasticModel, head: nn.Linear, image: Tensor, threat: ThreatModel, *, draws: int, seed: int
) -> Plant:
    """A random point at distance eps of one image (1, ...), and a readout that tells it from those around the image.

    The point is x +- eps in each pixel for Linf, and in a uniform direction for L2; of those around the image half are
    of that kind and half uniform in the ball, so that the length of a step tells nothing. The readout is Fisher's
    linear discriminant, its covariance that of single draws (the model's randomness counts as noise) and shrunk by a
    tenth towards a multiple of the identity, its threshold at three quarters of the way between the two means.
    """
    generator = make_generator(image.device, seed, "points")
    around = _random_points(image, ThreatModel(threat.norm, SHRINK * threat.eps), generator, count=AROUND)
    point = _corners(image, threat, generator, count=1)
    with model.seeded(derive_seed(seed, "features")):
        inner = draw_features(model, head, around, draws=1)[0]
        outer = draw_features(model, head, point, draws=draws)[:, 0].mean(0)
    centred = inner - inner.mean(0)
    scatter = centred.T @ centred / len(inner)
    identity = torch.eye(len(scatter), dtype=scatter.dtype, device=scatter.device)
    size = scatter.diagonal().mean().clamp(min=1e-30)
    shift = outer - inner.mean(0)
    direction = torch.linalg.solve((1 - RIDGE) * scatter + RIDGE * size * identity, shift)
    weight = LOGIT / CLOSENESS * direction / (direction @ shift).clamp(min=1e-30)
    bias = -(weight @ inner.mean(0)).item() - LOGIT
    return Plant(Binarised(model, head, weight=weight, bias=bias), point)


def planted_example_missed(result: PlantedResult) -> Flag:
    """Raised if the attack finds fewer than 95 % of the planted examples: Wilson's upper bound is below.

    Not checked where fewer than 8 images could be planted (the model's noise drowns a step of eps), or where more than
    5 % of random points are class 1 too: then finding one would prove nothing.
    """
    code = "planted-example-missed"
    planted, found = int(result.planted.sum()), int(result.found.sum())
    evidence = f"planted in {planted} of {len(result.planted)} images; {result.random:.1%} of random points adversarial"
    if planted < LEAST_PLANTED or result.random > EASY_SHARE:
        return flag(code, "not-checked", evidence, threshold=FOUND_SHARE)
    share = proportion(found, planted)
    evidence = f"the attack finds {found}, share {share.value:.3f} [{share.low:.3f}, {share.high:.3f}]; {evidence}"
    return raised_if(share.high < FOUND_SHARE, code, evidence, value=share.value, threshold=FOUND_SHARE)


def _corners(image: Tensor, threat: ThreatModel, generator: torch.Generator, *, count: int) -> Tensor:
    shape = (count, *image.shape[1:])
    noise = torch.randn(shape, generator=generator, dtype=image.dtype, device=image.device)
    return threat.project(image.expand(shape), image + threat.eps * threat.ascent_direction(noise))


def _random_points(image: Tensor, threat: ThreatModel, generator: torch.Generator, *, count: int) -> Tensor:
    inside = threat.random_start(image.expand(count // 2, *image.shape[1:]), generator)
    return torch.cat([inside, _corners(image, threat, generator, count=count - count // 2)])


def _class_1(model: StochasticModel, x: Tensor, *, draws: int, seed: int) -> Tensor:
    """(B,) bool: whether most draws are of class 1."""
    labels = torch.zeros(len(x), dtype=torch.long, device=x.device)
    return 2 * evaluate(model, x, labels, draws=draws, seed=seed).correct < draws
