"""One file with the images of a split: for machines that cannot download a data set.

A zip whose members are stored as they are: ``manifest.json``, the labels of the full training and test set (the split
is cut from them), which images are held, and the images as mosaics in lossless WebP. A reader takes nothing on trust:
members are exactly those that the manifest names, none is compressed or larger than stated, and every byte and every
pixel is covered by a SHA-256. Version 2 holds a part of the test images, version 1 all of them.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from ltrobust_bench._version import __version__
from ltrobust_bench.data.sources import Source
from ltrobust_bench.data.split import LongTailedSplit, index_sha256, long_tailed_counts, long_tailed_indices
from ltrobust_bench.errors import DataError, UsageError
from ltrobust_bench.files import atomic_path
from ltrobust_bench.protocol.spec import IMAGE_FOLDER, Profile
from ltrobust_bench.terms import Strict, first_problem, printable

MANIFEST = "manifest.json"
LIMIT = 16 * 2**20
"""Bytes that a manifest may have."""
COLUMNS, ROWS = 20, 20
"""Images in a mosaic: WebP finds more in common in many images than in one."""
WEBP_LIMIT = 16383
"""Pixels on each side of a WebP image."""
LARGEST = 80_000_000
"""Pixels of a mosaic; Pillow warns of larger pictures."""
FREE, UNFOLDS = 2**28, 50
"""Bytes of pixels that any archive may unfold into, and times its own size that a larger one may."""
Text = Annotated[str, Field(max_length=255, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=1, le=100_000_000)]


class Member(Strict):
    """One file of the archive."""

    bytes: int = Field(ge=0)
    sha256: Sha256


class Manifest(Strict):
    """What an archive holds."""

    format: Literal["ltbench-data"]
    version: Literal[1, 2]
    dataset: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=100)]
    made_by: Text
    imbalance_ratio: float = Field(ge=1)
    profile: Profile
    class_names: list[Text] = Field(min_length=2, max_length=32767)
    shape: tuple[Literal[1, 3], Annotated[int, Field(ge=1, le=512)], Annotated[int, Field(ge=1, le=512)]] = Field(
        strict=False
    )
    train_labels: Count = Field(description="images of the full training set")
    train_images: Count = Field(description="training images held")
    test_images: Count = Field(description="test images held")
    test_labels: Count | None = Field(default=None, description="images of the full test set, where a part is held")
    test_index_sha256: Sha256 | None = Field(
        default=None, description="of the test images held, by label and index, where they are a part"
    )
    train_index_sha256: Sha256 = Field(description="of the split it was packed for, class by class")
    pixels_sha256: Sha256 = Field(description="of all held training images and all held test images, uint8, in order")
    source_sha256: Sha256 | None
    members: dict[str, Member]

    def mosaics(self, part: str) -> list[tuple[str, int]]:
        """Names of a part's mosaics ('train' or 'test') and how many images each holds."""
        per, total = _per_mosaic(self.shape), getattr(self, f"{part}_images")
        return [(f"{part}-{i:05d}.webp", min(per, total - start)) for i, start in enumerate(range(0, total, per))]

    def expected(self) -> list[str]:
        """Names of all members but the manifest, in order."""
        images = [name for part in ("train", "test") for name, _ in self.mosaics(part)]
        held = [] if self.test_labels is None else ["test-held.bin"]
        return ["train-labels.bin", "train-held.bin", "test-labels.bin", *held, *images]

    @model_validator(mode="after")
    def _parts(self) -> Manifest:
        partial = self.test_labels is not None
        if (self.version == 2, self.test_index_sha256 is not None) != (partial, partial):
            raise ValueError("version 2, and no other, states test_labels and test_index_sha256")
        return self


