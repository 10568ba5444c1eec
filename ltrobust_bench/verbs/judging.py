"""A record's network as the judge sees it: a graph of tensor operations with the record's weights, in a process that
has imported nothing of its method."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ltrobust_bench.cards import methods, plugins
from ltrobust_bench.data.registry import dataset_spec, datasets
from ltrobust_bench.errors import CheckFailed, CheckpointError
from ltrobust_bench.judge.examine import Backbone, judged, tail_of
from ltrobust_bench.judge.graph import read_graph
from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.progress import Progress, Silent
from ltrobust_bench.records.schema import Record
from ltrobust_bench.verbs.apart import write_graph_apart
from ltrobust_bench.verbs.loading import Stored, file_of, read_stored


@dataclass(frozen=True)
class JudgedNetwork:
    """A network ready to be attacked.

    Attributes:
        model: the graph: pixels in [0, 1] to logits, in eval mode, on its device.
        stored: what its file says that it is.
        graph_sha256: digest of operations and constants.
    """

    model: nn.Module
    stored: Stored
    graph_sha256: str


def judged_network(
    record: Record,
    weights: Path,
    graph: Path | None = None,
    *,
    device: torch.device,
    again: bool = False,
    progress: Progress | None = None,
) -> JudgedNetwork:
    """The network of a record, judged by its graph.

    Args:
        weights: its network: ``model.safetensors`` or its run folder.
        graph: file of its graph, written elsewhere; None: it is written now, in a process apart.
        again: whether it was trained again, and so may have other weights than the record's.

    Raises:
        CheckFailed: in one line, if it cannot be judged as a graph: the record stays claimed.
        CheckpointError: if these are not the record's weights.
    """
    stored, _ = read_stored(weights)
    if not again and stored.weights_sha256 != record.result.weights_sha256:
        raise CheckpointError(
            f"{weights} does not hold the weights of record {record.id}: SHA-256 {stored.weights_sha256[:12]}, "
            f"the record has {record.result.weights_sha256[:12]}."
        )
    if stored.run.key() != record.run.key():
        raise CheckpointError(f"{weights} says that it belongs to another run than record {record.id}.")
    try:
        return judged_file(weights, graph, device=device, progress=progress)
    except CheckFailed as error:
        raise CheckFailed(f"record {record.id} stays claimed, it cannot be judged as a graph: {error}") from None


def judged_file(
    weights: Path, graph: Path | None = None, *, device: torch.device, progress: Progress | None = None
) -> JudgedNetwork:
    """A network of ours, whatever record it belongs to, judged by its graph; see :func:`judged_network`."""
    refuse_imported()
    stored, values = read_stored(weights)
    progress, run = progress or Silent(), stored.run
    refuse_others(run)
    with tempfile.TemporaryDirectory(prefix="ltbench-judge-") as folder:
        if graph is None:
            graph = Path(folder) / "graph.safetensors"
            write_graph_apart(file_of(weights), graph, progress)
        found = read_graph(graph)
    shape = dataset_spec(run.dataset).shape
    backbone = Backbone(run.model, run.recipe.activation)
    model = judged(found, values, backbone, shape, len(run.train_counts))
    refuse_imported()
    progress.note(f"judged as a graph: {backbone.text}, then {'; '.join(tail_of(found.graph, backbone, shape))}")
    return JudgedNetwork(model.to(device), stored, found.sha256)


def refuse_imported() -> None:
    """See that this process has run no method's code, which could have changed what judges it.

    Raises:
        CheckFailed: naming what it imported.
    """
    found = [module for module in methods_of_others() if module in sys.modules]
    if found:
        raise CheckFailed(
            f"networks are not judged in this process, which has run the code of {found[0]}; `ltbench record verify` "
            "begins a fresh one."
        )


def methods_of_others() -> Iterable[str]:
    """Names of the modules that hold the code of methods and plug-ins."""
    return [registry.get(name).module for registry in (methods, plugins) for name in registry.names()]


def refuse_others(run: RunSection) -> None:
    """See that a run's data set is this package's own.

    Raises:
        CheckFailed: if it is of another package, whose code is not run here.
    """
    if run.dataset in datasets and isinstance(datasets.entry(run.dataset).target, str):
        raise CheckFailed(f"data set {run.dataset} is of another package, whose code the judge does not run")
