"""The tier ``quick`` on few images and with small budgets: what it runs, what it checks, what its record holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor, nn

from sap_art import SAP, DefendedModel, portfolio, suites, table
from sap_art.attacks.cost import count_passes
from sap_art.bench import run_suite
from sap_art.record import Record
from sap_art.threat import ThreatModel
from sap_art.tiers import TIERS

FULL_ONLY = {
    "steps-not-converged",
    "draws-not-converged",
    "restarts-not-converged",
    "selection-not-converged",
    "planted-example-missed",
}
CHEAP = replace(
    TIERS["quick"],
    noise_points=4,
    steps=6,
    draws=2,
    square_iterations=4,
    signal_draws=4,
    curve=(0.5, 1.0),
    report_draws=20,
)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Record]:
    """The suite ``quick`` on 6 images with cheap budgets."""
    suite = replace(suites.load("quick"), images=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TIERS, "quick", CHEAP)
        patch.delenv("SAP_ART_DATA", raising=False)
        return {r.entry: r for r in run_suite(suite, output=tmp_path_factory.mktemp("quick"))}


def test_every_flag_of_the_tier_is_checked(records: dict[str, Record]) -> None:
    """Nothing but what belongs to the tier full is left open, with SAP and without; no flag is raised on either."""
    for record in records.values():
        states = {flag.code: (flag.state, flag.evidence) for flag in record.flags}
        assert {code for code, (state, _) in states.items() if state == "not-checked"} == FULL_ONLY
        assert {code for code, (state, _) in states.items() if state == "raised"} <= {"estimator-spread"}


def test_attacks_and_metrics_are_there(records: dict[str, Record]) -> None:
    """APGD on the dense net, three losses, queries, two known seeds; worst case not above any attack's."""
    sap = records["preact-resnet20-sap-100"]
    ids = [attack.id for attack in sap.attacks]

    assert ids[:2] == ["apgd-ce-dense", "apgd-margin-dense"]
    assert {"eot-apgd-ce-bpda", "eot-apgd-margin-bpda", "eot-apgd-ce-of-mean-bpda"} < set(ids)
    assert {"square", "known-seed-0", "known-seed-1", "eot-apgd-ce-frozen", "eot-apgd-ce-autograd"} < set(ids)
    assert {"T1", "T3", "T4-transfer", "T4-square", "noise"} < set(sap.metrics)
    assert sap.metrics["T1"].value <= min(a.accuracy.value for a in sap.attacks if a.accuracy) + 0.1
    dense = records["preact-resnet20"]
    assert not [attack.id for attack in dense.attacks if attack.id.startswith("known-seed")]
    assert "T3" not in dense.metrics


def test_radii_signal_and_calibration_are_in_the_record(records: dict[str, Record]) -> None:
    """The curve falls, bpda's signal is above that of frozen, scores have intervals, K runs up to the report draws."""
    sap = records["preact-resnet20-sap-100"]

    assert sap.eps_curve is not None
    assert [point.eps for point in sap.eps_curve] == [0.5 * 8 / 255, 8 / 255]
    assert sap.eps_curve[0].accuracy.value >= sap.eps_curve[1].accuracy.value
    assert (sap.gradient["bpda"].split_half_cosine or 0) > (sap.gradient["frozen"].split_half_cosine or 0)
    assert set(sap.calibration) == {"clean", "adversarial", "noise"}
    for calibration in sap.calibration.values():
        assert calibration.intervals is not None
        low, high = calibration.intervals["ece"].low, calibration.intervals["ece"].high
        assert low <= calibration.ece <= high
        assert [point.draws for point in calibration.curve or []] == [1, 2, 5, 10, 20]
        assert calibration.null is not None


def test_records_survive_a_round_trip(records: dict[str, Record], tmp_path: Path) -> None:
    """Written, read and shown."""
    for record in records.values():
        assert Record.read(record.write(tmp_path)) == record
    text = table.markdown(list(records.values()))
    for title in ("APGD-ce transfer", "EOT-APGD bpda", "EOT-APGD ce-of-mean bpda", "Square", "known seed 0"):
        assert f"| {title} |" in text


@pytest.mark.parametrize("tier", ["smoke", "quick"])
def test_planned_passes_are_those_that_are_made(tier: str, net: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    """Forward and backward, an image that is not left early: what the forecast of a run rests on."""
    x, y = images[0][:2], images[1][:2]
    model = DefendedModel(net, SAP(100), seed=1)
    cheap = replace(
        TIERS[tier],
        noise_points=3,
        steps=3,
        draws=2,
        square_iterations=min(2, TIERS[tier].square_iterations),
        stops=False,
    )
    for planned in portfolio.plan(model, cheap, ThreatModel(), classes=10):
        with count_passes(model) as passes:
            planned.run(model, x, y, ThreatModel(), seed=1)
        assert passes.forwards + passes.backwards == planned.passes * len(x), planned.id


def test_who_does_not_repeat_draws_is_told_no_seed(
    net: nn.Module, images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    """A model with random numbers of its own: the attack is left out, and the flags say why."""
    file = tmp_path / "own.py"
    file.write_text(
        "import numpy as np, torch\nfrom sap_art import zoo\n"
        "class Own(torch.nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.net = zoo.load('preact-resnet20')\n"
        "        self.rng = np.random.default_rng(1)\n"
        "    def forward(self, x):\n"
        "        return self.net((x + 0.02 * torch.from_numpy(self.rng.normal(size=x.shape)).float()).clamp(0, 1))\n"
        "def make():\n    return Own().eval()\n"
    )
    suite = replace(suites.load("quick"), images=2, entries=[suites.SuiteEntry(f"{file}:make")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TIERS, "quick", replace(CHEAP, curve=(), steps=2))
        patch.delenv("SAP_ART_DATA", raising=False)
        (record,) = run_suite(suite, output=tmp_path / "out")
    seeds = {f.code: f for f in record.flags if f.code in ("seed-gap", "known-seed-attack-fails")}

    assert not [attack.id for attack in record.attacks if attack.id.startswith("known-seed")]
    assert all(f.state == "not-checked" and "does not repeat its draws" in f.evidence for f in seeds.values())
