"""Splits, the embedded data set, and the loader."""

from __future__ import annotations

import tomllib

import numpy as np
import pytest
import torch

from ltrobust_bench.api import shuffle
from ltrobust_bench.data import known
from ltrobust_bench.data.loader import DeviceData, TrainLoader, crop_and_flip
from ltrobust_bench.data.registry import datasets
from ltrobust_bench.data.sources import load_source
from ltrobust_bench.data.split import (
    first_of_each_class,
    long_tailed_counts,
    long_tailed_indices,
    make_split,
    proportional_counts,
)
from ltrobust_bench.errors import DataError, UsageError
from ltrobust_bench.plan.task import make_task
from ltrobust_bench.protocol import load_protocol
from ltrobust_bench.randomness import derive_seed

TABLE = {  # methods.md 10.1
    10: [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500],
    20: [5000, 3584, 2569, 1842, 1320, 946, 678, 486, 348, 250],
    50: [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100],
    100: [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50],
}

DIGITS_HOLDOUT = ("ee0634c5498fd3fe", "468c16f0facf63c8")
CIFAR10_HOLDOUT = ("876881b7a344a1b1", "4eebe864e49d9518")
"""First digits of the digests of what is trained on and what is held out, at the usual imbalance ratio."""


@pytest.mark.parametrize("ratio", TABLE)
def test_cifar10_counts(ratio):
    assert long_tailed_counts(5000, 10, ratio) == TABLE[ratio]


@pytest.mark.parametrize(("ratio", "total"), [(10, 19573), (50, 12608), (100, 10847)])
def test_cifar100_totals(ratio, total):
    counts = long_tailed_counts(500, 100, ratio)
    assert sum(counts) == total
    assert counts == sorted(counts, reverse=True)


def test_step_profile_is_two_levels():
    assert long_tailed_counts(100, 5, 10, "step") == [100, 100, 10, 10, 10]


def test_ratio_one_is_balanced():
    assert long_tailed_counts(7, 3, 1) == [7, 7, 7]


@pytest.mark.parametrize(("ratio", "says"), [(0.02, "mean 50"), (-3, "at least 1"), (float("nan"), "at least 1")])
def test_impossible_ratio(ratio, says):
    with pytest.raises(UsageError, match=says):
        long_tailed_counts(100, 10, ratio)


def test_empty_classes_are_refused():
    with pytest.raises(UsageError, match="1 of 10 classes empty.*at most 100"):
        long_tailed_counts(100, 10, 101)


def test_subsets_are_nested_over_ratios():
    labels = np.repeat(np.arange(4), 100)
    small, large = (set(long_tailed_indices(labels, long_tailed_counts(100, 4, r)).tolist()) for r in (50, 5))
    assert small < large


def test_a_test_limit_takes_the_first_of_each_class():
    labels = np.repeat(np.arange(3), [10, 6, 2])
    chosen = first_of_each_class(labels, np.arange(18)[::-1].copy(), 12)
    assert [list(labels[chosen]).count(c) for c in range(3)] == [4, 4, 2]
    assert chosen[0] == 9  # in the order given
    with pytest.raises(UsageError, match="use 3 or more"):
        first_of_each_class(labels, np.arange(18), 2)


