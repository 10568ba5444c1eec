"""Which code is installed: this package's, and other packages'."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, requires

from packaging.requirements import Requirement

from ltrobust_bench._version import __version__
from ltrobust_bench.cards import methods, plugins
from ltrobust_bench.data.registry import datasets
from ltrobust_bench.doctor.findings import Findings
from ltrobust_bench.errors import LTBenchError
from ltrobust_bench.machine import version_of
from ltrobust_bench.models.registry import models
from ltrobust_bench.plan.code import PACKAGE, package_commit
from ltrobust_bench.registry import Registry

DISTRIBUTION = "ltrobust-bench"


def package(found: Findings) -> None:
    """Version and commit of this package."""
    found.fact("version", __version__)
    commit, dirty = package_commit()
    found.fact("commit", "not a git checkout" if commit is None else commit)
    if commit is not None:
        found.fact("uncommitted changes", "yes" if dirty else "no")
    found.fact("installed at", PACKAGE)


def versions(found: Findings) -> None:
    """Python, and every package that this one or one of its extras asks for."""
    found.fact("python", f"{platform.python_version()} ({sys.executable})")
    try:
        asked = [Requirement(line) for line in requires(DISTRIBUTION) or []]
    except PackageNotFoundError:
        found.problem(f"{DISTRIBUTION} is not installed: pip install -e . in its checkout.")
        return
    needed = {one.name: one for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})}
    optional = {one.name: one for one in asked if one.name not in needed and "dev" not in str(one.marker)}
    for name, requirement in (needed | optional).items():
        version = version_of(name)
        found.fact(name, version or "not installed")
        if version is None and name in needed:
            found.problem(f"{name} is not installed: pip install '{name}{requirement.specifier}'.")
        elif version is not None and not requirement.specifier.contains(version, prereleases=True):
            want = f"{name}{requirement.specifier}"
            found.problem(f"{name} is {version}, and {want} is needed: pip install '{want}'.")


def extensions(found: Findings, load: bool) -> None:
    """How many methods, data sets and networks there are, and other packages' ones by name.

    Args:
        load: whether each is loaded, which may import torch; those that do not load are problems.
    """
    registries: dict[str, Registry] = {
        "methods": methods,
        "plug-ins": plugins,
        "data sets": datasets,
        "networks": models,
    }
    for kind, registry in registries.items():
        entries = list(registry)
        others = [f"{entry.name} {entry.group}" for entry in entries if entry.group.startswith("from ")]
        found.fact(kind, ", ".join([str(len(entries)), *others]))
        for entry in entries if load else []:
            try:
                registry.get(entry.name)
            except LTBenchError as error:
                found.problem(str(error))
