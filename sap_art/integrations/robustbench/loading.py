"""RobustBench's CIFAR-10 Linf zoo by name, under SAP if the name says so: ``SAP100_Carmon2019Unlabeled``."""

from __future__ import annotations

import importlib
import re
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from sap_art.defended import DefendedModel
from sap_art.files import leaving_no_empty
from sap_art.integrations.robustbench import entry_points
from sap_art.integrations.robustbench.facts import (
    CLASSES,
    DATASET,
    MODEL_DIR,
    THREAT_MODEL,
    checkpoint,
    unknown_model,
)
from sap_art.integrations.robustbench.repairs import repaired
from sap_art.policies import SAP
from sap_art.randomness import make_generator

SUFFIX = f"_{DATASET}_{THREAT_MODEL}".lower()
PERCENTS = (100.0, 200.0, 400.0)
_DEFENDED = re.compile("SAP([^_]*)_(.+)", re.IGNORECASE)


@dataclass(frozen=True)
class _Options:
    model_dir: Path
    seed: int | None


_NUM_CLASSES = ("num_classes", CLASSES)  # what RobustBench asks timm for
_registered: dict[str, _Options] = {}
_REGISTERING = threading.Lock()


def load_model(name: str, *, model_dir: Path | str = MODEL_DIR, seed: int | None = None) -> nn.Module:
    """A pretrained net of the zoo by its id, or ``SAP<percent>_<id>`` for a DefendedModel of it; in eval mode.

    Gives (B, 3, 32, 32) in [0, 1] -> (B, 10) logits, on the CPU. A checkpoint that is not at
    ``<model_dir>/cifar10/Linf/<id>.pt`` (ensembles: ``<id>.pt_m0.pt``, ...) is downloaded as RobustBench does it.
    Files are read with ``weights_only``; the global generator is not touched.

    Args:
        name: such as "Standard", "SAP100_Standard" or "SAP12.5_Wong2020Fast".
        model_dir: as RobustBench's.
        seed: of SAP's random numbers; None takes one from the operating system.

    Raises:
        ValueError: no such model, a percent that is not a number above 0, a file that is not the model's checkpoint.
        FileNotFoundError: the checkpoint is not there and cannot be downloaded; the message says where it belongs.
        ImportError: robustbench or pyautoattack is not installed.
    """
    policy, zoo_id = _parsed(name)
    net = _pretrained(zoo_id, Path(model_dir).expanduser())
    return net if policy is None else DefendedModel(net, policy, seed=seed).eval()


def build(zoo_id: str, *, seed: int) -> nn.Module:
    """The architecture of a zoo model with random weights, in eval mode; nothing is downloaded.

    Within ``torch.device("meta")`` the net has shapes but no weights, in no time; not so Kang2021Stable, which computes
    with its own. The global generator is not touched. Raises ValueError for an unknown id, ImportError as
    ``load_model`` does.
    """
    with repaired(), torch.random.fork_rng(devices=[]):
        torch.set_rng_state(make_generator("cpu", seed, "weights").get_state())
        entry, timm = _entry(zoo_id), importlib.import_module("timm")
        made = timm.create_model(_timm_name(zoo_id)) if timm.is_model(_timm_name(zoo_id)) else entry["model"]()
        return cast(nn.Module, made).eval()


def register(
    percents: Sequence[float] = PERCENTS, *, model_dir: Path | str = MODEL_DIR, seed: int | None = None
) -> list[str]:
    """Make every zoo model known to RobustBench under SAP; gives the names that can be loaded from then on.

    Afterwards ``robustbench.load_model("SAP100_Standard")`` gives what our ``load_model`` gives, through timm's
    registry. RobustBench does not hand its ``model_dir`` to such models: they take the one given here. A later call
    replaces folder and seed of the names that it gives.

    Args:
        percents: of SAP, each above 0.
        model_dir, seed: as in ``load_model``.

    Raises:
        ValueError: a percent that is not a finite number above 0.
        ImportError: robustbench or pyautoattack is not installed.
    """
    texts = [f"{SAP(percent).percent:.15g}" for percent in percents]
    with repaired(), _REGISTERING:
        names = [f"SAP{text}_{zoo_id}" for text in texts for zoo_id in _zoo()]
        add = importlib.import_module("timm.models").register_model
        for arch in dict.fromkeys(_timm_arch(name) for name in names):
            if arch not in _registered:
                setattr(entry_points, arch, _entry_point(arch))
                add(getattr(entry_points, arch))
            _registered[arch] = _Options(Path(model_dir).expanduser(), seed)
    return names


# Names.


