"""What ``sap-art corruptions`` is asked for, made ready: net and policy, corrupted images, clean ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sap_art import data, zoo
from sap_art.corruptions.closed_forms import closed_forms
from sap_art.corruptions.files import cifar10_c
from sap_art.corruptions.scoring import CorruptedImages
from sap_art.devices import require_device
from sap_art.entries import Entry, make_entry
from sap_art.suites import SuiteEntry

CHECK_IMAGES = 64


@dataclass(frozen=True)
class Inputs:
    """An entry, the corrupted images, and ``x`` (n, 3, 32, 32) in [0, 1], ``y`` (n,): clean images on its device."""

    entry: Entry
    corrupted: CorruptedImages
    x: Tensor
    y: Tensor


def prepare(
    model: str,
    policy: str | None,
    *,
    source: Path | str | None,
    images: int | None,
    seed: int,
    device: str,
    load_model: Callable[[str], nn.Module] = zoo.load_model,
) -> Inputs:
    """Load and check everything that ``run_corruptions`` needs.

    Args:
        model: a net, as for ``load_model``.
        policy: as for ``parse_policy``; None evaluates the net as it is.
        source: the folder of CIFAR-10-C, as for ``cifar10_c``; None makes the three corruptions of ``closed_forms``
            from clean images.
        images: the first so many; None is 10,000, or 64 without the folder.
        seed: of the model, and of the noise of ``closed_forms``.
        device: by name.
        load_model: gives the net of a reference; ``models.Loader()`` knows RobustBench's too.

    Clean images are the first as many of those that ``data.load`` has, 512 if nothing else is set.

    Raises:
        ValueError: bad files, nets, policies, devices or numbers of images.
        FileNotFoundError: files are missing.
    """
    where = require_device(device)
    if data.set_name() != "cifar10":
        raise ValueError(f"clean images must be CIFAR-10's: {data.SOURCE_VARIABLE} names a file of other images")
    if source is None:
        x, y = data.load(n=CHECK_IMAGES if images is None else images)
        corrupted = closed_forms(x, y, seed=seed)
    else:
        corrupted = cifar10_c(source, n=images)
        x, y = data.load()
        x, y = x[: len(corrupted.labels)], y[: len(corrupted.labels)]
        if not torch.equal(y, corrupted.labels[: len(y)]):
            raise ValueError(f"{source}: its labels are not those of CIFAR-10's test images in their official order")
    x, y = x.to(where), y.to(where)
    name = SuiteEntry(model, policy).name
    entry = make_entry(name, model, policy, x=x, y=y, seed=seed, device=where, load=load_model)
    return Inputs(entry, corrupted, x, y)
