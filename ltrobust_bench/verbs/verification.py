"""Looking at a record again: attacking its network, or training it again.

All of it is done to the network's graph of tensor operations (:mod:`ltrobust_bench.judge`), in a process that runs
nothing of its method.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ltrobust_bench import verbs
from ltrobust_bench.compute.device import choose_device
from ltrobust_bench.compute.precision import undisturbed
from ltrobust_bench.errors import CheckpointError, RecordError, UsageError
from ltrobust_bench.evaluation.evaluator import evaluate_images
from ltrobust_bench.evaluation.examine import first_places
from ltrobust_bench.machine import device_name
from ltrobust_bench.plan.code import code_of
from ltrobust_bench.plan.request import Request
from ltrobust_bench.plan.task import Task
from ltrobust_bench.progress import Progress, Silent
from ltrobust_bench.records.provenance import environment
from ltrobust_bench.records.schema import Record, Standing
from ltrobust_bench.records.verify import FEWEST, Kind, Verification, verification
from ltrobust_bench.scores.reliability import Reliability
from ltrobust_bench.verbs.apart import trained_apart
from ltrobust_bench.verbs.judging import JudgedNetwork, judged_file, judged_network, refuse_imported, refuse_others
from ltrobust_bench.verbs.subject import examined, tested_images

NOT_RUN = {"bpda": "a judged graph has nothing before its backbone, nor an operation without its own gradient"}
"""Attacks that are for parts of a model which no graph has, and why."""


@dataclass(frozen=True)
class Where:
    """Who looks at a record again, and where.

    Attributes:
        by: who does it; one line.
        data_dir: folder or archive of the data set.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        graph: file of the network's graph, written elsewhere; None: it is written now, in a process apart.
    """

    by: str
    data_dir: Path | None = None
    device: str = "auto"
    graph: Path | None = None


@undisturbed()
def re_evaluate(
    record: Record,
    weights: Path,
    where: Where,
    *,
    images: int | None = 100,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Attack a record's network again with its protocol's whole suite, on a random sample of its images or on all.

    What is attacked is the network's graph (:mod:`ltrobust_bench.judge`), in this process, which runs none of its
    method's code.

    Args:
        record: what is verified.
        weights: its network: ``model.safetensors`` or its run folder.
        where: who does it, and where.
        images: size of the sample, at least ``FEWEST``; None: all test images.
        seed: of the sample; default: not to be foreseen.
        progress: what to report to; default: nothing.

    Raises:
        CheckFailed: if it cannot be judged as a graph.
        CheckpointError: if these are not the record's weights.
        RecordError: if its protocol or split is not the installed one.
        UsageError: for a sample that is too small.
    """
    total = sum(record.run.test_counts)
    if images is not None and images < min(FEWEST, total):
        raise UsageError(f"a sample of {images} images confirms nothing; take at least {min(FEWEST, total)}.")
    places = None
    if images is not None and images < total:
        places = np.sort(np.random.default_rng(seed).choice(total, images, replace=False))
    return attacked_again(record, weights, places, where, progress=progress)


@undisturbed()
def attacked_again(
    record: Record,
    weights: Path,
    places: np.ndarray | None,
    where: Where,
    *,
    again: bool = False,
    progress: Progress | None = None,
) -> Verification:
    """:func:`re_evaluate` on these images.

    Args:
        places: of the images, in the order of the record's bits, increasing; None: all.
        again: whether the network was trained again, and so may have other weights than the record's.
    """
    device = choose_device(where.device)
    network = judged_network(record, weights, where.graph, device=device, again=again, progress=progress)
    task = verbs.task_of(network.stored.run, where.data_dir)
    index = task.split.test if places is None else task.split.test[places]
    verdict = evaluate_images(
        network.model,
        tested_images(task, index, device),
        classes=task.classes,
        epsilon=task.epsilon,
        suite=task.protocol.evaluation,
        ball=task.ball,
        progress=progress,
    )
    robust = np.logical_and.reduce(list(verdict.bits.values()))
    kind: Kind = "retrained" if again else "re-evaluated"
    measured = _measured(network, task, device, progress)
    return stated(record, network, where, kind, places, verdict.bits["clean"], robust, reliability=measured)


