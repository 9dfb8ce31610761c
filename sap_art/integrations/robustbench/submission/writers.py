"""What each path writes into its folder."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from sap_art import data
from sap_art.defended import DefendedModel
from sap_art.integrations.robustbench.export import export, model_info, percent
from sap_art.integrations.robustbench.submission import rules, texts
from sap_art.integrations.robustbench.submission.evidence import Evidence, read_evidence
from sap_art.integrations.robustbench.submission.fixed_mask import fix_mask
from sap_art.integrations.robustbench.submission.rules import EXTERNAL, FIXED_MASK, NEW_MODEL, TABLE
from sap_art.integrations.robustbench.submission.standalone import write_standalone
from sap_art.integrations.robustbench.submission.worth import Worth, measure, recorded
from sap_art.randomness import derive_seed
from sap_art.record import Record, write_json, write_text
from sap_art.store import tensor_sha256
from sap_art.zoo import file_sha256

MASK_IMAGES = 256
COMPARED = 8
"""Images on which a generated module must give the logits of its model."""


@dataclass(frozen=True)
class Case:
    """One entry on its way; what a run left of it is read when a path asks for it."""

    path: Path
    record: Record
    source: str | None
    device: str
    load_model: Callable[[str], nn.Module]
    trust_code: bool

    @cached_property
    def evidence(self) -> Evidence:
        return read_evidence(
            self.path,
            self.record,
            source=self.source,
            device=self.device,
            load_model=self.load_model,
            trust_code=self.trust_code,
        )


def _write_table(case: Case, folder: Path) -> str:
    record = case.record
    path, info = export(record, folder), model_info(record)
    footnotes = [info["footnote"], html.escape(rules.forced_footnote(record))]
    write_json({**info, "footnote": " ".join(filter(None, footnotes))}, path)
    record.write(folder / "records")
    return "for our own table: the record, and the same in RobustBench's schema"


def _write_new_model(case: Case, folder: Path) -> str:
    evidence = case.evidence
    net = evidence.entry.model.dense
    assert net is not None, case.record.entry
    evidence.score(evidence.worst_points())  # or the record's number is not this net's
    worth = recorded(case.record)
    _write_model(case, net, folder / "model.py", worth)
    return f"an issue for RobustBench's main table, and the net as code: {_in_words(case, worth)}"


def _write_fixed_mask(case: Case, folder: Path) -> str:
    evidence, record = case.evidence, case.record
    model = evidence.entry.model
    assert isinstance(model, DefendedModel), record.entry
    images, what = _mask_images(case)
    seed = derive_seed(record.seeds["base"], record.entry, "fixed mask")
    variant = fix_mask(model, images.to(evidence.x.device), seed=seed)
    kept = [(scale != 0).double().mean().item() for scale in variant.buffers(recurse=False)]
    worth = measure(variant, evidence.x, evidence.y, evidence.threat, seed=derive_seed(seed, "worth"))
    relative = texts.fixed_mask(record, mask_images=what)
    more = {"mask": {"images": what, "seed": seed, "kept": kept}, "other_model_than": record.entry}
    _write_model(case, variant, folder / "fixed_mask.py", worth, relative=relative, more=more)
    return (
        "an issue for RobustBench's main table, and a deterministic relative as code, which is another model: "
        f"{_in_words(case, worth)}"
    )


def _write_external(case: Case, folder: Path) -> str:
    evidence, record = case.evidence, case.record
    points = evidence.worst_points()
    found = evidence.score(points)
    right = found.right[:1] if evidence.entry.model.deterministic else found.right
    draws = right.double().mean(1).tolist()
    n, whole = len(points), rules.TEST_IMAGES[record.data.set]
    name = "adversarial_images.pt" if n == whole else f"adversarial_images_first_{n}_of_{whole}.pt"
    folder.mkdir(parents=True)
    torch.save(points.cpu().contiguous().clone(), folder / name)
    digest = tensor_sha256(points)
    summary = {
        "entry": record.entry, "file": name, "sha256": digest, "images": n, "complete": n == whole,
        "norm": record.norm, "eps": record.eps, "accuracy": sum(draws) / len(draws), "draws": draws,
        "same_draws_as_record": tensor_sha256(found.correct) == record.counts_sha256,
    }  # fmt: skip
    write_json(summary, folder / "draws.json")
    write_text(texts.external_evaluation(record, draws, file=name, sha256=digest), folder / "issue.md")
    size = "all test images" if n == whole else f"INCOMPLETE, {n:,} of {whole:,} test images"
    return f"an issue for RobustBench, the adversarial images ({size}) and the accuracy of each draw on them"


WRITERS: dict[str, Callable[[Case, Path], str]] = {
    TABLE: _write_table,
    NEW_MODEL: _write_new_model,
    FIXED_MASK: _write_fixed_mask,
    EXTERNAL: _write_external,
}


def _write_model(
    case: Case,
    net: nn.Module,
    path: Path,
    worth: Worth,
    *,
    relative: str = "",
    more: Mapping[str, object] | None = None,
) -> None:
    """A deterministic net as code, with what it is worth and the text of its issue."""
    evidence, record = case.evidence, case.record
    path.parent.mkdir(parents=True)
    about = f"{record.entry}{', a deterministic relative with a fixed mask' if relative else ''}; written by sap_art."
    write_standalone(net, evidence.x[:COMPARED], path, about=about)
    measured = {
        "images": record.data.n, "norm": record.norm, "eps": record.eps, "method": worth.method,
        "clean": worth.clean._asdict(), "robust": worth.robust._asdict(),
        "sha256": {file.name: file_sha256(file) for file in (path, path.with_suffix(".pt"))},
        **(more or {}),
    }  # fmt: skip
    write_json(measured, path.parent / "measured.json")
    write_text(texts.new_model(record, worth, file=path.name, relative=relative), path.parent / "issue.md")


def _mask_images(case: Case) -> tuple[Tensor, str]:
    """Images that the variant is not scored on, and what they are."""
    source, n = case.source or os.environ.get(data.SOURCE_VARIABLE), case.record.data.n
    if source and Path(source).expanduser().is_dir():
        x, _ = data.load(case.record.data.set, n=MASK_IMAGES, split="train", source=source)
        return x, f"{len(x)} training images (without labels)"
    x = data.load(case.record.data.set, source=source)[0][n : n + MASK_IMAGES]
    if len(x) == 0:
        raise ValueError(f"no images to draw the mask from but the {n} that are scored: {data.HOW_TO_GET_MORE}")
    return x, f"{len(x)} test images behind the {n} that are scored, without labels, for want of training images"


def _in_words(case: Case, worth: Worth) -> str:
    return (
        f"clean {percent(worth.clean.value)} %, attacked {percent(worth.robust.value)} % of {case.record.data.n} images"
    )
