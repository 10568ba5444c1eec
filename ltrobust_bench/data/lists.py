"""Data sets given as two lists of image files, in the literature's format: a line has a path and a label."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ltrobust_bench.data.pictures import decoding, read_picture
from ltrobust_bench.data.sources import Source
from ltrobust_bench.errors import DataError
from ltrobust_bench.reading import read_bytes
from ltrobust_bench.terms import printable

LONGEST = 200_000_000
"""Bytes of a list."""
HELD = 2**31
"""Bytes of images, as they are scaled, up to which a set is held in memory; of a larger one they are read from their
files whenever they are needed."""


class Files:
    """Images in files, read when they are asked for: like an array of them, uint8 [N, 3, size, size]."""

    dtype = np.dtype(np.uint8)

    def __init__(self, paths: Sequence[str], size: int) -> None:
        self.paths, self.size = paths, size

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """That the array would have."""
        return len(self.paths), 3, self.size, self.size

    def __len__(self) -> int:
        return len(self.paths)

    def of(self, indices: np.ndarray) -> Files:
        """Some of them, unread."""
        return Files([self.paths[i] for i in indices.tolist()], self.size)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """Some of them, read; as many threads as there are cores decode them.

        Raises:
            DataError: for a file that cannot be read.
        """
        with decoding(), ThreadPoolExecutor(os.cpu_count()) as pool:
            found = list(pool.map(lambda i: read_picture(self.paths[i], self.size)[0], np.asarray(indices).tolist()))
        return np.ascontiguousarray(found, dtype=np.uint8).reshape(len(found), *self.shape[1:])


@dataclass(frozen=True)
class Published:
    """What is published of a data set's lists.

    Attributes:
        train, test: lines of each.
        classes: C.
        extremes: images of the largest and of the smallest class; None: not known here.
        sha256: of the file of training images, and who published it; None: not known here.
    """

    train: int
    test: int
    classes: int
    extremes: tuple[int, int] | None = None
    sha256: tuple[str, str] | None = None


PUBLISHED = {
    # Liu et al., CVPR 2019. The test list is ImageNet's validation set.
    "imagenet-lt": Published(
        train=115_846,
        test=50_000,
        classes=1000,
        extremes=(1280, 5),
        sha256=("efdbdad4f050237c310b2f354cf95a8b1d7c8d57a63c4ea4bb6bf2bcb012f37f", "TensorFlow Datasets, imagenet_lt"),
    ),
    # Van Horn et al., CVPR 2018, the competition of that year; the test list is its validation set.
    "inaturalist18": Published(train=437_513, test=24_426, classes=8142),
}


def listed(root: Path | None, size: int, train: str, test: str, published: str = "") -> Source:
    """Images that two lists name.

    Each line is ``relative/path label``; labels are 0 to C - 1. Images are scaled as folders of images are.

    Args:
        root: what the paths are relative to; the lists' own paths are, too, unless they are absolute.
        size: pixels on each side.
        train, test: the lists.
        published: name in ``PUBLISHED`` of what they must be.

    Raises:
        DataError: for lists that are none, or not the published ones, and for missing images.
    """
    if root is None or not train:
        raise DataError("a data set of lists is named by them: --dataset lists:TRAIN,TEST@224 --data-dir IMAGES.")
    lists = [root / name for name in (train, test)]
    for path in lists:
        if published and not path.is_file():
            raise FileNotFoundError(f"there is no {path.name}")  # whoever reads a data set says what is expected
    paths, labels, digests = zip(*map(_read_list, lists), strict=True)
    classes = max(int(part.max()) for part in labels) + 1
    for path, part in zip(lists, labels, strict=True):
        missing = np.flatnonzero(np.bincount(part, minlength=classes) == 0)
        if len(missing):
            raise DataError(f"{path} has no image of {len(missing)} of {classes} classes, the first: {missing[0]}.")
    notes, warnings = _as_published(published, lists, labels, digests, classes)
    both = set(paths[0]) & set(paths[1])
    if both:
        warnings.append(f"{len(both)} images are in both lists, the first: {printable(min(both))}; take them out")
    train_files, test_files = (Files(_found(root, part, path), size) for path, part in zip(lists, paths, strict=True))
    notes += [_cost(train_files, test_files), f"{classes} classes; which files there are is known by the lists alone"]
    sha256 = hashlib.sha256("".join(digests).encode()).hexdigest()
    held = [images if _large(images) else images[np.arange(len(images))] for images in (train_files, test_files)]
    names = _names(paths[0], labels[0], classes)
    return Source(held[0], labels[0], held[1], labels[1], names, sha256=sha256, notes=notes, warnings=warnings)  # type: ignore[arg-type]


def _large(images: Files) -> bool:
    return int(np.prod(images.shape)) > HELD


def _cost(train: Files, test: Files) -> str:
    """A line on what memory has to hold."""
    parts = {"training": train, "test": test}
    said = [f"{len(part):,} {what} images ({np.prod(part.shape) / 1e9:.1f} GB)" for what, part in parts.items()]
    streams = [f"{what} images" for what, part in parts.items() if _large(part)]
    how = f"{' and '.join(streams)} are read from their files whenever they are needed" if streams else "held in memory"
    return f"{' and '.join(said)} of {train.size}x{train.size} pixels: {how}"


def _read_list(path: Path) -> tuple[list[str], np.ndarray, str]:
    """Paths and labels of a list, and the file's SHA-256."""
    try:
        content = read_bytes(path, LONGEST)
        lines = content.decode("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as a list of images ({getattr(error, 'strerror', None) or error})."
        ) from None
    paths, labels = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        if not name or not label.isascii() or not label.isdigit() or len(label) > 6:
            raise DataError(f"{path}, line {number}: {printable(line)!r} is not `relative/path label`.")
        pure = PurePosixPath(name.strip())
        if pure.is_absolute() or ".." in pure.parts:
            raise DataError(f"{path}, line {number}: {printable(name)} is not below the folder of the images.")
        paths.append(str(pure))
        labels.append(int(label))
    if not paths:
        raise DataError(f"{path} names no image.")
    return paths, np.asarray(labels, dtype=np.int64), hashlib.sha256(content).hexdigest()


