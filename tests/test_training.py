"""Training: learns, resumes to the bit, and writes a checkpoint that the zoo accepts."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sap_art import training, zoo
from sap_art.augmentation import augment
from sap_art.checkpoints import accuracy, save_checkpoint, train_and_save
from sap_art.defended import DefendedModel
from sap_art.policies import DRO
from sap_art.recipes import RECIPES, Attack, Decay, Mixture, Recipe
from sap_art.training import Progress, _Run, _step, train

RECIPE = Recipe(epochs=2, batch_size=16, peak_rate=0.05)
ADVERSARIAL = replace(RECIPE, attack=Attack(8 / 255, step=10 / 255, steps=1))
STEPS = replace(RECIPE, decay=Decay(0.1, (1,)))
MIXED = replace(STEPS, mixture=Mixture(4 / 255, share=0.2))
DROPOUT = replace(STEPS, dropout=0.2)


def toy(n: int) -> tuple[Tensor, Tensor]:
    """Two kinds of image, dark and bright."""
    y = torch.arange(n) % 2
    noise = torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return (0.3 * noise + 0.6 * y.view(-1, 1, 1, 1)).clamp(0, 1), y


def test_it_learns_and_reports(tmp_path: Path) -> None:
    """Two epochs tell dark from bright; each step is reported with how many there are."""
    seen: list[Progress] = []
    train("preact-resnet20", replace(RECIPE, epochs=4), toy(64), seed=1, output=tmp_path, report=seen.append)

    assert [(p.step, p.steps) for p in seen] == [(i + 1, 16) for i in range(16)]
    assert seen[-1].loss < 0.5 * seen[0].loss


@pytest.mark.parametrize(
    "recipe", [RECIPE, ADVERSARIAL, MIXED, DROPOUT], ids=["standard", "adversarial", "mixed", "dropout"]
)
def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path: Path, recipe: Recipe) -> None:
    """Stopped within the second epoch, then called again."""
    whole = train("preact-resnet20", recipe, toy(48), seed=1, output=tmp_path / "whole")

    def stop(progress: Progress) -> None:
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("preact-resnet20", recipe, toy(48), seed=1, output=tmp_path / "cut", report=stop)
    seen: list[int] = []
    resumed = train(
        "preact-resnet20", recipe, toy(48), seed=1, output=tmp_path / "cut", report=lambda p: seen.append(p.step)
    )

    assert seen == [4, 5, 6]
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_another_run_s_state_is_refused(tmp_path: Path) -> None:
    """Other settings must not be mixed in."""
    train("preact-resnet20", replace(RECIPE, epochs=1), toy(16), seed=1, output=tmp_path)
    with pytest.raises(ValueError, match="belongs to a run with settings"):
        train("preact-resnet20", RECIPE, toy(16), seed=2, output=tmp_path)
    with pytest.raises(ValueError, match=r"settings .*, asked for .*'attack': {'eps': 0.03"):
        train("preact-resnet20", replace(ADVERSARIAL, epochs=1), toy(16), seed=1, output=tmp_path)


def test_the_state_of_a_run_without_an_attack_is_what_it_was(tmp_path: Path) -> None:
    """Runs begun before there were attacks can be resumed."""
    train("preact-resnet20", replace(RECIPE, epochs=1), toy(16), seed=1, output=tmp_path)
    state = torch.load(tmp_path / "state.pt", weights_only=True)

    assert set(state["settings"]) == {
        "architecture", "seed", "steps", "images", "epochs", "batch_size", "peak_rate", "momentum", "weight_decay"
    }  # fmt: skip


def test_it_learns_from_attacked_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same crops as without an attack, moved by up to eps and within [0, 1], worse for the net as it stands."""
    batches: list[tuple[Tensor, float]] = []

    def spy(run: _Run, x: Tensor, y: Tensor) -> tuple[float, int]:
        loss, hits = _step(run, x, y)
        batches.append((x, loss))
        return loss, hits

    monkeypatch.setattr(training, "_step", spy)
    for name, recipe in (("clean", RECIPE), ("attacked", ADVERSARIAL)):
        train("preact-resnet20", replace(recipe, epochs=1), toy(48), seed=1, output=tmp_path / name)
    clean, attacked = batches[:3], batches[3:]
    moved = torch.stack([a - c for (a, _), (c, _) in zip(attacked, clean, strict=True)])

    assert moved.abs().max().item() == pytest.approx(8 / 255, abs=1e-6)
    assert min(x.min() for x, _ in attacked) >= 0
    assert max(x.max() for x, _ in attacked) <= 1
    assert not torch.equal(moved[0], moved[1])
    assert attacked[0][1] > clean[0][1] + 0.1


