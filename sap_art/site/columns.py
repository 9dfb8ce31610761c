"""The columns of the main table, in their order, and what each number means."""

from __future__ import annotations

from typing import NamedTuple


class Column(NamedTuple):
    """``kind``: text, number (as it is), value (a fraction with its interval), fraction; ``first``: so it is sorted."""

    key: str
    label: str
    kind: str
    first: str
    help: str


COLUMNS = (
    Column(
        "rank",
        "Rank",
        "number",
        "up",
        "One more than the entries that are significantly better on the same images (paired 95 % interval); entries "
        "that no interval separates share a rank. Evaluations that cannot be trusted have none, nor have controls.",
    ),
    Column(
        "defence", "Defence", "text", "up", "What is random: a policy with its value, none, or own noise of the net."
    ),
    Column("net", "Net", "text", "up", "The net that is defended."),
    Column("clean", "Clean", "value", "down", "Accuracy of one draw on clean images."),
    Column(
        "worst_case",
        "Worst case",
        "value",
        "down",
        "T1, which ranks: accuracy of one fresh draw at the worst point of each image among all attacks, noise and the "
        "clean image. The attacker knows weights and the law of the randomness, not the draw.",
    ),
    Column("persistent_10", "Persistent @10", "value", "down", "The same point, ten times: one error is enough."),
    Column("known_seed", "Known seed", "value", "down", "The attacker knows the random numbers too."),
    Column(
        "transfer_gap",
        "Transfer gap",
        "fraction",
        "down",
        "Accuracy under attacks through the defence minus under attacks on its deterministic counterpart, in points. "
        "Above 0 the defence hides its gradients.",
    ),
    Column(
        "autoattack",
        "AutoAttack says",
        "fraction",
        "down",
        "What AutoAttack prints, its version rand on random models and standard on others. On a random model it is no "
        "estimate of anything.",
    ),
    Column(
        "ece_clean",
        "ECE clean",
        "value",
        "up",
        "Expected calibration error on clean images: 15 bins, mean of all draws.",
    ),
    Column("ece_attacked", "ECE attacked", "value", "up", "The same at the worst points."),
    Column(
        "verdict",
        "Verdict and flags",
        "text",
        "up",
        "What the checks of the evaluation itself amount to, and the flags that were raised.",
    ),
    Column("passes", "Passes", "number", "up", "Forward and backward passes an image of all attacks; one draw is one."),
)

EXPORTED = (
    ("rank", None),
    ("entry", None),
    ("defence", None),
    ("net", None),
    ("architecture", None),
    ("dataset", None),
    ("images", None),
    ("norm", None),
    ("eps", None),
    ("tier", None),
    *(
        (key, part)
        for key in ("clean", "worst_case", "persistent_10", "known_seed")
        for part in ("value", "low", "high")
    ),
    ("transfer_gap", None),
    ("autoattack", None),
    ("autoattack_version", None),
    *((key, part) for key in ("ece_clean", "ece_attacked") for part in ("value", "low", "high")),
    ("verdict", None),
    ("flags", None),
    ("passes", None),
    ("seconds", None),
    ("not_ranked", None),
    ("kind", None),
)
"""Columns of the CSV file: a row's key, and the part of its value."""
