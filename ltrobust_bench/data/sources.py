"""Reading images. A source is a data set in memory as uint8; torchvision reads the CIFARs, scikit-learn has digits."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ltrobust_bench.data.registry import SESSION, DatasetSpec, datasets
from ltrobust_bench.errors import DataError, one_line

DATA_VARIABLE = "LTBENCH_DATA"
DIGITS_TEST_PER_CLASS = 50


@dataclass(frozen=True)
class Source:
    """A data set, of which an archive may hold a part of the images.

    Attributes:
        train_images, test_images: uint8, shape [K, channels, height, width], those that are held.
        train_labels, test_labels: int64, shape [M]; of the *full* data set.
        class_names: one per label.
        held: indices of the training images that are held, ascending, int64, shape [K]; None: all.
        sha256: identity of a data set that no registry describes, hex.
        held_test: as ``held``, of the test images.
        notes: how it was read, where that is not the data set's own: lines for people.
        warnings: what looks wrong about it, a line each.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    held: np.ndarray | None = None
    sha256: str | None = None
    held_test: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def streams(self) -> bool:
        """Whether its training images are read from their files when they are needed, because memory should not hold
        them (:class:`ltrobust_bench.data.lists.Files`)."""
        return not isinstance(self.train_images, np.ndarray)

    def train_pixels(self, indices: np.ndarray) -> np.ndarray:
        """Training images by their index in the full training set, uint8, shape [len(indices), ...].

        Raises:
            DataError: if some are not held.
        """
        return self.train_images[self.places(indices)]

    def test_pixels(self, indices: np.ndarray) -> np.ndarray:
        """Test images by their index in the full test set, uint8, shape [len(indices), ...].

        Raises:
            DataError: if some are not held.
        """
        return self.test_images[self.test_places(indices)]

    def tested_on(self, indices: np.ndarray) -> Source:
        """The same training set with some of its images in place of the test set.

        Args:
            indices: of the full training set, ordered by label.

        Raises:
            DataError: if some are not held.
        """
        pixels, labels = self.train_pixels(indices), self.train_labels[indices]
        return replace(self, test_images=pixels, test_labels=labels, held_test=None)

    def places(self, indices: np.ndarray) -> np.ndarray:
        """Where in ``train_images`` the images with these indices of the full training set are.

        Raises:
            DataError: if some are not held.
        """
        remedy = "this split needs; pack one for this imbalance ratio and profile, or name the data folder."
        return _places(self.held, indices, "training", remedy)

    def test_places(self, indices: np.ndarray) -> np.ndarray:
        """Where in ``test_images`` the images with these indices of the full test set are.

        Raises:
            DataError: if some are not held.
        """
        remedy = "are to be tested; add --limit-test, pack one without it or with more, or name the data folder."
        return _places(self.held_test, indices, "test", remedy)


def _places(held: np.ndarray | None, indices: np.ndarray, part: str, remedy: str) -> np.ndarray:
    """Where images with these indices of a full set are among those that are held, ascending; None: all are."""
    if held is None:
        return indices
    places = np.searchsorted(held, indices)
    missing = int((held[np.minimum(places, len(held) - 1)] != indices).sum())
    if missing:
        raise DataError(
            f"this archive holds {len(held)} {part} images and lacks {missing} of the {len(indices)} that {remedy}"
        )
    return places


def load_source(spec: DatasetSpec, data_dir: Path | str | None = None) -> Source:
    """Read a data set.

    Args:
        data_dir: the folder that holds it, or an archive of ``ltbench data pack``; default: the environment variable
            ``LTBENCH_DATA``. A data set that comes with the package is read from an archive only if it is its own.

    Raises:
        DataError: if folder or archive is missing or damaged; the message says which tree is expected and which
            command fetches it.
    """
    from ltrobust_bench.data import archive

    place = data_place(spec, data_dir)
    # os.path takes a path that is too long for the system as missing; pathlib raises.
    if place is not None and os.path.isfile(place) and (spec.folder or archive.dataset_in(place) == spec.name):  # noqa: PTH113
        return _checked(spec, archive.read(place, spec.name), "")
    if not spec.folder:
        place, remedy = None, ""
    elif place is None:
        raise DataError(f"{spec.name} needs a data folder and none was given: {spec.remedy}")
    elif not os.path.isdir(place):  # noqa: PTH112
        raise DataError(f"{spec.name}: there is no folder {place}: {spec.remedy}")
    else:
        remedy = spec.remedy
    try:
        # What was read is remembered by its place, which `data` is not: somebody may change the folder he is in.
        there = None if place is None else Path(os.path.abspath(place))  # noqa: PTH100 - keeps links
        source = _loader(spec.loader)(there, *spec.arguments)
        return _identified(spec, _checked(spec, source, remedy))
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes of its reader, or a stranger's reader does
        what = f"is missing or damaged in {place}" if spec.folder else "cannot be read"
        reader = getattr(spec.loader, "__name__", spec.loader)
        raise DataError(f"{spec.name} {what} ({_line(error)}): {remedy or reader}") from None


