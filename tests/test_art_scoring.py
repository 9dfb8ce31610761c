from __future__ import annotations

import importlib
import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
from art.attacks.evasion import ProjectedGradientDescent
from art.defences.postprocessor import Rounded
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from sap_art import Evaluation, wrap
from sap_art.integrations.art import (
    ArtEvaluation,
    SAPClassifier,
    SAPPreprocessor,
    SingleDrawWarning,
    evaluate_art,
)
from sap_art.integrations.art.chance import one_draw_p_value

ROOT = Path(__file__).parents[1]
SHAPE, CLASSES = (3, 4, 4), 3


class Coin(nn.Module):
    """Class 0 with probability ``p``, else class 1, whatever the image; one throw an image, or one a batch."""

    def __init__(self, p: float, *, shared: bool = False) -> None:
        super().__init__()
        self.p, self.shared = p, shared
        self.weight = nn.Parameter(torch.zeros(48))

    def forward(self, x: Tensor) -> Tensor:
        throw = torch.rand(1 if self.shared else len(x)).expand(len(x)) < self.p
        logits = torch.stack([throw, ~throw, torch.zeros_like(throw)], 1).to(x) * 4
        return logits + (x.flatten(1) * self.weight).sum(1, keepdim=True)


def coin(p: float, *, shared: bool = False, **settings: Any) -> SAPClassifier:
    model = wrap(Coin(p, shared=shared), per_example=not shared, seed=0)
    return SAPClassifier(model, nn.CrossEntropyLoss(), SHAPE, CLASSES, **settings)


def linear(**settings: Any) -> SAPClassifier:
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, CLASSES))
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
    return SAPClassifier(net, nn.CrossEntropyLoss(), SHAPE, CLASSES, **settings)


@pytest.fixture
def x(generator: torch.Generator) -> np.ndarray[Any, Any]:
    return torch.rand(200, *SHAPE, generator=generator).numpy()


def pgd(estimator: Any, **settings: Any) -> ProjectedGradientDescent:
    settings = {"eps": 0.1, "eps_step": 0.05, "max_iter": 3, "num_random_init": 1, "verbose": False, **settings}
    return ProjectedGradientDescent(estimator, **settings)


def test_a_coin_keeps_its_accuracy(x: np.ndarray[Any, Any]) -> None:
    """Right with .7 whatever the image; the report says so after an attack, with one predict beside it."""
    classifier = coin(0.7)
    attack = pgd(classifier.attack_view(gradient="autograd", draws=3))
    result = evaluate_art(classifier, attack, x, np.zeros(200), draws=50, seed=1)

    assert isinstance(result, Evaluation)
    assert abs(result.accuracy - 0.7) < 5 * math.sqrt(0.21 / (50 * 200))
    assert result.interval[0] < 0.7 < result.interval[1]
    assert abs(result.single_predict_accuracy - 0.7) < 5 * math.sqrt(0.21 / 200)
    assert (result.draws, result.x_adv.shape) == (50, x.shape)
    assert 0 < abs(result.x_adv - x).max() < 0.1 + 1e-6


def test_draws_are_fresh_and_the_seed_decides(x: np.ndarray[Any, Any]) -> None:
    """Two draws differ; attack and scores repeat, whatever came between, and leave all noise where it was."""
    classifier = linear(percent=20, seed=3)
    attack = pgd(classifier.attack_view(draws=2))
    y = classifier.predict(x).argmax(1)
    classifier.defence.reseed(5)
    expected = classifier.predict(x)
    classifier.defence.reseed(5)
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first = evaluate_art(classifier, attack, x, y, draws=3, seed=1)

    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(classifier.predict(x), expected)
    second = evaluate_art(classifier, attack, x, y, draws=3, seed=1)
    other = evaluate_art(classifier, attack, x, y, draws=3, seed=2)
    np.testing.assert_array_equal(first.x_adv, second.x_adv)
    assert torch.equal(first.draw_log_probabilities, second.draw_log_probabilities)
    assert not torch.equal(first.draw_log_probabilities, other.draw_log_probabilities)
    assert not torch.equal(first.draw_log_probabilities[0], first.draw_log_probabilities[1])


