"""Entries of a suite made ready: nets loaded, policies applied, everything checked before any work."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sap_art import zoo
from sap_art.defended import DefendedModel
from sap_art.foreign import wrap
from sap_art.policies import parse_policy
from sap_art.randomness import derive_seed
from sap_art.record import DefenceInfo, ModelInfo
from sap_art.stochastic import StochasticModel, require_eval
from sap_art.store import weights_sha256
from sap_art.threat import require_labels


@dataclass(frozen=True)
class Entry:
    """A model under evaluation and what its record says about it."""

    name: str
    model: StochasticModel
    model_info: ModelInfo
    defence: DefenceInfo


def make_entry(
    name: str, reference: str, policy: str | None, *, x: Tensor, y: Tensor, seed: int, device: torch.device
) -> Entry:
    """Load the net ``reference``, apply ``policy`` and try the model on one image.

    A module of the user's that is random without a policy is run as a foreign random model; a deterministic one is
    its own dense counterpart.

    Raises:
        ValueError: unknown net or policy, a damaged checkpoint, a model that does not take these images or labels.
    """
    net = zoo.load_model(reference).to(device)
    if policy is not None:
        model: StochasticModel = DefendedModel(net, parse_policy(policy), seed=derive_seed(seed, name))
    elif isinstance(net, StochasticModel):
        model = net
    else:
        model = wrap(net, dense=None if _is_random(net, x, seed=seed) else net, seed=derive_seed(seed, name))
    _try(model, x, y, reference)
    return Entry(name, model, _model_info(model, net, reference), _defence(model, policy))


@torch.no_grad()
def _is_random(net: nn.Module, x: Tensor, *, seed: int) -> bool:
    probe = wrap(net, seed=seed)
    return not torch.equal(probe.single(x[:2]), probe.single(x[:2]))


@torch.no_grad()
def _try(model: StochasticModel, x: Tensor, y: Tensor, reference: str) -> None:
    require_eval(model)
    try:
        logits = model.single(x[:1])
    except RuntimeError as error:
        raise ValueError(f"{reference} does not take images of shape {tuple(x.shape[1:])}: {error}") from error
    if logits.ndim != 2 or len(logits) != 1:
        raise ValueError(f"{reference} must return (B, C) logits, got {tuple(logits.shape)} for one image")
    require_labels(y, len(x), classes=logits.shape[1])


def _model_info(model: StochasticModel, net: nn.Module, reference: str) -> ModelInfo:
    return ModelInfo(
        name=reference,
        architecture=type(net).__name__,
        weights_sha256=weights_sha256(net),
        dense=None if model.dense is None else type(model.dense).__name__,
    )


def _defence(model: StochasticModel, policy: str | None) -> DefenceInfo:
    if isinstance(model, DefendedModel):
        return DefenceInfo(model.policy.spec, model.policy.where, model.per_example, "single", draws=1)
    kind = "none" if model.dense is not None and policy is None else "foreign"
    return DefenceInfo(kind, "module", model.per_example, "single", draws=1)