def write(
    path: Path,
    dataset: str,
    source: Source,
    split: LongTailedSplit,
    *,
    imbalance_ratio: float,
    profile: str,
    tested: np.ndarray | None = None,
) -> Manifest:
    """Pack the training images of a split, and the test set or a part of it, into ``path``.

    The bytes depend on the images and the version of this package only.

    Args:
        dataset: name of the data set in the registry.
        imbalance_ratio, profile: imbalance ratio and profile of the split, for the reader's information.
        tested: indices of the test images to hold, ordered by (label, index); None: all.
    """
    held = np.sort(split.train)
    part = tested is not None and len(tested) < len(source.test_labels)
    held_test = np.arange(len(source.test_labels)) if tested is None else np.sort(tested)
    train, test = source.train_pixels(held), source.test_pixels(held_test)
    shape = tuple(map(int, test.shape[1:]))
    blobs = {
        "train-labels.bin": source.train_labels.astype("<u2").tobytes(),
        "train-held.bin": held.astype("<u4").tobytes(),
        "test-labels.bin": source.test_labels.astype("<u2").tobytes(),
    }
    if part:
        blobs["test-held.bin"] = held_test.astype("<u4").tobytes()
    for name, images in (("train", train), ("test", test)):
        per = _per_mosaic(shape)
        for i, start in enumerate(range(0, len(images), per)):
            blobs[f"{name}-{i:05d}.webp"] = _mosaic(images[start : start + per])
    fields: dict[str, Any] = {
        "format": "ltbench-data",
        "version": 2 if part else 1,
        "dataset": dataset,
        "made_by": f"ltrobust-bench {__version__}",
        "imbalance_ratio": imbalance_ratio,
        "profile": profile,
        "class_names": list(source.class_names),
        "shape": shape,
        "train_labels": len(source.train_labels),
        "train_images": len(train),
        "test_images": len(test),
        "test_labels": len(source.test_labels) if part else None,
        "test_index_sha256": index_sha256(tested) if part and tested is not None else None,
        "train_index_sha256": split.train_sha256,
        "pixels_sha256": _pixels(train, test),
        "source_sha256": source.sha256,
        "members": {name: Member(bytes=len(b), sha256=hashlib.sha256(b).hexdigest()) for name, b in blobs.items()},
    }
    try:
        manifest = Manifest(**fields)
    except ValidationError as error:
        raise UsageError(f"{dataset} cannot be packed: {first_problem(error)}") from None
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as file:
        stated = manifest.model_dump_json(indent=1, exclude=None if part else {"test_labels", "test_index_sha256"})
        for name, blob in {MANIFEST: stated.encode(), **blobs}.items():
            file.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), blob)
    return manifest


def dataset_in(path: Path) -> str:
    """Name of the data set that an archive holds.

    Raises:
        DataError: if it is no archive of ours.
    """
    with _opened(path) as file:
        return _manifest(path, file).dataset


def read(path: Path, dataset: str | None = None) -> Source:
    """The data set in an archive.

    Args:
        dataset: what it should hold; None: whatever it does.

    Raises:
        DataError: naming what is wrong with it.
    """
    status = path.stat()
    source, held = _read(path, status.st_size, status.st_mtime_ns)
    if dataset is not None and held != dataset:
        raise DataError(f"{path} holds {held}, not {dataset}.")
    return source


