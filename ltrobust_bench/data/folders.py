"""Folders of image files: Tiny-ImageNet as distributed, and anyone's own folder with one subfolder per class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ltrobust_bench.data.sources import Source
from ltrobust_bench.errors import DataError

TEST_SHARE = 0.2
"""Of the smallest class; as many images of every class become the test set of a folder without ``test/``."""
SPLIT_NAMES = {"train", "training", "test", "testing", "val", "valid", "validation"}
DEEP = ("I", "F")
"""First letter of the modes of images with more than 8 bits a channel."""
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
            digest.update(f"{Path(path).relative_to(folder).as_posix()}\n{content}\n".encode())
        digest.update(b"\n")
        parts.append((images, np.asarray([label for _, label in part], dtype=np.int64)))
    return Source(*parts[0], *parts[1], tuple(names), sha256=digest.hexdigest())


def tiny_imagenet(folder: Path) -> Source:
    """Tiny-ImageNet-200 as distributed; class order is that of the WordNet ids, the validation set is the test set."""
    root = folder / "tiny-imagenet-200"
    ids = sorted((root / "wnids.txt").read_text().split())
    names = dict(line.split("\t", 1) for line in (root / "words.txt").read_text().splitlines() if "\t" in line)
    train = _samples(root / "train", ids)
    annotations = [line.split("\t") for line in (root / "val" / "val_annotations.txt").read_text().splitlines()]
    test = [(str(root / "val" / "images" / file), ids.index(label)) for file, label, *_ in annotations]
    parts = [
        (_read([path for path, _ in part], 64)[0], np.asarray([label for _, label in part], dtype=np.int64))
        for part in (train, test)
    ]
    return Source(*parts[0], *parts[1], tuple(names.get(i, i).split(",")[0] for i in ids))


def _classes(root: Path) -> list[str]:
    names = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
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
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    found = make_dataset(str(root), {name: label for label, name in enumerate(names)}, IMG_EXTENSIONS, allow_empty=True)
    files = {os.path.realpath(path) for path, _ in found}
    if len(files) < len(found):
        raise DataError(f"{root} holds links that repeat {len(found) - len(files)} images; remove them.")
    counts = np.bincount([label for _, label in found], minlength=len(names))
    if not counts.all():
        raise DataError(
            f"{root / names[int(counts.argmin())]} holds no image ({', '.join(IMG_EXTENSIONS)}); remove the folder or "
            f"fill it."
        )
    return sorted(found, key=lambda sample: (sample[1], sample[0]))


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

    def one(path: str) -> tuple[np.ndarray, str]:
        from PIL import Image, ImageOps

        try:
            with Image.open(path) as image:
                if image.mode.startswith(DEEP):
                    raise DataError(f"{path} has more than 8 bits a channel ({image.mode}); convert it to 8 bits.")
                upright = ImageOps.exif_transpose(image).convert("RGB")
            square = ImageOps.fit(upright, (size, size), method=Image.Resampling.BILINEAR)
        except DataError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a damaged file makes of its reader
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(f"{path} cannot be read as an image ({reason}); repair it or remove it.") from None
        return np.asarray(square).transpose(2, 0, 1), hashlib.sha256(Path(path).read_bytes()).hexdigest()

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(one, paths))
    return np.ascontiguousarray([image for image, _ in found], dtype=np.uint8), [content for _, content in found]
