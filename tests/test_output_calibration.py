"""ECE of nets that return no logits: each reading by hand, the two traps of RobustBench's zoo, records and table."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sap_art import SAP, DefendedModel, bench, evaluate, table, wrap
from sap_art.calibration import before_softmax, expected_calibration_error, output_calibration, output_kind
from sap_art.diagnostics import probes
from sap_art.integrations.robustbench import build, repaired
from sap_art.integrations.robustbench.calibration import SCALES, zoo_calibration
from sap_art.protocol.confidence import calibration_of
from sap_art.record import Record
from sap_art.suites import Suite, SuiteEntry

Floats = NDArray[np.float64]
N, CLASSES = 4000, 10


def softmax(logits: Floats) -> Floats:
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def ece_by_hand(p: Floats, y: NDArray[np.int64]) -> float:
    """15 bins of equal width, image by image."""
    total = [0.0] * 15
    for row, label in zip(p, y, strict=True):
        bin_number = max(0, math.ceil(15 * row.max()) - 1)
        total[bin_number] += row.max() - float(row.argmax() == label)
    return sum(map(abs, total)) / len(y)


def calibrated(scale: float) -> tuple[Floats, NDArray[np.int64]]:
    """Cosines (N, 10) in [-1, 1], and labels drawn from a softmax of ``scale`` times them, so calibrated."""
    rng = np.random.default_rng(1)
    cosines = rng.normal(0, 0.1, (N, CLASSES))
    cosines[np.arange(N), rng.integers(0, CLASSES, N)] = rng.uniform(0.3, 0.7, N)
    y = (softmax(scale * cosines).cumsum(1) < rng.random((N, 1))).sum(1)
    return cosines, y


def test_the_trap_of_chen2020_a_softmax_of_probabilities() -> None:
    """Calibrated probabilities: published an error like its 67.8 %, in truth none; both are said, each by its name."""
    cosines, y = calibrated(12)
    p = softmax(12 * cosines)
    found = output_calibration(p[None], y)
    published, (right,) = found.as_published, found.others

    assert found.kind == "softmax-output"
    assert published.ece == pytest.approx(ece_by_hand(softmax(p), y))
    assert right.ece == pytest.approx(ece_by_hand(p, y))
    assert published.ece > 0.55 > 0.03 > right.ece
    assert published.confidence < 1 / (1 + 9 / math.e) + 1e-9 == pytest.approx(found.ceiling, abs=0.01)
    assert published.accuracy == right.accuracy > 0.75
    assert str(found).startswith(
        f"softmax-output: ECE {100 * published.ece:.1f} % (softmax of the outputs; confidence "
    )
    assert f"ECE {100 * right.ece:.1f} % (the outputs as they are; " in str(found)


def test_the_trap_of_pang2020_cosines_without_their_factor() -> None:
    """Published an error like its 69.6 %; with the factor of the training, none. Unknown, it is not guessed."""
    cosines, y = calibrated(15)
    found = output_calibration(cosines[None], y, scale=15)
    published, (right,) = found.as_published, found.others

    assert found.kind == "bounded-output"
    assert published.ece == pytest.approx(ece_by_hand(softmax(cosines), y))
    assert right.ece == pytest.approx(ece_by_hand(softmax(15 * cosines), y))
    assert published.ece > 0.6 > 0.03 > right.ece
    assert right.reading == "softmax of 15 x the outputs"
    assert published.confidence < found.ceiling < 1 / (1 + 9 * math.exp(-2))
    assert output_calibration(cosines[None], y).others == ()


def test_logits_have_one_reading() -> None:
    """The usual one, of the mean of the softmaxes of all draws."""
    cosines, y = calibrated(15)
    draws = np.stack([15 * cosines, 20 * cosines[::-1]])
    found = output_calibration(torch.from_numpy(draws), torch.from_numpy(y))

    assert (found.kind, found.draws, found.others) == ("logits", 2, ())
    assert found.as_published.ece == pytest.approx(expected_calibration_error(softmax(draws).mean(0), y))


def test_probabilities_are_averaged_over_draws() -> None:
    p = softmax(np.random.default_rng(2).normal(0, 2, (3, 50, 4)))
    y = np.arange(50) % 4
    found = output_calibration(p, y)

    assert found.others[0].ece == pytest.approx(expected_calibration_error(p.mean(0), y))
    assert found.as_published.ece == pytest.approx(expected_calibration_error(softmax(p).mean(0), y))


@pytest.mark.parametrize(
    ("outputs", "kind"),
    [
        ([[0.2, 0.8], [1.0, 0.0]], "softmax-output"),
        ([[0.2, 0.8], [1.0, 0.1]], "bounded-output"),
        ([[-0.2, 1.2], [0.5, 0.5]], "logits"),
        ([[-0.2, 1.0], [0.5, 0.5]], "bounded-output"),
        ([[0.2, 1.8], [0.5, 0.5]], "logits"),
        ([[math.nan, 0.5], [0.5, 0.5]], "logits"),
    ],
)
def test_what_outputs_can_be_told_to_be(outputs: list[list[float]], kind: str) -> None:
    """The flag softmax-output has the same rule."""

    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor(outputs) + 0 * x.flatten(1).sum(1, keepdim=True)

    flag = probes.softmax_output(wrap(Fixed()), torch.zeros(2, 3), seed=1)

    assert output_kind(torch.tensor(outputs)) == kind
    assert (flag.state == "raised") == (kind == "softmax-output")


def test_bad_input_is_refused() -> None:
    p, y = np.full((1, 2, 4), 0.25), np.array([0, 1])
    with pytest.raises(ValueError, match=r"finite outputs \(K, N, C\)"):
        output_calibration(p[0], y)
    with pytest.raises(ValueError, match="finite outputs"):
        output_calibration(p * np.inf, y)
    with pytest.raises(ValueError, match="scale must be"):
        output_calibration(p, y, scale=0)
    with pytest.raises(ValueError, match="labels"):
        output_calibration(p, y + 3)


def test_probabilities_come_back_from_their_log_softmax() -> None:
    """In float32, zeros and ones too."""
    p = torch.from_numpy(softmax(np.random.default_rng(3).normal(0, 5, (2, 60, 10)))).float()
    p[0, 0], p[0, 1] = torch.eye(10)[3], 0.1
    back = before_softmax(p.log_softmax(-1))

    np.testing.assert_allclose(back, p.double().numpy(), atol=2e-6)
    assert (back >= 0).all()
    np.testing.assert_allclose(back.sum(-1), 1)


# The zoo's own heads, on small branches.


class Branch(nn.Module):
    """A small convolutional net with two activations."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.AvgPool2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 10)
        )
        randomise(self, seed)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


