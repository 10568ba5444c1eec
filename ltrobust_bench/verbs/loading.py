"""Finished networks of ours: what is in a run folder, and the data that it was trained for."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from ltrobust_bench.compute.device import choose_device
from ltrobust_bench.compute.precision import undisturbed
from ltrobust_bench.data.registry import dataset_spec
from ltrobust_bench.data.sources import DATA_VARIABLE
from ltrobust_bench.errors import CheckFailed, CheckpointError, RecordError
from ltrobust_bench.judge.export import export
from ltrobust_bench.judge.graph import GraphFile
from ltrobust_bench.notebook import table
from ltrobust_bench.plan.code import Code
from ltrobust_bench.plan.request import Request
from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.plan.task import DATA_PLACE, Task
from ltrobust_bench.reading import read_text
from ltrobust_bench.records.io import read_record
from ltrobust_bench.records.schema import Record
from ltrobust_bench.records.weights import INDEX, is_name, read_index, shipped_file
from ltrobust_bench.terms import first_problem
from ltrobust_bench.training import checkpoint as ckpt
from ltrobust_bench.training.build import load_deployed
from ltrobust_bench.training.losses import exploded
from ltrobust_bench.training.result import TrainingCost

if TYPE_CHECKING:
    from ltrobust_bench.verbs.prediction import Prediction

SHOWN = 20
"""Classes that a notebook shows."""
PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".tar", ".onnx", ".pt2", ".torchscript")
"""Endings of files that hold networks, but none of ours."""


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
        folder: where it lies, its run folder if it was not moved.
    """

    run: RunSection
    class_names: tuple[str, ...]
    cost: TrainingCost
    base_cost: TrainingCost | None
    weights_sha256: str
    code: tuple[Code, ...]
    exploded: bool
    folder: Path


@dataclass(frozen=True, repr=False)
class LoadedModel(Stored):
    """A finished network of ours, ready to be used.

    Attributes:
        model: pixels in [0, 1], shape [B, channels, height, width], to logits [B, C]; in eval mode.
    """

    model: nn.Module

    def __repr__(self) -> str:
        return f"<LoadedModel {self._what()}>"

    def _repr_html_(self) -> str:
        shape = "x".join(map(str, dataset_spec(self.run.dataset).shape))
        rows = [[name, str(count)] for name, count in zip(self.class_names, self.run.train_counts, strict=True)]
        more = "" if len(rows) <= SHOWN else f", of which {SHOWN} are shown"
        note = f"takes images of {shape} in [0, 1]; {len(rows)} classes{more}"
        return table(self._what(), ["class", "training images"], rows[:SHOWN], note)

    def _what(self) -> str:
        run, weights = self.run, sum(p.numel() for p in self.model.parameters())
        of = f"{len(self.class_names)} classes, {weights:,} weights"
        return f"{run.combination} on {run.dataset}, {run.model}, seed {run.seed}: {of}"

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    def place(self, data_dir: Path | str | None = None) -> Path | str | None:
        """Where its data set is looked for: the place that is named, else where its run found it, if that is still
        there, else what the environment says."""
        if data_dir is not None and str(data_dir) != os.environ.get(DATA_VARIABLE):
            return data_dir
        noted = Path(self._noted()[0])
        return noted if noted != Path() and noted.exists() else data_dir

    def _noted(self) -> tuple[str, str]:
        """Where its run found its images, and by which lists; empty where it says nothing."""
        with suppress(OSError, ValueError):
            place, _, lists = read_text(self.folder / DATA_PLACE).strip().partition("\n")
            return place, lists
        return "", ""

    def task(self, data_dir: Path | str | None = None) -> Task:
        """Its data set and split, see :meth:`place` and :func:`task_of`."""
        return task_of(self.run, self.place(data_dir), self._noted()[1])

    def record(self) -> Record | None:
        """The record of its attacks: beside it, or where records of networks that come with the package lie; None:
        there is none.

        Raises:
            RecordError: if the one beside it is damaged, or another run's.
        """
        beside = self.folder / "record.json"
        if beside.is_file():
            return own_record(beside, self)
        if not (self.folder / INDEX).is_file():
            return None
        filed = [one.record for one in read_index(self.folder).values() if one.weights_sha256 == self.weights_sha256]
        paths = [self.folder.parent / "records" / place for place in filed]
        return next((own_record(path, self) for path in paths if path.is_file()), None)

    def predict(self, images: Any) -> Prediction | list[Prediction]:
        """What it says of a picture (path, PIL image, array), or of each of several: see :func:`.prediction.predict`.

        Example: ``load_model("runs/...").predict("photo.jpg").name``
        """
        from ltrobust_bench.verbs.prediction import predict

        return predict(self, images)


@undisturbed()
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
    file = file_of(path)
    if file.suffix.lower() in PICKLES:
        raise CheckpointError(
            f"{file} is no network of this package, which are called model.safetensors: build your network, load its "
            f"weights and give the module to evaluate(module, dataset), or type `ltbench eval --torch MODULE:FACTORY "
            f"--weights {file} --dataset NAME`."
        )
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
    folder, sha256 = (file if file.is_dir() else file.parent), description["weights_sha256"]
    return Stored(section, names, cost, base_cost, sha256, code, bool(astray), folder), weights


def file_of(path: Path | str) -> Path:
    """Where a network lies: the path itself, or the file of one that comes with the package, by its name.

    Raises:
        CheckpointError, UnknownNameError: see :func:`~ltrobust_bench.records.weights.shipped_file`.
    """
    return shipped_file(str(path)) if is_name(path) else Path(path)


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


def task_of(section: RunSection, data_dir: Path | str | None = None, lists: str = "") -> Task:
    """The data set and split of a run, checked against what the run was made with.

    Args:
        lists: what was typed for its data set, if that is one by lists.

    Raises:
        CheckpointError: if the protocol or the split has changed since.
    """
    task = Request.of(section).replace(**({"dataset": lists} if lists else {})).task(data_dir)
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
