"""Folders of image files: Tiny-ImageNet as distributed, and anyone's own folder with one subfolder per class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ltrobust_bench.data.pictures import SUFFIXES, decoding, read_picture
from ltrobust_bench.data.sources import Source
from ltrobust_bench.errors import DataError
from ltrobust_bench.reading import read_text

TEST_SHARE = 0.2
"""Of the smallest class; as many images of every class become the test set of a folder without ``test/``."""
SPLIT_NAMES = {"train", "training", "test", "testing", "val", "valid", "validation"}
MOST = 5_000_000
"""Files and folders in a class that are looked through; with more, it is not a folder of images that was named."""
WORDS = 50_000_000
"""Bytes of a list that is distributed with Tiny-ImageNet."""
Samples = list[tuple[str, int]]


def image_folder(folder: Path, size: int) -> Source:
    """A folder of images with its own imbalance.

    Either ``train/`` and ``test/`` with one subfolder per class, or one subfolder per class; then the same number of
    each class, a fifth of the smallest, drawn with numpy seed 0, is the test set. Images become RGB, their shorter
    side is scaled to ``size`` (antialiased), and the middle is cut out.

    Args:
        folder: where it lies.
        size: pixels on each side.

    Raises:
        DataError: if there are no two classes, a class is empty or too small, or an image cannot be read.
    """
    if folder.resolve().parent == folder.resolve():
        raise DataError(f"{folder} is the whole file system; name the folder that holds your images.")
    train_root, test_root = folder / "train", folder / "test"
    if train_root.is_dir() and test_root.is_dir():
        names = _classes(train_root)
        if _classes(test_root) != names:
            raise DataError(f"{test_root} must have the same class folders as {train_root}.")
        train, test = _samples(train_root, names), _samples(test_root, names)
    else:
        names = _classes(folder)
        train, test = _hold_out(folder, names, _samples(folder, names))
    digest = hashlib.sha256()
    parts = []
    for part in (train, test):
        images, contents = _read([path for path, _ in part], size)
        for (path, _), content in zip(part, contents, strict=True):
            digest.update(os.fsencode(f"{Path(path).relative_to(folder).as_posix()}\n{content}\n"))
        digest.update(b"\n")
        parts.append((images, np.asarray([label for _, label in part], dtype=np.int64)))
    return Source(*parts[0], *parts[1], tuple(names), sha256=digest.hexdigest())


def tiny_imagenet(folder: Path) -> Source:
    """Tiny-ImageNet-200 as distributed; class order is that of the WordNet ids, the validation set is the test set."""
    root = folder / "tiny-imagenet-200"
    ids = sorted(read_text(root / "wnids.txt").split())
    names = dict(line.split("\t", 1) for line in read_text(root / "words.txt", WORDS).splitlines() if "\t" in line)
    train = _samples(root / "train", ids)
    annotations = [line.split("\t") for line in read_text(root / "val" / "val_annotations.txt", WORDS).splitlines()]
    test = [(str(root / "val" / "images" / file), ids.index(label)) for file, label, *_ in annotations]
    parts = [
        (_read([path for path, _ in part], 64)[0], np.asarray([label for _, label in part], dtype=np.int64))
        for part in (train, test)
    ]
    return Source(*parts[0], *parts[1], tuple(names.get(i, i).split(",")[0] for i in ids))


def _classes(root: Path) -> list[str]:
    names = sorted(p.name for p in root.iterdir() if p.is_dir() and not _is_litter(p.name))
    parts = [name for name in names if name.lower() in SPLIT_NAMES]
    if parts:
        raise DataError(
            f"{root} has a folder {parts[0]!r}: name the parts of the data train/ and test/, or give the class another "
            f"name."
        )
    if len(names) < 2:
        raise DataError(f"{root} has {len(names)} class folders; expected one subfolder of images for each class.")
    return names


def _samples(root: Path, names: Sequence[str]) -> Samples:
    """(path, label) of every image, sorted by label and path."""
    found: Samples = []
    for label, name in enumerate(names):
        pictures = sorted(_pictures(root / name))
        if not pictures:
            raise DataError(f"{root / name} holds no image ({', '.join(SUFFIXES)}); remove the folder or fill it.")
        found += [(path, label) for path in pictures]
    files = {os.path.realpath(path) for path, _ in found}
    if len(files) < len(found):
        raise DataError(f"{root} holds links that repeat {len(found) - len(files)} images; remove them.")
    return found


def _pictures(folder: Path) -> Iterator[str]:
    """Paths of the files below a folder that are called as pictures are, links followed, hidden ones left alone."""
    seen, entries = set[tuple[int, int]](), 0
    for place, folders, files in os.walk(folder, onerror=_cannot_be_read, followlinks=True):
        status = os.stat(place)  # noqa: PTH116 - there may be very many
        if (status.st_dev, status.st_ino) in seen:
            raise DataError(f"{folder} holds links that repeat a folder, {place}; remove them.")
        seen.add((status.st_dev, status.st_ino))
        entries += len(files) + len(folders)
        if entries > MOST:
            raise DataError(f"{folder} holds more than {MOST:,} files; name the folder that holds your images alone.")
        folders[:] = sorted(name for name in folders if not _is_litter(name))
        for name in files:
            if name.lower().endswith(SUFFIXES) and not _is_litter(name):
                yield os.path.join(place, name)  # noqa: PTH118


def _cannot_be_read(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be read ({error.strerror}); repair it or remove it.")


def _is_litter(name: str) -> bool:
    """Whether a file or folder is hidden, or is what macOS puts into zip files (``._x``, ``__MACOSX``)."""
    return name.startswith(".") or name == "__MACOSX"


def _hold_out(folder: Path, names: Sequence[str], samples: Samples) -> tuple[Samples, Samples]:
    labels = np.asarray([label for _, label in samples])
    smallest = int(np.bincount(labels).min())
    if smallest < 2:
        few = names[int(np.bincount(labels).argmin())]
        raise DataError(
            f"class {few!r} in {folder} has a single image: none would be left to test; add images, or make train/ "
            f"and test/ folders."
        )
    kept = max(1, int(TEST_SHARE * smallest))
    generator = np.random.RandomState(0)  # noqa: NPY002 - stable over numpy versions
    chosen = np.concatenate(
        [generator.permutation(np.flatnonzero(labels == label))[:kept] for label in range(len(names))]
    )
    held_out = set(chosen.tolist())
    train = [sample for i, sample in enumerate(samples) if i not in held_out]
    return train, [samples[i] for i in sorted(held_out)]


def _read(paths: Sequence[str], size: int) -> tuple[np.ndarray, list[str]]:
    """Images, uint8 [N, 3, size, size], and the SHA-256 of each file."""
    with decoding(), ThreadPoolExecutor() as pool:
        try:
            found = list(pool.map(lambda path: read_picture(path, size), paths))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # the first that cannot be read is enough
            raise
    return np.ascontiguousarray([image for image, _ in found], dtype=np.uint8), [content for _, content in found]