class Seen(NamedTuple):
    """One step of a training run before it is made: a copy of the net as it stands, the rate, what comes in."""

    net: nn.Module
    model: nn.Module
    epoch: int
    group: dict[str, Any]
    noise: int
    x: Tensor
    y: Tensor


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Seen]:
    """All steps of the runs of a test."""
    seen: list[Seen] = []

    def spy(run: _Run, x: Tensor, y: Tensor) -> tuple[float, int]:
        noise = run.model.noise._seed if isinstance(run.model, DefendedModel) else 0
        group = {name: run.optimizer.param_groups[0][name] for name in ("lr", "nesterov")}
        seen.append(Seen(deepcopy(run.net), run.model, run.epoch, group, noise, x, y))
        return _step(run, x, y)

    monkeypatch.setattr(training, "_step", spy)
    return seen


def test_a_fifth_of_each_batch_is_attacked_by_the_net_of_the_epoch_before(tmp_path: Path, steps: list[Seen]) -> None:
    """FGSM as that net, in evaluation mode, sees it, at all three steps of the epoch; none in the first epoch."""
    for name, recipe in (("clean", STEPS), ("mixed", MIXED)):
        train("preact-resnet20", replace(recipe, epochs=3), toy(48), seed=1, output=tmp_path / name)
    share = 3  # 0.2 x 16

    for i, (clean, mixed) in enumerate(zip(steps[:9], steps[9:], strict=True)):
        past = steps[9 + i - i % 3].net.eval()  # as the first step of the epoch finds it
        some = clean.x[:share].clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(past(some.to(memory_format=torch.channels_last)).float(), clean.y[:share])
        attacked = (clean.x[:share] + 4 / 255 * torch.autograd.grad(loss, some)[0].sign()).clamp(0, 1)
        assert mixed.epoch == i // 3
        assert torch.equal(mixed.x[share:], clean.x[share:])
        torch.testing.assert_close(mixed.x[:share], attacked if i >= 3 else clean.x[:share], rtol=0, atol=1e-6)


def test_the_rate_falls_in_steps_or_goes_through_one_cycle(tmp_path: Path, steps: list[Seen]) -> None:
    """Printed steps with plain momentum; one cycle with Nesterov's."""
    for name, recipe in (("steps", STEPS), ("cycle", STEPS.over(3))):
        train("preact-resnet20", recipe, toy(48), seed=1, output=tmp_path / name)
    rates = [step.group["lr"] for step in steps]

    assert rates[:6] == pytest.approx([0.05] * 3 + [0.005] * 3)
    assert rates[6] < 0.01
    assert max(rates[6:]) == pytest.approx(0.05, rel=0.1)
    assert rates[14] < 0.001
    assert [step.group["nesterov"] for step in (steps[0], steps[6])] == [False, True]


def test_dropout_is_there_in_training_alone(tmp_path: Path, steps: list[Seen]) -> None:
    """After each of 19 activations, anew in each epoch and run, with its own gradient; what is returned is the net."""
    net = train("preact-resnet20", DROPOUT, toy(16), seed=1, output=tmp_path / "one")
    train("preact-resnet20", DROPOUT, toy(16), seed=2, output=tmp_path / "two")
    model, x = steps[0].model, steps[0].x

    assert isinstance(model, DefendedModel)
    assert (model.policy, model.gradient, len(model.sites)) == (DRO(0.2), "autograd", 19)
    assert type(net).__name__ == "PreActResNet"
    assert torch.equal(net(x), net(x))
    assert len({step.noise for step in steps}) == 4