def test_one_throw_for_all_images_is_warned_of(x: np.ndarray[Any, Any]) -> None:
    """Noise shared by a batch: one predict says 0 % or 100 % where the truth is 50 %; declared or not."""
    law = r"says (100|0)\.0%, 60 fresh ones say .* chance alone .* p = \d\.\de-\d+\. Images share .* report the latter"
    with pytest.warns(SingleDrawWarning, match=law):
        result = evaluate_art(coin(0.5, shared=True), None, x, np.zeros(200), draws=60, seed=1, batch_size=200)
    undeclared = SAPClassifier(wrap(Coin(0.5, shared=True), seed=0), nn.CrossEntropyLoss(), SHAPE, CLASSES)
    with pytest.warns(SingleDrawWarning, match=law):
        evaluate_art(undeclared, None, x, np.zeros(200), draws=60, seed=1, batch_size=200)

    assert result.single_predict_p_value < 1e-20
    assert result.single_predict_accuracy in (0, 1)
    assert 0.2 < result.interval[0] < result.interval[1] < 0.8
    assert not result.per_example


class Turning(nn.Module):
    """Class 0 always, until ``calls`` calls have been made; class 1 from then on."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.left = calls
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        return torch.eye(CLASSES)[int(self.left < 0)].expand(len(x), -1) + self.weight


@pytest.mark.parametrize(
    ("label", "says"), [(0, r"says 0\.0%, 9 fresh ones say 100\.0%"), (1, r"says 100\.0%, 9 .* 0\.0%")]
)
def test_a_model_that_turns_is_warned_of(x: np.ndarray[Any, Any], label: int, says: str) -> None:
    """Its last predict, which ART scores, has another law than those before: .1 ** 10 of 10 images and 10 predicts."""
    classifier = PyTorchClassifier(Turning(9), nn.CrossEntropyLoss(), SHAPE, CLASSES, device_type="cpu")
    with pytest.warns(SingleDrawWarning, match=says):
        result = evaluate_art(classifier, None, x[:10], np.full(10, label), draws=9, seed=1)

    assert result.single_predict_p_value == pytest.approx(0.1**10)


@pytest.mark.parametrize(("draws", "images"), [(1, 1), (1, 6), (2, 5), (3, 4), (5, 3)])
def test_the_p_value_counts_who_might_have_been_the_one(draws: int, images: int) -> None:
    """Against all ways to call one of an image's draws the one, in whole numbers."""
    rng = np.random.default_rng(draws)
    for share in (0.3, 0.5, 0.9):
        right = torch.from_numpy(rng.random((draws + 1, images)) < share)
        found = one_draw_p_value(right[:-1].sum(0), right[-1], draws=draws)

        assert found == pytest.approx(float(reference.one_draw_tail(right.tolist())), rel=1e-12)


def test_few_draws_and_few_images_prove_nothing() -> None:
    """One image, or a deterministic net, never; one draw of m images by the tail of m fair throws."""
    one, none = torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.int64)

    assert one_draw_p_value(none, one, draws=1) == 1
    assert one_draw_p_value(none, one, draws=50) == pytest.approx(1 / 51)
    assert one_draw_p_value(7 * one.long().expand(99), one.expand(99), draws=7) == 1
    assert one_draw_p_value(none.expand(20), one.expand(20), draws=1) == pytest.approx(2 * 0.5**20)
    for correct, of, draws in ((none, one.expand(2), 1), (none[:0], one[:0], 1), (none, one, 0), (none + 3, one, 2)):
        with pytest.raises(ValueError, match=r"needs counts|counts must be"):
            one_draw_p_value(correct, of, draws=draws)


@pytest.mark.parametrize(("draws", "images"), [(1, 40), (8, 64), (50, 16)])
def test_chance_alone_keeps_to_the_level(draws: int, images: int) -> None:
    """Over 2,000 evaluations p <= alpha as often as alpha at most, less what whole numbers leave out, within 5 s.e."""
    rng, n = np.random.default_rng(draws), 2000
    found = np.empty(n)
    for i in range(n):
        right = torch.from_numpy(rng.random((draws + 1, images)) < rng.beta(0.5, 0.5, images))
        found[i] = one_draw_p_value(right[:-1].sum(0), right[-1], draws=draws)

    for alpha in (0.5, 0.1, 0.01, 1e-3):
        assert (found <= alpha).sum() < n * alpha + 5 * math.sqrt(n * alpha)
    assert (found <= 0.5).sum() > n * 0.3
    assert (found <= 0.1).sum() > n * 0.03


