"""``sap-art submit``: what is written for an entry, what is refused, and that nothing tampered with gets through."""

from __future__ import annotations

import html
import json
import shutil
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_cli import run
from torch import Tensor, nn

from sap_art import SAP, DefendedModel, ThreatModel, data
from sap_art.bench import run_suite
from sap_art.integrations.robustbench.submission import Refused, find_record, fix_mask, load_standalone, worth
from sap_art.integrations.robustbench.submission import submit as submit_any
from sap_art.integrations.robustbench.submission.rules import reason_against
from sap_art.record import Record
from sap_art.store import tensor_sha256
from sap_art.suites import Suite, SuiteEntry

submit = partial(submit_any, trust_code=True)  # the run names nets of these tests
N = 6
RANDOM, PLAIN, NOISY = "nets.py-small-sap-5", "nets.py-small", "nets.py-noisy"
NETS = """
import torch
from torch import nn
def small():
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator) * 0.1
    return net.eval()
class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = small()
    def forward(self, x):
        return self.net(x + 0.05 * torch.randn_like(x))
def noisy():
    return Noisy().eval()
"""


def small() -> nn.Module:
    """The net of the run."""
    namespace: dict[str, Any] = {}
    exec(NETS, namespace)
    return namespace["small"]()


@pytest.fixture(scope="module", autouse=True)
def _bundled_images() -> Generator[None]:
    """Only what ships with the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SAP_ART_DATA", raising=False)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a small net on six images: as it is, under SAP, and with noise of its own."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "nets.py").write_text(NETS)
    small, noisy = f"{folder / 'nets.py'}:small", f"{folder / 'nets.py'}:noisy"
    entries = [SuiteEntry(small), SuiteEntry(small, "sap:5"), SuiteEntry(noisy)]
    run_suite(Suite("small", "smoke", entries, images=N, seed=1), output=folder / "out")
    for path in (folder / "out" / "records").glob("*[!n].json"):
        change(path, verdict="incomplete", flags=[])  # what these nets are flagged for is not the matter here
    return folder / "out"


@pytest.fixture
def output(finished: Path, tmp_path: Path) -> Path:
    """A copy of that run, to be damaged."""
    for name in ("records", "work"):
        shutil.copytree(finished / name, tmp_path / "out" / name)
    shutil.copy(finished / "suite.json", tmp_path / "out")
    return tmp_path / "out"


def change(path: Path, **values: Any) -> None:
    """Other values in a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def record_of(output: Path, entry: str = RANDOM) -> Path:
    """The record's file."""
    return find_record(entry, output)


def contents(folder: Path) -> dict[str, bytes]:
    """All files below."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def bundle(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is written for the entry under SAP."""
    to = tmp_path_factory.mktemp("bundle") / "new"
    submit(record_of(finished), to)
    return to


def test_a_bundle_holds_a_folder_for_each_honest_path(bundle: Path) -> None:
    """And says what is not in it, and why."""
    readme = (bundle / "README.md").read_text()

    assert {p.name for p in bundle.iterdir()} == {"README.md", "table", "fixed-mask", "external"}
    assert "`new-model`**: RobustBench lists models with non-zero gradients" in readme
    assert f"{RANDOM} is random (sap:5)" in readme
    assert not list(bundle.parent.glob(".*"))


def test_the_table_has_the_record_and_its_export(bundle: Path, finished: Path) -> None:
    """As the run has them."""
    record = bundle / "table" / "records" / f"{RANDOM}.json"
    info = json.loads((bundle / "table" / "model_info" / "cifar10" / "Linf" / f"{RANDOM}.json").read_text())

    assert Record.read(record) == Record.read(record_of(finished))
    assert info["external"] == f"{100 * Record.read(record).metrics['T1'].value:.2f}"
    assert "by force" not in info["footnote"]


