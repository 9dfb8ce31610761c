"""Entries of a suite made ready: nets loaded, policies applied, everything checked before any work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sap_art import zoo
from sap_art.defended import DefendedModel
from sap_art.foreign import ForeignModel, wrap
from sap_art.policies import parse_policy
from sap_art.randomness import derive_seed, make_generator
from sap_art.record import DefenceInfo, ModelInfo
from sap_art.references import is_code, public_name
from sap_art.stochastic import StochasticModel, require_eval
from sap_art.store import tensor_sha256, weights_sha256
from sap_art.threat import ThreatModel, require_labels

DETECTION_CALLS = 32
"""Calls among which a random net must differ once; one that differs in 10 % of them is missed 3 % of the time."""
NEARBY = (8 / 255, 0.5)
"""Radii of uniform noise around images at which it may differ too: some nets are random where an attack leads only."""


@dataclass(frozen=True)
class Entry:
    """A model under evaluation, how many classes it tells apart, and what its record says about it.

    ``anew`` makes the same model once more, as it was before anybody called it.
    """

    name: str
    model: StochasticModel
    classes: int
    model_info: ModelInfo
    defence: DefenceInfo
    anew: Callable[[], StochasticModel]

    def at_rest(self) -> Callable[[], Entry]:
        """What gives this entry again, and does not hold the model in between; but one that a user's code makes stays.

        What it returns raises ValueError if the weights in the model's file have changed.
        """
        if is_code(self.model_info.name):
            return lambda: self
        name, classes, info, defence, anew = self.name, self.classes, self.model_info, self.defence, self.anew

        def awake() -> Entry:
            model = anew()
            if (found := weights_sha256(net_of(model))) != info.weights_sha256:
                raise ValueError(
                    f"the weights of {info.name} have changed since the run began (SHA-256 {info.weights_sha256} then, "
                    f"{found} now): begin the run again, which computes that model's entries anew"
                )
            return Entry(name, model, classes, info, defence, anew)

        return awake


def net_of(model: StochasticModel) -> nn.Module:
    """What was loaded, inside of what was made of it."""
    if isinstance(model, DefendedModel):
        return model.net
    return model.module if isinstance(model, ForeignModel) else model


def make_entry(
    name: str,
    reference: str,
    policy: str | None,
    *,
    x: Tensor,
    y: Tensor,
    seed: int,
    device: torch.device,
    load: Callable[[str], nn.Module] = zoo.load_model,
) -> Entry:
    """``load`` the net ``reference``, apply ``policy`` and try the model on one image.

    A module of the user's that is random without a policy is run as a foreign random model; a deterministic one is
    its own dense counterpart.

    Raises:
        ValueError: unknown net or policy, a damaged checkpoint, a model that does not take these images or labels.
    """
    net = load(reference).to(device)
    plain = net if isinstance(net, StochasticModel) else wrap(net)
    plain.reseed(derive_seed(seed, name))
    classes = _try(plain, x, y, reference)
    random = _is_random(plain, x[:4]) or isinstance(net, StochasticModel)
    if policy is not None and random:
        raise ValueError(f"{reference} is random by itself; leave out the policy {policy} to evaluate it as it is")

    def anew() -> StochasticModel:
        return _apply(policy, load(reference).to(device), random=random, seed=derive_seed(seed, name))

    model = anew()
    if policy is not None:
        _try(model, x, y, reference)
    return Entry(name, model, classes, _model_info(model, net, reference), _defence(model), anew)


def _apply(policy: str | None, net: nn.Module, *, random: bool, seed: int) -> StochasticModel:
    """``net`` as a stochastic model: under the policy, as it is if it is random, else its own dense counterpart."""
    if isinstance(net, StochasticModel):
        net.reseed(seed)
        return net
    if policy is not None:
        return DefendedModel(net, parse_policy(policy), seed=seed)
    return wrap(net, dense=None if random else net, seed=seed)


@torch.no_grad()
def fingerprint(model: StochasticModel, x: Tensor) -> str:
    """SHA-256 over a few seeded draws: models that compute something else differ, whatever their names say."""
    with model.seeded(derive_seed(0, "fingerprint")):
        return tensor_sha256(*(model.single(x[:8]) for _ in range(DETECTION_CALLS)))


@torch.no_grad()
def _is_random(model: StochasticModel, x: Tensor) -> bool:
    """Whether answers to x (B, ...), or to images near them, differ between calls."""
    generator = make_generator(x.device, 0, "nearby")
    near = [ThreatModel("Linf", radius).random_start(x, generator) for radius in NEARBY]
    points = torch.cat([x, *near])
    first = model.single(points)
    calls = (model.single(points) for _ in range(DETECTION_CALLS))
    return any(not torch.allclose(first, again, rtol=0, atol=0, equal_nan=True) for again in calls)  # NaN is no noise


@torch.no_grad()
def _try(model: StochasticModel, x: Tensor, y: Tensor, reference: str) -> int:
    """The number of classes, if it takes these images."""
    require_eval(model)
    try:
        logits = model.single(x[:1])
    except Exception as error:  # whatever a user's code raises
        raise ValueError(f"{reference} does not take images of shape {tuple(x.shape[1:])}: {error}") from error
    if logits.ndim != 2 or len(logits) != 1:
        raise ValueError(f"{reference} must return (B, C) logits, got {tuple(logits.shape)} for one image")
    if not torch.isfinite(logits).all():
        raise ValueError(f"{reference} returns NaN or inf on a clean image")
    require_labels(y, len(x), classes=logits.shape[1])
    return logits.shape[1]


def _model_info(model: StochasticModel, net: nn.Module, reference: str) -> ModelInfo:
    return ModelInfo(
        name=public_name(reference),
        architecture=type(net).__name__,
        weights_sha256=weights_sha256(net),
        dense=None if model.dense is None else type(model.dense).__name__,
    )


def _defence(model: StochasticModel) -> DefenceInfo:
    if isinstance(model, DefendedModel):
        return DefenceInfo(model.policy.spec, model.policy.where, model.per_example, "single", draws=1)
    return DefenceInfo("none" if model.deterministic else "foreign", "module", model.per_example, "single", draws=1)