def test_another_predictor_is_seen() -> None:
    """The mean of 50 draws is right wherever one draw is with .7: that is no draw of the same law, on 64 images."""
    rng = np.random.default_rng(0)
    throws = torch.from_numpy(rng.random((70, 64)) < 0.7)
    mean = throws[20:].double().mean(0) > 0.5

    assert one_draw_p_value(throws[:20].sum(0), mean, draws=20) < 1e-6
    assert one_draw_p_value(throws[:20].sum(0), throws[20], draws=20) > 0.05


@pytest.mark.parametrize(("predictor", "k"), [("single", None), ("vote", 3), ("mean_prob", 4)])
def test_few_images_and_draws_warn_of_nothing(x: np.ndarray[Any, Any], predictor: str, k: int | None) -> None:
    """Whichever the predictor, a draw is a predict: of 60 evaluations .06 may be warned about."""
    classifier = linear(percent=5, predictor=predictor, draws=k)
    y = linear(policy="none").predict(x).argmax(1)
    found = [evaluate_art(classifier, None, x[:12], y[:12], draws=4, seed=seed) for seed in range(60)]

    assert {0 < result.accuracy < 1 for result in found} == {True}
    p_values = np.array([result.single_predict_p_value for result in found])
    assert (p_values <= 0.3).mean() < 0.3 + 5 * math.sqrt(0.21 / 60)


