"""Checkpoints: written whole or not at all, verified when read, and free of pickled code.

A run folder holds at most one finished checkpoint ``checkpoint-<epoch>/`` with ``weights.safetensors``,
``state.pt`` (optimiser, memories, counters; read with ``weights_only``) and ``meta.json`` (their SHA-256).
A finished network is ``model.safetensors``, which describes itself in its header.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ltrobust_bench.errors import CheckpointError
from ltrobust_bench.files import atomic_path, make_folder

_FILES = ("weights.safetensors", "state.pt")


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def save_checkpoint(folder: Path, epoch: int, weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write the checkpoint of a finished epoch below ``folder``, then remove older ones."""
    make_folder(folder)
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".checkpoint-", suffix=".tmp"))
    try:
        _save(weights, temporary / _FILES[0])
        torch.save(dict(state), temporary / _FILES[1])
        meta = {"epoch": epoch, "sha256": {name: file_sha256(temporary / name) for name in _FILES}}
        (temporary / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        target = folder / f"checkpoint-{epoch:04d}"
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for other in _checkpoints(folder):
        if other != target:
            shutil.rmtree(other)


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-[0-9]*"))


def load_checkpoint(folder: Path, device: torch.device) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
    """Epoch, weights and state of the newest checkpoint, or None.

    Raises:
        CheckpointError: if it is damaged; says which file, and what to delete.
    """
    found = _checkpoints(folder)
    if not found:
        return None
    path = found[-1]
    try:
        meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
        for name, digest in meta["sha256"].items():
            if file_sha256(path / name) != digest:
                raise ValueError(f"{name} has another SHA-256 than when it was written")
        weights = load_file(path / _FILES[0], device=str(device))
        state = torch.load(path / _FILES[1], map_location=device, weights_only=True)
        return int(meta["epoch"]), weights, state
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        SafetensorError,
        RuntimeError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
    ) as error:
        raise CheckpointError(
            f"checkpoint {path} is damaged ({str(error).splitlines()[0]}); delete that folder to start again."
        ) from None


def remove_checkpoints(folder: Path) -> None:
    """Remove checkpoints of a run whose network is finished."""
    for path in _checkpoints(folder):
        shutil.rmtree(path)


def remove_run(folder: Path) -> None:
    """Empty a run folder that the caller holds alone. What says that something is finished goes first, so that nothing
    of it outlives a process that is killed meanwhile."""
    first = [folder / name for name in ("record.json", "evaluation.npz", "model.safetensors")]
    for path in [*first, *sorted(folder.iterdir())]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink(missing_ok=True)


def save_model(path: Path, weights: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write a finished network; its description, with the digest of its weights, goes into the file's header."""
    header = {**description, "weights_sha256": weights_sha256(weights)}
    with atomic_path(path) as temporary:
        _save(weights, temporary, {"ltbench": json.dumps(header, sort_keys=True)})


def _save(weights: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    try:
        save_file({k: v.contiguous() for k, v in weights.items()}, path, metadata=metadata)
    except SafetensorError as error:  # what safetensors makes of a full disk
        raise OSError(f"cannot write weights ({error})") from None


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over names, types, shapes and bytes of tensors, in name order."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_model(path: Path, device: torch.device | str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and description of a finished network.

    Raises:
        CheckpointError: if the file is missing, damaged, or not written by :func:`save_model`.
    """
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}; `ltbench train` writes model.safetensors in its run folder.")
    try:
        with safe_open(path, framework="pt") as handle:
            header = (handle.metadata() or {}).get("ltbench")
        weights = load_file(path, device=str(device))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is no readable safetensors file ({str(error).splitlines()[0]}).") from None
    try:
        description = json.loads(header or "")
        stored = description["weights_sha256"]
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{path} was not written by ltbench: its header does not say what it is.") from None
    if stored != weights_sha256(weights):
        raise CheckpointError(f"{path} is damaged: its weights are not those that were written.")
    return weights, description
