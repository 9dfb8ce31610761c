"""ECE of zoo nets, under a defence or without, as RobustBench's calibration branch computed it, and as it should be."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sap_art.calibration import OutputCalibration, output_calibration
from sap_art.foreign import as_stochastic
from sap_art.integrations.robustbench.facts import zoo_model
from sap_art.stochastic import default_max_batch, draw_logits, in_blocks, require_eval
from sap_art.threat import require_images, require_labels

SCALES = {"Pang2020Boosting": 15.0}
"""Zoo nets that leave out the factor of their training: cosines times 15 (Pang et al. 2020, arXiv:2002.08619)."""


def zoo_calibration(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    draws: int,
    seed: int,
    zoo_id: str | None = None,
    batch_size: int | None = None,
) -> OutputCalibration:
    """ECE over 15 equal-width bins of the largest probability, in every reading of the outputs.

    ``as_published`` is a softmax of whatever the net returns, as RobustBench took it: 67.8 % for Chen2020Adversarial,
    which returns probabilities, and 69.6 % for Pang2020Boosting, which returns cosines. ``others`` has what those
    outputs mean. Nothing is corrected without a word: printed, the result names kind and readings.

    Args:
        model: (B, ...) in [0, 1] -> (B, C), such as ``load_model`` gives.
        x: (B, ...) in [0, 1].
        y: (B,).
        draws: K, of which the mean prediction is judged; 1 for a net without randomness.
        seed: of the draws.
        zoo_id: adds the reading by its factor in ``SCALES`` if it has one.
        batch_size: most rows a forward pass.

    Raises:
        ValueError: images outside [0, 1], labels that do not fit, draws below 1, outputs with NaN or inf, no model of
            the zoo of that id.
    """
    require_images(x)
    require_labels(y, len(x))
    require_eval(model)
    stochastic, rows = as_stochastic(model), batch_size or default_max_batch(x.device)

    def block(part: slice) -> Tensor:
        return draw_logits(stochastic, x[part], draws, max_batch=rows).cpu()

    with torch.no_grad(), stochastic.seeded(seed):
        outputs = torch.cat(in_blocks(stochastic, len(x), rows, block), 1)
    return output_calibration(outputs, y, scale=None if zoo_id is None else SCALES.get(zoo_model(zoo_id).id))
