"""RobustBench's own table over records in its schema, ours among them."""

from __future__ import annotations

import importlib
import io
from contextlib import ExitStack, redirect_stdout
from pathlib import Path

from sap_art.integrations.robustbench.repairs import TEMPLATE, repaired


def generate_leaderboard(models_folder: Path | str, *, dataset: str = "cifar10", norm: str = "Linf") -> str:
    """The HTML ``<table>`` that ``robustbench.leaderboard.template`` makes of ``<models_folder>/<dataset>/<norm>``.

    Highest ``external`` first, or ``autoattack_acc`` where a record has no ``external``, or for the threat model
    ``corruptions`` the highest ``corruptions_acc``; records of equal accuracy come in any order. Nothing is printed,
    where RobustBench prints the table.

    Args:
        models_folder: such as the ``model_info`` that ``sap-art bench`` writes, with or without files of upstream's.

    Raises:
        FileNotFoundError: no records there.
        ImportError: robustbench or pyautoattack is not installed.
    """
    folder = Path(models_folder) / dataset / norm
    if not any(folder.glob("*.json")):
        raise FileNotFoundError(f"no records (*.json) in {folder}; sap-art bench writes them into OUTPUT/model_info")
    with ExitStack() as undo:
        undo.enter_context(repaired())
        if TEMPLATE.needed():
            undo.enter_context(TEMPLATE.apply())
        undo.enter_context(redirect_stdout(io.StringIO()))
        template = importlib.import_module("robustbench.leaderboard.template")
        return template.generate_leaderboard(dataset, norm, str(models_folder))
