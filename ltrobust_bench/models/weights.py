"""Reading weights that somebody else saved: tensors only, whole files only."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ltrobust_bench.errors import CheckpointError
from ltrobust_bench.models.names import Found, fitting, found_in, misfit, nearest
from ltrobust_bench.reading import plain_file, stored

_SCALARS = [getattr(np, name) for name in ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8")]
READ = [
    argparse.Namespace,
    np.dtype,
    np.ndarray,
    np.bool_,
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    *_SCALARS,
    *(type(np.dtype(kind)) for kind in (*_SCALARS, np.bool_)),
]
"""What beside tensors and plain values may be in a checkpoint: values that training scripts keep, and that run no code
when they are read. Everything else with code is refused."""
NUMPY_1 = {np._core.multiarray.scalar: "scalar", np._core.multiarray._reconstruct: "_reconstruct"}  # type: ignore[attr-defined]
"""Under which names files of NumPy 1 have these, in ``numpy.core.multiarray``."""
EXPORTED = ("models/model.json", "archive_format", "serialized_exported_program.json")
"""Ends of names in what ``torch.export.save`` writes, and wrote."""
SAVE = "torch.save(model.state_dict(), FILE)"
FREE, UNFOLDS = 2**28, 4
"""Bytes of tensors that any file may unfold into, and times its own size that a larger one may: a file can hold one
number and say that it stands a billion times, as torch's `expand` does."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file or of what ``torch.save`` wrote, on the CPU, by the names that they have.

    Weights inside a training script's dictionary are found, raw ones before averaged ones; a leading ``module.`` (of
    ``DataParallel``) is dropped.

    Raises:
        CheckpointError: if the file is missing, incomplete, holds pickled code, or holds no tensors.
    """
    first = _candidates(path)[0]
    return {name.removeprefix("module."): value for name, value in first.tensors.items()}


def load_fitting(model: nn.Module, path: Path, key: str = "") -> str:
    """Give a model the weights in a file that fit it exactly, whatever they are wrapped in; in place.

    Wrappers' names are left out at the front (``module.`` of DataParallel, ``_orig_mod.`` of torch.compile, ``model.``
    of Lightning, ``net.`` and so on) and in the middle; a model that is wrapped itself gets weights that are not.

    Args:
        key: which of several sets of weights, such as ``ema_state_dict``; empty: the raw ones.

    Returns:
        One line: which weights were taken and what was mapped; empty if the file holds just the model's state.

    Raises:
        CheckpointError: naming what is missing, left over, or of another shape.
    """
    candidates = _candidates(path)
    fits = [fit for found in candidates for fit in fitting(model.state_dict(), found)]
    chosen = [fit for fit in fits if key in ("", fit.key)]
    if not chosen and key and fits:
        raise CheckpointError(f"{path} holds no weights {key!r} that fit; it holds {', '.join(f.key for f in fits)}.")
    if not chosen:
        problems = min((nearest(model.state_dict(), found) for found in candidates), key=len)
        raise CheckpointError(f"the weights in {path} do not fit {type(model).__name__}; {problems.text}.")
    model.load_state_dict(dict(chosen[0].tensors), strict=False)
    return chosen[0].line(path.name, [fit.key for fit in fits if fit is not chosen[0]])


def load_strictly(model: nn.Module, weights: Mapping[str, Tensor], path: Path | str) -> None:
    """Give a model weights that fit it exactly under the names that they have, in place.

    Counters of batch norm (``num_batches_tracked``), which old files lack, may be missing; they do not enter a result.

    Raises:
        CheckpointError: naming what is missing, left over, or of another shape.
    """
    problems = misfit(model.state_dict(), weights)
    if problems.text:
        raise CheckpointError(f"the weights in {path} do not fit {type(model).__name__}; {problems.text}.")
    model.load_state_dict(dict(weights), strict=False)


def _candidates(path: Path) -> list[Found]:
    found = found_in(read_content(path))
    tensors = [list(one.tensors.values()) for one in found]
    if not found or not all(_is_plain(value) for values in tensors for value in values):
        raise CheckpointError(f"{path} holds no weights: a dictionary of names and plain tensors is needed.")
    total = max(sum(value.numel() * value.element_size() for value in values) for values in tensors)
    if total > max(FREE, UNFOLDS * path.stat().st_size):
        raise CheckpointError(f"{path} would unfold into {total / 1e6:,.0f} MB, far more than it has.")
    return found


def read_content(path: Path) -> Any:
    """Whatever a file of weights holds, on the CPU; no code in it is run.

    Raises:
        CheckpointError: if the file is missing, incomplete, or holds pickled code.
    """
    if not path.is_file():
        raise CheckpointError(f"no weights at {path}.")
    damaged = CheckpointError(f"{path} is damaged, or an interrupted download.")
    if other := _something_else(path):
        raise CheckpointError(f"{path} {other}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        allowed = [*READ, *((kind, f"numpy.core.multiarray.{name}") for kind, name in NUMPY_1.items())]
        _see_stored(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
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
            f"with {SAVE}."
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
    with plain_file(path) as handle:
        return handle.read(2) in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def _something_else(path: Path) -> str:
    """What a whole file is that holds no state dictionary, and what to do; empty if it may hold one."""
    with plain_file(path) as handle:
        begins = handle.read(8)
    if begins == b"\x89HDF\r\n\x1a\n":
        return f"is an HDF5 file (Keras), not one of torch; load it in its library and write it with {SAVE}."
    if begins[:6] == b"\x93NUMPY":
        return f"is a single NumPy array, not weights by name; write them with {SAVE}."
    try:
        with plain_file(path) as content, zipfile.ZipFile(content) as archive:
            members = archive.namelist()
    except Exception:  # noqa: BLE001 - whatever a damaged zip file makes of its reader
        return ""
    if members and all(name.endswith(".npy") for name in members):
        shown = ", ".join(name.removesuffix(".npy") for name in members[:4])
        return f"is an .npz file of NumPy arrays ({shown}), not one of torch; give its arrays to a model and {SAVE}."
    if any(name.partition("/")[2] == "constants.pkl" for name in members):
        return f"is a TorchScript archive, whose code is never run; write torch.jit.load(FILE)'s tensors with {SAVE}."
    if any(
        name.endswith(("models/model.json", "archive_format", "serialized_exported_program.json")) for name in members
    ):
        return f"is a program of torch.export, not weights; write torch.export.load(FILE)'s tensors with {SAVE}."
    return ""
