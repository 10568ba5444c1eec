"""``module:factory``: a network from a user's own code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

from torch import nn

from ltrobust_bench.errors import UsageError
from ltrobust_bench.evaluation.blame import in_one_line, innermost
from ltrobust_bench.models.weights import load_fitting


def from_factory(
    target: str, weights: Path | None, key: str = "", say: Callable[[str], None] = lambda line: None
) -> nn.Module:
    """The network that ``factory()`` of a module returns, with the weights of a file.

    Args:
        target: ``package.module:factory``; modules of the working directory are found too.
        weights: file of tensors, see :func:`~ltrobust_bench.models.weights.load_fitting`; None: as the factory
            returns it, so with the weights that it loads itself.
        key: which of several sets of weights in the file.
        say: is told which weights were taken and how their names were mapped.

    Raises:
        UsageError: if there is no such module or factory, or it returns no ``torch.nn.Module``.
        CheckpointError: for weights that do not fit.
    """
    module_name, colon, name = target.partition(":")
    if not (module_name and colon and name):
        raise UsageError(f"--torch {target!r} is not MODULE:FACTORY; write for example --torch my_nets:resnet.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        factory = getattr(importlib.import_module(module_name), name)
        model = factory()
    except (Exception, SystemExit) as error:  # a user's code may raise anything, or leave
        place = innermost(error)
        raise UsageError(f"--torch {target} failed: {in_one_line(error)}{f' ({place})' if place else ''}") from None
    if not isinstance(model, nn.Module):
        hint = "; return its .module()" if hasattr(model, "module") else ""
        raise UsageError(f"--torch {target} returned {type(model).__name__}, not a torch.nn.Module{hint}.")
    if weights is not None and (line := load_fitting(model, weights, key)):
        say(line)
    return model