@pytest.mark.parametrize("counts", [TABLE[50], TABLE[100], [124, 88, 63, 45, 32, 23, 16, 12, 8, 6], [40] * 7, [9, 1]])
def test_a_training_limit_keeps_the_proportions(counts):
    for limit in (len(counts), 50, 97, 1000, sum(counts) - 1, sum(counts)):
        if not len(counts) <= limit <= sum(counts):
            continue
        cut = proportional_counts(counts, limit)
        share = cut[0] / counts[0]
        assert sum(cut) <= limit and min(cut) >= 1
        assert all(
            new == 1 or share * old - 1 < new <= share * old + 1e-9 for new, old in zip(cut, counts, strict=True)
        )
        more = [max(1, old * (cut[0] + 1) // counts[0]) for old in counts]
        assert cut == counts or sum(more) > limit  # no larger share fits
    assert proportional_counts(counts, sum(counts)) == counts
    with pytest.raises(UsageError, match=f"use {len(counts)} or more"):
        proportional_counts(counts, len(counts) - 1)


def test_a_training_limit_takes_the_first_in_selection_order():
    source = load_source(datasets.get("digits-lt"))
    whole, cut = (make_split(source.train_labels, source.test_labels, 20, limit_train=n) for n in (None, 100))
    assert cut.train_counts == [30, 21, 15, 10, 7, 5, 3, 2, 1, 1]
    starts = np.cumsum([0, *whole.train_counts])
    wanted = [whole.train[start : start + n] for start, n in zip(starts, cut.train_counts, strict=False)]
    assert cut.train.tolist() == np.concatenate(wanted).tolist()


def check_holdout(source, ratio):
    """A tenth of each class of the draw, and the rest is trained on; returns the digests of both."""
    draw, split = (make_split(source.train_labels, source.test_labels, ratio, holdout=h) for h in (None, "val"))
    held, labels = split.held_out, source.train_labels
    assert sorted([*held, *split.train]) == sorted(draw.train) and not set(held) & set(split.train)
    assert split.test_counts == [max(1, n // 10) for n in draw.train_counts] == np.bincount(labels[held]).tolist()
    order = [draw.train.tolist().index(i) for i in held]
    assert order == sorted(order) and (np.diff(labels[held]) >= 0).all()
    again = make_split(source.train_labels, source.test_labels, ratio, holdout="val", limit_train=60)
    assert again.held_out.tolist() == held.tolist() and again.test_sha256 == split.test_sha256 != draw.test_sha256
    return split.train_sha256[:16], split.test_sha256[:16]


def test_a_holdout_is_a_tenth_of_each_class_of_the_draw():
    assert check_holdout(load_source(datasets.get("digits-lt")), 20) == DIGITS_HOLDOUT


def test_the_holdout_of_real_cifar10(cifar10_folder):
    source = load_source(datasets.get("cifar10-lt"), cifar10_folder)
    assert check_holdout(source, 50) == CIFAR10_HOLDOUT


def test_a_data_set_may_have_its_own_number_of_test_images():
    """A hundred classes of a hundred images would take ten times as long as ten."""
    protocol = load_protocol("smoke")
    own = protocol.datasets["digits-lt"].model_copy(update={"test_images_per_class": 3})
    fewer = protocol.model_copy(update={"datasets": protocol.datasets | {"digits-lt": own}})
    assert (fewer.test_images("digits-lt"), fewer.test_images("cifar10-lt")) == (3, 10)
    assert fewer.digest("cifar10-lt") == protocol.digest("cifar10-lt")
    assert fewer.digest("digits-lt") != protocol.digest("digits-lt")


def test_a_class_of_one_image_has_none_to_hold_out():
    labels = np.repeat(np.arange(3), 100)
    with pytest.raises(UsageError, match="class 2 has 1 training image.*lower --imbalance-ratio"):
        make_split(labels, labels, 100, holdout="val")


def test_a_task_with_a_holdout_holds_no_test_image():
    whole, task = (make_task("digits-lt", holdout=holdout) for holdout in (None, "val"))
    test = {image.tobytes() for image in whole.source.test_images}
    train = {image.tobytes() for image in whole.source.train_images}
    seen = {image.tobytes() for image in task.source.test_images}
    assert seen <= train and not seen & test and len(task.source.test_images) == 39
    assert (
        task.source.test_labels[task.split.test].tolist() == np.repeat(np.arange(10), task.split.test_counts).tolist()
    )


def test_digits_split_is_held_out_and_balanced():
    source = load_source(datasets.get("digits-lt"))
    assert source.test_images.shape == (500, 1, 8, 8)
    assert np.bincount(source.test_labels).tolist() == [50] * 10
    split = make_split(source.train_labels, source.test_labels, 20)
    assert split.train_counts[0] == 124 and split.train_counts[-1] == 6
    train = {image.tobytes() for image in source.train_images}
    shared = sum(image.tobytes() in train for image in source.test_images)
    assert shared == 0
    # Ordered by (label, index).
    keys = list(zip(source.test_labels[split.test], split.test, strict=True))
    assert keys == sorted(keys)


def test_missing_folder_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"cifar-10-batches-py/.*ltbench data prepare cifar10-lt"):
        load_source(datasets.get("cifar10-lt"), tmp_path)
    with pytest.raises(DataError, match="there is no folder"):
        load_source(datasets.get("cifar10-lt"), tmp_path / "nowhere")


@pytest.mark.parametrize("classes", [9, 11])
def test_a_folder_with_other_classes_is_refused(tmp_path, classes):
    """Fashion-MNIST files of the right form with the wrong content."""
    import struct

    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    labels = np.arange(22, dtype=np.uint8) % classes
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, 22, 28, 28) + bytes(22 * 784))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, 22) + labels.tobytes())
    with pytest.raises(DataError, match="instead of all of 0 to 9"):
        load_source(datasets.get("fashion-mnist-lt"), tmp_path)
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"<html>")
    tmp_path.rename(tmp_path.with_name(f"again{classes}"))
    with pytest.raises(DataError, match="missing or damaged"):
        load_source(datasets.get("fashion-mnist-lt"), tmp_path.with_name(f"again{classes}"))


