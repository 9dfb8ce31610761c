"""RobustBench: its zoo under SAP, its benchmark, and records in its schema; importing this imports none of it yet."""

from sap_art.integrations.robustbench.benchmarking import BenchmarkResult, benchmark
from sap_art.integrations.robustbench.calibration import zoo_calibration
from sap_art.integrations.robustbench.corruptions import export_corruptions
from sap_art.integrations.robustbench.export import export
from sap_art.integrations.robustbench.facts import ZooModel, zoo_model, zoo_models
from sap_art.integrations.robustbench.leaderboard import generate_leaderboard
from sap_art.integrations.robustbench.loading import build, load_model, register
from sap_art.integrations.robustbench.repairs import REPAIRS, Repair, repaired

__all__ = [
    "REPAIRS",
    "BenchmarkResult",
    "Repair",
    "ZooModel",
    "benchmark",
    "build",
    "export",
    "export_corruptions",
    "generate_leaderboard",
    "load_model",
    "register",
    "repaired",
    "zoo_calibration",
    "zoo_model",
    "zoo_models",
]
