"""Finished networks of ours: what is in a run folder, and the data that it was trained for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from ltrobust_bench.compute.device import choose_device
from ltrobust_bench.data.registry import dataset_spec
from ltrobust_bench.errors import CheckFailed, CheckpointError, RecordError
from ltrobust_bench.judge.export import export
from ltrobust_bench.judge.graph import GraphFile
from ltrobust_bench.plan.code import Code
from ltrobust_bench.plan.request import Request
from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.plan.task import Task
from ltrobust_bench.records.io import read_record
from ltrobust_bench.records.schema import Record
from ltrobust_bench.records.weights import is_name, shipped_file
from ltrobust_bench.terms import first_problem
from ltrobust_bench.training import checkpoint as ckpt
from ltrobust_bench.training.build import load_deployed
from ltrobust_bench.training.losses import exploded
from ltrobust_bench.training.result import TrainingCost


@dataclass(frozen=True)
class Stored:
    """What the file of a finished network of ours says that it is.

    Attributes:
        run: what it is a result of.
        class_names: one per label.
        cost: of its training, and of the run it builds on.
        base_cost: of the run it builds on, if there is one.
        weights_sha256: digest of its tensors.
        code: of all sessions of its training; empty if it was trained before code was recorded.
        exploded: whether the loss of an epoch of its training was far beyond that of guessing.
    """

    run: RunSection
    class_names: tuple[str, ...]
    cost: TrainingCost
    base_cost: TrainingCost | None
    weights_sha256: str
    code: tuple[Code, ...]
    exploded: bool


@dataclass(frozen=True)
class LoadedModel(Stored):
    """A finished network of ours, ready to be used.

    Attributes:
        model: pixels in [0, 1], shape [B, channels, height, width], to logits [B, C]; in eval mode.
    """

    model: nn.Module


def load_model(path: Path | str, device: str = "auto") -> LoadedModel:
    """A finished network of ours as a model from pixels to logits. It runs the code of its method.

    Args:
        path: ``model.safetensors``, its run folder, or the name of a network that comes with the package.
        device: where to put it.

    Raises:
        CheckpointError: if the file is damaged, or its weights do not fit what it says it is.
        UnknownNameError: for a name that no network has.

    Example: ``load_model("lite:at-bsl").model(images)``
    """
    where = choose_device(device)
    stored, weights = read_stored(path, where)
    section = stored.run
    try:
        model = load_deployed(section, dataset_spec(section.dataset).shape, weights, where)
    except RuntimeError as error:
        raise CheckpointError(
            f"the weights in {path} are not those of {section.model} with the head of {section.method}: "
            f"{' '.join(str(error).split())[:200]}"
        ) from None
    return LoadedModel(**vars(stored), model=model)


def read_stored(path: Path | str, device: torch.device | str = "cpu") -> tuple[Stored, dict[str, Tensor]]:
    """What a network's file says that it is, and its tensors; arguments and errors as :func:`load_model`. Nobody's code
    is run."""
    file = shipped_file(str(path)) if is_name(path) else Path(path)
    weights, description = ckpt.read_model(file, device)
    try:
        section = RunSection.model_validate(description["run"])
        names, cost = tuple(description["class_names"]), TrainingCost(**description["cost"])
        spent = description.get("base_cost")
        base_cost = TrainingCost(**spent) if spent else None
        code = tuple(Code.model_validate(session) for session in description.get("code", []))
        astray = exploded([row["loss"] for row in description["history"]], len(names))
    except (KeyError, TypeError, ValidationError) as error:
        raise CheckpointError(f"{file} was written by another version: {first_problem(error)}") from None
    return Stored(section, names, cost, base_cost, description["weights_sha256"], code, bool(astray)), weights


def graph_of_network(path: Path | str) -> GraphFile:
    """A finished network of ours as a graph of tensor operations, by which it is judged; runs the code of its method.

    Raises:
        CheckFailed: in one line, if it cannot be written as one.
        CheckpointError, UnknownNameError: as :func:`load_model`.
    """
    stored, weights = read_stored(path)
    try:
        return export(load_model(path, "cpu").model, dataset_spec(stored.run.dataset).shape, weights)
    except CheckFailed as error:
        raise CheckFailed(f"{path} cannot be written as a graph: {error}") from None


def task_of(section: RunSection, data_dir: Path | None = None) -> Task:
    """The data set and split of a run, checked against what the run was made with.

    Raises:
        CheckpointError: if the protocol or the split has changed since.
    """
    task = Request.of(section).task(data_dir)
    if task.protocol.digest(section.dataset) != section.protocol_digest:
        raise CheckpointError(f"protocol {section.protocol} has changed since this network was trained under it.")
    for part, then, now in (
        ("trained on another folder's images", section.source_sha256, task.source.sha256),
        ("trained on another split", section.train_index_sha256, task.split.train_sha256),
        ("to be tested on other images", section.test_index_sha256, task.split.test_sha256),
    ):
        if then != now:
            raise CheckpointError(
                f"this network was {part} of {section.dataset} (SHA-256 {str(then)[:12]}, now {str(now)[:12]})."
            )
    return task


def own_record(path: Path, loaded: LoadedModel) -> Record:
    """The record in a file, which must be that of the network.

    Raises:
        RecordError: if it is damaged, or another run's.
    """
    record = read_record(path)
    if (record.run.key(), record.result.weights_sha256) != (loaded.run.key(), loaded.weights_sha256):
        raise RecordError(f"{path} belongs to another run; delete it to evaluate again.")
    return record
