"""Draws on one point beside draws along the way: both pay the same, and each number stands in its own place."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from scripts import script
from torch import Tensor, nn

from sap_art import SAP, DefendedModel

single_draws = script("attacks/single_draws")
IMAGES = 3


class Counted(nn.Module):
    """A small net that counts the rows of which a gradient is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10))
        self.rows = 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x) * x.requires_grad
        return self.net(x)


def images() -> tuple[Tensor, Tensor]:
    return torch.rand(IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(1)), torch.arange(IMAGES)


def test_both_attacks_pay_what_the_row_says(monkeypatch: pytest.MonkeyPatch) -> None:
    net, paid = Counted(), []

    def counting(attack: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def counted(*args: object, **options: object) -> Tensor:
            before = net.rows
            points = attack(*args, **options)
            paid.append((net.rows - before) / IMAGES)
            return points

        return counted

    for name in ("eot_apgd", "long_apgd"):
        monkeypatch.setattr(single_draws, name, counting(getattr(single_draws, name)))
    model = DefendedModel(net, SAP(100), seed=1)
    rows = list(single_draws.compare(model, *images(), policy="sap:100", lam=4, seed=1))

    assert [row.gradients for row in rows] == paid == [80] * 4 + [200] * 4
    assert [row.loss for row in rows] == ["ce", "ce", "margin", "margin"] * 2
    assert [row.attack for row in rows[:2]] == ["EOT-APGD, 4 draws a step", "single draws"]


def test_points_keep_to_the_radius_and_are_scored_by_each_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row's number is that of its own attack's points; they are near the images."""
    x, y = images()
    scored: list[Tensor] = []

    def evaluate(model: object, points: Tensor, y: Tensor, *, draws: int, seed: int) -> Any:
        scored.append(points)
        return type("Scored", (), {"accuracy": len(scored) / 100, "interval": (0.0, 1.0)})

    monkeypatch.setattr(single_draws, "evaluate", evaluate)
    monkeypatch.setattr(single_draws, "eot_apgd", lambda view, x, *args, **options: x + 0.01)
    monkeypatch.setattr(single_draws, "long_apgd", lambda view, x, *args, **options: x + 0.02)
    model = DefendedModel(Counted(), SAP(100), seed=1)
    rows = list(single_draws.compare(model, x, y, policy="sap:100", lam=4, seed=1))

    assert [row.accuracy for row in rows] == [(n + 1) / 100 for n in range(8)]
    for points, row in zip(scored, rows, strict=True):
        torch.testing.assert_close(points - x, torch.full_like(x, 0.02 if row.attack == "single draws" else 0.01))


def test_the_committed_table_is_what_its_numbers_say() -> None:
    folder = Path(single_draws.__file__).parent / "results"
    found = json.loads((folder / "single_draws.json").read_text(encoding="utf-8"))
    rows = [single_draws.Row(**row) for row in found["rows"]]

    text = single_draws.table(rows, images=found["images"], seed=found["seed"])
    assert (folder / "single_draws.md").read_text(encoding="utf-8") == text
    assert {(row.policy, row.lam) for row in rows} == set(single_draws.CASES)
    first = next(line for line in text.splitlines() if line.startswith("| dro:0.3"))
    assert first.split("|")[5].split()[0] == f"{100 * rows[0].accuracy:.1f}"
    assert first.split("|")[6].split()[0] == f"{100 * rows[1].accuracy:.1f}"


def test_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the bundled net and two images, one policy and one cheap budget."""
    monkeypatch.setattr(single_draws, "CASES", (("sap:100", 1),))
    monkeypatch.setattr(single_draws, "BUDGETS", ((2, 2),))
    monkeypatch.setattr(sys, "argv", ["single_draws.py", "--images", "2", "--output", str(tmp_path / "out")])
    single_draws.main()

    found = json.loads((tmp_path / "out" / "single_draws.json").read_text(encoding="utf-8"))
    assert (found["images"], found["seed"], len(found["rows"])) == (2, 1, 4)
    assert "on 2 images" in (tmp_path / "out" / "single_draws.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.count("Row(") == 4
