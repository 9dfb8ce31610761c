"""What results depend on: nothing that matters may be left out, nothing that does not may count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sap_art import determinants
from sap_art.determinants import code_of, described, differing, digest, sources_of
from sap_art.foreign import wrap
from sap_art.models import Loader
from sap_art.portfolio import PlannedAttack, plan
from sap_art.threat import ThreatModel
from sap_art.tiers import TIERS


@pytest.fixture
def planned() -> PlannedAttack:
    """An attack as a unit has it."""
    net = torch.nn.Linear(2, 2)
    return plan(wrap(net, dense=net), TIERS["full"], ThreatModel("Linf", 0.1), classes=10)[0]


def test_whatever_an_attack_is_given_counts(planned: PlannedAttack) -> None:
    """Budget, function, images, block: each gives another hash, and the same again the same."""
    index = torch.arange(3)
    calls = [
        (planned, 0, index),
        (planned, 1, index),
        (planned, 0, index + 1),
        (planned, 0, index.int()),
        (replace(planned, steps=planned.steps + 1), 0, index),
        (replace(planned, attack=wrap), 0, index),
        (replace(planned, options=(*planned.options, ("more", None))), 0, index),
    ]

    assert len({digest(call) for call in calls}) == len(calls)
    assert digest((planned, 0, torch.tensor([0, 1, 2]))) == digest(calls[0])
    with pytest.raises(TypeError, match="cannot say what a object depends on"):
        described([object()])


def test_what_differs_is_named_by_its_place() -> None:
    """As deep as both have it."""
    before = {"a": 1, "model": {"weights": "x", "name": "n"}, "gone": 0, "kind": {"b": 1}}
    now = {"a": 1, "model": {"weights": "y", "name": "n"}, "new": 0, "kind": "text"}

    assert differing(before, now) == ["gone", "kind", "model.weights", "new"]
    assert differing(now, now) == []


def test_the_code_is_all_that_the_evaluator_imports() -> None:
    """What is imported in functions, and kernels, which are imported by name; not what only shows results."""
    code = code_of("sap_art.protocol.assemble")

    for name in (
        "protocol",
        "protocol.job",
        "attacks.square",
        "selection",
        "kernels.compiled",
        "randomness",
        "networks",
    ):
        assert f"sap_art.{name}" in code
    for name in ("cli", "bench", "site", "site.build", "table", "workers"):
        assert f"sap_art.{name}" not in code


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package under our name: a imports b in a function, b a name of the package c, which has d beside it."""
    for name, text in {
        "__init__.py": "",
        "a.py": "def f():\n    import sap_art.b\n",
        "b.py": "from sap_art.c import something\nimport torch\n",
        "c/__init__.py": "something = 1\n",
        "c/d.py": "",
        "e.py": "from sap_art import a\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(determinants, "__file__", str(tmp_path / "determinants.py"))
    code_of.cache_clear()
    yield tmp_path
    code_of.cache_clear()


def test_a_change_of_code_counts_wherever_it_is_imported(package: Path) -> None:
    """However far away; other modules do not count."""
    before = dict(code_of("sap_art.a"))
    assert list(before) == ["sap_art", "sap_art.a", "sap_art.b", "sap_art.c", "sap_art.c.d"]

    for path, changes in (("c/d.py", ["sap_art.c.d"]), ("b.py", ["sap_art.b", "sap_art.c.d"]), ("e.py", None)):
        (package / path).write_text((package / path).read_text() + "x = 1\n")
        code_of.cache_clear()
        found = differing(before, code_of("sap_art.a"))
        assert found == (changes if changes is not None else ["sap_art.b", "sap_art.c.d"])


def test_a_user_s_source_counts_and_torch_s_does_not(tmp_path: Path) -> None:
    """By the name of the file, wherever it lies."""
    found: list[object] = []
    for folder, text in (("a", ""), ("b", ""), ("c", "# changed\n")):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "mine.py"
        path.write_text(f"import torch\nclass Net(torch.nn.ReLU): pass\n{text}")
        found.append(sources_of(torch.nn.Sequential(Loader()(f"{path}:Net"), torch.nn.ReLU())))

    assert found[0] == found[1] != found[2]
    assert [list(one) for one in found if isinstance(one, dict)] == [["mine.py"]] * 3
    assert sources_of(wrap(torch.nn.ReLU())) == {}
