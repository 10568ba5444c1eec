"""The whole examination: sections of facts, and problems as one line each.

It finds faults and has none: a section that cannot be looked at, be it that a package it needs does not load, is a
problem of its own. Torch is asked in a process of its own, so that an install that crashes is a finding too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from ltrobust_bench.doctor.findings import Findings


@dataclass
class Examination:
    """What was found.

    Attributes:
        sections: title to facts, each a name and what is said of it.
        problems: one line each, with what to do.
    """

    sections: dict[str, dict[str, str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def text(self) -> str:
        """As people and bug reports read it."""
        lines = []
        for title, facts in self.sections.items():
            width = max(map(len, facts), default=0)
            lines += [f"[{title}]", *(f"{name:{width}} : {value}" for name, value in facts.items()), ""]
        lines += [f"problems: {len(self.problems) or 'none'}", *(f"- {problem}" for problem in self.problems)]
        return "\n".join(lines)

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**self.sections, "problems": self.problems}


def examine(
    *,
    data_dir: Path | None = None,
    runs_dir: Path = Path("runs"),
    results_dir: Path = Path("results"),
    read: bool = True,
) -> Examination:
    """Look at everything that a run rests on; nothing is changed but for temporary files in folders that are there.

    Args:
        data_dir: folder or archive of data sets.
        runs_dir, results_dir: where runs and results would go.
        read: whether data sets are read and their splits compared with what they must be; else only looked for.
    """
    found = Examination()
    _look(found, "package", "packages:package")
    _look(found, "versions", "packages:versions")
    _look(found, "system", "system:system")
    _look(found, "torch", "system:torch")
    works = "devices" in found.sections["torch"]  # else importing it could end this process
    _look(found, "extensions", "packages:extensions", works)
    _look(found, "folders", "system:folders", runs_dir, results_dir)
    _look(found, "environment", "system:environment")
    _look(found, "data", "data:data", data_dir, read and works)
    return found


def _look(found: Examination, title: str, function: str, *arguments: object) -> None:
    """Add a section: what a function, given as ``module:function`` of this room, finds."""
    module, _, name = function.partition(":")
    findings = Findings()
    try:
        look: Callable[..., None] = getattr(import_module(f"ltrobust_bench.doctor.{module}"), name)
        look(findings, *arguments)
    except Exception as error:  # noqa: BLE001 - a doctor that falls ill helps nobody
        findings.problem(
            f"{title} cannot be looked at ({type(error).__name__}: {error}): install the package again, and report it "
            f"if that does not help."
        )
    found.sections[title] = findings.facts
    found.problems.extend(findings.problems)
