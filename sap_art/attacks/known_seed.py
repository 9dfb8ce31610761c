"""The attacker who knows the random numbers: a deterministic white box, whichever attack runs on it.

The uniforms are fixed, not what is made of them: SAP's mask still moves with x. They belong to an image's place in the
batch, so a point found for image i is worth something under the known noise only as image i of the same batch. Who
attacks in batches scores in the same ones, and gives each a noise seed of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sap_art.attacker import AttackerView
from sap_art.attacks.objective import prepare
from sap_art.evaluation import Evaluation, evaluate
from sap_art.stochastic import StochasticModel
from sap_art.threat import ThreatModel

TOLERANCE = 1e-3  # of log-probabilities: rounding of a GPU, no other draw


@contextmanager
def known_noise(model: StochasticModel, noise_seed: int) -> Generator[None]:
    """Within, every call of ``model`` has the random numbers of ``noise_seed``, whatever seeds run inside."""
    with model.seeded(noise_seed), model.fixed_noise():
        yield


def known_seed(
    view: AttackerView,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    noise_seed: int,
    attack: Callable[..., Tensor],
    **options: Any,
) -> Tensor:
    """Run ``attack`` on the model whose random numbers are those of ``noise_seed``: (B, ...) in [0, 1].

    Score the result with ``evaluate_known_seed`` and the same ``noise_seed``, all B images in the same order; on fresh
    draws it is an ordinary point. ``seed`` and ``options`` go to the attack, which must keep each image at its place
    in the batch, as those of this package do: no copies of images and no subsets of them in a call.

    Passes an image: those of the attack, and two forwards to see that the noise can be fixed.

    Raises:
        ValueError: bad images or labels, a view of more than one draw, a model whose noise cannot be fixed.
    """
    prepare(view, x, y)
    if view.draws != 1:
        raise ValueError(f"known noise is one draw: the view must have draws=1, got {view.draws}")
    first, second = (evaluate_known_seed(view, x, y, noise_seed=noise_seed).draw_log_probabilities for _ in range(2))
    if not torch.allclose(first, second, atol=TOLERANCE):
        raise ValueError(
            "the model does not repeat its draws under fixed noise, so its seed cannot be known: "
            "it must take its random numbers from its NoiseSource or from torch's global generator"
        )
    with known_noise(view.model, noise_seed):
        return attack(view, x, y, threat, seed=seed, **options)


def evaluate_known_seed(view: AttackerView, x: Tensor, y: Tensor, *, noise_seed: int) -> Evaluation:
    """The one draw of ``noise_seed`` on ``x`` (B, ...), cut into the view's passes: what ``known_seed`` attacked.

    A kernel that numbers its random numbers gives the same draw in passes of any size; a foreign model, or plain torch
    operations, only in the same passes.
    """
    rows = view.images_per_pass(x.device)
    with known_noise(view.model, noise_seed):
        return evaluate(view.model, x, y, draws=1, seed=noise_seed, batch_size=rows)