def test_the_adversarial_images_are_those_of_the_worst_case(bundle: Path, finished: Path) -> None:
    """float32, official order, within the ball; incomplete by name and by text, for it is not the whole test set."""
    x, _ = data.load(n=N)
    record = Record.read(record_of(finished))
    points = torch.load(bundle / "external" / f"adversarial_images_first_{N}_of_10000.pt", weights_only=True)
    issue = (bundle / "external" / "issue.md").read_text()

    assert (points.dtype, points.shape) == (torch.float32, (N, 3, 32, 32))
    assert tensor_sha256(points) == record.adversarial_sha256
    ThreatModel("Linf", 8 / 255).require(x, points)
    assert issue.startswith(f"# [New evaluation] INCOMPLETE ({N} of 10,000 images)")
    assert "**Not complete: 6 of 10,000 test images.**" in issue
    for field in ("Model identifier(s)", "Leaderboard(s)", "Link to adversarial images", "Robust accuracy", "Author(s)",
                  "Description of the method used"):  # fmt: skip
        assert f"- **{field}**: " in issue


def test_each_draw_is_given_and_their_mean_is_t1(bundle: Path, finished: Path) -> None:
    """The draws of the record, none of which any attack has seen."""
    record = Record.read(record_of(finished))
    found = json.loads((bundle / "external" / "draws.json").read_text())
    mean = sum(found["draws"]) / len(found["draws"])

    assert len(found["draws"]) == 16
    assert len(set(found["draws"])) > 1
    assert all(round(N * draw, 9) in range(N + 1) for draw in found["draws"])
    assert mean == pytest.approx(record.metrics["T1"].value)
    assert (found["complete"], found["images"], found["same_draws_as_record"]) == (False, N, True)
    assert f"{100 * mean:.2f} % mean of 16 draws" in (bundle / "external" / "issue.md").read_text()
    assert "cannot establish its accuracy" in (bundle / "external" / "issue.md").read_text()


def test_the_fixed_mask_has_numbers_of_its_own(bundle: Path) -> None:
    """Measured on the module that is handed in, on images that its mask was not drawn from."""
    x, y = data.load(n=N)
    model = load_standalone(bundle / "fixed-mask" / "fixed_mask.py")
    measured = json.loads((bundle / "fixed-mask" / "measured.json").read_text())
    issue = (bundle / "fixed-mask" / "issue.md").read_text()
    clean = (model(x).argmax(1) == y).double().mean().item()

    images, _ = data.load(n=N + 256)
    again = fix_mask(DefendedModel(small(), SAP(5)), images[N:], seed=measured["mask"]["seed"])

    torch.testing.assert_close(model(x), again(x))
    assert measured["clean"]["value"] == pytest.approx(clean)
    assert measured["robust"]["value"] <= clean
    assert measured["other_model_than"] == RANDOM
    assert 0 < measured["mask"]["kept"][0] < 1
    assert measured["mask"]["images"].startswith(f"256 test images behind the {N}")
    assert f"**This is another model than `{RANDOM}`.**" in issue
    assert f"- **Clean accuracy**: {100 * clean:.2f} % [" in issue
    assert "not AutoAttack's number" in issue
    assert "  " not in issue
    for field in ("Paper Title", "Paper URL", "Paper authors", "Architecture", "Threat Model", "eps", "Clean accuracy",
                  "Robust accuracy", "Additional data", "Evaluation method", "Checkpoint and code"):  # fmt: skip
        assert f"- **{field}**: " in issue


