"""Runs ART's own tests on SAPClassifier: python benchmarks/art/own_tests.py TREE (a source distribution of ART).

Three times: on ART's classifiers, after ``defend`` with a SAP that keeps every unit, and after ``defend`` with SAP at
100 %. With the defence off each test must end as on ART's classifiers, failures with the same message, but for those in
KNOWN; else it exits with 1. With SAP on, exact comparisons of two answers may fail. MNIST and ART's weights are not in
the source distribution: scikit-learn's digits, and weights trained on them, stand in, so that comparisons with stored
numbers fail on all three, alike.
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

HERE = Path(__file__).resolve().parent
RUNS = ("plain", "off", "on")
LAYERS = "takes its reference from model.children(), which here is the module around the net"
BARE = "a net without activations: nothing to defend, and that is said"
CAST = "ART hands float64 to the net with numpy 2; here it is cast"
KNOWN = {
    "test_boundary": CAST,
    "test_brendel_and_bethge": CAST,
    "test_defences_predict": CAST,
    "test_classifier_defended_images": CAST,
    "test_get_activation_modular": LAYERS,
    "test_get_activation_sequential": LAYERS,
    "test_custom_loss_gradient_modular": LAYERS,
    "test_custom_loss_gradient_sequential": LAYERS,
    "test_over_the_air": BARE,
    "test_square_attack.test_generate[2]": "asks about 0/0: the defence refuses NaN, an attack view does not",
    "test_square_attack.test_generate[inf]": "goes on with the random numbers that the test before it has left",
    "test_pytorch_binary_pgd": "a net of 20 features, declared as one of images (1, 28, 28)",
}
SUITES = {
    "": ["classifiersFrameworks/test_pytorch.py", "estimators/classification/test_deeplearning_common.py"]
    + ["estimators/classification/test_deeplearning_specific.py"]
    + [f"attacks/evasion/test_{name}.py" for name in ("auto_attack", "auto_conjugate_gradient", "fast_gradient")]
    + [f"attacks/evasion/test_{name}.py" for name in ("auto_projected_gradient_descent", "boundary", "sign_opt")]
    + [f"attacks/evasion/test_{name}.py" for name in ("frame_saliency", "momentum_iterative_method", "square_attack")]
    + [f"attacks/evasion/test_{name}.py" for name in ("shadow_attack", "brendel_and_bethge", "over_the_air")],
    "pytorch or _pt": [f"attacks/test_{name}.py" for name in ("carlini", "deepfool", "elastic_net", "hop_skip_jump")]
    + [f"attacks/test_{name}.py" for name in ("iterative_method", "newtonfool", "projected_gradient_descent", "simba")]
    + [f"attacks/test_{name}.py" for name in ("saliency_map", "spatial_transformation", "universal_perturbation")]
    + [f"attacks/test_{name}.py" for name in ("virtual_adversarial", "wasserstein", "zoo", "adversarial_patch")],
}


def main() -> None:
    parser = argparse.ArgumentParser(description="ART's own tests on SAPClassifier.")
    parser.add_argument("tree", type=Path, help="an unpacked source distribution of ART, with its tests/")
    parser.add_argument("--timeout", type=int, default=120, help="seconds a test (default: %(default)s)")
    parser.add_argument("-k", default=None, help="only these tests, as pytest's -k")
    parser.add_argument("-v", action="store_true", help="show pytest's last lines")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(arguments.tree / "tests", root / "tests")
        results = {name: run(root, name, arguments) for name in RUNS}
    sys.exit(report(results))


def run(root: Path, defence: str, arguments: argparse.Namespace) -> dict[str, tuple[str, str]]:
    """Outcome and message of each test."""
    (root / "data").mkdir(exist_ok=True)
    path = os.pathsep.join([str(root), str(HERE), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "ART_TESTS_DEFENCE": defence, "ART_TESTS_DATA": str(root / "data"), "PYTHONPATH": path}
    outcomes: dict[str, tuple[str, str]] = {}
    for number, (wanted, files) in enumerate(SUITES.items()):
        xml = root / f"{defence}-{number}.xml"
        chosen = " and ".join(f"({part})" for part in (wanted, arguments.k) if part)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "plugin", f"--junitxml={xml}", f"--rootdir={root}"]
        command += [
            "-c",
            os.devnull,
            f"--timeout={arguments.timeout}",
            "-p",
            "no:cacheprovider",
            "--tb=short",
            "--disable-warnings",
        ]
        command += ["-k", chosen, *(f"tests/{name}" for name in files)]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
        print(f"{defence}: {done.stdout.strip().splitlines()[-1] if done.stdout else done.stderr[-2000:]}", flush=True)
        if arguments.v:
            print(done.stdout[-20000:], done.stderr[-2000:])
        outcomes |= read(xml)
    return outcomes


def read(xml: Path) -> dict[str, tuple[str, str]]:
    outcomes: dict[str, tuple[str, str]] = {}
    for case in ElementTree.parse(xml).getroot().iter("testcase"):
        bad = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        message = "" if bad is None else bad.get("message", "").splitlines()[0] if bad.get("message") else ""
        outcomes[f"{case.get('classname')}.{case.get('name')}"] = ("passed" if bad is None else bad.tag, message[:160])
    return outcomes


def report(results: dict[str, dict[str, tuple[str, str]]]) -> int:
    """Print where the outcomes differ; 1 if one does that should not."""
    plain, surprises = results["plain"], 0
    for name in RUNS:
        outcomes = [outcome for outcome, _ in results[name].values()]
        print(f"{name}: " + ", ".join(f"{outcomes.count(kind)} {kind}" for kind in sorted(set(outcomes))))
    for name in RUNS[1:]:
        for test, expected in sorted(plain.items()):
            found = results[name].get(test, ("missing", ""))
            if found == expected or (name == "on" and found[0] == expected[0]):
                continue
            reason = next((reason for part, reason in KNOWN.items() if part in test), "")
            surprises += name == "off" and not reason
            reason = reason or ("UNEXPECTED" if name == "off" else "random?")
            print(f"{name} {test}: {reason}\n    plain {expected}\n    here  {found}")
    return int(surprises > 0)


if __name__ == "__main__":
    main()