def test_a_deterministic_classifier_is_scored_as_art_does(x: np.ndarray[Any, Any]) -> None:
    """ART's own classifier too, and nobody is warned."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, CLASSES))
    classifier = PyTorchClassifier(net, nn.CrossEntropyLoss(), SHAPE, CLASSES, clip_values=(0, 1), device_type="cpu")
    y = np.arange(200) % 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = evaluate_art(classifier, None, x, np.eye(3)[y], draws=2, seed=1)

    share = (classifier.predict(x).argmax(1) == y).mean()
    assert result.accuracy == result.single_predict_accuracy == pytest.approx(share)
    np.testing.assert_array_equal(result.x_adv, x)


def test_the_whole_estimator_is_scored(x: np.ndarray[Any, Any]) -> None:
    """Its preprocessing with the noise of it, its K draws, its postprocessing."""
    off: dict[str, Any] = {"percent": 1e9, "sampler": "bernoulli", "preprocessing": (0.5, 0.2)}
    dense = linear(**off)
    y = dense.predict(x).argmax(1)
    pruned = linear(preprocessing_defences=SAPPreprocessor(10, seed=1), **off)
    rounded = linear(postprocessing_defences=Rounded(decimals=1), **off)
    single, many = linear(percent=20), linear(percent=20, predictor="mean_prob", draws=50)

    assert evaluate_art(dense, None, x, y, draws=2, seed=1).accuracy == 1
    result = evaluate_art(pruned, None, x, y, draws=4, seed=1)
    assert result.accuracy < 0.95
    assert not torch.equal(result.draw_log_probabilities[0], result.draw_log_probabilities[1])
    again = evaluate_art(pruned, None, x, y, draws=4, seed=1)
    assert torch.equal(result.draw_log_probabilities, again.draw_log_probabilities)
    np.testing.assert_allclose(
        evaluate_art(rounded, None, x, y, draws=1, seed=1).probabilities.numpy(),
        torch.from_numpy(rounded.predict(x)).double().softmax(1).numpy(),
        atol=1e-5,
    )
    spread = [
        evaluate_art(e, None, x, y, draws=8, seed=1).draw_log_probabilities.exp().std(0).mean() for e in (single, many)
    ]
    assert spread[1] < 0.3 * spread[0]


def test_targeted_attacks_are_told_their_targets(x: np.ndarray[Any, Any]) -> None:
    """And scored against the true labels."""
    classifier = linear(percent=500, seed=0)
    y = classifier.predict(x).argmax(1)
    attack = pgd(classifier.attack_view(draws=2), targeted=True, eps=0.5, eps_step=0.1, max_iter=10)
    result = evaluate_art(classifier, attack, x, y, draws=4, seed=1, targets=(y + 1) % 3)
    at_target = evaluate_art(classifier, None, result.x_adv, (y + 1) % 3, draws=4, seed=1)

    assert result.accuracy < 0.5 < at_target.accuracy
    for wrong, targets in ((attack, None), (pgd(classifier), y)):
        with pytest.raises(ValueError, match="a targeted attack needs targets="):
            evaluate_art(classifier, wrong, x, y, draws=1, seed=1, targets=targets)


class Careless:
    """An attack that returns what it is told to."""

    def __init__(self, points: Any) -> None:
        self.points = points

    def generate(self, x: Any, y: Any) -> Any:
        return self.points


def test_bad_requests(x: np.ndarray[Any, Any]) -> None:
    """Points outside clip_values, before or after the attack, and whatever else cannot be scored."""
    classifier, y = linear(), np.zeros(200)
    for bad, message in ((x + 0.01, "outside clip_values"), (x * np.nan, "NaN"), (x[:, :1], "inputs must be")):
        with pytest.raises(ValueError, match=f"^x: .*{message}"):
            evaluate_art(classifier, None, bad, y, draws=1, seed=1)
        with pytest.raises(ValueError, match=f"^the attack's points: .*{message}"):
            evaluate_art(classifier, Careless(bad), x, y, draws=1, seed=1)
    with pytest.raises(ValueError, match="labels must be"):
        evaluate_art(classifier, None, x, np.full(200, 3), draws=1, seed=1)
    with pytest.raises(ValueError, match="draws must be at least 1"):
        evaluate_art(classifier, None, x, y, draws=0, seed=1)
    for no_attack in (ProjectedGradientDescent, "pgd", classifier):
        with pytest.raises(TypeError, match=r"an attack of ART on an estimator, ATTACK\(estimator, \.\.\.\), got"):
            evaluate_art(classifier, no_attack, x, y, draws=1, seed=1)
    with pytest.raises(TypeError, match=r"^the attack's points: .* got tuple"):  # a patch and its mask
        evaluate_art(classifier, Careless((x, x)), x, y, draws=1, seed=1)
    for wrong in (classifier.attack_view(), classifier.model):
        with pytest.raises(TypeError, match="scores a classifier of ART and no attack view"):
            evaluate_art(wrong, None, x, y, draws=1, seed=1)


def test_an_attack_that_changes_its_input_spoils_nothing(x: np.ndarray[Any, Any]) -> None:
    """It gets a copy."""

    class Greedy(Careless):
        def generate(self, x: Any, y: Any) -> Any:
            x[:] = 0
            return x

    before = x.copy()
    evaluate_art(linear(), Greedy(None), x, np.zeros(200), draws=1, seed=1)

    np.testing.assert_array_equal(x, before)


def test_the_example_prints_its_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On few images and steps: without an attack the net is mostly right, under PGD it is not."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    importlib.import_module("art_pipeline").main(images=8, steps=5, draws=4)
    rows = dict(re.findall(r"^(\w+) +([\d.]+)%", capsys.readouterr().out, re.MULTILINE))

    assert list(rows) == ["none", "Square", "PGD", "APGD"]
    assert float(rows["none"]) > 60 > 20 > float(rows["PGD"])


def test_the_readme_s_pipeline_runs(x: np.ndarray[Any, Any]) -> None:
    """As it stands, with a classifier, images and labels of the reader's."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = re.search(r"## In an ART pipeline\n(.*?)\n## ", text, re.DOTALL)
    assert section is not None
    assert len(section[1].strip().splitlines()) <= 15
    example = re.search(r"```python\n(.*?)```", section[1], re.DOTALL)
    assert example is not None
    net = linear().module.net
    names: dict[str, Any] = {
        "ProjectedGradientDescent": ProjectedGradientDescent,
        "classifier": PyTorchClassifier(
            net, nn.CrossEntropyLoss(), SHAPE, CLASSES, clip_values=(0, 1), device_type="cpu"
        ),
        "x": x[:8],
        "y": np.zeros(8),
    }
    exec(compile(example[1], "README.md", "exec"), names)

    assert names["result"].draws == 16


def test_the_result_holds_both_numbers() -> None:
    """The evaluation's own properties go on working."""
    logits = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    result = ArtEvaluation(
        draw_log_probabilities=logits.log_softmax(-1),
        labels=torch.tensor([1, 1]),
        single_predict_accuracy=1.0,
        single_predict_p_value=1.0,
        x_adv=np.zeros((2, 1)),
    )

    assert (result.accuracy, result.persistent(1).value, result.single_predict_accuracy) == (0.5, 0.5, 1.0)
