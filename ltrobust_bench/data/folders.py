"""Folders of image files: Tiny-ImageNet as distributed, and anyone's own folder with one subfolder per class."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np

from ltrobust_bench.data.copies import Pictures, copies
from ltrobust_bench.data.pictures import About, decoding, read_picture
from ltrobust_bench.data.sources import Source
from ltrobust_bench.errors import DataError
from ltrobust_bench.reading import read_text

SHARE = Fraction(1, 5)
"""Of the smallest class; as many images of every class become the test set of a folder without ``test/``."""
PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
}
"""Names of subfolders, in any case, that are parts of the data and no classes."""
NO_CLASS = {"__MACOSX", "@eaDir"}
"""Folders that systems leave beside people's files."""
READ = (".jpg", ".jpeg", ".jfif", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp", ".gif")
PICTURES = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".psd", ".dng", ".cr2", ".nef", ".arw", ".raw")
"""Endings of pictures that are not read; other files are nobody's loss."""
FEW = 20
"""Test images of a class below which its accuracy is hardly a number."""
MOST = 5_000_000
"""Files of a class; with more, it is not a folder of images that was named."""
NAMED = 10
"""Files that are named where many cannot be read."""
WORDS = 50_000_000
"""Bytes of a list that is distributed with Tiny-ImageNet."""
Samples = list[tuple[str, int]]


def image_folder(folder: Path, size: int, share: Fraction = SHARE, fold: int = 1) -> Source:
    """A folder of images with its own imbalance.

    Either ``train/`` and ``test/`` (else ``val/``) with one subfolder per class, or one subfolder per class; then the
    same number of each class, a ``share`` of the smallest, drawn with numpy seed 0, is the test set. Images become RGB
    (of a moving one the first; what is partly transparent is laid on white), their shorter side is scaled to ``size``
    (antialiased), and the middle is cut out. Hidden files, and what systems leave beside people's files, are passed
    over. What was done, and what looks wrong, is in the source's ``notes`` and ``warnings``.

    Args:
        folder: where it lies.
        size: pixels on each side.
        share: of the smallest class, to be tested on.
        fold: which of the 1/``share`` disjoint test sets, from 1.

    Raises:
        DataError: if there are no two classes, a class is empty or too small, or an image cannot be read.
    """
    if folder.resolve().parent == folder.resolve():
        raise DataError(f"{folder} is the whole file system; name the folder that holds your images.")
    ignored: Counter[str] = Counter()
    parts = _parts(folder)
    if "test" in parts:
        if (share, fold) != (SHARE, 1):
            raise DataError(
                f"{folder} has its own test images in {parts['test'].name}/; ask for no other share or fold."
            )
        names = _classes(parts["train"])
        _same_classes(parts["train"], names, parts["test"])
        train, test = (_samples(parts[part], names, ignored) for part in ("train", "test"))
        unused = f"; {parts['unused'].name}/ is not used" if "unused" in parts else ""
        used = f"trained on {parts['train'].name}/, tested on {parts['test'].name}/{unused}"
    else:
        root = parts.get("train", folder)
        names = _classes(root)
        train, test = _hold_out(root, names, _samples(root, names, ignored), share, fold)
        of = "a fifth" if share == SHARE else f"{float(share):.0%}"
        which = "" if fold == 1 else f", part {fold}"
        used = f"{len(test) // len(names)} images of each class ({of} of the smallest{which}) are the test set"
        used += f", the rest of {root.name}/ is trained on" if root != folder else ""
        beside = _beside(folder)
        used += f"; {beside} lies beside it: {folder.parent} takes both" if beside else ""
    _count_beside(folder, parts, names, ignored)
    digest = hashlib.sha256()
    images, pictures = _read([path for path, _ in (*train, *test)], size)
    contents = [picture.sha256 for picture in pictures]
    read: list[Pictures] = []
    for part, own in ((train, slice(len(train))), (test, slice(len(train), None))):
        files = [Path(path).relative_to(folder).as_posix() for path, _ in part]
        for file, content in zip(files, contents[own], strict=True):
            digest.update(os.fsencode(f"{file}\n{content}\n"))
        digest.update(b"\n")
        read.append(
            Pictures(images[own], np.asarray([label for _, label in part], dtype=np.int64), files, contents[own])
        )
    notes = [f"{len(names)} classes in {folder}: {used}", _scaled(pictures, size), *_passed_over(ignored)]
    warnings = [*copies(*read), *_few(names, test, own="test" in parts)]
    unread = ", ".join(f"{n} {ending}" for ending, n in sorted(ignored.items()) if ending in PICTURES)
    if unread:
        warnings.insert(0, f"pictures that cannot be read were left out, which changes the classes' sizes: {unread}")
    trained, tested = read
    return Source(
        trained.images,
        trained.labels,
        tested.images,
        tested.labels,
        tuple(names),
        sha256=digest.hexdigest(),
        notes=tuple(notes),
        warnings=tuple(warnings),
    )