@lru_cache(maxsize=2)
def _read(path: Path, size: int, changed: int) -> tuple[Source, str]:
    """Remembered while the file stays as it is, so that several runs in one process read it once."""
    with _opened(path) as file:
        manifest = _manifest(path, file)
        names = [info.filename for info in file.infolist()]
        wanted = manifest.expected()
        if names != [MANIFEST, *wanted] or list(manifest.members) != wanted:
            odd = [n for n in names if n not in wanted and n != MANIFEST] or [n for n in wanted if n not in names]
            raise _damaged(path, f"it has other members than a {manifest.dataset} archive ({odd[:1] or 'their order'})")
        _affordable(path, manifest, size)
        train_labels, test_labels = (
            _integers(path, file, manifest, f"{part}-labels.bin", "<u2", count)
            for part, count in (
                ("train", manifest.train_labels),
                ("test", manifest.test_labels or manifest.test_images),
            )
        )
        held = _held(path, file, manifest, "train", len(train_labels))
        held_test = None if manifest.test_labels is None else _held(path, file, manifest, "test", len(test_labels))
        images = {
            part: np.concatenate([_tiles(path, file, manifest, name, n) for name, n in manifest.mosaics(part)])
            for part in ("train", "test")
        }
    if manifest.source_sha256 is None and manifest.dataset.startswith(f"{IMAGE_FOLDER}-"):
        raise _damaged(path, "a folder's images without the digest of its files")
    if _pixels(images["train"], images["test"]) != manifest.pixels_sha256:
        raise _damaged(path, "the pixels are not those that were packed")
    labels = len(manifest.class_names)
    if max(train_labels.max(), test_labels.max()) >= labels:
        raise _damaged(path, f"a label is beyond its {labels} classes")
    source = Source(
        train_images=images["train"],
        train_labels=train_labels,
        test_images=images["test"],
        test_labels=test_labels,
        class_names=tuple(manifest.class_names),
        held=held,
        sha256=manifest.source_sha256,
        held_test=held_test,
    )
    return source, manifest.dataset


def verify(path: Path) -> Manifest:
    """Read everything in an archive, and see that it holds the split that it says.

    Raises:
        DataError: naming what is wrong with it.
    """
    source, _ = _read.__wrapped__(path, path.stat().st_size, 0)  # from the disk, whatever was read before
    with _opened(path) as file:
        manifest = _manifest(path, file)
    counts = np.bincount(source.train_labels[source.held], minlength=len(source.class_names)).tolist()
    if index_sha256(long_tailed_indices(source.train_labels, counts)) != manifest.train_index_sha256:
        raise _damaged(path, "it holds another split than its manifest says")
    if source.held_test is not None:
        by_label = source.held_test[np.argsort(source.test_labels[source.held_test], kind="stable")]
        if index_sha256(by_label) != manifest.test_index_sha256:
            raise _damaged(path, "it holds other test images than its manifest says")
    available, ratio = np.bincount(source.train_labels), manifest.imbalance_ratio
    if manifest.profile == "own":
        stated = available.tolist() if ratio == round(available.max() / available.min(), 2) else []
    else:
        try:
            stated = long_tailed_counts(int(available.min()), len(counts), ratio, manifest.profile)
        except UsageError:
            stated = []
    if sorted(stated) != sorted(counts):
        raise _damaged(path, f"its images are not those of imbalance ratio {ratio:g}, profile {manifest.profile}")
    return manifest


def _affordable(path: Path, manifest: Manifest, size: int) -> None:
    """Refuse a small file that says it unfolds into very many pixels, before any is decoded.

    Raises:
        DataError: saying how many.
    """
    pixels = (manifest.train_images + manifest.test_images) * int(np.prod(manifest.shape))
    if pixels > max(FREE, UNFOLDS * size):
        raise _damaged(path, f"{size} bytes that would unfold into {pixels / 1e6:.0f} MB of pixels")


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        file = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, struct.error, ValueError, EOFError, NotImplementedError) as error:
        raise _damaged(path, f"not a zip file: {error}") from None
    try:
        _check_members(path, file)
    except DataError:
        file.close()
        raise
    return file


def _check_members(path: Path, file: zipfile.ZipFile) -> None:
    total = 0
    for info in file.infolist():
        # Names are compared with the expected ones later; here is what no reader should ever be handed.
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
            raise _damaged(path, f"member {info.filename!r} is compressed or encrypted; ours are stored as they are")
        total += info.file_size
    if total > path.stat().st_size:
        raise _damaged(path, "its members are together larger than the file")
    names = [info.filename for info in file.infolist()]
    if len(set(names)) < len(names):
        raise _damaged(path, "a member is there twice")


def _manifest(path: Path, file: zipfile.ZipFile) -> Manifest:
    if MANIFEST not in file.namelist() or file.getinfo(MANIFEST).file_size > LIMIT:
        raise _damaged(path, f"no archive of `ltbench data pack`: it has no {MANIFEST}")
    try:
        return Manifest.model_validate_json(_stored(path, file, MANIFEST))
    except ValidationError as error:
        raise _damaged(path, f"{MANIFEST}: {first_problem(error)}") from None


