"""The paper's figures: what they compare, attacks at all radii in one go, and the ordering that matters."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sap_art.attacks import paper_fgsm, paper_iterative
from sap_art.attacks.objective import loss_and_gradient
from sap_art.defended import DefendedModel
from sap_art.evaluation import evaluate
from sap_art.foreign import wrap
from sap_art.paper import attacks
from sap_art.paper.attacks import mean_gradient, points, radius, view_of, worst_points
from sap_art.paper.budgets import BUDGETS
from sap_art.paper.figures import DENSE_ITERATIVE, FGSM, FIGURES, ITERATIVE, LAMBDAS, NOISE, Attacker, figure_named
from sap_art.paper.printed import PRINTED, printed
from sap_art.policies import parse_policy
from sap_art.randomness import derive_seed
from sap_art.tiers import TIERS

Images = tuple[Tensor, Tensor]


def defended(net: nn.Module, spec: str) -> DefendedModel:
    """The net under a policy."""
    return DefendedModel(net, parse_policy(spec), seed=0)


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Of single draws that no attack has seen."""
    return evaluate(model, x, y, draws=20, seed=99).accuracy


def test_every_figure_is_there() -> None:
    """All of the paper's figures on images."""
    assert list(FIGURES) == ["1a", "1b", "1c", "2", "3", "4", "5", "6"]
    assert LAMBDAS == (0, 1, 2, 4, 8, 16, 32, 64)


@pytest.mark.parametrize("name", FIGURES)
def test_the_policies_of_a_figure_can_be_had(name: str) -> None:
    """Each spec is one that ``parse_policy`` reads back; no line is there twice."""
    curves = FIGURES[name].curves
    specs = [curve.defender.policy for curve in curves if curve.defender.policy is not None]

    assert [parse_policy(spec).spec for spec in specs] == specs
    assert len(set(curves)) == len(curves) > 1


def test_what_the_figures_compare() -> None:
    """The lines that the issue of each figure is about."""
    shown = {name: [(c.defender.name, c.attacker.name) for c in figure.curves] for name, figure in FIGURES.items()}

    assert {attack for _, attack in shown["1a"]} == {"noise"}
    assert shown["1c"] == [
        ("dense", "iterative-dense-1"),
        ("SAP-100", "iterative-defended-10"),
        ("SAP-100", "iterative-dense-1"),
        ("Athalye's variant, not in the paper", "iterative-defended-10"),
    ]
    assert [name for name, _ in shown["3"]] == ["dense", "SAP-100", "ADV", "ADV+SAP-100"]
    assert shown["4"] == shown["3"]
    assert FIGURES["4"].calibration
    assert {spec.split("-")[0] for spec, _ in shown["5"]} >= {"RNW", "RSW", "DWP", "SWP", "RNA", "RSA"}
    assert [attack for _, attack in shown["6"]] == [
        "fgsm-dense-1",
        *(f"fgsm-defended-{draws}" for draws in (1, 10, 100, 1000)),
    ]


def test_unknown_names() -> None:
    """What is known is said."""
    with pytest.raises(ValueError, match="unknown figure '7'; known: 1a, 1b"):
        figure_named("7")


def test_every_printed_number_has_its_place() -> None:
    """Nothing that the paper prints is left beside no line of ours; a difference has both sides in one figure."""
    lines = {name: {(c.defender.name, c.attacker) for c in figure.curves} for name, figure in FIGURES.items()}
    for p in PRINTED:
        homes = [FIGURES[name] for name, shown in lines.items() if (p.defender, p.attacker) in shown]

        assert homes, p
        assert p.minus is None or any(c.defender.name == p.minus for f in homes for c in f.curves), p


def test_printed_numbers() -> None:
    """Of the table of the iterative attack: transferred from the dense net it does more damage."""
    found = [printed("SAP-100", attacker, 4) for attacker in (ITERATIVE, DENSE_ITERATIVE)]
    found.append(printed("SAP-100", FGSM, 16, minus="dense"))

    assert [p.value if p else None for p in found] == [0.767, 0.508, -0.052]
    assert printed("SAP-100", FGSM, 16) is None