def _identified(spec: DatasetSpec, source: Source) -> Source:
    """A data set of this session with a digest of its pixels and labels: its name alone does not say what it holds."""
    if spec.name not in datasets or datasets.entry(spec.name).origin != SESSION:
        return source
    digest = hashlib.sha256()
    for array in (source.train_images, source.train_labels, source.test_images, source.test_labels):
        digest.update(np.ascontiguousarray(array).data)
    return replace(source, sha256=digest.hexdigest())


def data_place(spec: DatasetSpec, data_dir: Path | str | None) -> Path | None:
    """The folder or archive that a data set is looked for in; None: none was named.

    Where a folder in the data set's own tree was named (``data/cifar-10-batches-py``), the one above is meant.
    """
    named = data_dir or os.environ.get(DATA_VARIABLE)
    if not named:
        return None
    place = Path(os.path.expanduser(named))  # noqa: PTH111 - pathlib raises for strangers
    tree = Path(spec.folder.split(" ")[0]).parts if spec.classes is not None else ()
    for depth in range(len(tree), 0, -1):
        if place.parts[-depth:] == tree[:depth] and not (place / tree[0]).exists():
            return Path(*place.parts[:-depth])
    return place


def _checked(spec: DatasetSpec, source: Source, remedy: str) -> Source:
    """``source`` if it is what the registry says the data set is; names of classes are made printable.

    Raises:
        DataError: saying what was found instead.
    """
    classes = spec.classes or len(source.class_names)
    for part, images, labels, held in (
        ("training", source.train_images, source.train_labels, source.held),
        ("test", source.test_images, source.test_labels, source.held_test),
    ):
        present = sorted(set(labels.tolist()))
        expected = len(labels) if held is None else len(held)
        if images.shape[1:] != spec.shape or images.dtype != np.uint8 or len(images) != expected:
            found = f"{expected} labels for {images.dtype} images of shape {images.shape}"
        elif present != list(range(classes)):
            found = f"labels {present[:3]} to {present[-1:]} instead of all of 0 to {classes - 1}"
        else:
            continue
        raise DataError(f"{spec.name} is not what it should be: the {part} set has {found}. {remedy}".strip())
    return replace(source, class_names=tuple(one_line(str(name)) for name in source.class_names))


def prepare(name: str, data_dir: Path) -> None:
    """Download a data set into ``data_dir`` through torchvision, which verifies each file's checksum.

    Raises:
        DataError: if the download fails.
    """
    spec = datasets.get(name)
    if not spec.folder:
        return
    if not spec.prepare:
        raise DataError(f"{name} cannot be downloaded by this command: {spec.remedy}")
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
def _loader(loader: str | Callable[..., Source]) -> Callable[..., Source]:
    """A loader that remembers what it read: several runs in one process read a data set once."""
    if callable(loader):
        return cache(loader)
    from importlib import import_module

    module, _, function = loader.partition(":")
    return cache(getattr(import_module(module), function))


def digits(_: Path | None) -> Source:
    """The 1797 digits that come with scikit-learn; 50 of each class, drawn with numpy seed 0, are the test set."""
    table = np.loadtxt(_digits_file(), delimiter=",")
    images = np.round(table[:, :-1].reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    labels = table[:, -1].astype(np.int64)
    generator = np.random.RandomState(0)  # noqa: NPY002 - stable over numpy versions
    kept = DIGITS_TEST_PER_CLASS
    test = np.concatenate([generator.permutation(np.flatnonzero(labels == c))[:kept] for c in range(10)])
    test.sort()
    held_out = np.zeros(len(labels), dtype=bool)
    held_out[test] = True
    return Source(images[~held_out], labels[~held_out], images[held_out], labels[held_out], tuple(map(str, range(10))))


def _digits_file() -> Path:
    """What ``sklearn.datasets.load_digits`` reads: importing the library takes longer than a short training."""
    library = find_spec("sklearn")
    assert library is not None and library.submodule_search_locations is not None
    return Path(library.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"


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
