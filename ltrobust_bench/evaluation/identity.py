"""What an interrupted evaluation of any model must find unchanged to go on: weights, code, answers, images, attacks."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import json
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ltrobust_bench.evaluation.foreign import checked_logits
from ltrobust_bench.terms import canonical_json

TOLERANCE = 1e-3
"""How far answers may be from those before, as a share of the largest: more than what the order of float32 sums does,
less than what any change of the model does that matters."""
LOGITS = "logits"
INSTALLED = {"site-packages", "dist-packages"}


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of a module's state by name. Quantised ones as their whole numbers; what is no tensor
    (``_extra_state``, types) is left out, and what is packed is opened."""
    found: dict[str, Tensor] = {}
    waiting: list[tuple[str, Any]] = list(module.state_dict().items())
    for name, value in waiting:
        if isinstance(value, Tensor):
            found[name] = value.int_repr() if value.is_quantized else value
        elif isinstance(value, (tuple, list)):
            waiting += [(f"{name}.{place}", part) for place, part in enumerate(value)]
    return found


def probe(model: nn.Module, images: Tensor, classes: int) -> list[list[float]]:
    """The model's logits for ``images`` and as many of seeded noise, [2 B, C], six digits each.

    A model that draws from torch's generators gets the same draws each time.

    Raises:
        CheckFailed: if what it returns is no logits.
    """
    x = torch.cat([torch.rand(images.shape, generator=torch.Generator().manual_seed(0)).to(images), images])
    with torch.random.fork_rng(devices=[images.device] if images.device.type == "cuda" else []):
        torch.manual_seed(0)
        logits = checked_logits(model, x, classes).double().cpu().tolist()
    return [[float(f"{value:.6g}") for value in row] for row in logits]


def code_of(model: nn.Module | Callable[..., Any], modules: Iterable[str] = ()) -> dict[str, str]:
    """SHA-256 of the source files that a model is made of, by name: those of its classes, and what they import.

    Files count that lie below the folders of these modules or the current folder; what is installed does not.

    Args:
        model: a module or a function.
        modules: names of further Python modules to begin with, such as the one of the factory that made it.
    """
    parts = [type(m) for m in model.modules()] if isinstance(model, nn.Module) else [_plain(model)]
    waiting = sorted({*modules, *(part.__module__ for part in parts)})
    folders = [Path.cwd(), *(folder for name in waiting if (folder := _folder(name)) is not None)]
    found, seen = {}, set(waiting)
    while waiting:
        module = sys.modules.get(waiting.pop())
        path = _file(module)
        if module is None or path is None or not (place := _place(path, folders)):
            continue
        content = path.read_bytes()
        found[place] = hashlib.sha256(content).hexdigest()
        for name in _imported(content, module):
            if name not in seen:
                seen.add(name)
                waiting.append(name)
    for part in parts:
        if _file(sys.modules.get(part.__module__)) is None:  # written in a notebook or at a prompt
            try:
                found[part.__qualname__] = hashlib.sha256(inspect.getsource(part).encode()).hexdigest()
            except (OSError, TypeError):
                continue
    return found


def _plain(function: Any) -> Any:
    """What has a source of a function: not a partial one, not an object that can be called."""
    while isinstance(function, functools.partial):
        function = function.func
    return function if hasattr(function, "__qualname__") else type(function)


def _file(module: ModuleType | None) -> Path | None:
    name = getattr(module, "__file__", None)
    path = Path(name) if name else None
    return path.resolve() if path is not None and path.suffix == ".py" and path.is_file() else None


def _folder(name: str) -> Path | None:
    """The folder in which a module's outermost package, or the module itself, lies."""
    outermost = sys.modules.get(name.partition(".")[0])
    path = _file(outermost)
    return None if path is None else path.parents[1] if hasattr(outermost, "__path__") else path.parent


def _place(path: Path, folders: Iterable[Path]) -> str:
    """A file's name below the first of the folders; empty if it is below none, installed, or this package's."""
    own, library = Path(__file__).resolve().parents[1], Path(sysconfig.get_path("stdlib")).resolve()
    if INSTALLED & set(path.parts) or path.is_relative_to(own) or path.is_relative_to(library):
        return ""
    below = next((folder for folder in map(Path.resolve, folders) if path.is_relative_to(folder)), None)
    return "" if below is None else path.relative_to(below).as_posix()


def _imported(source: bytes, module: ModuleType) -> Iterator[str]:
    """Names of the modules that a source may import, and of the packages they are in."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            try:
                base = importlib.util.resolve_name("." * node.level + (node.module or ""), module.__package__ or "")
            except ImportError:
                continue
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[: i + 1]) for i in range(len(parts)))


def settled(now: Mapping[str, Any], before: str) -> tuple[str, list[str]]:
    """The identity to go on with, and what of it has changed since ``before``, in words.

    Args:
        now: parts of the identity; ``logits`` as from :func:`probe`, ``code`` as from :func:`code_of`.
        before: the identity that was kept; empty if none was. Answers within the tolerance are the same, and so the
            ones that were kept stay what later ones are compared with.
    """
    text = canonical_json(now)
    if not before:
        return text, []
    try:
        kept = json.loads(before)
        changed = [name for name in now if name != LOGITS and kept[name] != now[name]]
        a, b = (np.asarray(part[LOGITS], dtype=float) for part in (kept, now))
        if a.shape != b.shape or not np.abs(a - b).max() <= TOLERANCE * np.abs(a).max():
            changed.append(LOGITS)
        if "code" in changed:
            was, code = kept["code"], now["code"]
            files = sorted(name for name in {*was, *code} if was.get(name) != code.get(name))
            changed[changed.index("code")] = f"code ({', '.join(files)})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return text, ["code of ltbench"]
    return (text, changed) if changed else (before, [])
