"""``module:factory``: a network from a user's own code."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from torch import nn

from ltrobust_bench.errors import UsageError
from ltrobust_bench.interop.weights import load_strictly, read_weights


def from_factory(target: str, weights: Path | None) -> nn.Module:
    """The network that ``factory()`` of a module returns, with the weights of a file.

    Args:
        target: ``package.module:factory``; modules of the working directory are found too.
        weights: file of tensors, see :func:`~ltrobust_bench.interop.weights.read_weights`; None: as the factory
            returns it.

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
        reason = " ".join(str(error).split()) or "no message"
        raise UsageError(f"--torch {target} failed: {type(error).__name__}: {reason[:200]}") from None
    if not isinstance(model, nn.Module):
        raise UsageError(f"--torch {target} returned {type(model).__name__}, not a torch.nn.Module.")
    if weights is not None:
        load_strictly(model, read_weights(weights), weights)
    return model
