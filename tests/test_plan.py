"""What a tier runs on which images, what it compares, and what its plan costs."""

from __future__ import annotations

import pytest
from torch import nn

from sap_art import SAP, DefendedModel, ThreatModel, portfolio
from sap_art.flags import TOGETHER
from sap_art.tiers import TIERS

TRANSFER = {"apgd-ce-dense", "apgd-margin-dense", "apgd-t-dense"}
TOLD = {f"known-seed-{n}{suffix}" for n in range(5) for suffix in ("", "-t", "-square")}
REFERENCES = {"autoattack-rand", "art-pgd", "paper-fgsm", "paper-iterative"}
OTHERS = {f"eot-apgd-{loss}-{name}" for loss in ("ce", "margin") for name in ("frozen", "autograd")}
MORE = {"eot-apgd-margin-bpda", "eot-apgd-ce-of-mean-bpda", "eot-apgd-dlr-bpda"}
OF_DRAWS = {"em-apgd-bpda", "maximin-apgd-bpda", "long-apgd-bpda"}
ALONE = {
    "smoke": set[str](),
    "quick": {"eot-apgd-ce-frozen", "eot-apgd-ce-autograd", "square", "known-seed-0", "known-seed-1"},
    "full": {"hopskipjump"} | TOLD | REFERENCES,
    "audit": {"hopskipjump", "square"} | TOLD | REFERENCES | OTHERS | MORE | OF_DRAWS,
}
FIRST = {"smoke": {"pgd-dense"}, "quick": TRANSFER - {"apgd-t-dense"}, "full": TRANSFER, "audit": TRANSFER}


@pytest.mark.parametrize("tier", TIERS)
def test_which_attacks_come_first_and_which_stand_alone(tier: str, net: nn.Module) -> None:
    """Transfer and one climb may spare the others images; the rest runs on survivors but for what is named here."""
    plan = portfolio.plan(DefendedModel(net, SAP(100), seed=1), TIERS[tier], ThreatModel(), classes=10)

    assert {a.id for a in plan if a.alone} == ALONE[tier]
    assert {a.id for a in plan if a.first} == FIRST[tier] | {"eot-apgd-ce-bpda"}


@pytest.mark.parametrize("tier", TIERS)
def test_which_attacks_leave_images_early(tier: str, net: nn.Module) -> None:
    """Those through the defence or by queries, from quick on; transfer and known seeds keep every image."""
    plan = portfolio.plan(DefendedModel(net, SAP(100), seed=1), TIERS[tier], ThreatModel(), classes=10)
    stops = {a.id: dict(a.options)["stop_draws"] for a in plan if dict(a.options).get("stop_draws")}
    through = {a.id for a in plan if a.climbs_the_defence or a.id in {"square"} | OF_DRAWS}

    expected = {"smoke": 0, "quick": 59, "full": 299, "audit": 299}[tier]
    assert stops == (dict.fromkeys(through, expected) if expected else {})


def test_a_climb_with_another_budget_leaves_images_as_before(net: nn.Module) -> None:
    plan = portfolio.plan(DefendedModel(net, SAP(100), seed=1), TIERS["quick"], ThreatModel(), classes=10)
    for attack in (a for a in plan if a.climbs_the_defence):
        assert dict(portfolio.again(attack, "more", restarts=3).options)["stop_draws"] == 59


def test_images_beyond_the_stand_alone_ones_cost_what_runs_on_them(net: nn.Module) -> None:
    """Attacks that are not alone, selection draws, and two times the report draws."""
    model, tier = DefendedModel(net, SAP(100), seed=1), TIERS["quick"]
    plan = portfolio.plan(model, tier, ThreatModel(), classes=10)
    few, many = (portfolio.expected_passes(model, tier, ThreatModel(), images=n, classes=10) for n in (64, 65))
    attacks = sum(a.passes for a in plan if not a.alone)

    assert many - few == attacks + (len(plan) + 1) * tier.selection_draws + 2 * tier.report_draws


def test_fourteen_flags_share_their_level() -> None:
    """As many as the protocol gives the level R."""
    assert TOGETHER == 14
