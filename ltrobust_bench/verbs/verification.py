"""Looking at a record again: attacking its weights, training it again, or trying somebody's adversarial examples."""

from __future__ import annotations

import hashlib
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ltrobust_bench import verbs
from ltrobust_bench.compute.device import choose_device
from ltrobust_bench.compute.memory import Splitting
from ltrobust_bench.data.loader import DeviceData, to_unit
from ltrobust_bench.errors import CheckpointError, RecordError, UsageError
from ltrobust_bench.evaluation.evaluator import evaluate_images, frozen
from ltrobust_bench.evaluation.foreign import checked_logits
from ltrobust_bench.machine import device_name
from ltrobust_bench.plan.code import code_of
from ltrobust_bench.plan.request import Request
from ltrobust_bench.progress import Progress, Silent
from ltrobust_bench.reading import read_arrays, read_bytes
from ltrobust_bench.records.provenance import environment
from ltrobust_bench.records.schema import Environment, Record, Standing
from ltrobust_bench.records.verify import FEWEST, Verification, verification

BATCH = 500
LARGEST = 500_000_000
"""Bytes of a file of examples, as it is and unfolded; 10,000 images of 64 pixels square in float32 have 492 million."""
FILED = 25_000_000
"""Bytes of a file of examples that is kept beside the records; 2,000 CIFAR images in float32."""