@pytest.mark.parametrize("scale", [1.0, 1e4], ids=["logits", "saturated softmax"])
def test_what_it_is_worth_is_attacked_not_guessed(scale: float) -> None:
    """A linear net has a known worst case: an image stands where its smallest margin beats eps |w_y - w_c|_1.

    Its scale does not matter: cross-entropy has no gradient where the softmax is 0 and 1, the targeted attack has.
    """
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(40, 3, 4, 4, generator=generator) * 0.6 + 0.2
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 10)).eval()
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator)
    y = net(x).argmax(1)
    y[:5] = (y[:5] + 1) % 10
    weight, margins = net[1].weight, net(x).gather(1, y[:, None]) - net(x)
    cost = 0.02 * (weight[y][:, None] - weight[None]).abs().sum(-1)
    stands = ((margins > cost) | nn.functional.one_hot(y, 10).bool()).all(1)
    weight.data *= scale
    net[1].bias.data *= scale
    found = worth.measure(net, x, y, ThreatModel("Linf", 0.02), seed=0)

    assert 3 < stands.sum() < 30
    assert found.clean.value == 35 / 40
    assert found.robust.value == pytest.approx(stands.double().mean().item())


def test_a_net_without_randomness_is_handed_in_itself(finished: Path, tmp_path: Path) -> None:
    """With the record's numbers; one draw is all there is, and no mask is to be fixed."""
    submission = submit(record_of(finished, PLAIN), tmp_path / "new")
    x, _ = data.load(n=N)
    record = Record.read(record_of(finished, PLAIN))
    measured = json.loads((tmp_path / "new" / "new-model" / "measured.json").read_text())
    made = load_standalone(tmp_path / "new" / "new-model" / "model.py")

    assert list(submission.written) == ["table", "new-model", "external"]
    assert list(submission.left_out) == ["fixed-mask"]
    torch.testing.assert_close(made(x), small()(x))
    assert measured["robust"]["value"] == record.metrics["T1"].value
    assert json.loads((tmp_path / "new" / "external" / "draws.json").read_text())["draws"] == [
        pytest.approx(record.metrics["T1"].value)
    ]


def test_somebody_s_own_random_model_has_two_paths(finished: Path, tmp_path: Path) -> None:
    """It is in no main table, and has no mask that we could fix."""
    submission = submit(record_of(finished, NOISY), tmp_path / "new")

    assert list(submission.written) == ["table", "external"]
    assert set(submission.left_out) == {"new-model", "fixed-mask"}


