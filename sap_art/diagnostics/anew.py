"""Does a model answer as if it had never been asked anything? It beside one that nobody has called."""

from __future__ import annotations

import torch
from torch import Tensor

from sap_art.diagnostics.probes import NOTICEABLE
from sap_art.diagnostics.same_law import same_law
from sap_art.randomness import derive_seed
from sap_art.stochastic import StochasticModel, one_draw

DRAWS, IMAGES = 64, 8


@torch.no_grad()
def answers_as_if_new(
    used: StochasticModel, new: StochasticModel, x: Tensor, *, seed: int, p_value: float = 1e-3
) -> str | None:
    """How ``used`` answers x (B, ...) otherwise than ``new``, the same model before anybody called it; None if alike.

    A model without a state is a function of images and random numbers: under one seed both give the same
    probabilities, up to what rounding could make of them (.05). One that does not repeat its draws under a seed is
    compared in law, by the mean logits of the first 8 images over 64 draws: Kolmogorov-Smirnov for each class, all
    together at ``p_value``. A model that answers with NaN or inf is not compared.
    """
    said = _answer(used, x, seed)
    if torch.equal(said, _answer(used, x, seed)):
        moved = (_answer(new, x, seed) - said).abs().amax(1)
        if not (moved > NOTICEABLE).any():  # nor where it is NaN
            return None
        share = f"{int((moved > NOTICEABLE).sum())} of {len(x)} images"
        return f"answers to {share} differ under one seed, by up to {moved.nan_to_num().max():.2g} in probability"
    p = _same_law(used, new, x[:IMAGES], seed=seed)
    return f"p = {p:.2g} that {DRAWS} draws have one law" if p < p_value else None


def _answer(model: StochasticModel, x: Tensor, seed: int) -> Tensor:
    """(B, C) probabilities of one draw."""
    with model.seeded(derive_seed(seed, "anew")):
        return one_draw(model, x).softmax(-1)


def _same_law(used: StochasticModel, new: StochasticModel, x: Tensor, *, seed: int) -> float:
    """The least p-value over classes, times their number."""
    means: list[Tensor] = []
    for label, model in (("used", used), ("new", new)):
        with model.seeded(derive_seed(seed, label)):
            means.append(torch.cat([model.single(x).mean(0, keepdim=True) for _ in range(DRAWS)]).double().cpu())
    if not torch.cat(means).isfinite().all():
        return 1.0
    tolerance = 1e-4 * max(1e-12, torch.cat(means).abs().max().item())
    first, second = (values.numpy() for values in means)
    classes = first.shape[1]
    return min(1.0, classes * min(same_law(first[:, c], second[:, c], tolerance=tolerance) for c in range(classes)))
