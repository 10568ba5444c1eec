"""Checkpoints: written whole or not at all, verified when read, and free of pickled code.

A run folder holds the two newest checkpoints, so that a damaged one costs what lies between them:
``checkpoint-<epoch>/`` of an epoch's end, ``checkpoint-<epoch>-<step>/`` within the next one, with
``weights.safetensors``, ``state.pt`` (optimiser, memories, counters; read with ``weights_only``) and ``meta.json``
(their SHA-256). A finished network is ``model.safetensors``, which describes itself in its header. Where files have to
be small, each is written in pieces (:func:`ltrobust_bench.files.write_large`).
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ltrobust_bench.compute.memory import out_of_memory
from ltrobust_bench.errors import CheckpointError, LTBenchError
from ltrobust_bench.files import atomic_folder, is_there, read_large, shard_bytes, write_large
from ltrobust_bench.progress import Progress, Silent
from ltrobust_bench.reading import read_bytes, stored
from ltrobust_bench.terms import first_problem, printable

_FILES, META = ("weights.safetensors", "state.pt"), "meta.json"
NAME = re.compile(r"checkpoint-\d+(-\d+)?")


def save_checkpoint(
    folder: Path, epoch: int, weights: Mapping[str, Tensor], state: Mapping[str, Any], step: int = 0
) -> Path:
    """Write a checkpoint below ``folder``, then remove all but this and the one before it; its folder.

    Args:
        epoch: finished epochs.
        weights, state: the network's, and what else is needed to go on.
        step: finished steps of the next epoch.

    Raises:
        StorageError: if the disk is full; the older checkpoints stay.
    """
    target = folder / (f"checkpoint-{epoch:04d}" + (f"-{step:06d}" if step else ""))
    buffer = io.BytesIO()
    torch.save({**state, "epoch": epoch}, buffer)
    contents = {_FILES[0]: _packed(weights), _FILES[1]: buffer.getvalue()}
    meta = {"sha256": {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}}
    with atomic_folder(target) as temporary:
        for name, data in contents.items():
            write_large(temporary / name, data, shard_bytes())
        (temporary / META).write_text(json.dumps(meta), encoding="utf-8")
    older = [path for path in _checkpoints(folder) if _position(path) < _position(target)]
    for other in _checkpoints(folder):
        if other != target and other not in older[-1:]:
            shutil.rmtree(other)
    return target


def _checkpoints(folder: Path) -> list[Path]:
    """Folders with a checkpoint's name, the newest last."""
    return sorted((path for path in folder.glob("checkpoint-*") if NAME.fullmatch(path.name)), key=_position)


def _position(path: Path) -> tuple[int, ...]:
    """Finished epochs, and steps of the next one."""
    return tuple(int(number) for number in path.name.split("-")[1:])


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run folder; None: it has none."""
    return next((path for path in reversed(_checkpoints(folder)) if (path / META).is_file()), None)


def load_checkpoint(
    folder: Path, device: torch.device, progress: Progress | None = None
) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
    """Finished epochs, weights and state of the newest checkpoint that is undamaged, or None if there is none at all.

    Newer ones that are damaged are told of and removed.

    Raises:
        CheckpointError: if there are checkpoints and each is damaged; says which file, and what to delete.
        LTBenchError: if one is too large for memory.
    """
    progress, problems = progress or Silent(), {}
    for path in reversed(_checkpoints(folder)):
        if not (path / META).is_file():
            progress.note(f"{path} is no whole checkpoint: passed over")
            continue
        try:
            loaded = _read(path, device)
        except CheckpointError as error:
            problems[path] = str(error)
            continue
        for damaged, problem in problems.items():
            progress.note(f"{problem}: going on from the one before it, {path.name}")
            shutil.rmtree(damaged)
        return loaded
    if problems:
        others = ", and so is the one before it" if len(problems) > 1 else ""
        raise CheckpointError(
            f"{next(iter(problems.values()))}{others}; delete that folder to start again, or --fresh."
        )
    return None


def _read(path: Path, device: torch.device) -> tuple[int, dict[str, Tensor], dict[str, Any]]:
    try:
        meta, contents = json.loads(read_bytes(path / META)), {}
        for name in _FILES:
            contents[name] = read_large(path / name)
            if hashlib.sha256(contents[name]).hexdigest() != meta["sha256"][name]:
                raise ValueError(f"{name} has another SHA-256 than when it was written")
        weights = {name: value.to(device) for name, value in load(contents[_FILES[0]]).items()}
        written = io.BytesIO(contents[_FILES[1]])
        stored(written)  # as torch.save writes it; a compressed one can unfold without end
        written.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error says what is wrong
            state = torch.load(written, map_location=device, weights_only=True)
        return state["epoch"], weights, state
    except Exception as error:  # whatever a damaged file makes of its readers
        if out_of_memory(error):  # a damaged checkpoint is removed; this one may be sound
            raise LTBenchError(f"memory does not suffice to read {path}; free some and type the same again.") from None
        raise CheckpointError(f"checkpoint {path} is damaged ({printable(first_problem(error), 200)})") from None


def remove_checkpoints(folder: Path) -> None:
    """Remove checkpoints of a run whose network is finished."""
    for path in _checkpoints(folder):
        shutil.rmtree(path)


def remove_run(folder: Path) -> None:
    """Empty a run folder that the caller holds alone. What says that something is finished goes first, so that nothing
    of it outlives a process that is killed meanwhile."""
    names = ("record.json", "evaluation.npz", "model.safetensors", "model.safetensors.pieces")
    first = [folder / name for name in names]
    for path in [*first, *sorted(folder.iterdir())]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink(missing_ok=True)


def save_model(path: Path, weights: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write a finished network; its description, with the digest of its weights, goes into the file's header."""
    header = {**description, "weights_sha256": weights_sha256(weights)}
    write_large(path, _packed(weights, {"ltbench": json.dumps(header, sort_keys=True)}), shard_bytes())


def _packed(weights: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """The safetensors file of weights. It is made in memory, so that a full disk is the system's error and not
    something that a library makes of it."""
    return save({k: v.contiguous() for k, v in weights.items()}, metadata=metadata)


def metadata(content: bytes) -> dict[str, str]:
    """What a sound safetensors file says of itself: its length, 8 bytes, then a header in JSON."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return header.get("__metadata__") or {}


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
    if not is_there(path):
        raise CheckpointError(f"no checkpoint at {path}; `ltbench train` writes model.safetensors in its run folder.")
    try:
        content = read_large(path)
        weights = {name: value.to(device) for name, value in load(content).items()}
        header = metadata(content).get("ltbench")
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is no readable safetensors file ({first_problem(error)}).") from None
    try:
        description = json.loads(header or "")
        stored = description["weights_sha256"]
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{path} was not written by ltbench: its header does not say what it is.") from None
    if stored != weights_sha256(weights):
        raise CheckpointError(f"{path} is damaged: its weights are not those that were written.")
    return weights, description