@pytest.mark.parametrize(
    ("entry", "path", "message"),
    [
        (RANDOM, "new-model", "fully deterministic forward pass .* is random"),
        (NOISY, "new-model", "is random .foreign.; honest paths: table, external$"),
        (NOISY, "fixed-mask", "no mask of SAP's"),
        (PLAIN, "fixed-mask", "no mask of SAP's"),
    ],
)
def test_what_the_rules_forbid_is_refused(finished: Path, tmp_path: Path, entry: str, path: str, message: str) -> None:
    """When it is asked for, forced or not; nothing is written."""
    for force in (False, True):
        with pytest.raises(Refused, match=message):
            submit(record_of(finished, entry), tmp_path / "new", paths=["table", path], force=force)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"eps": 4 / 255}, "does not rank Linf at 4/255"),
        ({"norm": "L2"}, "does not rank L2 at 8/255"),
        ({"data": {"set": "custom", "n": N, "ids_sha256": "0"}}, "the images are 'custom'"),
    ],
)
def test_what_robustbench_does_not_rank_is_for_our_table(
    output: Path, tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    """And only for it."""
    change(record_of(output), **values)
    submission = submit(record_of(output), tmp_path / "new")

    assert list(submission.written) == ["table"]
    assert message in submission.left_out["external"]
    with pytest.raises(Refused, match=message):
        submit(record_of(output), tmp_path / "other", paths=["external"])


def test_l2_is_ranked_at_a_half(output: Path) -> None:
    """RobustBench's other radius."""
    change(record_of(output), norm="L2", eps=0.5)

    assert reason_against("external", Record.read(record_of(output))) is None


FLAG = {"code": "large-eps-survives", "state": "raised", "level": "R", "evidence": "accuracy .7 at eps .5"}


@pytest.mark.parametrize("verdict", ["unreliable", "failed"])
def test_an_unreliable_evaluation_is_refused_unless_forced(output: Path, tmp_path: Path, verdict: str) -> None:
    """Forced, each text and the export say so."""
    change(record_of(output), verdict=verdict, flags=[FLAG])
    with pytest.raises(Refused, match=rf"is {verdict} \(large-eps-survives\): .* --force, which adds a footnote"):
        submit(record_of(output), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    submit(record_of(output), tmp_path / "new", force=True)
    said = f"Handed in by force although the evaluation is {verdict}: large-eps-survives."
    info = json.loads((tmp_path / "new" / "table" / "model_info" / "cifar10" / "Linf" / f"{RANDOM}.json").read_text())

    assert info["footnote"].endswith(html.escape(said))
    assert info["unreliable"] is True
    for text in ("README.md", "external/issue.md", "fixed-mask/issue.md"):
        assert f"**{said}**" in (tmp_path / "new" / text).read_text()


@pytest.mark.parametrize(("entry", "path"), [(PLAIN, "new-model"), (RANDOM, "fixed-mask")])
@pytest.mark.parametrize("code", ["zero-or-non-finite-gradient", "test-time-optimisation"])
def test_force_does_not_bend_robustbench_s_rules(
    output: Path, tmp_path: Path, code: str, entry: str, path: str
) -> None:
    """A net that raised a flag about them is for our table and for an external evaluation, its relatives too."""
    change(record_of(output, entry), verdict="unreliable", flags=[{**FLAG, "code": code}])
    with pytest.raises(Refused, match=f"{path} is refused: .* has raised {code}"):
        submit(record_of(output, entry), tmp_path / "new", paths=[path], force=True)

    assert list(submit(record_of(output, entry), tmp_path / "new", force=True).written) == ["table", "external"]


def test_a_mask_is_drawn_from_training_images_where_there_are_some(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder with the data set; the test images are what it is scored on."""
    load, asked = data.load, list[tuple[str, int | None]]()

    def of_folder(
        dataset: str = "cifar10", *, n: int | None = None, split: str = "test", source: Any = None
    ) -> tuple[Tensor, Tensor]:
        asked.append((split, n))
        x, y = load(dataset)
        return (1 - x[:n], y[:n]) if split == "train" else (x[:n], y[:n])

    monkeypatch.setattr(data, "load", of_folder)
    submit(record_of(output), tmp_path / "new", paths=["fixed-mask"], source=str(tmp_path))
    mask = json.loads((tmp_path / "new" / "fixed-mask" / "measured.json").read_text())["mask"]
    again = fix_mask(DefendedModel(small(), SAP(5)), 1 - load(n=256)[0], seed=mask["seed"])
    x = load(n=N)[0]

    assert ("train", 256) in asked
    assert mask["images"] == "256 training images (without labels)"
    torch.testing.assert_close(load_standalone(tmp_path / "new" / "fixed-mask" / "fixed_mask.py")(x), again(x))


# Damage.


def with_points(output: Path, damage: Callable[[Tensor], Tensor], *, hidden: bool) -> None:
    """Other worst points; ``hidden``: the record's digest is that of the new ones."""
    (path,) = (output / "work").glob(f"{RANDOM}-*/selection-*.safetensors")
    unit = load_file(path)
    unit["points"] = damage(unit["points"]).contiguous()
    save_file(unit, path)
    if hidden:
        change(record_of(output), adversarial_sha256=tensor_sha256(unit["points"]))


def put(value: float) -> Callable[[Tensor], Tensor]:
    """One pixel has this value."""

    def damage(points: Tensor) -> Tensor:
        points = points.clone()
        points[3, 1, 5, 5] = value
        return points

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda points: 1 - points, r"from x in Linf, allowed 0\.0313725", id="outside the ball"),
        pytest.param(put(float("nan")), "NaN", id="NaN"),
        pytest.param(put(-0.01), r"must lie in \[0, 1\]", id="below 0"),
        pytest.param(lambda points: points[:-1], "one shape", id="an image less"),
        pytest.param(lambda points: points.flip(0), "from x in Linf", id="another order"),
        pytest.param(lambda points: points.double(), "float32", id="float64"),
    ],
)
@pytest.mark.parametrize("hidden", [False, True])
def test_tampered_points_are_not_handed_in(
    output: Path, tmp_path: Path, damage: Callable[[Tensor], Tensor], message: str, hidden: bool
) -> None:
    """Whether or not the record was tampered with too."""
    with_points(output, damage, hidden=hidden)
    with pytest.raises(ValueError, match=message if hidden else "are not those of the record"):
        submit(record_of(output), tmp_path / "new", paths=["table", "external"])
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_points_that_break_less_are_not_those_of_the_number(output: Path, tmp_path: Path) -> None:
    """The clean images in place of the worst ones: within the ball, but right too often for the record's T1."""
    x, _ = data.load(n=N)
    with_points(output, lambda _: x, hidden=True)
    change(record_of(output), metrics={k: {"value": 1.0, "low": 0.99, "high": 1.0} for k in ("clean", "T1")})

    with pytest.raises(ValueError, match="this is not the model of the record"):
        submit(record_of(output), tmp_path / "new", paths=["external"])