def randomise(net: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator)


def chen_head() -> nn.Module:
    """The forward pass of Chen2020Adversarial over branches of a few hundred weights instead of three ResNet-50."""
    with repaired():
        kind = importlib.import_module("robustbench.model_zoo.cifar10").Chen2020AdversarialNet
    net = kind.__new__(kind)
    nn.Module.__init__(net)
    for i in range(3):
        setattr(net, f"branch{i + 1}", Branch(i))
    net.mu, net.sigma = torch.full((1, 3, 1, 1), 0.5), torch.full((1, 3, 1, 1), 0.25)
    return net.eval()


def pang_head() -> nn.Module:
    """The class of Pang2020Boosting with depth 10 and width 1 instead of 34 and 20."""
    with repaired():
        module = importlib.import_module("robustbench.model_zoo.architectures.boosting_wide_resnet")
    net = module.BoostingWideResNet(depth=10, widen_factor=1)
    randomise(net, 4)
    return net.eval()


@pytest.mark.parametrize("defended", [False, True])
def test_the_heads_of_the_zoo_are_told_apart(defended: bool, images: tuple[Tensor, Tensor]) -> None:
    """As they are and under SAP; the published number beside the one that the outputs mean."""
    x, y = images[0][:8], images[1][:8]
    draws = 3 if defended else 1
    chen, pang = (
        DefendedModel(net, SAP(100, kernel="torch"), seed=1) if defended else net for net in (chen_head(), pang_head())
    )
    of_chen = zoo_calibration(chen, x, y, draws=draws, seed=1, zoo_id="Chen2020Adversarial")
    of_pang = zoo_calibration(pang, x, y, draws=draws, seed=1, zoo_id="Pang2020Boosting")
    unnamed = zoo_calibration(pang, x, y, draws=draws, seed=1)

    assert (of_chen.kind, of_pang.kind, unnamed.kind) == ("softmax-output", "bounded-output", "bounded-output")
    assert [r.reading for r in of_chen.others] == ["the outputs as they are"]
    assert [r.reading for r in of_pang.others] == ["softmax of 15 x the outputs"]
    assert unnamed.others == ()
    assert of_chen.draws == of_pang.draws == draws
    assert of_chen.as_published.confidence < 0.2321 < of_chen.others[0].confidence
    assert of_pang.as_published.confidence < 1 / (1 + 9 * math.exp(-2)) < of_pang.others[0].confidence
    assert set(SCALES) == {"Pang2020Boosting"}


