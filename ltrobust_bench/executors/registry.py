"""Which executors there are: the files of this folder, each the subclass of ``Executor`` that it defines."""

from __future__ import annotations

from ltrobust_bench import executors as package
from ltrobust_bench.executors.base import Executor
from ltrobust_bench.registry import Registry, scanned

SHARED = {"__init__", "base", "registry"}
"""Files of the folder that are no executor."""

executors: Registry[type[Executor]] = Registry(
    "executor", discover=lambda: scanned(package, Executor, SHARED), base=type
)
