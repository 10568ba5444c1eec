"""Reading images. A source is the full data set in memory as uint8; torchvision and scikit-learn do the reading."""

from __future__ import annotations

import contextlib
import io
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ltrobust_bench.data.registry import DatasetSpec, datasets
from ltrobust_bench.errors import DataError

DATA_VARIABLE = "LTBENCH_DATA"


@dataclass(frozen=True)
class Source:
    """A full data set.

    Attributes:
        train_images, test_images: uint8, shape [M, channels, height, width].
        train_labels, test_labels: int64, shape [M].
        class_names: one per label.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]


def load_source(spec: DatasetSpec, data_dir: Path | None = None) -> Source:
    """Read a data set.

    Args:
        data_dir: the folder that holds it; default: the environment variable ``LTBENCH_DATA``.

    Raises:
        DataError: if the folder is missing or damaged; the message says which tree is expected and which
            command fetches it.
    """
    module, _, function = spec.loader.partition(":")
    if not spec.folder:
        return _checked(spec, _loader(module, function)(None), "")
    folder = data_dir or (Path(os.environ[DATA_VARIABLE]) if os.environ.get(DATA_VARIABLE) else None)
    remedy = (
        f"expected {spec.folder} there; `ltbench data prepare {spec.name} --data-dir DIR` downloads it, "
        f"then pass --data-dir DIR or set {DATA_VARIABLE}=DIR."
    )
    if folder is None:
        raise DataError(f"{spec.name} needs a data folder and none was given: {remedy}")
    if not folder.is_dir():
        raise DataError(f"{spec.name}: there is no folder {folder}: {remedy}")
    try:
        source = _loader(module, function)(folder)
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes of its reader
        raise DataError(f"{spec.name} is missing or damaged in {folder} ({_line(error)}): {remedy}") from None
    return _checked(spec, source, remedy)


def _checked(spec: DatasetSpec, source: Source, remedy: str) -> Source:
    """``source`` if it is what the registry says the data set is.

    Raises:
        DataError: saying what was found instead.
    """
    for part, images, labels in (
        ("training", source.train_images, source.train_labels),
        ("test", source.test_images, source.test_labels),
    ):
        present = sorted(set(labels.tolist()))
        if images.shape[1:] != spec.shape or images.dtype != np.uint8 or len(images) != len(labels):
            found = f"{len(labels)} labels for {images.dtype} images of shape {images.shape}"
        elif present != list(range(spec.classes)):
            found = f"labels {present[:3]} to {present[-1:]} instead of all of 0 to {spec.classes - 1}"
        else:
            continue
        raise DataError(f"{spec.name} is not what it should be: the {part} set has {found}. {remedy}".strip())
    return source


def prepare(name: str, data_dir: Path) -> None:
    """Download a data set into ``data_dir`` through torchvision, which verifies each file's checksum.

    Raises:
        DataError: if the download fails.
    """
    spec = datasets.get(name)
    if not spec.prepare:
        return
    import torchvision

    try:
        for train in (True, False):
            getattr(torchvision.datasets, spec.prepare)(data_dir, train=train, download=True)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"could not download {name} into {data_dir} ({_line(error)}); without internet access put "
            f"{spec.folder} there by hand."
        ) from None


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@cache
def _loader(module: str, function: str):  # type: ignore[no-untyped-def]
    """A loader that remembers what it read: several runs in one process read a data set once."""
    from importlib import import_module

    return cache(getattr(import_module(module), function))


def digits(_: Path | None) -> Source:
    """The 1797 digits that come with scikit-learn; 50 of each class, drawn with numpy seed 0, are the test set."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = data.target.astype(np.int64)
    generator = np.random.RandomState(0)  # noqa: NPY002 - stable over numpy versions
    per_class = datasets.get("digits-lt").test_per_class
    test = np.concatenate([generator.permutation(np.flatnonzero(labels == c))[:per_class] for c in range(10)])
    test.sort()
    held_out = np.zeros(len(labels), dtype=bool)
    held_out[test] = True
    return Source(images[~held_out], labels[~held_out], images[held_out], labels[held_out], tuple(map(str, range(10))))


def cifar10(folder: Path) -> Source:
    """CIFAR-10 through torchvision, which checks the files' md5 sums."""
    return _torchvision_cifar("CIFAR10", folder)


def cifar100(folder: Path) -> Source:
    """CIFAR-100 through torchvision, which checks the files' md5 sums."""
    return _torchvision_cifar("CIFAR100", folder)


def _torchvision_cifar(name: str, folder: Path) -> Source:
    import torchvision

    with contextlib.redirect_stdout(io.StringIO()):
        parts = [getattr(torchvision.datasets, name)(folder, train=train, download=False) for train in (True, False)]
    arrays = [
        (np.ascontiguousarray(p.data.transpose(0, 3, 1, 2)), np.asarray(p.targets, dtype=np.int64)) for p in parts
    ]
    return Source(*arrays[0], *arrays[1], tuple(parts[0].classes))


def fashion_mnist(folder: Path) -> Source:
    """Fashion-MNIST through torchvision."""
    import torchvision

    parts = [torchvision.datasets.FashionMNIST(folder, train=train, download=False) for train in (True, False)]
    arrays = [(p.data.numpy()[:, None], p.targets.numpy().astype(np.int64)) for p in parts]
    return Source(*arrays[0], *arrays[1], tuple(parts[0].classes))