def test_sap_at_some_sites_has_no_mask_to_fix(output: Path, tmp_path: Path) -> None:
    """The mask would be one of all sites."""
    path = record_of(output)
    change(path, defence={**json.loads(path.read_text())["defence"], "spec": "sap:5@0"})

    with pytest.raises(Refused, match="no mask of SAP's to fix"):
        submit(path, tmp_path / "new", paths=["fixed-mask"])


def test_a_net_is_not_handed_in_with_a_number_that_is_not_its_own(output: Path, tmp_path: Path) -> None:
    """A better one, or that of the net under SAP."""
    change(record_of(output, PLAIN), metrics={k: {"value": 1.0, "low": 0.99, "high": 1.0} for k in ("clean", "T1")})
    with pytest.raises(ValueError, match="this is not the model of the record"):
        submit(record_of(output, PLAIN), tmp_path / "new", paths=["new-model"])

    path = record_of(output)
    change(path, defence={**json.loads(path.read_text())["defence"], "spec": "none"})
    with pytest.raises(ValueError, match="defence is sap:5, was none"):
        submit(path, tmp_path / "new", paths=["new-model"])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tier": "full"}, "suite.json has tier smoke, not full"),
        ({"tier": "none such"}, "tier smoke, not none such"),
        ({"seeds": {"base": 7}}, "seed 1, not 7"),
        ({"seeds": {}}, "seed 1, not None"),
        ({"metrics": {}}, "has no metric (T1|clean)"),
    ],
)
def test_a_record_of_other_settings_is_noticed(
    output: Path, tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    """Or of none: its draws could not be made again."""
    change(record_of(output), **values)

    with pytest.raises(ValueError, match=message):
        submit(record_of(output), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_cut_file_is_damaged(output: Path, tmp_path: Path) -> None:
    """Half of it, or none."""
    (path,) = (output / "work").glob(f"{RANDOM}-*/selection-*.safetensors")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="cut short"):
        submit(record_of(output), tmp_path / "new", paths=["external"])
    path.unlink()
    with pytest.raises(ValueError, match="no worst points"):
        submit(record_of(output), tmp_path / "new", paths=["external"])
    assert not (tmp_path / "new").exists()


def test_what_a_second_choice_left_does_not_matter(output: Path, tmp_path: Path) -> None:
    """The points with the record's digest are taken, whatever else is there."""
    (path,) = (output / "work").glob(f"{RANDOM}-*/selection-*.safetensors")
    save_file({"points": torch.zeros(N, 3, 32, 32)}, path.with_name("selection-000000000000.safetensors"))

    assert "external" in submit(record_of(output), tmp_path / "new", paths=["external"]).written


def test_another_net_is_noticed(output: Path, tmp_path: Path) -> None:
    """The user's file has changed since."""
    suite = json.loads((output / "suite.json").read_text())
    (tmp_path / "nets.py").write_text(NETS.replace("0.1", "0.2"))
    for entry in suite["entries"]:
        entry["model"] = f"{tmp_path / 'nets.py'}:{entry['model'].rpartition(':')[2]}"
    change(output / "suite.json", entries=suite["entries"])

    with pytest.raises(ValueError, match=r"is not the net of nets\.py-small-sap-5\.json: weights_sha256"):
        submit(record_of(output), tmp_path / "new")


def test_other_images_are_noticed(output: Path, tmp_path: Path) -> None:
    """By what they are, not by where they lie."""
    x, y = data.load(n=N)
    np.savez(tmp_path / "own.npz", images=1 - x.numpy(), labels=y.numpy())

    with pytest.raises(ValueError, match="these are not the images of"):
        submit(record_of(output), tmp_path / "new", source=str(tmp_path / "own.npz"))


def test_the_official_order_is_required(output: Path, tmp_path: Path) -> None:
    """Even where run and record agree on another one."""
    x, y = (t.flip(0) for t in data.load(n=N))
    np.savez(tmp_path / "own.npz", images=x.numpy(), labels=y.numpy())
    change(record_of(output), data={"set": "cifar10", "n": N, "ids_sha256": data.ids_sha256(x, y)})

    with pytest.raises(ValueError, match="official order"):
        submit(record_of(output), tmp_path / "new", source=str(tmp_path / "own.npz"))


def test_a_damaged_suite_is_noticed(output: Path, tmp_path: Path) -> None:
    """Cut, without the entry, or not there at all."""
    whole = (output / "suite.json").read_text()
    for text, message in [
        (whole[:-50], r"suite\.json is not the suite of a run"),
        ("{}", "suite.json: name: Field required; tier: Field required; entries"),
        (whole.replace("sap:5", "sap:100"), "has no entry"),
    ]:
        (output / "suite.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            submit(record_of(output), tmp_path / "new")
    (output / "suite.json").unlink()
    with pytest.raises(ValueError, match=r"no output folder of sap-art bench .* --path table"):
        submit(record_of(output), tmp_path / "new")
    assert list(submit(record_of(output), tmp_path / "new", paths=["table"]).written) == ["table"]


def test_an_entry_s_name_is_no_way_out_of_the_folder(output: Path, tmp_path: Path) -> None:
    """A record that calls itself a path is refused."""
    change(record_of(output), entry="../../outside")

    with pytest.raises(ValueError, match="name of a file"):
        submit(record_of(output), tmp_path / "new", paths=["table"])
    assert not list(tmp_path.rglob("*outside*"))


def test_a_run_may_not_name_code(finished: Path, tmp_path: Path) -> None:
    """Of which nothing is run before somebody says that it is trusted; the record alone needs no code."""
    ran = tmp_path / "ran"
    output = shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "evil.py").write_text(f"open({str(ran)!r}, 'w').close()\n{NETS}")
    suite = json.loads((output / "suite.json").read_text())
    for entry in suite["entries"]:
        entry["model"] = f"{tmp_path / 'evil.py'}:small"
    change(output / "suite.json", entries=suite["entries"][:2])

    with pytest.raises(ValueError, match=r"entries\.0\.model: .*evil\.py:small is code .* give --trust-code"):
        submit_any(record_of(output), tmp_path / "new")
    assert list(submit_any(record_of(output), tmp_path / "new", paths=["table"]).written) == ["table"]
    assert not ran.exists()


# The folder.


@pytest.mark.parametrize("kind", ["file", "full folder"])
def test_what_is_there_is_not_touched(finished: Path, tmp_path: Path, kind: str) -> None:
    """And nothing is computed before that is known."""
    to = tmp_path / "there"
    if kind == "file":
        to.write_text("mine")
    else:
        to.mkdir()
        (to / "mine.txt").write_text("mine")
    before = contents(tmp_path)

    with pytest.raises(ValueError, match="not empty"):
        submit(record_of(finished), to)
    assert contents(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["there"]


def test_an_empty_folder_is_filled(finished: Path, tmp_path: Path) -> None:
    """As is one whose parents are missing."""
    (tmp_path / "empty").mkdir()
    for to in (tmp_path / "empty", tmp_path / "a" / "b"):
        submit(record_of(finished), to, paths=["table"])
        assert {p.name for p in to.iterdir()} == {"README.md", "table"}


def test_the_run_itself_stays_as_it_was(output: Path, tmp_path: Path) -> None:
    """A submission reads."""
    before = contents(output)
    submit(record_of(output), tmp_path / "new", paths=["table", "external"])

    assert contents(output) == before


# Nets of RobustBench's own.


def test_a_net_of_robustbench_s_is_named_as_there(output: Path, tmp_path: Path) -> None:
    """Loaded as the run loaded it; the same net under SAP is not in its zoo."""
    suite = json.loads((output / "suite.json").read_text())
    names = {}
    for one in suite["entries"][:2]:
        before = SuiteEntry(**one).name
        one["model"] = "robustbench:Wong2020Fast"
        after = SuiteEntry(**one).name
        names[before] = after
        model = json.loads(record_of(output, before).read_text())["model"] | {"name": one["model"]}
        change(record_of(output, before), entry=after, model=model)
        record_of(output, before).rename(output / "records" / f"{after}.json")
        (work,) = (p for p in (output / "work").iterdir() if p.name.rpartition("-")[0] == before)
        work.rename(work.with_name(f"{after}-{work.name.rpartition('-')[2]}"))
    change(output / "suite.json", entries=suite["entries"][:2])
    texts = {}
    for before, entry in names.items():
        # Another name is another seed of the draws: T1 says nothing here.
        change(record_of(output, entry), metrics={k: {"value": 0.5, "low": 0.0, "high": 1.0} for k in ("clean", "T1")})
        submit(record_of(output, entry), tmp_path / before, paths=["external"], load_model=lambda _: small())
        texts[before] = (tmp_path / before / "external" / "issue.md").read_text()

    assert "- **Model identifier(s)**: `Wong2020Fast`, as in the Model Zoo" in texts[PLAIN]
    assert "- **Model identifier(s)**: (to be filled in)" in texts[RANDOM]


# The command.


def test_the_command_says_what_it_wrote_and_what_not(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 0; a refusal is 1, bad input 2."""
    to = ("--to", str(tmp_path / "new"))
    assert (
        run(monkeypatch, "submit", RANDOM, "--records", str(finished), *to, "--path", "external", "--trust-code") == 0
    )
    said = capsys.readouterr().out
    assert "external: an issue for RobustBench, the adversarial images (INCOMPLETE, 6 of 10,000 test images)" in said
    assert "not new-model: RobustBench lists models" in said
    assert "not table: not asked for" in said

    other = ("--to", str(tmp_path / "other"))
    assert run(monkeypatch, "submit", str(record_of(finished)), *other, "--path", "new-model") == 1
    assert "sap-art: refused: new-model is refused: RobustBench lists" in capsys.readouterr().err
    for arguments, message in [
        ((RANDOM,), "give --records OUTPUT"),
        (("nobody", "--records", str(finished)), f"there: {NOISY}, {PLAIN}, {RANDOM}"),
        (("nowhere.json",), "no record nowhere.json"),
        ((RANDOM, "--records", str(finished), "--path", "main"), "unknown path 'main'"),
        ((RANDOM, "--records", str(finished), "--device", "cuda:99"), "cuda:99"),
        ((RANDOM, "--records", str(finished)), "nets.py:small is code that would be run"),
    ]:
        assert run(monkeypatch, "submit", *arguments, *other) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
