"""Scoring adversarial images that another program made."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ltrobust_bench.compute.memory import Splitting
from ltrobust_bench.compute.precision import undisturbed
from ltrobust_bench.data.loader import to_unit
from ltrobust_bench.data.split import index_sha256
from ltrobust_bench.errors import UsageError
from ltrobust_bench.evaluation.evaluator import frozen
from ltrobust_bench.evaluation.foreign import checked_logits
from ltrobust_bench.evaluation.result import Evaluation
from ltrobust_bench.interop.examples import Examples, read_examples
from ltrobust_bench.plan.task import Task
from ltrobust_bench.progress import Progress, Silent
from ltrobust_bench.reading import read_bytes
from ltrobust_bench.verbs.subject import Model, subject_of, tested_images

BATCH = 500
NAME = "examples"
"""Of the row that the images make in a result."""
ASTRAY = 0.5
"""Share of images outside the ball from which on they are taken for other images than the test set's first."""


@undisturbed()
def rescore(
    model: Model,
    dataset: str | None,
    examples: Path,
    *,
    device: str = "auto",
    progress: Progress | None = None,
    **terms: Any,
) -> Evaluation:
    """What adversarial images made elsewhere leave of a model, class by class: one row ``examples``.

    An image that is farther from its test image than the protocol's radius changes nothing, and is said. The result is
    of the images in the file that are in the split's test set.

    Args:
        model, dataset, device, progress: see :func:`~ltrobust_bench.verbs.evaluations.evaluate`.
        examples: file, see :func:`~ltrobust_bench.interop.examples.read_examples`; without an ``index`` its images are
            the first of the test set, in order, as AutoAttack and RobustBench have them.
        **terms: protocol, imbalance_ratio, profile, train_counts, normalise, data_dir.

    Raises:
        UsageError: if the file holds no images, or others than the data set's.
    """
    found, said = read_examples(examples), progress or Silent()
    subject = subject_of(model, dataset, device, **terms)
    task = subject.task
    places, moved = _in_order(examples, found, task, said)
    data = tested_images(task, task.split.test[places], subject.device)
    x, theirs = to_unit(data.images), torch.from_numpy(moved).to(subject.device)
    if theirs.shape != x.shape:
        raise UsageError(f"{examples}: images of shape {tuple(theirs.shape[1:])}, {tuple(x.shape[1:])} is needed.")
    outside = task.ball.left(theirs, x, task.epsilon)
    count, farthest = int(outside.sum()), float(task.ball.distance(theirs, x).max())
    if count > ASTRAY * len(x):
        raise UsageError(
            f"{examples}: {count} of {len(x)} images leave the ball of {task.epsilon:.5g} or [0, 1], the farthest at "
            f"{task.ball.name} distance {farthest:.5g}: another radius, or not the first test images in their order "
            "(give their places as `index`)."
        )
    if count:
        said.note(f"{count} of {len(x)} images leave the ball of {task.epsilon:.5g}, up to {farthest:.5g}: not counted")
        theirs = torch.where(outside.view(-1, 1, 1, 1), x, theirs)
    network = Splitting(subject.module)
    with frozen(subject.module):
        clean, robust = (right(network, images, data.labels, task.classes) for images in (x, theirs))
        noticed = subject.look.again() if subject.look else ()
    digest = hashlib.sha256(read_bytes(examples, None)).hexdigest()[:12]
    about = replace(
        subject.about({}),
        attacks={NAME: f"{examples.name} sha256={digest}"},
        test_sha256=index_sha256((task.split.test if task.split.held_out is None else task.split.held_out)[places]),
    )
    bits = {"clean": clean, NAME: clean & robust}
    labels = task.source.test_labels[task.split.test[places]]
    return Evaluation(bits, labels, task.split.train_counts, None, 2 * len(x), 0, 0.0, None, about, noticed=noticed)


def right(network: Splitting, images: torch.Tensor, labels: torch.Tensor, classes: int) -> np.ndarray:
    """Which images are classified correctly, bool, [N]."""
    logits = [
        network.fit(partial(checked_logits, network, batch, classes), len(batch)) for batch in images.split(BATCH)
    ]
    found: np.ndarray = (torch.cat(logits).argmax(dim=1) == labels).cpu().numpy()
    return found


def _in_order(path: Path, found: Examples, task: Task, said: Progress) -> tuple[np.ndarray, np.ndarray]:
    """Places in the split's test set, increasing, and the image for each."""
    known = np.asarray(task.source.test_labels)
    index = np.arange(len(found.images)) if found.index is None else found.index
    if index.min() < 0 or index.max() >= len(known):
        raise UsageError(f"{path}: image {int(index.max())} is asked for, the test set has {len(known)}.")
    if len(np.unique(index)) < len(index):
        raise UsageError(f"{path}: an index stands twice; give one image for each.")
    if found.labels is not None and (wrong := np.flatnonzero(found.labels != known[index])).size:
        raise UsageError(
            f"{path}: image {int(wrong[0])} has label {int(found.labels[wrong[0]])}, the test image at "
            f"{int(index[wrong[0]])} has {int(known[index[wrong[0]]])}: was the loader shuffled? give `index`."
        )
    place_of = np.full(len(known), -1)
    place_of[task.split.test] = np.arange(len(task.split.test))
    kept = np.flatnonzero(place_of[index] >= 0)
    if not len(kept):
        raise UsageError(f"{path}: none of its images is in the split's test set.")
    if len(kept) < len(index):
        said.note(f"{len(kept)} of {len(index)} images are in the split's test set; the others are left out")
    places = place_of[index[kept]]
    order = np.argsort(places)
    return places[order], found.images[kept][order]
