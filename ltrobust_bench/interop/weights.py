"""Reading weights that somebody else saved: tensors only, whole files only."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ltrobust_bench.errors import CheckpointError
from ltrobust_bench.reading import plain_file, stored

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which training scripts keep the weights, beside an epoch or an optimiser's state."""
SHOWN = 4
"""Names of a misfit that an error lists."""
FREE, UNFOLDS = 2**28, 4
"""Bytes of tensors that any file may unfold into, and times its own size that a larger one may: a file can hold one
number and say that it stands a billion times, as torch's `expand` does."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file or of what ``torch.save`` wrote, on the CPU.

    Weights inside a training script's dictionary are found; a leading ``module.`` (of ``DataParallel``) is dropped.

    Raises:
        CheckpointError: if the file is missing, incomplete, holds pickled code, or holds no tensors.
    """
    content = read_content(path)
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content or not all(map(_is_plain, content.values())):
        raise CheckpointError(f"{path} holds no weights: a dictionary of names and plain tensors is needed.")
    total = sum(value.numel() * value.element_size() for value in content.values())
    if total > max(FREE, UNFOLDS * path.stat().st_size):
        raise CheckpointError(f"{path} would unfold into {total / 1e6:,.0f} MB, far more than it has.")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def read_content(path: Path) -> Any:
    """Whatever a file of weights holds, on the CPU; no code in it is run.

    Raises:
        CheckpointError: if the file is missing, incomplete, or holds pickled code.
    """
    if not path.is_file():
        raise CheckpointError(f"no weights at {path}.")
    damaged = CheckpointError(f"{path} is damaged, or an interrupted download.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        _see_stored(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        if not _begins_as_saved(path):
            raise damaged from None
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise CheckpointError(
            f"{path} holds pickled code{f' ({code[1]})' if code else ''}, which is never run; save the tensors alone "
            "with torch.save(model.state_dict(), FILE)."
        ) from None
    except Exception:  # noqa: BLE001 - whatever a damaged file makes of its reader
        raise damaged from None


def _is_plain(value: Any) -> bool:
    """Whether it is a tensor of numbers that are there: not sparse, not quantized, not on the meta device."""
    return (
        type(value) in (Tensor, nn.Parameter)
        and value.layout == torch.strided
        and not (value.is_meta or value.is_quantized)
    )


def _see_stored(path: Path) -> None:
    """See that what ``torch.save`` wrote is as it writes it, uncompressed; a compressed one can unfold without end.

    Raises:
        CheckpointError: if it is compressed.
    """
    with plain_file(path) as file:
        zipped = file.read(2) == b"PK"
        try:
            if zipped:
                stored(file)
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}; torch.save writes them so.") from None


def _begins_as_saved(path: Path) -> bool:
    """Whether a file begins as those that ``torch.save`` writes do: a zip archive, or a pickle."""
    with path.open("rb") as handle:
        return handle.read(2) in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def load_strictly(model: nn.Module, weights: Mapping[str, Tensor], path: Path | str) -> None:
    """Give a model weights that fit it exactly, in place.

    Counters of batch norm (``num_batches_tracked``), which old files lack, may be missing; they do not enter a result.

    Raises:
        CheckpointError: naming what is missing, left over, or of another shape.
    """
    own = model.state_dict()
    missing = [n for n in own if n not in weights and not n.endswith("num_batches_tracked")]
    extra = [n for n in weights if n not in own]
    shapes = [
        f"{n} {tuple(weights[n].shape)} for {tuple(own[n].shape)}"
        for n in own
        if n in weights and weights[n].shape != own[n].shape
    ]
    problems = [
        f"{what} {', '.join(names[:SHOWN])}{f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''}"
        for what, names in (("missing:", missing), ("left over:", extra), ("of another shape:", shapes))
        if names
    ]
    if problems:
        raise CheckpointError(f"the weights in {path} do not fit {type(model).__name__}; {'; '.join(problems)}.")
    model.load_state_dict(dict(weights), strict=False)
