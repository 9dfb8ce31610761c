"""Runs ART's own tests on SAPClassifier: python benchmarks/art/own_tests.py TREE (a source distribution of ART).

Four times (see ``plugin``): on ART's classifiers as they are (``plain``), without a defence (``off``), with SAP at
100 % (``on``), and with random numbers that never change (``fixed``); how their ends have to agree says ``verdicts``.
Else it exits with 1. MNIST and ART's weights are not in the source distribution: scikit-learn's data, and weights
trained on them, stand in, so that comparisons with stored numbers fail on all four, alike.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from verdicts import RUNS, Results, Run, judge, page, read_results, versions, write_results

HERE = Path(__file__).resolve().parent
EVASION = (
    *("auto_attack", "auto_conjugate_gradient", "auto_projected_gradient_descent", "boundary", "brendel_and_bethge"),
    *("composite_adversarial_attack", "fast_gradient", "frame_saliency", "lowprofool", "momentum_iterative_method"),
    *("over_the_air", "rescaling_auto_conjugate_gradient", "shadow_attack", "sign_opt", "square_attack"),
)
UNITTEST = (
    *("adversarial_patch", "carlini", "deepfool", "elastic_net", "feature_collision", "graphite", "hop_skip_jump"),
    *("iterative_method", "newtonfool", "pixel_attack", "projected_gradient_descent", "saliency_map", "simba"),
    *("spatial_transformation", "targeted_universal_perturbation", "threshold_attack", "universal_perturbation"),
    *("virtual_adversarial", "wasserstein", "zoo"),
)
SUITES = {
    "": [
        "classifiersFrameworks/test_pytorch.py",
        "estimators/classification/test_deeplearning_common.py",
        "estimators/classification/test_deeplearning_specific.py",
        "evaluations/test_security_curve.py",
        "attacks/inference/model_inversion/test_mi_face.py",
        "attacks/inference/membership_inference/test_label_only_gap_attack.py",
        "attacks/evasion/feature_adversaries/test_feature_adversaries.py",
        "attacks/evasion/feature_adversaries/test_feature_adversaries_pytorch.py",
        *(f"attacks/evasion/test_{name}.py" for name in EVASION),
    ],
    "pytorch or _pt": [f"attacks/test_{name}.py" for name in UNITTEST],
}
EDITS = {
    "classifiersFrameworks/test_pytorch.py": (
        "classifier.model.children()",
        'getattr(classifier.model, "net", classifier.model).children()',
    )
}
"""File -> what is written otherwise in the copy: these tests compare with the net's layers, which are those of
``model.net`` here. ``model.children()`` cannot give them, for torch moves and casts parameters by it."""


def main() -> None:
    parser = argparse.ArgumentParser(description="ART's own tests on SAPClassifier.")
    parser.add_argument("tree", type=Path, help="an unpacked source distribution of ART, with its tests/")
    parser.add_argument("--timeout", type=int, default=900, help="seconds a test (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="where own-tests.json and own-tests.md are written")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=RUNS, help="the others are read from the output")
    parser.add_argument("-k", default=None, help="only these tests, as pytest's -k")
    parser.add_argument("-v", action="store_true", help="show pytest's last lines")
    arguments = parser.parse_args()
    kept = runs_kept(arguments.output)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        copy_tests(arguments.tree / "tests", root / "tests")
        for name in arguments.runs:
            kept = {**kept, name: run(root, name, arguments)}
            write_results(arguments.output, kept)
    results = {name: kept[name] for name in RUNS if name in kept}
    if absent := [name for name in RUNS if name not in results]:
        print(f"nothing is compared without {', '.join(absent)}")
        return
    if arguments.output is not None:
        (arguments.output / "own-tests.md").write_text(page(versions(), results), encoding="utf-8")
    sys.exit(int(judge(results) > 0))


def runs_kept(folder: Path | None) -> Results:
    """The runs that are there already, if they are of the versions that are installed now."""
    before, results = read_results(folder)
    return results if before == versions() else {}


def copy_tests(source: Path, target: Path) -> None:
    """With the ``EDITS``.

    Raises:
        ValueError: an edit finds nothing.
    """
    shutil.copytree(source, target)
    for name, (before, after) in EDITS.items():
        text = (target / name).read_text(encoding="utf-8")
        if before not in text:
            raise ValueError(f"{name} has no {before!r}: it is another version of ART's tests")
        (target / name).write_text(text.replace(before, after), encoding="utf-8")


def run(root: Path, defence: str, arguments: argparse.Namespace) -> Run:
    """Outcome and message of each test."""
    (root / "data").mkdir(exist_ok=True)
    path = os.pathsep.join([str(root), str(HERE), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "ART_TESTS_DEFENCE": defence, "ART_TESTS_DATA": str(root / "data"), "PYTHONPATH": path}
    outcomes: Run = {}
    for number, (wanted, files) in enumerate(SUITES.items()):
        xml = root / f"{defence}-{number}.xml"
        chosen = " and ".join(f"({part})" for part in (wanted, arguments.k) if part)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "plugin", f"--junitxml={xml}", f"--rootdir={root}"]
        command += ["-c", os.devnull, f"--timeout={arguments.timeout}", "-p", "no:cacheprovider", "--tb=short"]
        command += ["--disable-warnings", "-k", chosen, *(f"tests/{name}" for name in files)]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
        print(f"{defence}: {done.stdout.strip().splitlines()[-1] if done.stdout else done.stderr[-2000:]}", flush=True)
        if arguments.v:
            print(done.stdout[-20000:], done.stderr[-2000:])
        outcomes |= read(xml, root)
    return outcomes


def read(xml: Path, root: Path) -> Run:
    """The first outcome of each test: what is left by one that failed may fail once more when it is cleared away."""
    outcomes: Run = {}
    for case in ElementTree.parse(xml).getroot().iter("testcase"):
        bad = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        message = "" if bad is None else " ".join(bad.get("message", "").replace(f"{root}{os.sep}", "").split())
        test = f"{case.get('classname')}.{case.get('name')}".removeprefix("tests.")
        outcomes.setdefault(test, ("passed" if bad is None else bad.tag, message[:200]))
    return outcomes


if __name__ == "__main__":
    main()