def _stored(path: Path, file: zipfile.ZipFile, name: str) -> bytes:
    try:
        return file.read(name)
    except (OSError, zipfile.BadZipFile, struct.error, ValueError, EOFError, NotImplementedError) as error:
        raise _damaged(path, f"{name}: {error}") from None


def _member(path: Path, file: zipfile.ZipFile, manifest: Manifest, name: str) -> bytes:
    blob, stated = _stored(path, file, name), manifest.members[name]
    if len(blob) != stated.bytes or hashlib.sha256(blob).hexdigest() != stated.sha256:
        raise _damaged(path, f"{name} is not what the manifest says")
    return blob


def _integers(path: Path, file: zipfile.ZipFile, manifest: Manifest, name: str, kind: str, count: int) -> np.ndarray:
    blob = _member(path, file, manifest, name)
    if len(blob) != count * np.dtype(kind).itemsize:
        raise _damaged(path, f"{name} does not hold {count} numbers")
    return np.frombuffer(blob, dtype=kind).astype(np.int64)


def _held(path: Path, file: zipfile.ZipFile, manifest: Manifest, part: str, labels: int) -> np.ndarray:
    """Which images of a part ('train' or 'test') are held, of so many labels; ascending, int64."""
    name = f"{part}-held.bin"
    held = _integers(path, file, manifest, name, "<u4", getattr(manifest, f"{part}_images"))
    if held[-1] >= labels or (np.diff(held) <= 0).any():
        raise _damaged(path, f"{name} names images that cannot be")
    return held


def _tiles(path: Path, file: zipfile.ZipFile, manifest: Manifest, name: str, count: int) -> np.ndarray:
    """The images of one mosaic, uint8 [count, channels, height, width]."""
    from PIL import Image

    channels, height, width = manifest.shape
    columns, rows = _layout(count, manifest.shape)
    try:
        with Image.open(io.BytesIO(_member(path, file, manifest, name)), formats=["WEBP"]) as image:
            # The size is known before a pixel is decoded, so a small file cannot unfold into a huge picture.
            if image.size != (columns * width, rows * height) or getattr(image, "n_frames", 1) != 1:
                raise _damaged(path, f"{name} has {image.size[0]}x{image.size[1]} pixels")
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _damaged(path, f"{name} is no WebP image: {error}") from None
    tiled = pixels.reshape(rows, height, columns, width, 3).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(tiled.reshape(rows * columns, 3, height, width)[:count, :channels])


def _mosaic(images: np.ndarray) -> bytes:
    from PIL import Image

    count, channels, height, width = images.shape
    columns, rows = _layout(count, images.shape[1:])
    padded = np.zeros((rows * columns, 3, height, width), dtype=np.uint8)
    padded[:count] = images  # one channel is repeated: lossless WebP knows colour only, and packs equal channels well
    pixels = padded.reshape(rows, columns, 3, height, width).transpose(0, 3, 1, 4, 2)
    memory = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(pixels.reshape(rows * height, columns * width, 3)))
    picture.save(memory, "WEBP", lossless=True, quality=50, method=1)
    return memory.getvalue()


def _per_mosaic(shape: tuple[int, ...]) -> int:
    columns = min(COLUMNS, WEBP_LIMIT // shape[2])
    return columns * max(1, min(ROWS, WEBP_LIMIT // shape[1], LARGEST // (columns * shape[2] * shape[1])))


def _layout(count: int, shape: tuple[int, ...]) -> tuple[int, int]:
    """Columns and rows of a mosaic of ``count`` images."""
    columns = min(COLUMNS, WEBP_LIMIT // shape[2])
    return columns, -(-count // columns)


def _pixels(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"{path} is damaged or no data archive ({printable(what, 200)}); pack or copy it again.")