def tiny_imagenet(folder: Path) -> Source:
    """Tiny-ImageNet-200 as distributed; class order is that of the WordNet ids, the validation set is the test set."""
    root = folder / "tiny-imagenet-200"
    ids = sorted(read_text(root / "wnids.txt").split())
    names = dict(line.split("\t", 1) for line in read_text(root / "words.txt", WORDS).splitlines() if "\t" in line)
    train = _samples(root / "train", ids, Counter())
    annotations = [line.split("\t") for line in read_text(root / "val" / "val_annotations.txt", WORDS).splitlines()]
    test = [(str(root / "val" / "images" / file), ids.index(label)) for file, label, *_ in annotations]
    parts = [
        (_read([path for path, _ in part], 64)[0], np.asarray([label for _, label in part], dtype=np.int64))
        for part in (train, test)
    ]
    return Source(*parts[0], *parts[1], tuple(names.get(i, i).split(",")[0] for i in ids))


def _subfolders(root: Path) -> list[Path]:
    """Folders in a folder that a person put there, by name."""
    return sorted((p for p in root.iterdir() if p.is_dir() and not _passed(p.name)), key=lambda path: path.name)


def _passed(name: str) -> bool:
    return name.startswith(".") or name in NO_CLASS


def _parts(folder: Path) -> dict[str, Path]:
    """The folders ``train``, ``test`` (else what is for validation) and ``unused``; empty where classes lie side by
    side."""
    found: dict[str, Path] = {}
    subfolders = _subfolders(folder)
    for path in subfolders:
        part = PARTS.get(path.name.lower())
        if part is None:
            continue
        if part in found:
            raise DataError(f"{folder} has both {found[part].name}/ and {path.name}/; keep one of them.")
        found[part] = path
    if len(found) < len(subfolders) or not found:
        return {}  # classes, or a mixture that `_classes` refuses
    if "train" not in found:
        raise DataError(f"{folder} has {', '.join(p.name + '/' for p in found.values())} and no train/; add it.")
    if "val" in found:
        found["unused" if "test" in found else "test"] = found.pop("val")
    return found


def _beside(folder: Path) -> str:
    """The test images beside a folder of training images that was named alone; empty if it is none, or alone."""
    if PARTS.get(folder.name.lower()) != "train":
        return ""
    return next((f"{p.name}/" for p in _subfolders(folder.parent) if PARTS.get(p.name.lower()) in ("test", "val")), "")


def _classes(root: Path) -> list[str]:
    names = [path.name for path in _subfolders(root)]
    parts = [name for name in names if name.lower() in PARTS]
    if parts:
        raise DataError(
            f"{root} has a folder {parts[0]!r} beside others: name the parts of the data train/ and test/, or give the "
            f"class another name."
        )
    if len(names) < 2:
        hint = ""
        if len(names) == 1 and len(_subfolders(root / names[0])) > 1:
            hint = f" {root / names[0]} has several: name that."
        elif not names and any(path.suffix.lower() in READ for path in root.iterdir()):
            hint = f" Images lie in it directly: name the folder above, {root.resolve().parent}."
        raise DataError(
            f"{root} has {len(names)} class folders; expected one subfolder of images for each class.{hint}"
        )
    return names


def _same_classes(train: Path, names: Sequence[str], test: Path) -> None:
    there = _classes(test)
    if there != names:
        lacks, more = sorted(set(names) - set(there)), sorted(set(there) - set(names))
        said = [f"{what} {', '.join(map(repr, of[:5]))}" for what, of in (("lacks", lacks), ("adds", more)) if of]
        raise DataError(f"{test} must have the same class folders as {train}: it {' and '.join(said)}.")


def _samples(root: Path, names: Sequence[str], ignored: Counter[str]) -> Samples:
    """(path, label) of every image, sorted by label and path; what else lies there is counted by its ending."""
    found = []
    for label, name in enumerate(names):
        own, unread = _images_below(root / name), Counter[str]()
        kept = [path for path in own if _ending(path) in READ]
        unread.update(_ending(path) for path in own if _ending(path) not in READ)
        if not kept:
            what = f" but {', '.join(f'{n} {ending}' for ending, n in unread.most_common(3))}" if unread else ""
            raise DataError(
                f"{root / name} holds no image{what} ({', '.join(READ)} are read); remove the folder or fill it."
            )
        ignored.update(unread)
        found += [(path, label) for path in kept]
    files = {os.path.realpath(path) for path, _ in found}
    if len(files) < len(found):
        raise DataError(f"{root} holds links that repeat {len(found) - len(files)} images; remove them.")
    return found


def _images_below(folder: Path) -> list[str]:
    """Every file below a folder, sorted, links followed, but those that are hidden or that systems leave."""
    found: list[str] = []
    seen = set[tuple[int, int]]()
    for place, folders, files in os.walk(folder, onerror=_cannot_be_read, followlinks=True):
        status = os.stat(place)  # noqa: PTH116 - there may be very many
        if (status.st_dev, status.st_ino) in seen:
            raise DataError(f"{folder} holds links that repeat a folder, {place}; remove them.")
        seen.add((status.st_dev, status.st_ino))
        folders[:] = [name for name in folders if not _passed(name)]
        found += [os.path.join(place, name) for name in files if not _passed(name)]  # noqa: PTH118 - many of them
        if len(found) > MOST:
            raise DataError(f"{folder} holds more than {MOST:,} files; name the folder that holds your images alone.")
    return sorted(found)