def test_an_id_that_is_not_in_the_zoo(images: tuple[Tensor, Tensor]) -> None:
    """Refused, not taken for a net without a factor."""
    with pytest.raises(ValueError, match="unknown model 'Pang2020'"):
        zoo_calibration(Branch(1).eval(), images[0][:2], images[1][:2], draws=1, seed=1, zoo_id="Pang2020")


def test_one_draw_of_a_net_is_what_the_calibration_branch_looked_at(images: tuple[Tensor, Tensor]) -> None:
    """A softmax of the outputs of one pass, whatever the batch; a seed gives its draws again."""
    x, y = images[0][:8], images[1][:8]
    net = pang_head()
    with torch.no_grad():
        expected = expected_calibration_error(net(x).softmax(-1), y)
    model = DefendedModel(net, SAP(50, kernel="torch"), seed=1)
    first, second, other = (zoo_calibration(model, x, y, draws=2, seed=seed) for seed in (1, 1, 2))

    assert zoo_calibration(net, x, y, draws=1, seed=1, batch_size=3).as_published.ece == pytest.approx(
        expected, abs=1e-6
    )
    assert first == second != other


def test_the_real_architecture_of_chen2020_returns_probabilities(images: tuple[Tensor, Tensor]) -> None:
    """With random weights, one image."""
    x, y = images[0][:1], images[1][:1]
    found = zoo_calibration(build("Chen2020Adversarial", seed=1), x, y, draws=1, seed=1, zoo_id="Chen2020Adversarial")

    assert found.kind == "softmax-output"
    assert len(found.others) == 1


# Records.

NETS = """
from torch import nn

def probabilities():
    net = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 10), nn.ReLU(), nn.Linear(10, 10), nn.Softmax(-1))
    for i, parameter in enumerate(net.parameters()):
        parameter.data = 3 * parameter.new_ones(parameter.numel()).cumsum(0).sin().view(parameter.shape)
    return net.eval()
"""


def test_a_record_says_both_and_so_does_the_table(tmp_path: Path) -> None:
    """The flag is raised; ECE is that of a softmax of probabilities, ece_of_outputs that of the probabilities."""
    path = tmp_path / "nets.py"
    path.write_text(NETS, encoding="utf-8")
    suite = Suite("s", tier="smoke", entries=[SuiteEntry(f"{path}:probabilities")], images=4)
    (record,) = bench.run_suite(suite, output=tmp_path / "out")
    calibration = record.calibration["clean"]
    header, (row,) = table.rows([record])

    assert {flag.code for flag in record.flags if flag.state == "raised"} >= {"softmax-output"}
    assert calibration.ece_of_outputs is not None
    assert calibration.ece_of_outputs != pytest.approx(calibration.ece, abs=0.01)
    assert Record.read(tmp_path / "out" / "records" / f"{record.entry}.json") == record
    assert row[header.index("ECE clean")] == (
        f"{100 * calibration.ece:.1f} (softmax of probabilities), "
        f"{100 * calibration.ece_of_outputs:.1f} (the probabilities)"
    )


def test_the_second_number_is_that_of_the_probabilities(images: tuple[Tensor, Tensor]) -> None:
    """Of the mean over draws of what the net returned; absent where nobody asked."""
    x, y = images
    net = nn.Sequential(Branch(1), nn.Dropout(0.3).train(), nn.Softmax(-1))
    seen: list[Tensor] = []
    net.register_forward_hook(lambda module, inputs, output: seen.append(output))
    found = evaluate(wrap(net), x, y, draws=5, seed=1)
    expected = output_calibration(torch.stack(seen), y)
    calibration = calibration_of(found, seed=1, fit_on=None, softmax_output=True)

    assert expected.kind == "softmax-output"
    assert calibration.ece_of_outputs == pytest.approx(expected.others[0].ece)
    assert calibration.ece == pytest.approx(expected.as_published.ece, abs=1e-6)
    assert calibration_of(found, seed=1, fit_on=None).ece_of_outputs is None