def test_crop_moves_each_image_by_its_own_offset():
    x = torch.arange(1, 65, dtype=torch.uint8).view(1, 1, 8, 8).expand(200, 1, 8, 8)
    offsets = torch.randint(0, 3, (2, 200), generator=torch.Generator().manual_seed(0))
    moved = crop_and_flip(x, offsets, torch.zeros(200, dtype=torch.bool), padding=1)
    padded = torch.nn.functional.pad(x[:1], (1, 1, 1, 1))
    windows = {padded[0, 0, i : i + 8, j : j + 8].numpy().tobytes() for i in range(3) for j in range(3)}
    seen = {image[0].numpy().tobytes() for image in moved}
    assert seen == windows
    for image, row, column in zip(moved, *offsets.tolist(), strict=True):
        assert torch.equal(image[0], padded[0, 0, row : row + 8, column : column + 8])


def test_only_the_drawn_images_are_mirrored():
    x = torch.arange(3 * 2 * 64, dtype=torch.uint8).view(3, 2, 8, 8)
    moved = crop_and_flip(x, torch.zeros(2, 3, dtype=torch.int64), torch.tensor([True, False, True]), padding=0)
    assert torch.equal(moved, torch.stack([x[0].flip(2), x[1], x[2].flip(2)]))


@pytest.mark.parametrize(("flip", "low", "high"), [(True, 140, 260), (False, 0, 0)])
def test_loader_flips_about_half_of_the_images_if_it_should(flip, low, high):
    images = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand(400, 1, 8, 8)
    data = DeviceData(images, torch.zeros(400, dtype=torch.int64))
    ((x, _, _),) = TrainLoader(data, shuffle, batch_size=400, steps=1, seed=0, padding=0, flip=flip).epoch(1)
    kept = ((x * 255).round() == images).flatten(1).all(1)
    assert low <= 400 - kept.sum() <= high


def loader(n=10, batch=4, steps=3, seed=0):
    data = DeviceData(torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 1, 8, 8), torch.arange(n))
    return TrainLoader(data, shuffle, batch_size=batch, steps=steps, seed=seed, padding=0, flip=False)


def test_epoch_has_every_image_once_and_differs_between_epochs():
    first, again, second = (torch.cat([y for _, y, _ in loader().epoch(e)]).tolist() for e in (1, 1, 2))
    assert sorted(first) == list(range(10))
    assert first == again != second


def test_images_and_labels_stay_together():
    for x, y, _ in loader().epoch(1):
        assert torch.equal((x[:, 0, 0, 0] * 255).round().long(), y)
        assert x.dtype == torch.float32 and x.max() <= 1


def test_streams_do_not_share_randomness():
    assert len({derive_seed(s, n, e) for s in range(3) for n in ("order", "augment") for e in range(3)}) == 18


