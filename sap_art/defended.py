"""DefendedModel: a deterministic net and a policy make a random model."""

from __future__ import annotations

import threading
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sap_art import gradients
from sap_art.kernels.weights import not_finite
from sap_art.policies import AtSites, Policy
from sap_art.sites import CONVOLUTIONS, DEFAULT_SITES, Site, SiteRule, SiteScope
from sap_art.stochastic import StochasticModel, draw_logits, log_mean_prob, log_vote

Predictor = Literal["single", "mean_prob", "vote"]
_REDUCE = {"mean_prob": log_mean_prob, "vote": log_vote}
_RULES = {"activation": DEFAULT_SITES, "preactivation": CONVOLUTIONS}
_EXCHANGE = threading.RLock()  # functional_call lends the drawn weights to the net's own modules while it runs


class DefendedModel(StochasticModel):
    """``net`` with ``policy`` applied at its sites, within ``forward`` only: the net itself is not changed.

    Sites are its activations, its convolutions' outputs (``where`` of the policy is ``preactivation``) or its weight
    tensors (``weight``): the parameters of two axes or more, which leaves out biases and normalisation. One draw of the
    weights is shared by all images of a forward pass, and its gradient for the images is the same for all estimators.
    Threads take turns at drawn weights; one that calls the net by itself meanwhile may meet them.

    Args:
        net: deterministic (B, 3, H, W) in [0, 1] -> (B, C) logits; two models may share it.
        policy: what is random, for example ``SAP(percent=100)``; at some sites alone, ``AtSites(SAP(100), (0, 1))``.
        predictor: ``single`` (one draw), ``mean_prob`` (log of the mean softmax over ``draws`` draws) or ``vote``
            (log((v + 1/C) / (K + 1)) with v the votes of K = ``draws`` draws).
        draws: K, the draws of one prediction; 1 for ``single``.
        seed: of the model's own generator; None takes one from the operating system.
        gradient: estimator of the backward pass: ``bpda``, ``frozen`` or ``autograd``; never changes the value.
        sites: which activations, if the default rule for ``where`` does not fit the net; not for weights.

    Raises:
        ValueError: unknown predictor or estimator, draws that do not fit the predictor, sites for weights, and in
            ``forward`` a net in which no site was met, or one without a site that the policy names.
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
        sites: SiteRule | None = None,
    ) -> None:
        _check(predictor, draws=draws, gradient=gradient)
        if policy.where == "weight" and sites is not None:
            raise ValueError(f"sites are activations, but {policy.spec} acts on the weights: leave them out")
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
        """The activations met by the last forward pass, in order of the calls, or the weight tensors; drawn or not.

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
        with self.noise.call():
            run = self._with_drawn_weights if self.policy.where == "weight" else self._with_drawn_maps
            logits, sites = run(x, gradient)
        if torch.isnan(logits).any():  # a GPU is not asked after each layer
            raise not_finite()
        self._sites = sites
        return logits

    def _with_drawn_maps(self, x: Tensor, gradient: str) -> tuple[Tensor, tuple[Site, ...]]:
        def visit(h: Tensor, site: Site) -> Tensor:
            if not self._is_chosen(site):
                return h
            generator = self.noise.stream(h.device, site.index, rows=len(h), batch=len(x))
            return gradients.apply(h, self.policy, generator, estimator=gradient)

        with SiteScope(self.net, self.rule or _RULES[self.policy.where], visit) as scope:
            logits = cast(Tensor, self.net(x))
        if not scope.sites:
            raise ValueError(
                f"no {self.policy.where} was met in {type(self.net).__name__}, so {self.policy.spec} would defend "
                "nothing; name its activations with sites=DEFAULT_SITES.extended(...)"
            )
        self._require_chosen(scope.sites)
        return logits, scope.sites

    def _with_drawn_weights(self, x: Tensor, gradient: str) -> tuple[Tensor, tuple[Site, ...]]:
        with _EXCHANGE:
            weights = {name: w for name, w in self.net.named_parameters() if w.ndim > 1}
            if not weights:
                raise ValueError(
                    f"no weight tensor of two axes or more in {type(self.net).__name__}, so {self.policy.spec} would "
                    "defend nothing"
                )
            sites = tuple(Site(i, name, tuple(w.shape)) for i, (name, w) in enumerate(weights.items()))
            self._require_chosen(sites)
            chosen = filter(self._is_chosen, sites)
            drawn = {site.name: self._draw(weights[site.name], site, gradient) for site in chosen}
            return cast(Tensor, functional_call(self.net, drawn, (x,))), sites

    def _draw(self, w: Tensor, site: Site, gradient: str) -> Tensor:
        generator = self.noise.shared_stream(w.device, site.index)
        return gradients.apply(w, self.policy, generator, estimator=gradient)

    def _is_chosen(self, site: Site) -> bool:
        return not isinstance(self.policy, AtSites) or site.index in self.policy.sites

    def _require_chosen(self, sites: tuple[Site, ...]) -> None:
        if isinstance(self.policy, AtSites):
            self.policy.require_within(len(sites), type(self.net).__name__)

    def extra_repr(self) -> str:
        return f"policy={self.policy.spec}, predictor={self.predictor}, draws={self.draws}, gradient={self.gradient}"


def _check(predictor: str, *, draws: int, gradient: str) -> None:
    if predictor not in ("single", *_REDUCE):
        raise ValueError(f"unknown predictor {predictor!r}; known: single, {', '.join(_REDUCE)}")
    if draws < 1 or (predictor == "single" and draws != 1):
        raise ValueError(f"draws must be at least 1, and 1 for the predictor 'single', got {draws} for {predictor!r}")
    if gradient not in gradients.RANDOM_ESTIMATORS:
        known = ", ".join(gradients.RANDOM_ESTIMATORS)
        raise ValueError(f"unknown gradient {gradient!r}; a defended model's backward pass is one of: {known}")
