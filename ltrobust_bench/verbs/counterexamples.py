"""Adversarial examples that somebody found, tried on a record's network."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from ltrobust_bench import verbs
from ltrobust_bench.compute.device import choose_device
from ltrobust_bench.compute.memory import Splitting
from ltrobust_bench.compute.precision import undisturbed
from ltrobust_bench.data.loader import to_unit
from ltrobust_bench.errors import UsageError
from ltrobust_bench.evaluation.evaluator import frozen
from ltrobust_bench.reading import read_arrays, read_bytes
from ltrobust_bench.records.schema import Record
from ltrobust_bench.records.trust import FILED
from ltrobust_bench.records.verify import Verification
from ltrobust_bench.verbs.judging import judged_network
from ltrobust_bench.verbs.rescoring import right
from ltrobust_bench.verbs.subject import tested_images
from ltrobust_bench.verbs.verification import Where, stated

LARGEST = 500_000_000
"""Bytes of a file of examples, as it is and unfolded; 10,000 images of 64 pixels square in float32 have 492 million."""


@undisturbed()
def try_examples(record: Record, weights: Path, examples: Path, where: Where) -> Verification:
    """Whether adversarial examples that somebody found break a record's network, judged by its graph.

    Args:
        examples: ``.npz`` with ``index`` (int, [N]: places in the data set's test set, as it is distributed) and
            ``images`` ([N, channels, height, width]: float in [0, 1], or uint8).

    Raises:
        CheckFailed: if it cannot be judged as a graph.
        CheckpointError: if these are not the record's weights.
        UsageError: if the file is damaged, or an image is no test image moved by at most epsilon.
    """
    content = _content(examples, LARGEST)
    index, found = _arrays(examples, content)
    device = choose_device(where.device)
    network = judged_network(record, weights, where.graph, device=device)
    task = verbs.task_of(network.stored.run, where.data_dir)
    place_of = {int(i): place for place, i in enumerate(task.split.test)}
    unknown = [int(i) for i in index if int(i) not in place_of]
    if unknown:
        raise UsageError(f"{examples}: index {unknown[0]} is no image of {record.run.dataset}'s test set.")
    places = np.array([place_of[int(i)] for i in index])
    order = np.argsort(places)
    places, found = places[order], found[order]
    if len(np.unique(places)) < len(places):
        raise UsageError(f"{examples}: an index stands twice; give one image for each.")
    data = tested_images(task, task.split.test[places], device)
    x, moved = to_unit(data.images), torch.from_numpy(found).to(device)
    if moved.shape != x.shape:
        raise UsageError(f"{examples}: images of shape {tuple(moved.shape)}, {tuple(x.shape)} is needed.")
    distance, outside = task.ball.distance(moved, x), task.ball.left(moved, x, task.epsilon)
    if bool(outside.any()):
        worst = int(distance.argmax())
        raise UsageError(
            f"{examples}: {int(outside.sum())} of {len(x)} images leave the ball or the box, the farthest is "
            f"that of index {int(task.split.test[places[worst]])} at {task.ball.name} distance "
            f"{float(distance[worst]):.6g} (epsilon {task.epsilon:.6g})."
        )
    model = Splitting(network.model)
    with frozen(model):
        clean, robust = (right(model, images, data.labels, task.classes) for images in (x, moved))
    digest = hashlib.sha256(content).hexdigest()
    return stated(record, network, where, "counterexamples", places, clean, robust, examples_sha256=digest)


def examples_to_file(examples: Path) -> bytes:
    """The file of examples as it is kept beside a statement, so that anybody can try them again.

    Raises:
        UsageError: if it is too large for that.
    """
    return _content(examples, FILED)


def _content(examples: Path, most: int) -> bytes:
    try:
        return read_bytes(examples, most)
    except FileNotFoundError:
        raise UsageError(f"no examples at {examples}.") from None
    except OSError as error:
        raise UsageError(f"no examples at {examples}: {error.strerror}.") from None
    except ValueError:
        raise UsageError(
            f"{examples} has more than {most / 1e6:g} MB; keep only the images that fool the network, "
            "and save them with np.savez_compressed."
        ) from None


def _arrays(path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Places in the test set, int [N], and their images, float32 [N, ...]."""
    try:
        index, images = read_arrays(content, ("index", "images"), LARGEST).values()
    except ValueError as error:
        raise UsageError(f"{path} is no .npz with the arrays `index` and `images` ({error}).") from None
    if images.ndim != 4:
        raise UsageError(f"{path}: `images` has {images.ndim} axes; four are needed, [N, channels, height, width].")
    if images.dtype == np.uint8:
        images = images.astype(np.float32) / np.float32(255)
    if index.ndim != 1 or index.dtype.kind not in "iu" or len(index) == 0 or len(index) != len(images):
        raise UsageError(f"{path}: `index` needs one whole number for each of the {len(images)} images.")
    if images.dtype.kind != "f":
        raise UsageError(f"{path}: `images` must be float in [0, 1] or uint8, not {images.dtype}.")
    return index, images.astype(np.float32)