def re_evaluate(
    record: Record,
    weights: Path,
    *,
    by: str,
    images: int | None = 100,
    seed: int | None = None,
    data_dir: Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Verification:
    """Attack a record's weights again with its protocol's whole suite, on a random sample of its images or on all.

    Args:
        record: what is verified.
        weights: its network: ``model.safetensors`` or its run folder.
        by: who does it; one line.
        images: size of the sample, at least ``FEWEST``; None: all test images.
        seed: of the sample; default: not to be foreseen.
        data_dir, device, progress: as everywhere.

    Raises:
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
    return attacked_again(record, weights, places, by=by, data_dir=data_dir, device=device, progress=progress)


def attacked_again(
    record: Record,
    weights: Path,
    places: np.ndarray | None,
    *,
    by: str,
    data_dir: Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Verification:
    """:func:`re_evaluate` on these images.

    Args:
        places: of the images, in the order of the record's bits, increasing; None: all.
    """
    loaded = _weights_of(record, weights, device)
    task = verbs.task_of(loaded.run, data_dir)
    index = task.split.test if places is None else task.split.test[places]
    where = choose_device(device)
    data = DeviceData.of(task.source.test_pixels(index), np.asarray(task.source.test_labels[index]), where)
    verdict = evaluate_images(
        loaded.model,
        data,
        classes=task.classes,
        epsilon=task.epsilon,
        suite=task.protocol.evaluation,
        ball=task.ball,
        progress=progress,
    )
    robust = np.logical_and.reduce(list(verdict.bits.values()))
    return verification(
        record,
        "re-evaluated",
        places,
        verdict.bits["clean"],
        robust,
        loaded.weights_sha256,
        by,
        _here(where, record, loaded),
    )


def attacked_thoroughly(
    record: Record,
    weights: Path,
    *,
    by: str,
    base: Path | None = None,
    folder: Path | None = None,
    data_dir: Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Verification:
    """Attack what a record's suite left standing with the adaptive suite, see :func:`~ltrobust_bench.verbs.thorough`.

    Args:
        base: the network that the record's is built on, on which attacks are crafted, too.
        folder: where the state is kept, so that an interrupted call goes on.
        others: see :func:`re_evaluate`.

    Raises:
        CheckpointError: if these are not the record's weights, or not those of its base.
        RecordError: if nothing stands that could be attacked.
    """
    loaded, where = _weights_of(record, weights, device), choose_device(device)
    known = record.judged(Standing())  # what others broke is attacked again: the statement speaks for itself
    places = np.flatnonzero(known.bits("union"))
    if not len(places):
        raise RecordError(f"record {record.id} has no image that withstands its suite: there is nothing to attack.")
    if base is not None and verbs.load_model(base, device=device).run.key() != record.run.base_key:
        raise CheckpointError(f"{base} is not the run that record {record.id} is built on.")
    result = verbs.thorough(
        weights, base=base, before=known, folder=folder, data_dir=data_dir, device=device, progress=progress
    )
    robust = np.logical_and.reduce([result.bits[name][places] for name in result.adaptive])
    return verification(
        record,
        "thorough",
        places,
        np.ones(len(places), dtype=bool),
        robust,
        loaded.weights_sha256,
        by,
        _here(where, record, loaded),
        attacks=result.broken_after,
    )


def retrain(
    record: Record,
    *,
    by: str,
    data_dir: Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Verification:
    """Do a record's whole run again: train with its terms and its seed, and attack with the whole suite.

    Raises:
        RecordError: if the installed package would do another run (another protocol, card, split).
    """
    plan = Request.of(record.run).to_plan(data_dir)
    if plan.run.key() != record.run.key():
        raise RecordError(
            f"record {record.id} cannot be trained again: the installed protocol, card or data give another run."
        )
    with tempfile.TemporaryDirectory(prefix="ltbench-retrain-") as folder:
        made = verbs.run_plan(
            plan,
            runs_dir=Path(folder),
            results_dir=None,
            device=choose_device(device),
            progress=progress or Silent(),
        )
    return verification(
        record,
        "retrained",
        None,
        made.bits("clean"),
        made.bits("union"),
        made.result.weights_sha256,
        by,
        made.environment,
    )


def try_examples(
    record: Record, weights: Path, examples: Path, *, by: str, data_dir: Path | None = None, device: str = "auto"
) -> Verification:
    """Whether adversarial examples that somebody found break a record's weights.

    Args:
        examples: ``.npz`` with ``index`` (int, [N]: places in the data set's test set, as it is distributed) and
            ``images`` ([N, channels, height, width]: float in [0, 1], or uint8).

    Raises:
        CheckpointError: if these are not the record's weights.
        UsageError: if the file is damaged, or an image is no test image moved by at most epsilon.
    """
    content = _content(examples, LARGEST)
    index, found = _arrays(examples, content)
    loaded = _weights_of(record, weights, device)
    task = verbs.task_of(loaded.run, data_dir)
    place_of = {int(i): place for place, i in enumerate(task.split.test)}
    unknown = [int(i) for i in index if int(i) not in place_of]
    if unknown:
        raise UsageError(f"{examples}: index {unknown[0]} is no image of {record.run.dataset}'s test set.")
    places = np.array([place_of[int(i)] for i in index])
    order = np.argsort(places)
    places, found = places[order], found[order]
    if len(np.unique(places)) < len(places):
        raise UsageError(f"{examples}: an index stands twice; give one image for each.")
    where = choose_device(device)
    data = DeviceData.of(
        task.source.test_pixels(task.split.test[places]),
        np.asarray(task.source.test_labels[task.split.test[places]]),
        where,
    )
    x, moved = to_unit(data.images), torch.from_numpy(found).to(where)
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
    model = Splitting(loaded.model)
    with frozen(model):
        clean, robust = (
            np.concatenate(
                [
                    (model.fit(partial(checked_logits, model, b, task.classes), len(b)).argmax(1) == y).cpu().numpy()
                    for b, y in zip(batch.split(BATCH), data.labels.split(BATCH), strict=True)
                ]
            )
            for batch in (x, moved)
        )
    digest = hashlib.sha256(content).hexdigest()
    here = _here(where, record, loaded)
    return verification(record, "counterexamples", places, clean, robust, loaded.weights_sha256, by, here, digest)


def examples_to_file(examples: Path) -> bytes:
    """The file of examples as it is kept beside a statement, so that anybody can try them again.

    Raises:
        UsageError: if it is too large for that.
    """
    return _content(examples, FILED)


def _weights_of(record: Record, weights: Path, device: str) -> verbs.LoadedModel:
    loaded = verbs.load_model(weights, device=device)
    if loaded.weights_sha256 != record.result.weights_sha256:
        raise CheckpointError(
            f"{weights} does not hold the weights of record {record.id}: SHA-256 {loaded.weights_sha256[:12]}, "
            f"the record has {record.result.weights_sha256[:12]}."
        )
    if loaded.run.key() != record.run.key():
        raise CheckpointError(f"{weights} says that it belongs to another run than record {record.id}.")
    return loaded


def _here(device: torch.device, record: Record, loaded: verbs.LoadedModel) -> Environment:
    return environment(
        device_name(str(device)),
        torch.get_num_threads(),
        record.run.recipe.precision,
        [*loaded.code, code_of(record.run, "evaluation")],
    )


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


__all__ = ["attacked_again", "attacked_thoroughly", "examples_to_file", "re_evaluate", "retrain", "try_examples"]
