"""Long-tailed splits: how many images each class keeps, and which.

The subset is the literature's (LDAM convention; RoBal, REAT and AT-BSL use it): numpy's legacy generator
seeded with 0 shuffles each class's indices in turn, and the first n_c are kept. It does not depend on the
training seed. The sets are nested over imbalance ratios.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ltrobust_bench.errors import UsageError

SUBSET_SEED = 0
HELD_OUT = 10
"""One image of so many is held out of each class, and at least one."""


def long_tailed_counts(n_max: int, classes: int, imbalance_ratio: float, profile: str = "exp") -> list[int]:
    """Training images per class rank, largest class first.

    ``exp``: n_r = int(n_max * IR ** (-r / (C - 1))). ``step``: the first half of the classes keeps n_max, the
    rest int(n_max / IR). ``balanced``: as many images in all as ``exp`` keeps, N // C of each class.

    Args:
        n_max: images of the largest class.
        classes: number of classes C.
        imbalance_ratio: largest over smallest class, at least 1.
        profile: ``exp``, ``step`` or ``balanced``.

    Raises:
        UsageError: for an impossible ratio, an unknown profile, or a class that would be left empty.
    """
    if not (imbalance_ratio >= 1 and np.isfinite(imbalance_ratio)):
        raise UsageError(
            f"imbalance ratio {imbalance_ratio:g} is impossible: it is the largest class over the smallest, "
            f"so at least 1 (papers that write 0.02 mean 50)."
        )
    # The ratio's inverse to the power rank / (C - 1), as the literature computes it: other orders of the
    # same operations truncate differently.
    smallest = 1.0 / imbalance_ratio
    if profile in ("exp", "balanced"):
        counts = [int(n_max * smallest ** (rank / max(classes - 1.0, 1.0))) for rank in range(classes)]
    elif profile == "step":
        counts = [n_max if rank < classes // 2 else int(n_max * smallest) for rank in range(classes)]
    else:
        raise UsageError(f"unknown profile {profile!r}: use exp, step, balanced or own.")
    if min(counts) < 1:
        empty = sum(c < 1 for c in counts)
        raise UsageError(
            f"imbalance ratio {imbalance_ratio:g} leaves {empty} of {classes} classes empty: the largest class "
            f"has {n_max} images, so the ratio can be at most {n_max}."
        )
    return [sum(counts) // classes] * classes if profile == "balanced" else counts


def long_tailed_indices(labels: np.ndarray, counts: list[int]) -> np.ndarray:
    """Indices kept, class by class in label order and in selection order within a class, int64, shape [N].

    Args:
        labels: label of each image of the full training set, shape [M].
        counts: images to keep per *label*.

    Raises:
        UsageError: if a class has fewer images than it should keep.
    """
    generator = np.random.RandomState(SUBSET_SEED)  # noqa: NPY002 - the literature's generator
    kept = []
    for label, count in enumerate(counts):
        of_class = np.flatnonzero(labels == label)
        if len(of_class) < count:
            raise UsageError(f"class {label} has {len(of_class)} images, the split wants {count}.")
        generator.shuffle(of_class)
        kept.append(of_class[:count])
    return np.concatenate(kept).astype(np.int64)


def index_sha256(indices: np.ndarray) -> str:
    """SHA-256 (hex) of indices as consecutive little-endian int64."""
    return hashlib.sha256(np.ascontiguousarray(indices, dtype="<i8").tobytes()).hexdigest()


def first_of_each_class(labels: np.ndarray, indices: np.ndarray, limit: int | None) -> np.ndarray:
    """The first ``limit`` // C of each class among ``indices``, in their order; all of them if None.

    Raises:
        UsageError: if less than one image per class would be left.
    """
    if limit is None:
        return indices
    classes = int(labels.max()) + 1
    each = limit // classes
    if each < 1:
        raise UsageError(f"a limit of {limit} images leaves none for each of {classes} classes; use {classes} or more.")
    return first_so_many(labels, indices, [each] * classes)


def proportional_counts(counts: Sequence[int], limit: int) -> list[int]:
    """Class sizes that keep the proportions of ``counts`` and add up to ``limit`` or just below.

    The largest class keeps m images, the others int(n_c * m / n_max) and at least one, with the largest m that fits. So
    classes of one size stay so.

    Args:
        counts: images per class, each at least 1.
        limit: images in all.

    Raises:
        UsageError: if less than one image per class would be left.

    Example: ``proportional_counts([100, 40, 10], 75)`` is ``[50, 20, 5]``.
    """
    if limit < len(counts):
        raise UsageError(
            f"a limit of {limit} images leaves none for each of {len(counts)} classes; use {len(counts)} or more."
        )
    largest = max(counts)

    def cut(kept: int) -> list[int]:
        return [max(1, count * kept // largest) for count in counts]

    return cut(bisect_right(range(1, largest + 1), limit, key=lambda kept: sum(cut(kept))))


def first_so_many(labels: np.ndarray, indices: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """The first ``counts[label]`` of each class among ``indices``, class by class, in their order."""
    own = labels[indices]
    return np.concatenate([indices[own == label][:count] for label, count in enumerate(counts)])


def hold_out(labels: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is left to train on, and what is held out: the last tenth of each class in the order of ``indices``,
    rounded down, and at least one image.

    Args:
        labels: of the full training set, shape [M].
        indices: of the images of a split, class by class, shape [N].

    Raises:
        UsageError: for a class of a single image, which can not be trained on and held out.
    """
    counts = np.bincount(labels[indices], minlength=int(labels.max()) + 1)
    if counts.min() < 2:
        raise UsageError(
            f"class {int(counts.argmin())} has {counts.min()} training image: none can be held out of it; take a lower "
            f"--imbalance-ratio."
        )
    kept = first_so_many(labels, indices, [n - max(1, n // HELD_OUT) for n in counts.tolist()])
    return kept, indices[~np.isin(indices, kept)]


@dataclass(frozen=True)
class LongTailedSplit:
    """Which images are trained on and which are tested on.

    Attributes:
        train: indices into the full training set, class by class, selection order, shape [N].
        test: indices into the test set, ordered by (label, index), shape [T]; with a holdout its images stand for the
            test set.
        train_counts: training images per label.
        test_counts: test images per label.
        held_out: indices into the full training set of the images that are tested on instead of the test set, class by
            class, shape [T]; None: the test set it is.
    """

    train: np.ndarray
    test: np.ndarray
    train_counts: list[int]
    test_counts: list[int]
    held_out: np.ndarray | None = None

    @cached_property
    def train_sha256(self) -> str:
        """SHA-256 of the training indices in selection order."""
        return index_sha256(self.train)

    @cached_property
    def train_sha256_sorted(self) -> str:
        """SHA-256 of the sorted training indices."""
        return index_sha256(np.sort(self.train))

    @cached_property
    def test_sha256(self) -> str:
        """SHA-256 of the indices of what is tested on."""
        return index_sha256(self.test if self.held_out is None else self.held_out)


def make_split(
    train_labels: np.ndarray,
    test_labels: np.ndarray,
    imbalance_ratio: float | None,
    profile: str = "exp",
    *,
    class_order: Sequence[int] | None = None,
    test_per_class: int | None = None,
    limit_train: int | None = None,
    limit_test: int | None = None,
    holdout: str | None = None,
) -> LongTailedSplit:
    """The split of a data set.

    Class rank is label order, class 0 is the largest (the literature's convention), unless ``class_order`` says
    otherwise.

    Args:
        train_labels: labels of the full training set, shape [M].
        test_labels: labels of the test set, shape [T].
        imbalance_ratio: largest over smallest class; None with profile ``own``.
        profile: ``exp``, ``step`` or ``balanced``, see :func:`long_tailed_counts`; ``own``: every image there is.
        class_order: labels from the largest class to the smallest; None: label order.
        test_per_class: first so many test images of each class (a protocol's choice); None: all.
        limit_train: so many training images or just below, in the same proportions, the first of each class (a reduced
            run), see :func:`proportional_counts`; None: all.
        limit_test: first limit // C test images of each class (a reduced run); None: all.
        holdout: ``val``: a tenth of each class, see :func:`hold_out`, is tested on instead of the test set, and is the
            same whatever the limits; None: the test set.

    Raises:
        UsageError: see :func:`long_tailed_counts`, :func:`hold_out`.
    """
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    available = np.bincount(train_labels, minlength=classes)
    if profile == "own":
        if imbalance_ratio is not None:
            raise UsageError("profile own keeps the data set's own imbalance: leave the ratio out, or use profile exp.")
        counts = available.tolist()
    else:
        if imbalance_ratio is None:
            raise UsageError(f"profile {profile} needs an imbalance ratio: add --imbalance-ratio, for example 10.")
        if class_order is not None and sorted(class_order) != list(range(classes)):
            raise UsageError(f"class_order must name each of {classes} labels once, got {list(class_order)}.")
        by_rank = long_tailed_counts(int(available.min()), classes, imbalance_ratio, profile)
        counts = [by_rank[rank] for rank in np.argsort(range(classes) if class_order is None else class_order)]
    train = long_tailed_indices(train_labels, counts)
    held_out = None
    if holdout is None:
        test = np.argsort(test_labels, kind="stable").astype(np.int64)
        for limit in (None if test_per_class is None else test_per_class * classes, limit_test):
            test = first_of_each_class(test_labels, test, limit)
        tested = test_labels[test]
    else:
        train, held_out = hold_out(train_labels, train)
        held_out = first_of_each_class(train_labels, held_out, limit_test)
        test, tested = np.arange(len(held_out)), train_labels[held_out]
    if limit_train is not None and limit_train < len(train):
        kept = np.bincount(train_labels[train], minlength=classes).tolist()
        train = first_so_many(train_labels, train, proportional_counts(kept, limit_train))
    return LongTailedSplit(
        train=train,
        test=test,
        train_counts=np.bincount(train_labels[train], minlength=classes).tolist(),
        test_counts=np.bincount(tested, minlength=classes).tolist(),
        held_out=held_out,
    )
