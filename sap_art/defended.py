"""DefendedModel: a deterministic net and a policy make a random model."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from sap_art import gradients
from sap_art.kernels.weights import not_finite
from sap_art.policies import Policy
from sap_art.sites import DEFAULT_SITES, Site, SiteRule, SiteScope
from sap_art.stochastic import StochasticModel, draw_logits, log_mean_prob, log_vote

Predictor = Literal["single", "mean_prob", "vote"]
_REDUCE = {"mean_prob": log_mean_prob, "vote": log_vote}


class DefendedModel(StochasticModel):
    """``net`` with ``policy`` applied after each activation, within ``forward`` only: the net itself is not changed.

    Args:
        net: deterministic (B, 3, H, W) in [0, 1] -> (B, C) logits; two models may share it.
        policy: what is random, for example ``SAP(percent=100)``.
        predictor: ``single`` (one draw), ``mean_prob`` (log of the mean softmax over ``draws`` draws) or ``vote``
            (log((v + 1/C) / (K + 1)) with v the votes of K = ``draws`` draws).
        draws: K, the draws of one prediction; 1 for ``single``.
        seed: of the model's own generator; None takes one from the operating system.
        gradient: estimator of the backward pass: ``bpda``, ``frozen`` or ``autograd``; never changes the value.
        sites: which activations, if the default rule does not fit the net.

    Raises:
        ValueError: unknown predictor or estimator, draws that do not fit the predictor, and in ``forward`` a net in
            which no activation was met.
    """

    def __init__(
        self,
        net: nn.Module,
        policy: Policy,
        *,
        predictor: Predictor = "single",
        draws: int = 1,
        seed: int | None = None,
        gradient: str = "bpda",
        sites: SiteRule = DEFAULT_SITES,
    ) -> None:
        _check(policy, predictor, draws=draws, gradient=gradient)
        super().__init__(seed=seed, per_example=policy.per_example)
        self.net = net
        self.policy = policy
        self.predictor: Predictor = predictor
        self.draws = draws
        self.gradient = gradient
        self.rule = sites
        self._sites: tuple[Site, ...] = ()

    @property
    def dense(self) -> nn.Module:
        """The net without the policy."""
        return self.net

    @property
    def estimators(self) -> tuple[str, ...]:
        return gradients.ESTIMATORS

    @property
    def sites(self) -> tuple[Site, ...]:
        """The activations met by the last forward pass, in order of the calls.

        Raises:
            RuntimeError: before the first forward pass.
        """
        if not self._sites:
            raise RuntimeError("the sites are known after a forward pass: call the model on one image first")
        return self._sites

    def single(self, x: Tensor, *, gradient: str | None = None) -> Tensor:
        return self._pass(x, gradient or self.gradient)

    def forward(self, x: Tensor) -> Tensor:
        if self.predictor == "single":
            return self.single(x)
        return _REDUCE[self.predictor](draw_logits(self, x, self.draws))

    def _pass(self, x: Tensor, gradient: str) -> Tensor:
        def visit(h: Tensor, site: Site) -> Tensor:
            generator = self.noise.stream(h.device, site.index, rows=len(h), batch=len(x))
            return gradients.apply(h, self.policy, generator, estimator=gradient)

        with self.noise.call(), SiteScope(self.net, self.rule, visit) as scope:
            logits = cast(Tensor, self.net(x))
        if not scope.sites:
            raise ValueError(
                f"no activation was met in {type(self.net).__name__}, so {self.policy.spec} would defend nothing; "
                "name its activations with sites=DEFAULT_SITES.extended(...)"
            )
        if torch.isnan(logits).any():  # a GPU is not asked after each layer
            raise not_finite()
        self._sites = scope.sites
        return logits

    def extra_repr(self) -> str:
        return f"policy={self.policy.spec}, predictor={self.predictor}, draws={self.draws}, gradient={self.gradient}"


def _check(policy: Policy, predictor: str, *, draws: int, gradient: str) -> None:
    if policy.where != "activation":
        raise ValueError(f"DefendedModel applies policies to activations, {policy.spec} acts on the {policy.where}")
    if predictor not in ("single", *_REDUCE):
        raise ValueError(f"unknown predictor {predictor!r}; known: single, {', '.join(_REDUCE)}")
    if draws < 1 or (predictor == "single" and draws != 1):
        raise ValueError(f"draws must be at least 1, and 1 for the predictor 'single', got {draws} for {predictor!r}")
    if gradient not in gradients.RANDOM_ESTIMATORS:
        known = ", ".join(gradients.RANDOM_ESTIMATORS)
        raise ValueError(f"unknown gradient {gradient!r}; a defended model's backward pass is one of: {known}")
