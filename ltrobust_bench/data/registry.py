"""Which data sets there are. Light: the images are read by ``sources.py`` when they are needed."""

from __future__ import annotations

from dataclasses import dataclass

from ltrobust_bench.registry import Entry, Registry


@dataclass(frozen=True)
class DatasetSpec:
    """A data set that a long-tailed training set is cut from.

    Attributes:
        name: what users type.
        help: one line.
        loader: ``"module:function"`` taking the data folder (or None) and returning a
            :class:`~ltrobust_bench.data.sources.Source`.
        classes: number of classes C.
        shape: channels, height, width.
        test_per_class: images of each class in the balanced test set.
        folder: tree expected below the data folder; empty if the data set comes with the package.
        prepare: ``"module:function"`` that downloads it into a folder; empty if there is nothing to fetch.
    """

    name: str
    help: str
    loader: str
    classes: int
    shape: tuple[int, int, int]
    test_per_class: int
    folder: str = ""
    prepare: str = ""


_SOURCES = "ltrobust_bench.data.sources"
_BUILT_IN = [
    DatasetSpec(
        "digits-lt",
        "handwritten digits of scikit-learn (8x8, grey); ships with the package",
        f"{_SOURCES}:digits",
        classes=10,
        shape=(1, 8, 8),
        test_per_class=50,
    ),
    DatasetSpec(
        "cifar10-lt",
        "CIFAR-10 (32x32, colour), the literature's long-tailed subset",
        f"{_SOURCES}:cifar10",
        classes=10,
        shape=(3, 32, 32),
        test_per_class=1000,
        folder="cifar-10-batches-py/ with data_batch_1 .. data_batch_5, test_batch, batches.meta",
        prepare="CIFAR10",
    ),
    DatasetSpec(
        "cifar100-lt",
        "CIFAR-100 (32x32, colour), the literature's long-tailed subset",
        f"{_SOURCES}:cifar100",
        classes=100,
        shape=(3, 32, 32),
        test_per_class=100,
        folder="cifar-100-python/ with train, test, meta",
        prepare="CIFAR100",
    ),
    DatasetSpec(
        "fashion-mnist-lt",
        "Fashion-MNIST (28x28, grey), cut with the same rule",
        f"{_SOURCES}:fashion_mnist",
        classes=10,
        shape=(1, 28, 28),
        test_per_class=1000,
        folder="FashionMNIST/raw/ with the four idx files (*-ubyte)",
        prepare="FashionMNIST",
    ),
]

datasets: Registry[DatasetSpec] = Registry(
    "dataset",
    discover=lambda: [Entry(s.name, s, s.help, "ltrobust_bench/data/registry.py") for s in _BUILT_IN],
    entry_point_group="ltrobust_bench.datasets",
)