def _as_published(
    name: str, lists: Sequence[Path], labels: Sequence[np.ndarray], digests: Sequence[str], classes: int
) -> tuple[list[str], list[str]]:
    """Notes and warnings on lists that must be the published ones.

    Raises:
        DataError: if their numbers are not.
    """
    if not name:
        return [], []
    known, counts = PUBLISHED[name], np.bincount(labels[0])
    found = (len(labels[0]), len(labels[1]), classes, (int(counts.max()), int(counts.min())))
    wanted = (known.train, known.test, known.classes, known.extremes or found[3])
    if found != wanted:
        raise DataError(
            f"{lists[0]} and {lists[1].name} are not the lists of {name}: they have {_numbers(found)}, published are "
            f"{_numbers(wanted)}. As a data set of your own: --dataset lists:{lists[0].name},{lists[1].name}@224."
        )
    if known.sha256 is None:
        return [f"{name}: numbers are as published; nobody's digest of its lists is known here"], []
    if digests[0] != known.sha256[0]:
        said = f"{lists[0]} has SHA-256 {digests[0][:12]}, published is {known.sha256[0][:12]} ({known.sha256[1]})"
        return [], [f"{said}: its numbers fit, its lines are not known to"]
    said = f"{lists[0].name} is the published list ({known.sha256[1]}); of {lists[1].name} only the numbers are known"
    return [said], []


def _numbers(found: tuple[int, int, int, tuple[int, int]]) -> str:
    train, test, classes, (most, least) = found
    return f"{train:,} training and {test:,} test images of {classes:,} classes ({most} to {least})"


def _found(root: Path, names: Sequence[str], listing: Path) -> list[str]:
    """Where images are; one that is not where the list says may be in a folder of its class there, as ImageNet's
    validation images often are."""
    there: dict[str, dict[str, str]] = {}

    def within(folder: str) -> dict[str, str]:
        """Files of a folder of ``root``, and of its folders, by name."""
        if folder not in there:
            found: dict[str, str] = {}
            for place, folders, files in os.walk(root / folder):
                if place != str(root / folder):
                    folders.clear()
                for file in files:
                    found.setdefault(file, os.path.join(place, file))  # noqa: PTH118 - there may be very many
            there[folder] = found
        return there[folder]

    paths, missing = [], []
    for name in names:
        folder, _, file = name.rpartition("/")
        path = within(folder).get(file)
        paths.append(path or "")
        missing += [] if path else [name]
    if missing:
        raise DataError(
            f"{len(missing):,} of {len(names):,} images of {listing} are not in {root}, the first: "
            f"{printable(missing[0])}; name the folder that the paths are relative to with --data-dir."
        )
    return paths


def _names(paths: Sequence[str], labels: np.ndarray, classes: int) -> tuple[str, ...]:
    """Classes by the folder that their training images are in, where each has one of its own; else by label."""
    folders: list[set[str]] = [set() for _ in range(classes)]
    for path, label in zip(paths, labels.tolist(), strict=True):
        folders[label].add(PurePosixPath(path).parent.name)
    names = [next(iter(own)) for own in folders]
    own_folders = all(len(own) == 1 for own in folders) and len(set(names)) == classes and all(names)
    return tuple(names) if own_folders else tuple(map(str, range(classes)))