def _measured(network: JudgedNetwork, task: Task, device: torch.device, progress: Progress | None) -> Reliability:
    """What a judged network's verdict rests on, measured as it is for a record, on the same images."""
    index, each = task.split.test, max(1, examined(task) // task.classes)
    first = first_places(np.asarray(task.source.test_labels[index]), each)
    verdict = evaluate_images(
        network.model,
        tested_images(task, index[first], device),
        classes=task.classes,
        epsilon=task.epsilon,
        suite=task.protocol.evaluation,
        ball=task.ball,
        attacks=[],
        progress=progress,
        examined=examined(task),
    )
    assert verdict.reliability is not None
    return verdict.reliability


@undisturbed()
def attacked_thoroughly(
    record: Record,
    weights: Path,
    where: Where,
    *,
    base: Path | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Attack what a record's suite left standing with the adaptive suite, see :func:`~ltrobust_bench.verbs.thorough`.

    Args:
        base: the network that the record's is built on, on which attacks are crafted, too; judged by its graph.
        folder: where the state is kept, so that an interrupted call goes on.
        others: see :func:`re_evaluate`.

    Raises:
        CheckFailed: if one of them cannot be judged as a graph.
        CheckpointError: if these are not the record's weights, or not those of its base.
        RecordError: if nothing stands that could be attacked.
    """
    device = choose_device(where.device)
    known = record.judged(Standing())  # what others broke is attacked again: the statement speaks for itself
    places = np.flatnonzero(known.bits("union"))
    if not len(places):
        raise RecordError(f"record {record.id} has no image that withstands its suite: there is nothing to attack.")
    network = judged_network(record, weights, where.graph, device=device, progress=progress)
    under = None if base is None else judged_file(base, device=device, progress=progress)
    if under is not None and under.stored.run.key() != record.run.base_key:
        raise CheckpointError(f"{base} is not the run that record {record.id} is built on.")
    run = record.run
    measured = _measured(network, verbs.task_of(network.stored.run, where.data_dir), device, progress)
    cuts: dict[str, Any] = {name: value for name, value in run.cuts.items() if name != "epochs"}
    result = verbs.thorough(
        network.model,
        run.dataset,
        protocol=run.protocol,
        imbalance_ratio=run.asked_ratio,
        profile=run.profile,
        **cuts,
        base=None if under is None else under.model,
        before=known.model_copy(update={"reliability": measured}),
        folder=folder,
        data_dir=where.data_dir,
        device=str(device),
        progress=progress,
    )
    robust = np.logical_and.reduce([result.bits[name][places] for name in result.adaptive])
    found = {"attacks": result.broken_after, "not_run": NOT_RUN, "reliability": measured}
    return stated(record, network, where, "thorough", places, np.ones(len(places), dtype=bool), robust, **found)


@undisturbed()
def retrain(record: Record, where: Where, *, progress: Progress | None = None) -> Verification:
    """Do a record's whole run again: train with its terms and its seed, in a process apart, and attack the network's
    graph with the whole suite in this one.

    Raises:
        CheckFailed: if it cannot be trained, or judged as a graph.
        RecordError: if the installed package would do another run (another protocol, card, split).
    """
    with tempfile.TemporaryDirectory(prefix="ltbench-retrain-") as folder:
        network = trained_again(record, Path(folder), where, progress)
        return attacked_again(record, network, None, where, again=True, progress=progress)


def trained_again(record: Record, folder: Path, where: Where, progress: Progress | None = None) -> Path:
    """Train a record's network again, in a process apart; its run folder, in ``folder``.

    Raises:
        CheckFailed: if it cannot be trained.
        RecordError: if the installed package would do another run.
    """
    refuse_imported()
    refuse_others(record.run)  # before a plan is made, which asks their code for the images
    plan = Request.of(record.run).to_plan(where.data_dir)
    if plan.run.key() != record.run.key():
        raise RecordError(
            f"record {record.id} cannot be trained again: the installed protocol, card or data give another run."
        )
    return trained_apart(plan.run, folder, where.data_dir, where.device, progress or Silent())


def stated(
    record: Record,
    network: JudgedNetwork,
    where: Where,
    kind: Kind,
    places: np.ndarray | None,
    clean: np.ndarray,
    robust: np.ndarray,
    **found: Any,
) -> Verification:
    """What was seen of a record's network as a statement; arguments as
    :func:`~ltrobust_bench.records.verify.verification`."""
    environment_here = environment(
        device_name(str(choose_device(where.device))),
        torch.get_num_threads(),
        record.run.recipe.precision,
        [*network.stored.code, code_of(record.run, "evaluation")],
    )
    sha256, graph = network.stored.weights_sha256, network.graph_sha256
    return verification(
        record, kind, places, clean, robust, sha256, where.by, environment_here, graph_sha256=graph, **found
    )