def pictures_below(folder: Path) -> list[Path]:
    """Every picture below a folder, sorted, as folders of images are read: what is hidden or no picture is passed over.

    Raises:
        DataError: if there is none.
    """
    found = [Path(path) for path in _images_below(folder) if _ending(path) in READ]
    if not found:
        raise DataError(f"{folder} holds no image ({', '.join(READ)} are read).")
    return found


def _cannot_be_read(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be read ({error.strerror}); repair it or remove it.")


def _ending(path: str) -> str:
    return Path(path).suffix.lower() or "without ending"


def _count_beside(folder: Path, parts: dict[str, Path], names: Sequence[str], ignored: Counter[str]) -> None:
    """Count images that lie in no class folder."""
    for root in dict.fromkeys([folder, *parts.values()]):
        ignored["in no class folder"] += sum(p.suffix.lower() in READ and not _passed(p.name) for p in root.iterdir())


def _passed_over(ignored: Counter[str]) -> list[str]:
    """A line on what was not read, if there is anything."""
    said = ", ".join(f"{n} {what}" for what, n in ignored.most_common() if n)
    return [f"{sum(ignored.values())} files were left out: {said}"] if said else []


def _scaled(pictures: Sequence[About], size: int) -> str:
    """A line on what was done to the images' size and opacity."""
    through = sum(picture.see_through for picture in pictures)
    white = f"; {through} that are partly transparent are laid on white" if through else ""
    return _sized([picture.size for picture in pictures], size) + white


def _sized(sizes: Sequence[tuple[int, int]], size: int) -> str:
    width, height = (int(v) for v in np.median(np.asarray(sizes), axis=0))
    if set(sizes) == {(size, size)}:
        return f"images are {size}x{size} as they are"
    one = " each" if len(set(sizes)) == 1 else " (median)"
    square = "" if all(w == h for w, h in sizes) else ", the middle cut out"
    small = f"; @{min(width, height, 64)} keeps more of them" if min(width, height) > 2 * size and size < 64 else ""
    return f"images scaled from {width}x{height}{one} to {size}x{size}{square}{small}"


def _few(names: Sequence[str], test: Samples, own: bool) -> list[str]:
    counts = np.bincount([label for _, label in test], minlength=len(names))
    least = int(counts.min())
    if least >= FEW:
        return []
    who = "each class" if counts.max() == least else f"class {names[int(counts.argmin())]!r}"
    remedy = "add some" if own else "test on more of each class with --test-share, or on all parts in turn with --folds"
    return [f"{who} has {least} test images, and one image is {100 / least:.3g} points of its accuracy: {remedy}"]


def _hold_out(
    folder: Path, names: Sequence[str], samples: Samples, share: Fraction, fold: int
) -> tuple[Samples, Samples]:
    labels = np.asarray([label for _, label in samples])
    counts = np.bincount(labels)
    smallest, few = int(counts.min()), names[int(counts.argmin())]
    if smallest < 2:
        raise DataError(
            f"class {few!r} in {folder} has a single image: none would be left to test; add images, or make train/ "
            f"and test/ folders."
        )
    kept = max(1, int(share * smallest))
    if fold * kept > smallest:
        raise DataError(f"class {few!r} in {folder} has {smallest} images: that is too few for {1 / share} folds.")
    generator = np.random.RandomState(0)  # noqa: NPY002 - stable over numpy versions
    drawn = [generator.permutation(np.flatnonzero(labels == label)) for label in range(len(names))]
    held_out = set(np.concatenate([own[(fold - 1) * kept : fold * kept] for own in drawn]).tolist())
    train = [sample for i, sample in enumerate(samples) if i not in held_out]
    return train, [samples[i] for i in sorted(held_out)]


def _read(paths: Sequence[str], size: int) -> tuple[np.ndarray, list[About]]:
    """Images, uint8 [N, 3, size, size], and what else is known of each."""
    refused: dict[str, DataError] = {}

    def read(path: str) -> tuple[np.ndarray, About] | None:
        try:
            return read_picture(path, size)
        except DataError as error:
            refused[path] = error
            return None

    with decoding(), ThreadPoolExecutor() as pool:
        try:
            found = [one for one in pool.map(read, paths) if one is not None]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if refused:
        raise _refusal(refused)
    pixels, about = zip(*found, strict=True)
    return np.ascontiguousarray(pixels, dtype=np.uint8), list(about)


def _refusal(refused: dict[str, DataError]) -> DataError:
    """All that cannot be read at once, so that nobody repairs one and learns of the next."""
    first, *others = sorted(refused)
    if not others:
        return refused[first]
    named, more = ", ".join(others[:NAMED]), len(others) - NAMED
    unnamed = f" and {more} others" if more > 0 else ""
    return DataError(f"{refused[first]} Refused as well, {len(others)}: {named}{unnamed}.")