def test_budgets_leave_out_nothing_unsaid() -> None:
    """The quick form has fewer radii and images for what is costly; the full one has all radii."""
    quick, full = BUDGETS["quick"], BUDGETS["full"]

    assert quick.lambdas_of(ITERATIVE) == (0, 1, 2, 4, 8)
    assert quick.lambdas_of(DENSE_ITERATIVE) == full.lambdas_of(ITERATIVE) == LAMBDAS
    assert quick.images_of(FGSM, 256) == 256
    assert quick.images_of(Attacker("fgsm", "defended", 1000), 256) == 32
    assert quick.over(None) == quick
    assert quick.over(8).images == 8


@pytest.mark.parametrize("lambdas", [(1, 2), (0,), (0, 2, 1), (0, 1, 1)])
def test_radii_of_a_budget(lambdas: tuple[int, ...]) -> None:
    """The clean image, and what rises from there."""
    with pytest.raises(ValueError, match="must be 0 and others above it that rise"):
        replace(BUDGETS["quick"], lambdas=lambdas)


def test_the_iterative_attack_has_a_radius() -> None:
    """A line without any point is refused."""
    with pytest.raises(ValueError, match="must reach the radius 16, got 8"):
        replace(BUDGETS["quick"], lambdas=(0, 16))


@pytest.mark.parametrize("answers", [(True, False), (False, True), (False, False)])
def test_who_stands_is_who_is_right_in_any_draw(answers: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two draws first; whoever is wrong in both has the rest of the tier's, on other seeds."""
    asked: list[tuple[int, int, int]] = []

    def any_right(model: object, x: Tensor, y: Tensor, *, draws: int, seed: int) -> Tensor:
        asked.append((len(x), draws, seed))
        return torch.full((len(x),), answers[len(asked) - 1])

    monkeypatch.setattr(attacks, "_any_right", any_right)
    found = attacks._standing(wrap(nn.Identity()), torch.zeros(3, 1), torch.zeros(3), TIERS["smoke"], seed=1)  # pyright: ignore[reportPrivateUsage]

    assert found.tolist() == [any(answers)] * 3
    assert [call[:2] for call in asked] == ([(3, 2)] if answers[0] else [(3, 2), (3, 12)])
    assert len({seed for _, _, seed in asked}) == len(asked)


@pytest.mark.parametrize("attacker", [Attacker("fgsm", "defended", 3), Attacker("fgsm")])
def test_one_gradient_for_all_radii(attacker: Attacker, net: nn.Module, images: Images) -> None:
    """FGSM at each radius is what the attack finds that is run at this radius alone, bit by bit."""
    x, y = images[0][:6], images[1][:6]
    model = defended(net, "sap:100")
    found = points(model, x, y, attacker, lambdas=(0, 2, 64), seed=5)

    assert torch.equal(found[0], x)
    for lam in (2, 64):
        assert torch.equal(found[lam], paper_fgsm(view_of(model, attacker), x, y, radius(lam), seed=5))


@pytest.mark.parametrize("attacker", [Attacker("iterative", "defended", 2), Attacker("iterative")])
def test_one_climb_for_all_radii(attacker: Attacker, net: nn.Module, images: Images) -> None:
    """Nor does a small radius need a climb of its own, bit by bit."""
    x, y = images[0][:4], images[1][:4]
    model = defended(net, "sap:100")
    found = points(model, x, y, attacker, lambdas=(0, 1, 2, 4), seed=5)

    for lam in (1, 2, 4):
        assert torch.equal(found[lam], paper_iterative(view_of(model, attacker), x, y, radius(lam), seed=5))


@pytest.mark.parametrize("spec", ["sap:100", "rnw:0.05"])
def test_a_gradient_of_many_draws_is_the_mean_of_calls(spec: str, net: nn.Module, images: Images) -> None:
    """Draws that do not fit together are drawn afresh call by call, each with the same weight."""
    x, y = images[0][:3], images[1][:3]
    view = view_of(defended(net, spec), Attacker("fgsm", "defended", 2 if spec.startswith("sap") else 1))
    many = mean_gradient(view, x, y, draws=3 * view.draws, seed=7)
    with view.seeded(derive_seed(7, "view")):
        calls = [loss_and_gradient(view, x, y, loss="ce").gradient for _ in range(3)]

    assert not torch.equal(calls[0], calls[1])
    torch.testing.assert_close(many, torch.stack(calls).mean(0))


def test_drawn_weights_are_differentiated_one_by_one(net: nn.Module) -> None:
    """So that a pass serves many images; a mask of their own is drawn a hundred times at once."""
    assert view_of(defended(net, "rnw:0.05"), FGSM).draws == 1
    assert view_of(defended(net, "sap:100"), Attacker("fgsm", "defended", 1000)).draws == 100


def test_draws_that_cannot_be_shared_among_calls(net: nn.Module, images: Images) -> None:
    """A mean over fewer draws than asked for is refused."""
    view = view_of(defended(net, "sap:100"), Attacker("fgsm", "defended", 2))
    with pytest.raises(ValueError, match="multiple of the view's 2, got 3"):
        mean_gradient(view, images[0][:1], images[1][:1], draws=3, seed=0)


def test_random_perturbation_goes_one_way(net: nn.Module, images: Images) -> None:
    """Lambda / 255 in each pixel that has room for it, the same direction at each radius."""
    x, y = images[0][:4], images[1][:4]
    found = points(defended(net, "sap:100"), x, y, NOISE, lambdas=(1, 4), seed=3)
    inside = (x > 5 / 255) & (x < 250 / 255)
    steps = {lam: (found[lam] - x)[inside] * 255 / lam for lam in (1, 4)}

    torch.testing.assert_close(steps[4].abs(), torch.ones_like(steps[4]))
    torch.testing.assert_close(steps[1], steps[4], rtol=0, atol=1e-3)
    assert 0.45 < (steps[4] > 0).double().mean() < 0.55


def test_worst_points_get_worse_with_the_radius(net: nn.Module, images: Images) -> None:
    """They are allowed, and an image that has fallen keeps its point at larger radii."""
    x, y = images[0][:16], images[1][:16]
    model = wrap(net, dense=net)
    found = worst_points(model, x, y, lambdas=(0, 1, 8, 16), tier=TIERS["smoke"], seed=1)
    right = {lam: evaluate(model, found[lam], y, draws=1, seed=0).right[0] for lam in found}

    for lam in (1, 8, 16):
        radius(lam).require(x, found[lam])
    assert torch.equal(found[0], x)
    assert not (right[8] & ~right[1]).any()
    assert right[8].sum() == 0
    assert torch.equal(found[16], found[8])


def test_who_fell_is_tested_anew_at_each_radius(
    net: nn.Module, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever was left alone by luck is attacked again; whoever is never right is not attacked at all."""
    x, y = images[0][:2], images[1][:2]
    tested: list[int] = []

    def fallen(*args: object, seed: int) -> Tensor:
        tested.append(seed)
        return torch.zeros(2, dtype=torch.bool)

    monkeypatch.setattr(attacks, "_standing", fallen)
    found = worst_points(defended(net, "sap:100"), x, y, lambdas=(1, 2, 4), tier=TIERS["smoke"], seed=1)

    assert len(set(tested)) == len(tested) == 3
    assert all(torch.equal(point, x) for point in found.values())


def test_the_ordering_that_matters(net: nn.Module, images: Images) -> None:
    """The attack carried over from the dense net beats the paper's own, and the adaptive one beats both."""
    x, y = images[0][:16], images[1][:16]
    model = defended(net, "sap:100")
    own = points(model, x, y, ITERATIVE, lambdas=(2,), seed=1)[2]
    transferred = points(model, x, y, DENSE_ITERATIVE, lambdas=(2,), seed=1)[2]
    adaptive = worst_points(model, x, y, lambdas=(2,), tier=TIERS["smoke"], seed=1)[2]
    clean, own, transferred, adaptive = (accuracy(model, p, y) for p in (x, own, transferred, adaptive))

    assert adaptive < transferred - 0.05 < transferred < own - 0.05 < own < clean


def test_the_variant_that_was_attacked_in_2018_falls(net: nn.Module, images: Images) -> None:
    """Pruned outputs of convolutions, r = 2 w h c: near 0 at 8/255."""
    x, y = images[0][:16], images[1][:16]
    model = defended(net, "athalye:200")
    found = worst_points(model, x, y, lambdas=(8,), tier=TIERS["smoke"], seed=1)[8]

    assert accuracy(model, x, y) > 0.5
    assert accuracy(model, found, y) < 0.05
