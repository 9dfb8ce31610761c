"""The words of a bundle, in Markdown: issues with the fields that RobustBench asks for, and what lies where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sap_art.integrations.robustbench.export import eps_text, footnote, metric, percent
from sap_art.integrations.robustbench.submission.rules import TEST_IMAGES, forced_footnote
from sap_art.integrations.robustbench.submission.worth import Worth
from sap_art.metrics import Estimate
from sap_art.record import Record, Value

TO_FILL = "(to be filled in)"
TOOL = "sap_art"
ZOO_PREFIX = "robustbench:"


def new_model(record: Record, worth: Worth, *, file: str, relative: str) -> str:
    """The issue that asks for a new model; ``relative``: how it differs from the entry, nothing if it is the entry."""
    of = f"{record.data.n} of {TEST_IMAGES[record.data.set]:,} test images"
    return _joined(
        f"# [New Model] {TO_FILL}",
        _forced(record),
        relative,
        _incomplete(record),
        "## Paper Information",
        _fields(("Paper Title", TO_FILL), ("Paper URL", TO_FILL), ("Paper authors", TO_FILL)),
        "## Leaderboard Claim(s)",
        "### Model 1",
        _fields(
            ("Architecture", _code(record.model.architecture)),
            ("Threat Model", f"{record.norm}, on {record.data.set}"),
            ("eps", eps_text(record.eps)),
            ("Clean accuracy", f"{_percent(worth.clean)} on {of}"),
            ("Robust accuracy", f"{_percent(worth.robust)} on {of}, by the attacks below; not AutoAttack's number"),
            ("Additional data", TO_FILL),
            ("Evaluation method", f"{worth.method}; {TOOL}. AutoAttack standard is to be run on all images."),
            ("Checkpoint and code", f"{_code(file)} and its .pt, to be put where they can be fetched: {TO_FILL}"),
        ),
        "The file needs torch alone: `load()` in it gives the model in eval mode, images in [0, 1] to logits. Its "
        "forward pass is deterministic and has no optimisation loop.",
        "## Model Zoo",
        "- [ ] I want to add my models to the Model Zoo\n"
        "- [ ] I use an architecture that is **not** included among those of the Model Zoo\n"
        "- [ ] I agree to release my model(s) under MIT license **OR**\n"
        f"- [ ] under a custom license, located here: {TO_FILL}",
    )


def fixed_mask(record: Record, *, mask_images: str) -> str:
    """How the model with the fixed mask differs from the random one."""
    return (
        f"**This is another model than {_code(record.entry)}.** That one draws its mask anew in each forward pass "
        f"({_code(record.defence.spec)}), depending on the activations, and is not eligible. Here one mask was drawn "
        f"for all images, from the mean activations of {mask_images}, and is a constant: a unit is kept with the "
        "probability that SAP gives to its mean share of the activations, and divided by it. All numbers "
        "below are this model's own; none of the random model's holds for it."
    )


def external_evaluation(record: Record, draws: Sequence[float], *, file: str, sha256: str) -> str:
    """The issue that offers adversarial images."""
    mean = sum(draws) / len(draws)
    n, whole = record.data.n, TEST_IMAGES[record.data.set]
    return _joined(
        f"# [New evaluation] {'' if n == whole else f'INCOMPLETE ({n:,} of {whole:,} images): '}{TO_FILL}",
        _forced(record),
        _incomplete(record),
        "## Target model",
        _fields(
            (
                "Model identifier(s)",
                f"{_zoo_id(record) or TO_FILL}, as in the Model Zoo; evaluated here as {_code(record.entry)}",
            ),
            ("Leaderboard(s)", f"{record.data.set}, {record.norm}, eps {eps_text(record.eps)}"),
        ),
        _target(record),
        "## New evaluation",
        _fields(
            ("Link to adversarial images", f"{_code(file)}, to be put where it can be fetched: {TO_FILL}"),
            ("Robust accuracy", f"{percent(mean)} % {_of_draws(draws)}"),
            ("Author(s)", TO_FILL),
            ("Description of the method used", f"{footnote(record)} Attacks: {_attacks(record)}; {TOOL}."),
        ),
        f"The file holds a float32 tensor ({n}, 3, 32, 32) in [0, 1], image i for test image i in the official order, "
        f"each within {eps_text(record.eps)} ({record.norm}, float32 rounding 1e-6) of it; its tensor has SHA-256 "
        f"{_code(sha256)} (dtype, shape and bytes).",
    )


def overview(record: Record, written: Mapping[str, str], left_out: Mapping[str, str]) -> str:
    """The README of a bundle: what may be handed in where, and what may not."""
    t1, clean = metric(record, "T1"), metric(record, "clean")
    return _joined(
        f"# {_code(record.entry)}: what can be handed in",
        _forced(record),
        f"Clean {_percent(clean)}, worst case (fresh draws) {_percent(t1)}, {record.norm} eps {eps_text(record.eps)}, "
        f"{record.data.n} images of {record.data.set}; verdict: {record.verdict}.",
        _fields(*((f"`{path}/`", what) for path, what in written.items())),
        "## Not in here" if left_out else "",
        _fields(*((f"`{path}`", f"{why}.") for path, why in left_out.items())),
        "" if record.defence.spec == "none" else "A random model has no number that one file of images could show.",
    )


def _zoo_id(record: Record) -> str:
    """The id of a net of RobustBench's own that was evaluated as it is."""
    name, own = record.model.name, record.defence.spec == "none" and record.model.name.startswith(ZOO_PREFIX)
    return _code(name.removeprefix(ZOO_PREFIX)) if own else ""


def _target(record: Record) -> str:
    if record.defence.spec == "none":
        return (
            "An evaluation of this kind is of use where the robust accuracy below is lower than the listed one of this "
            "very model. Without an identifier in the Model Zoo there is nothing to file."
        )
    return (
        f"{_code(record.entry)} is random, so it is not in the Model Zoo. **One file of images cannot establish its "
        "accuracy**: each forward pass is a new draw, so every draw is given (`draws.json`). Images that were made for "
        "the random model are no evaluation of its deterministic relatives."
    )


def _of_draws(draws: Sequence[float]) -> str:
    if len(draws) == 1:
        return "(the model is deterministic)"
    return f"mean of {len(draws)} draws on these images, from {percent(min(draws))} % to {percent(max(draws))} %"


def _attacks(record: Record) -> str:
    won = [attack.id for attack in record.attacks if attack.images_won]
    return ", ".join(won) or "none did better than the clean images"


def _incomplete(record: Record) -> str:
    n, whole = record.data.n, TEST_IMAGES[record.data.set]
    if n == whole:
        return ""
    return (
        f"**Not complete: {n:,} of {whole:,} test images.** RobustBench wants the whole test set; do not file this "
        f"before it was repeated with `--images {whole}`."
    )


def _forced(record: Record) -> str:
    text = forced_footnote(record)
    return f"**{text}**" if text else ""


def _percent(value: Value | Estimate) -> str:
    return f"{percent(value.value)} % [{percent(value.low)}, {percent(value.high)}]"


def _fields(*fields: tuple[str, str]) -> str:
    return "\n".join(f"- **{name}**: {text}" for name, text in fields)


def _code(text: str) -> str:
    """Text that Markdown takes literally."""
    return f"`{text.replace('`', chr(39))}`"


def _joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
