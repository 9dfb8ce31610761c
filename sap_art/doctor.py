"""What is installed and found, what is missing, and the command that mends it: ``sap-art doctor``."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata, resources

from packaging.requirements import Requirement

DISTRIBUTION = "sap-art"
COLLECTIONS = ("all",)
"""Extras that only name other extras."""
REINSTALL = f"pip install --force-reinstall --no-deps {DISTRIBUTION}"


@dataclass
class Report:
    """Lines of text by heading, the commands that mend what is missing, and whether the core is complete."""

    sections: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    commands: list[str] = field(default_factory=list[str])
    complete: bool = True

    def lack(self, command: str) -> None:
        """The core is incomplete until this is run."""
        self.complete = False
        if command not in self.commands:
            self.commands.append(command)

    def __str__(self) -> str:
        mend = {"To mend": self.commands} if self.commands else {}
        parts = [
            "\n".join([title, *(f"  {line}" for line in lines)]) for title, lines in {**self.sections, **mend}.items()
        ]
        return "\n\n".join([*parts, "The core is complete." if self.complete else "The core is NOT complete."])


def examine() -> Report:
    """Look at packages, devices, data and checkpoints of this installation; nothing is run, fetched or written."""
    report = Report()
    _examine_packages(report)
    if report.complete:  # what follows is imported from the core
        _examine_robustbench(report)
        _examine_devices(report)
        _examine_data(report)
        _examine_checkpoints(report)
    return report


def _examine_packages(report: Report) -> None:
    try:
        version, requirements = metadata.version(DISTRIBUTION), metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        report.sections["Packages"] = [f"{DISTRIBUTION} itself is not installed"]
        report.lack("pip install .")
        return
    system = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    report.sections[f"{DISTRIBUTION} {version}, {system}"] = lines = list[str]()
    for requirement in _of_extra("", requirements):
        problem = _problem(requirement)
        lines.append(_line(requirement, problem))
        if problem:
            report.lack(f"pip install '{requirement.name}{requirement.specifier}'")
    for extra in metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []:
        if extra not in COLLECTIONS:
            _examine_extra(report, extra, _of_extra(extra, requirements))


def _examine_extra(report: Report, extra: str, requirements: Iterator[Requirement]) -> None:
    problems = {requirement: _problem(requirement) for requirement in requirements}
    report.sections[f"Extra {extra}"] = [_line(requirement, problem) for requirement, problem in problems.items()]
    if any(problems.values()):
        report.commands.append(f"pip install '{DISTRIBUTION}[{extra}]'")


def _of_extra(extra: str, requirements: list[str]) -> Iterator[Requirement]:
    """What this extra adds; the empty one is the core."""
    for requirement in map(Requirement, requirements):
        if _wanted(requirement, extra) and (not extra or not _wanted(requirement, "")):
            yield requirement


def _wanted(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _problem(requirement: Requirement) -> str:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return "missing"
    if requirement.specifier.contains(version, prereleases=True):
        return ""
    return f"{version} does not fit"


def _line(requirement: Requirement, problem: str) -> str:
    if problem:
        return f"{requirement.name}: {problem}, needs {requirement.specifier or 'any version'}"
    return f"{requirement.name} {metadata.version(requirement.name)}"


def _examine_robustbench(report: Report) -> None:
    from sap_art.integrations.robustbench.repairs import REPAIRS, require_installed

    try:
        require_installed()
    except ImportError as error:
        report.sections["RobustBench"] = [str(error)]
        return
    report.sections["RobustBench, repaired while it is used from here"] = [
        f"needed: {repair.what}; until {repair.until}" if repair.needed() else f"not needed: {repair.what}"
        for repair in REPAIRS
    ]


def _examine_devices(report: Report) -> None:
    import torch

    from sap_art import kernels

    cpu = kernels.describe(torch.device("cpu"))
    lines = [f"cpu: {torch.get_num_threads()} threads, draws by {cpu}"]
    for index in range(torch.cuda.device_count()):
        device, found = torch.device("cuda", index), torch.cuda.get_device_properties(index)
        lines.append(
            f"{device}: {found.name}, {found.total_memory / 2**30:.1f} GiB, draws by {kernels.describe(device)}"
        )
    report.sections["Devices"] = lines if len(lines) > 1 else [*lines, "cuda: none"]


def _examine_data(report: Report) -> None:
    from sap_art import data

    lines = report.sections["Data"] = list[str]()
    try:
        with resources.as_file(resources.files("sap_art") / "assets" / data.BUNDLE) as bundle:
            lines.append(f"bundled: {len(data.load(source=bundle)[1])} test images of cifar10")
    except (OSError, ValueError) as error:
        lines.append(f"bundled: {error}")
        report.lack(REINSTALL)
    source = os.environ.get(data.SOURCE_VARIABLE)
    if not source:
        lines.append(f"{data.SOURCE_VARIABLE}: not set; {data.HOW_TO_GET_MORE}")
        return
    for split in data.SPLITS:
        try:
            lines.append(f"{data.SOURCE_VARIABLE}, {split}: {len(data.load(split=split)[1])} images in {source}")
        except (OSError, ValueError) as error:
            lines.append(f"{data.SOURCE_VARIABLE}, {split}: {error}")


def _examine_checkpoints(report: Report) -> None:
    from sap_art import zoo

    lines = report.sections["Checkpoints"] = list[str]()
    for net in zoo.list_nets():
        if net.accuracy is None:
            lines.append(f"{net.name}: none, train it with sap-art train --arch {net.name}")
            continue
        try:
            zoo.load(net.name)
            lines.append(f"{net.name}: {100 * net.accuracy:.2f} % clean")
        except (OSError, ValueError) as error:
            lines.append(f"{net.name}: {error}")
            report.lack(REINSTALL)
