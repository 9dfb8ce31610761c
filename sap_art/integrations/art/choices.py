"""Which defence is meant: what the keywords of SAPClassifier say, in the model or about it."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from sap_art.attacker import AttackerView
from sap_art.defended import DefendedModel
from sap_art.foreign import wrap
from sap_art.integrations.art.module import EstimatorModule
from sap_art.policies import SAP, AtSites, Policy, parse_policy
from sap_art.stochastic import StochasticModel

DEFENCE = ("percent", "sampler", "policy", "predictor", "draws", "gradient")
NONE = "none"
"""In the place of a policy: the net as it is."""


def defended_module(model: nn.Module, given: dict[str, Any], *, seed: int | None) -> EstimatorModule:
    """``model`` with the defence that was asked for; as it is, if it is random already or none was asked for."""
    if isinstance(model, AttackerView) or (
        isinstance(model, EstimatorModule) and isinstance(model.inner, AttackerView)
    ):
        raise TypeError("an attacker's view is no defence: give its model, or a net")
    if not isinstance(cast(object, model), nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if isinstance(model, EstimatorModule | StochasticModel):
        if given:
            names = ", ".join(given)
            raise ValueError(f"the model is random already: leave out {names}, or give the net without its defence")
        if seed is not None:
            raise ValueError("the model has a seed of its own: leave out seed, and call model.reseed(seed)")
        return model if isinstance(model, EstimatorModule) else EstimatorModule(model)
    if given.get("policy") != NONE:
        return EstimatorModule(_defended(model.eval(), given, seed=seed))
    if rest := [name for name in given if name != "policy"]:
        raise ValueError(f"policy {NONE!r} leaves the net as it is: leave out {', '.join(rest)}")
    return EstimatorModule(wrap(model.eval(), dense=model, seed=seed))


def _defended(net: nn.Module, given: dict[str, Any], *, seed: int | None) -> DefendedModel:
    rest: dict[str, Any] = {name: given[name] for name in ("predictor", "draws", "gradient") if name in given}
    return DefendedModel(net, _policy(given, SAP()), seed=seed, **rest)


def changed_model(model: StochasticModel, given: dict[str, Any]) -> DefendedModel:
    """A model of the same net with other settings; its own sites go with policies that act where its own does."""
    if model.deterministic or given.get("policy") == NONE:
        raise ValueError("whether there is a defence is settled when SAPClassifier is built: build another one")
    if not isinstance(model, DefendedModel):
        raise ValueError(f"{type(model).__name__} has no {', '.join(given)} to set: it is a random model of its own")
    same: dict[str, Any] = {"predictor": model.predictor, "draws": model.draws, "gradient": model.gradient}
    settings = {**same, **{name: given[name] for name in same if name in given}}
    policy = _policy(given, model.policy)
    sites = model.rule if policy.where == model.policy.where else None
    return DefendedModel(model.net, policy, sites=sites, seed=0, **settings)


def _policy(given: dict[str, Any], before: Policy) -> Policy:
    """The policy that is asked for; what is left open of SAP, its sites too, is as ``before``."""
    policy, sap = given.get("policy"), {name: given[name] for name in ("percent", "sampler") if name in given}
    if policy is not None and sap:
        raise ValueError(f"give either a policy or {' and '.join(sap)}, got both: policy {policy!r}, {sap}")
    if policy is not None:
        return parse_policy(policy) if isinstance(policy, str) else policy
    if not sap:
        return before
    if isinstance(before, AtSites) and isinstance(before.policy, SAP):
        return AtSites(_policy(given, before.policy), before.sites)
    return SAP(**{**_sap(before), **sap})


def _sap(policy: Policy) -> dict[str, Any]:
    same = policy if isinstance(policy, SAP) else SAP()
    return {"percent": same.percent, "sampler": same.sampler, "kernel": same.kernel}