@pytest.mark.parametrize(
    ("ratio", "in_order", "sorted_digest"),
    [
        (10, "a17d69f192b1cf6d", "448d422a25745cda"),
        (20, "fed8b23a7a778a40", "25b714f644c8081a"),
        (50, "d7edcfaf02772bee", "620184a2896675c8"),
        (100, "4bf45bff8878d278", "f7669c469c9ddf9a"),
    ],
)
def test_real_cifar10_indices_are_the_literatures(cifar10_folder, ratio, in_order, sorted_digest):
    source = load_source(datasets.get("cifar10-lt"), cifar10_folder)
    split = make_split(source.train_labels, source.test_labels, ratio)
    assert split.train_sha256.startswith(in_order)
    assert split.train_sha256_sorted.startswith(sorted_digest)
    assert split.train[:5].tolist() == [4030, 38518, 48266, 45556, 6312]
    assert split.train[5000:5003].tolist() == [6489, 3605, 5683]
    if ratio == 50:
        assert split.train[-3:].tolist() == [3600, 26209, 8658]


@pytest.mark.parametrize(
    ("ratio", "digest"), [(10, "b4fbf1bf0a7f3338"), (50, "561fa940cc7d3551"), (100, "e0d58a4d2700c460")]
)
def test_real_cifar100_indices_are_the_literatures(cifar100_folder, ratio, digest):
    """The official code's for ratio 10 (tests/golden/splits.json); the smaller sets are parts of the larger ones."""
    source = load_source(datasets.get("cifar100-lt"), cifar100_folder)
    split = make_split(source.train_labels, source.test_labels, ratio)
    assert split.train_sha256.startswith(digest)
    assert split.train[:5].tolist() == [9470, 27272, 30172, 43691, 45171]
    largest = make_split(source.train_labels, source.test_labels, 10)
    assert largest.train_sha256_sorted.startswith("d0262356bfc4aa11") and set(split.train) <= set(largest.train)
    assert largest.train[-5:].tolist() == [9257, 1549, 40115, 46972, 35149]


@pytest.mark.parametrize("dataset", ["cifar10-lt", "cifar10-lt-perm", "cifar100-lt"])
def test_what_is_listed_of_real_images_is_what_their_labels_give(request, dataset):
    folder = request.getfixturevalue("cifar100_folder" if "100" in dataset else "cifar10_folder")
    facts = tomllib.loads(known.TABLE.read_text())[dataset]
    source = load_source(datasets.get(dataset), folder)
    order = facts.get("class_order")
    for count, digest in facts["test_first"].items():
        split = make_split(source.train_labels, source.test_labels, 10, test_per_class=int(count), class_order=order)
        found = known.known_split(dataset, 10.0, "exp", order and tuple(order), int(count))
        assert (found.test_counts, found.test_sha256) == (split.test_counts, split.test_sha256)
        assert digest == found.test_sha256
    for name in ("ltr-linf-v1", "ltr-linf-lite-v1", "smoke"):
        assert load_protocol(name).terms(dataset).class_order == order
    listed = [(profile, float(ratio)) for profile in ("exp", "step", "balanced") for ratio in facts[profile]]
    assert len(listed) == 12
    for profile, ratio in listed:
        split = make_split(source.train_labels, source.test_labels, ratio, profile, class_order=order)
        found = known.known_split(dataset, ratio, profile, None if order is None else tuple(order))
        assert (found.train_counts, found.test_counts) == (split.train_counts, split.test_counts)
        assert (found.train_sha256, found.test_sha256) == (split.train_sha256, split.test_sha256)


def test_digits_are_what_scikit_learn_reads():
    from sklearn.datasets import load_digits

    theirs, ours = load_digits(), load_source(datasets.get("digits-lt"))
    images = np.concatenate([ours.train_images, ours.test_images])[:, 0]
    labels = np.concatenate([ours.train_labels, ours.test_labels])
    expected = np.round(theirs.images * (255 / 16)).astype(np.uint8)
    by = lambda i, y: sorted(zip(y.tolist(), (image.tobytes() for image in i), strict=True))  # noqa: E731
    assert by(images, labels) == by(expected, theirs.target)
