"""What a method must leave as it found it: the settings and generators of the process, and other modules' functions."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from functools import cached_property
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch


class Setting(NamedTuple):
    """One setting of the process, and how it is read and put back."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], Any]


def _attribute(owner: Any, name: str) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    return lambda: getattr(owner, name), lambda value: setattr(owner, name, value)


SETTINGS = [
    Setting("torch's default type", torch.get_default_dtype, torch.set_default_dtype),
    Setting("torch's grad mode", torch.is_grad_enabled, torch.set_grad_enabled),
    Setting("torch's number of threads", torch.get_num_threads, torch.set_num_threads),
    Setting("torch's float32 precision", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    Setting(
        "torch's deterministic algorithms",
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    Setting("cuDNN's deterministic flag", *_attribute(torch.backends.cudnn, "deterministic")),
    Setting("cuDNN's benchmark flag", *_attribute(torch.backends.cudnn, "benchmark")),
    Setting("torch's anomaly mode", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    Setting("numpy's handling of errors", np.geterr, lambda value: np.seterr(**value)),
]
GENERATORS: dict[str, Callable[[], Any]] = {
    "torch": torch.get_rng_state,
    "numpy": lambda: np.random.get_state(legacy=False),
    "Python": random.getstate,
}
WATCHED = ("torch.nn.functional", "torch.autograd", "numpy")
"""Modules beside this package whose functions are looked at."""
CODE = (FunctionType, type, property, cached_property, classmethod, staticmethod)


class Surroundings:
    """The process as it is now.

    Args:
        without: a module of the method's own, which may do with itself what it wants.
    """

    def __init__(self, without: str = "") -> None:
        self.settings = {setting.name: setting.read() for setting in SETTINGS}
        self.code = dict(_code(without))
        self.without = without

    def changes(self) -> list[str]:
        """What is different since, a line each."""
        found = [f"{s.name} was changed" for s in SETTINGS if not _same(s.read(), self.settings[s.name])]
        now = dict(_code(self.without))
        replaced = [key for key, value in self.code.items() if now.get(key) is not value]
        return found + [f"{module}.{name} was replaced" for module, name in replaced]

    def put_back(self) -> None:
        """Everything as it was."""
        for setting in SETTINGS:
            setting.write(self.settings[setting.name])
        now = dict(_code(self.without))
        for (module, path), value in self.code.items():
            if now.get((module, path)) is not value:
                owner: Any = sys.modules[module]
                *outer, name = path.split(".")
                for part in outer:
                    owner = getattr(owner, part)
                setattr(owner, name, value)


def drawn(work: Callable[[], object]) -> list[str]:
    """Whose global generators ``work`` draws from or seeds."""
    before = {name: read() for name, read in GENERATORS.items()}
    work()
    return [name for name, read in GENERATORS.items() if not _same(read(), before[name])]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(value, b[key]) for key, value in a.items())
    return bool(np.array_equal(a, b)) if isinstance(a, (np.ndarray, torch.Tensor)) else bool(a == b)


def _code(without: str) -> list[tuple[tuple[str, str], Any]]:
    """Functions and classes of the modules that are loaded, and the functions of their classes."""
    found: list[tuple[tuple[str, str], Any]] = []
    for name, module in list(sys.modules.items()):
        ours = name.split(".")[0] == "ltrobust_bench" and name != without
        if not (ours or name in WATCHED) or not isinstance(module, ModuleType):
            continue
        for key, value in list(vars(module).items()):
            if isinstance(value, CODE) or callable(value):
                found.append(((name, key), value))
            if ours and isinstance(value, type) and value.__module__ == name:
                found += [((name, f"{key}.{k}"), v) for k, v in list(vars(value).items()) if isinstance(v, CODE)]
    return found
