"""Cost of an attacker's gradient over k draws beside one draw."""

from __future__ import annotations

from functools import partial

from forward import NET, defended, input_gradient, load
from ratios import Against, Section, compare
from setting import Setting
from timing import Work, race
from torch import Tensor

from sap_art.attacker import AttackerView


def measure(setting: Setting) -> Section:
    net, images = load(setting, setting.size.eot_images)
    model = defended(net, "auto")
    work: dict[str, Work] = {
        f"k = {k}": partial(input_gradient, partial(_score, AttackerView(model, draws=k)), images)
        for k in setting.size.eot_draws
    }
    times = race(work, rounds=setting.size.rounds, device=setting.device)
    targets = {f"k = {k}": float(k) for k in setting.size.eot_draws if k > 1}
    rows = compare({"images": len(images)}, times, [Against("k = 1", faster=False, targets=targets)])
    note = f"AttackerView(model, draws=k) of {NET} with SAP-100, forward and backward by bpda."
    return Section("eot", "Expectation over k draws", "ms", tuple(rows), note)


def _score(view: AttackerView, images: Tensor) -> Tensor:
    return view(images)[:, 0].sum()  # of log-probabilities; their logsumexp is constant