def _parsed(name: str) -> tuple[SAP | None, str]:
    """The policy that a name asks for, if any, and the id of the zoo."""
    found = _DEFENDED.fullmatch(name)
    if found is None:
        return None, name
    try:
        percent = float(found[1])
    except ValueError as error:
        raise ValueError(f"{name!r}: {found[1]!r} is no percent; a name is SAP<percent>_<id>") from error
    return SAP(percent), found[2]


def _timm_name(name: str) -> str:
    """The name under which RobustBench looks for a model in timm's registry first."""
    return name.lower().replace("-", "_") + SUFFIX


def _timm_arch(name: str) -> str:
    """What timm registers of it: names end at the first dot, the rest is handed over as a tag."""
    return _timm_name(name).partition(".")[0]


def _entry_point(arch: str) -> Callable[..., nn.Module]:
    def entry_point(pretrained: bool = False, pretrained_cfg: str | None = None, **kwargs: Any) -> nn.Module:
        refused = [key for key, value in kwargs.items() if value is not None and (key, value) != _NUM_CLASSES]
        if refused:
            raise ValueError(f"{arch} takes no {', '.join(refused)}: it is a model of {DATASET} as the zoo has it")
        full = arch if pretrained_cfg is None else f"{arch}.{pretrained_cfg}"
        policy, lower = _parsed(full.removesuffix(SUFFIX))
        options = _registered[arch]
        seed = secrets.randbits(63) if options.seed is None else options.seed
        with repaired():
            zoo_id = {_timm_name(known): known for known in _zoo()}.get(lower + SUFFIX, lower)
        net = _pretrained(zoo_id, options.model_dir) if pretrained else build(zoo_id, seed=seed)
        return DefendedModel(net, cast(SAP, policy), seed=options.seed).eval()

    entry_point.__name__ = entry_point.__qualname__ = arch
    entry_point.__module__ = entry_points.__name__
    return entry_point


# The zoo.


def _zoo() -> Mapping[str, Mapping[str, Any]]:
    """RobustBench's own table; only within ``repaired``."""
    models = importlib.import_module("robustbench.model_zoo")
    enums = importlib.import_module("robustbench.model_zoo.enums")
    return models.model_dicts[enums.BenchmarkDataset(DATASET)][enums.ThreatModel(THREAT_MODEL)]


def _entry(zoo_id: str) -> Mapping[str, Any]:
    zoo = _zoo()
    if zoo_id not in zoo:
        raise unknown_model(zoo_id, zoo)
    return zoo[zoo_id]


def _pretrained(zoo_id: str, model_dir: Path) -> nn.Module:
    with repaired() as robustbench, torch.random.fork_rng(devices=[]):
        paths = _checkpoints(zoo_id, model_dir)
        try:
            with leaving_no_empty(paths[0].parent):  # RobustBench makes it before it downloads
                return _loaded(robustbench, zoo_id, paths, model_dir)
        except ImportError:  # some architectures need packages of their own
            raise
        except Exception as error:  # whatever networks, pickles and other people's loaders raise
            raise _explained(error, zoo_id, paths) from error


def _checkpoints(zoo_id: str, model_dir: Path) -> list[Path]:
    """Where RobustBench looks for the weights, and puts them."""
    path, drive = checkpoint(zoo_id, model_dir), _entry(zoo_id)["gdrive_id"]
    return [Path(f"{path}_m{i}.pt") for i in range(len(drive))] if isinstance(drive, list) else [path]


def _loaded(robustbench: Any, zoo_id: str, paths: list[Path], model_dir: Path) -> nn.Module:
    timm = importlib.import_module("timm")
    if timm.is_model(_timm_name(zoo_id)) and paths[0].is_file():  # RobustBench would download these always
        file = {"file": str(paths[0])}
        net = timm.create_model(_timm_name(zoo_id), num_classes=CLASSES, pretrained=True, pretrained_cfg_overlay=file)
        return cast(nn.Module, net).eval()
    return robustbench.load_model(zoo_id, model_dir=str(model_dir), dataset=DATASET, threat_model=THREAT_MODEL)


def _explained(error: Exception, zoo_id: str, paths: list[Path]) -> Exception:
    missing, kind = [str(path) for path in paths if not path.is_file()], type(error).__name__
    if missing:
        return FileNotFoundError(
            f"no checkpoint of {zoo_id} at {', '.join(missing)}, and it could not be downloaded ({kind}); "
            "put RobustBench's file there, or give the model_dir that has it to load_model or register"
        )
    return ValueError(
        f"refused {', '.join(map(str, paths))} ({kind}): it is damaged, of another model than {zoo_id}, or holds more "
        "than weights and settings (a pickle can run code); delete it to have it downloaded again"
    )
