"""Which executors there are: the files of this folder, each the subclass of ``Executor`` that it defines."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from ltrobust_bench import executors as package
from ltrobust_bench.errors import UsageError
from ltrobust_bench.executors.base import Executor
from ltrobust_bench.registry import Registration, Registry

SHARED = {"__init__", "base", "registry"}
"""Files of the folder that are no executor."""


def _scan() -> list[Registration]:
    files = sorted(file for folder in package.__path__ for file in Path(folder).glob("*.py"))
    return [_entry(file) for file in files if file.stem not in SHARED]


def _entry(file: Path) -> Registration:
    module, origin = import_module(f"{package.__name__}.{file.stem}"), f"executors/{file.name}"
    own = [v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__]
    kinds = [v for v in own if issubclass(v, Executor)]
    if len(kinds) != 1:
        raise UsageError(f"{origin} must define one subclass of Executor, it defines {len(kinds)}.")
    return Registration(file.stem.replace("_", "-"), kinds[0], kinds[0].help, origin)


executors: Registry[type[Executor]] = Registry("executor", discover=_scan, base=type)
