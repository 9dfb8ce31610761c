"""The result table, for the terminal and for Markdown, from records alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sap_art.untrusted import visible

if TYPE_CHECKING:
    from rich.table import Table

    from sap_art.record import AttackResult, Calibration, Record, Value

ABSENT = "–"
WORST = "worst case"
SECTIONS = ("clean", WORST, "ECE attacked")
VERDICTS = {
    "failed": "FAILED: an attack crashed",
    "unreliable": "UNRELIABLE",
    "warning": "warning",
    "incomplete": "no flag raised, not all checked",
    "no-known-failure": "no known failure detected",
}


def rows(records: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    """Header and cells: accuracies in percent, each attack by itself, then the worst case with its interval."""
    attacks = list(dict.fromkeys(attack.id for record in records for attack in record.attacks))
    attacks.sort(key=attack_order)
    header = ["entry", "clean", *map(attack_title, attacks), WORST, "ECE clean", "ECE attacked", "verdict"]
    return header, [_row(record, attacks) for record in records]


def terminal(records: Sequence[Record]) -> Table:
    """The table as rich prints it, turned round: one column an entry, so that it fits a terminal."""
    from rich.table import Table
    from rich.text import Text

    header, cells = rows(records)
    table = Table(title=Text(visible(caption(records))), title_justify="left", title_style="")
    table.add_column(header[0])
    for row in cells:
        table.add_column(Text(visible(row[0])), justify="right", overflow="fold")
    for number, title in enumerate(header[1:], start=1):
        style = "bold" if title == WORST else ""
        texts = [Text(visible(text)) for text in (title, *(row[number] for row in cells))]  # a name is no markup
        table.add_row(*texts, style=style, end_section=title in SECTIONS)
    return table


def markdown(records: Sequence[Record]) -> str:
    """The table in GitHub's Markdown."""
    header, cells = rows(records)
    rule = ["---", *["---:"] * (len(header) - 2), "---"]
    lines = ["| " + " | ".join(row) + " |" for row in (header, rule, *cells)]
    return "\n".join([caption(records), "", *lines]) + "\n"


def caption(records: Sequence[Record]) -> str:
    """What the numbers are: set, images, norm, eps, draws."""
    r = records[0]
    m = "" if r.precision is None else f", {r.precision.m} fresh draws an image"
    return f"{r.data.set}, {r.data.n} images, {r.norm} eps = {r.eps * 255:.4g}/255{m}; accuracy and ECE in %"


def _row(record: Record, attacks: Sequence[str]) -> list[str]:
    found = {attack.id: attack for attack in record.attacks}
    columns = [ABSENT if name not in found else _attack(found[name]) for name in attacks]
    ece = [_ece(record.calibration[name]) for name in ("clean", "adversarial")]
    metrics = record.metrics
    raised = [flag.code for flag in record.flags if flag.state == "raised"]
    conclusion = VERDICTS[record.verdict] + (f": {', '.join(raised)}" if raised else "")
    return [record.entry, _percent(metrics["clean"]), *columns, _interval(metrics["T1"]), *ece, conclusion]


def attack_order(attack: str) -> tuple[int, str]:
    """No defence first, then transfer, then the white-box attacks, then queries and known seeds."""
    groups = ("noise", "fgsm-dense", "pgd-dense", "apgd-", "eot-apgd-ce-", "eot-apgd-", "long-apgd-")
    return next((i for i, group in enumerate(groups) if attack.startswith(group)), len(groups)), attack


def attack_title(attack: str) -> str:
    """What people call the attack with this id: ``eot-apgd-ce-bpda`` -> ``EOT-APGD bpda``."""
    name = attack.removesuffix("-dense")
    name = re.sub("^eot-apgd-(ce-of-mean|ce|margin|dlr)-", _loss, name)
    for old, new in (
        ("long-apgd-", "long APGD "),
        ("fgsm", "FGSM"),
        ("apgd", "APGD"),
        ("pgd", "PGD"),
        ("square", "Square"),
    ):
        name = re.sub(f"^{old}", new, name)
    return name.replace("known-seed-", "known seed ") + (" transfer" if name and attack.endswith("-dense") else "")


def _loss(found: re.Match[str]) -> str:
    """EOT-APGD is on the cross-entropy unless it says otherwise."""
    return "EOT-APGD " + ("" if found[1] == "ce" else f"{found[1]} ")


def _attack(attack: AttackResult) -> str:
    if attack.error is not None:
        return "error"
    return ABSENT if attack.accuracy is None else _percent(attack.accuracy)


def _ece(found: Calibration) -> str:
    """In percent; where outputs are probabilities, of a softmax of them and of themselves."""
    text = f"{100 * found.ece:.1f}"
    if found.ece_of_outputs is None:
        return text
    return f"{text} (softmax of probabilities), {100 * found.ece_of_outputs:.1f} (the probabilities)"


def _percent(value: Value) -> str:
    return f"{100 * value.value:.1f}"


def _interval(value: Value) -> str:
    return f"{100 * value.value:.1f} [{100 * value.low:.1f}, {100 * value.high:.1f}]"
