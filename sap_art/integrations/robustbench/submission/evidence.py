"""What a run of ``sap-art bench`` left of one entry: the model, its images and its worst points, all checked."""

from __future__ import annotations

import glob
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn

from sap_art import data, suites
from sap_art.determinants import SHOWN
from sap_art.devices import require_device
from sap_art.entries import Entry, make_entry
from sap_art.evaluation import Evaluation
from sap_art.integrations.robustbench.export import metric, percent
from sap_art.protocol.job import Job
from sap_art.protocol.scoring import score
from sap_art.record import Record
from sap_art.store import Store, tensor_sha256
from sap_art.suites import Suite, SuiteEntry
from sap_art.threat import ThreatModel
from sap_art.tiers import TIERS
from sap_art.untrusted import file_name, read_tensors


@dataclass(frozen=True)
class Evidence:
    """One entry of a run: x (B, 3, H, W) float32 in [0, 1] and y (B,) on a device, where the model is too."""

    record: Record
    root: Path
    entry: Entry
    x: Tensor
    y: Tensor

    @property
    def threat(self) -> ThreatModel:
        """What was allowed to the attacks."""
        return ThreatModel(self.record.norm, self.record.eps)

    def worst_points(self) -> Tensor:
        """The points x* that the record's T1 was scored on: (B, 3, H, W) float32 in [0, 1], within eps of the images.

        Raises:
            ValueError: the file is missing or damaged, its points are not those of the record, or they lie outside of
                the ball or of [0, 1], or are not finite.
        """
        points = _read_points(self.record, self.root).to(self.x.device)
        if points.dtype != torch.float32:
            raise ValueError(f"the worst points must be float32, got {points.dtype}")
        self.threat.require(self.x, points)
        return points

    def score(self, points: Tensor) -> Evaluation:
        """Fresh draws on the worst points, the same ones that the record's T1 rests on.

        Raises:
            ValueError: their accuracy is outside of the record's interval: this is not the model of the record.
        """
        record = self.record
        noise = [f for f in record.flags if f.code == "batch-shared-noise" and f.state == "raised"]
        self.entry.model.per_example &= not noise
        job = Job(
            entry=self.entry,
            x=self.x,
            y=self.y,
            threat=self.threat,
            tier=TIERS[record.tier],
            seed=record.seeds["base"],
            store=Store(self.root),
        )
        found, t1 = score(job, points, "worst case"), metric(record, "T1")
        if not t1.low <= found.accuracy <= t1.high:
            raise ValueError(
                f"{record.entry} is right on {percent(found.accuracy)} % of its worst points, the record says "
                f"{percent(t1.value)} % [{percent(t1.low)}, {percent(t1.high)}]: this is not the model of the record"
            )
        return found


def read_evidence(
    path: Path,
    record: Record,
    *,
    source: str | None,
    device: str,
    load_model: Callable[[str], nn.Module],
    trust_code: bool,
) -> Evidence:
    """The run in whose ``records/`` the file ``path`` with this record lies.

    Args:
        source: of the images, as in ``sap_art.data.load``.
        device: where the model is to be run.
        load_model: gives the net of a reference, as the run did.
        trust_code: whether the run may name code, which is run; see ``suites.load``.

    Raises:
        ValueError: no folder of a run, or the model or the images at hand are not those of the record.
        FileNotFoundError: the images, or the user's file that makes the net, are not there.
    """
    root, where = path.resolve().parent.parent, require_device(device)
    suite, chosen = _read_suite(root, record.entry, trust_code=trust_code)
    _require_same_settings(suite, record)
    x, y = data.load(suite.dataset, n=record.data.n, source=source)
    if data.ids_sha256(x, y) != record.data.ids_sha256:
        raise ValueError(
            f"these are not the images of {path.name}: SHA-256 {data.ids_sha256(x, y)}, the record has "
            f"{record.data.ids_sha256}; give those of the run with --data"
        )
    _require_official_order(x, y, record)
    x, y = x.to(where), y.to(where)
    prepared = partial(make_entry, x=x, y=y, seed=suite.seed, device=where, load=load_model)
    entry = prepared(chosen.name, chosen.model, chosen.policy)
    for what, found, expected in (
        ("weights_sha256", entry.model_info.weights_sha256, record.model.weights_sha256),
        ("architecture", entry.model_info.architecture, record.model.architecture),
        ("defence", entry.defence.spec, record.defence.spec),
    ):
        if found != expected:
            raise ValueError(f"{chosen.model} is not the net of {path.name}: {what} is {found}, was {expected}")
    return Evidence(record, root, entry, x, y)


def _read_suite(root: Path, entry: str, *, trust_code: bool) -> tuple[Suite, SuiteEntry]:
    path = root / "suite.json"
    if not path.is_file():
        raise ValueError(
            f"{root} is no output folder of sap-art bench (no suite.json), so neither the points nor the settings of "
            f"{entry} are there; run the suite with --output, or choose --path table, which needs the record alone"
        )
    suite = suites.read_manifest(path, trust_code=trust_code)
    chosen = [one for one in suite.entries if one.name == entry]
    if not chosen:
        raise ValueError(f"{path} has no entry {entry!r}, only {', '.join(one.name for one in suite.entries)}")
    return suite, chosen[0]


def _require_same_settings(suite: Suite, record: Record) -> None:
    """Or the draws of the record are not those that are made here."""
    threat = suite.threat()
    ours = {"tier": suite.tier, "norm": threat.norm, "eps": threat.eps, "seed": suite.seed}
    theirs = {"tier": record.tier, "norm": record.norm, "eps": record.eps, "seed": record.seeds.get("base")}
    if wrong := [f"{name} {ours[name]}, not {theirs[name]}" for name in ours if ours[name] != theirs[name]]:
        raise ValueError(f"the record of {record.entry} is not of this run, whose suite.json has {', '.join(wrong)}")


def _read_points(record: Record, root: Path) -> Tensor:
    """The selection whose points have the record's digest; where a run was taken up again there may be several."""
    folder, entry = root / "work", glob.escape(file_name(record.entry, ""))
    paths = sorted(folder.glob(f"{entry}-{'[0-9a-f]' * SHOWN}/selection-*.safetensors"))
    if not paths:
        raise ValueError(f"no worst points of {record.entry}: {folder} has no {record.entry}-*/selection-*.safetensors")
    for path in paths:
        found = read_tensors(path, what="a file of points; delete it and run the suite again", most=None)
        points = found.get("points")
        if points is not None and tensor_sha256(points) == record.adversarial_sha256:
            return points
    raise ValueError(
        f"the points in {', '.join(path.name for path in paths)} of {folder} are not those of the record (SHA-256 "
        f"{record.adversarial_sha256}); delete file and record, and run the suite again"
    )


def _require_official_order(x: Tensor, y: Tensor, record: Record) -> None:
    """The first images of CIFAR-10 are those that ship, whatever folder they came from."""
    if record.data.set != "cifar10":
        return
    with resources.as_file(resources.files("sap_art") / "assets" / data.BUNDLE) as bundle:
        official = data.load("cifar10", source=bundle)
    n = min(len(x), len(official[0]))
    if data.ids_sha256(x[:n], y[:n]) != data.ids_sha256(official[0][:n], official[1][:n]):
        raise ValueError("these images are not the first of CIFAR-10's test set in the official order")