def test_each_epoch_has_its_own_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same images twice would be the same attack twice."""
    states: list[Tensor] = []

    def spy(x: Tensor, attack: Attack, *, loss: object, generator: torch.Generator) -> Tensor:
        states.append(generator.get_state())
        return x

    monkeypatch.setattr(training, "perturb", spy)
    train("preact-resnet20", ADVERSARIAL, toy(16), seed=1, output=tmp_path / "one")
    train("preact-resnet20", ADVERSARIAL, toy(16), seed=2, output=tmp_path / "two")

    assert len({state.numpy().tobytes() for state in states}) == 4


def test_the_global_generator_is_not_touched(tmp_path: Path) -> None:
    """Initial weights, order and augmentation come from the seed."""
    before = torch.get_rng_state()
    train("preact-resnet20", replace(RECIPE, epochs=1), toy(16), seed=1, output=tmp_path)

    assert torch.equal(before, torch.get_rng_state())


def test_augmentation_crops_and_mirrors(generator: torch.Generator) -> None:
    """Each result is a window of the padded image or its mirror image, and all 9 x 9 x 2 windows come up."""
    image = torch.arange(3 * 40 * 40).remainder(251).to(torch.uint8).view(1, 3, 40, 40)
    out = augment(image, torch.zeros(4000, dtype=torch.long), generator)
    windows = image.float().div(255).unfold(2, 32, 1).unfold(3, 32, 1)[0].permute(1, 2, 0, 3, 4).flatten(0, 1)
    known = {w.numpy().tobytes(): i for i, w in enumerate(torch.cat([windows, windows.flip(-1)]))}
    seen = [known[o.numpy().tobytes()] for o in out]

    assert len(set(seen)) == 162


def test_what_is_saved_can_be_loaded(tmp_path: Path) -> None:
    """A checkpoint with its card, by rename, that the zoo accepts; its accuracy is that of the net."""
    net = train("preact-resnet20", RECIPE, toy(48), seed=1, output=tmp_path)
    card = {
        "architecture": "preact-resnet20", "recipe": {}, "dataset": "toy", "train_images": 48, "seed": 1,
        "accuracy": accuracy(net, toy(40)), "test_images": 40,
    }  # fmt: skip
    path = save_checkpoint(net, card, tmp_path / "mine.safetensors")
    loaded = zoo.load_checkpoint(path)

    torch.testing.assert_close(loaded(toy(4)[0]), net(toy(4)[0]), rtol=1e-4, atol=1e-4)
    assert accuracy(loaded, toy(40)) == card["accuracy"]
    assert {p.suffix for p in tmp_path.iterdir()} == {".pt", ".safetensors", ".json"}


def test_the_test_set_is_needed_before_any_training(tmp_path: Path) -> None:
    """Otherwise hours would end in an error."""
    x, y = toy(130)
    for i in range(1, 6):
        images = (x * 255).byte().permute(0, 2, 3, 1).numpy()
        np.savez(tmp_path / f"train_{i}.npz", images=images, labels=y.byte().numpy())
    out = tmp_path / "out"
    with pytest.raises((ValueError, FileNotFoundError), match="test"):
        train_and_save("preact-resnet20", "standard", output=out, source=str(tmp_path), epochs=1, seed=3, device="cpu")

    assert not out.exists()


def test_unknown_names_raise(tmp_path: Path) -> None:
    """Before any data is read."""
    with pytest.raises(ValueError, match="unknown recipe 'sam'; known: standard, paper, adv, fast, madry, dropout:"):
        train_and_save("preact-resnet20", "sam", output=tmp_path, source=None, epochs=1, seed=1, device="cpu")
    with pytest.raises(ValueError, match="unknown architecture 'vit'; known: preact-resnet20"):
        train("vit", RECIPE, toy(16), seed=1, output=tmp_path)
    with pytest.raises(ValueError, match="at least one batch of 16 images"):
        train("preact-resnet20", RECIPE, toy(8), seed=1, output=tmp_path)
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        train("preact-resnet20", replace(RECIPE, epochs=0), toy(16), seed=1, output=tmp_path)


def test_the_shipped_checkpoint_is_what_its_card_says() -> None:
    """Trained by the standard recipe on the 50,000 images, at least 91 % of all 10,000 test images right."""
    card = zoo.load_card("preact-resnet20")

    assert card.recipe == {"name": "standard", **RECIPES["standard"].settings()}
    assert (card.train_images, card.test_images) == (50_000, 10_000)
    assert card.accuracy >= 0.91


def test_other_images_and_damaged_states_are_refused(tmp_path: Path) -> None:
    """Equally many, but not the same; half a file."""
    x, y = toy(16)
    train("preact-resnet20", RECIPE, (x, y), seed=1, output=tmp_path)
    with pytest.raises(ValueError, match="belongs to a run with settings"):
        train("preact-resnet20", RECIPE, (x.flip(-1), y), seed=1, output=tmp_path)
    state = tmp_path / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(ValueError, match="is damaged"):
        train("preact-resnet20", RECIPE, (x, y), seed=1, output=tmp_path)


def test_a_finished_checkpoint_is_not_overwritten(tmp_path: Path) -> None:
    """Of a run that cannot be resumed; and a device that is not there is said first."""
    (tmp_path / "preact-resnet20.safetensors").write_bytes(b"mine")
    for device, message in [("cpu", "is there already"), ("cuda:99", "device 'cuda:99' is not available")]:
        with pytest.raises(ValueError, match=message):
            train_and_save("preact-resnet20", "standard", output=tmp_path, source=None, epochs=1, seed=1, device=device)
    assert (tmp_path / "preact-resnet20.safetensors").read_bytes() == b"mine"
