"""Extra training data: images beyond a split, declared in a file. Importing this does not import torch.

A declaration is a TOML file beside the images that it speaks of; ``ltbench data declare`` writes it::

    # generated.toml
    kind = "generated"                 # real, generated or pseudo-labelled
    saw = "split"                      # what of the data set they, their generator or labeller come from
    maker = "DDPM, 50k steps"          # generator, labeller, or where real images are from
    share = 0.3                        # of each batch
    file = "generated.npz"             # or an archive of `ltbench data pack`
    sha256 = "..."                     # of images and labels

``saw`` is ``nothing``, ``split`` (the long-tailed training images alone), ``balanced`` (the full training set, so that
they carry what the cut took from the tail) or ``unknown``. All of it but the file's name is part of the run's key.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
from pydantic import Field, ValidationError

from ltrobust_bench.data import archive
from ltrobust_bench.data.sources import DATA_VARIABLE, Source
from ltrobust_bench.errors import DataError, UsageError
from ltrobust_bench.files import beside_records, write_text
from ltrobust_bench.reading import plain_file, read_arrays, read_toml
from ltrobust_bench.terms import Strict, first_problem, printable

Kind = Literal["real", "generated", "pseudo-labelled"]
Saw = Literal["nothing", "split", "balanced", "unknown"]
KINDS, SEEN = get_args(Kind), get_args(Saw)
NAME = r"^[a-z0-9][a-z0-9._-]*$"
FOLDER = "extra"
"""Of what entries of the boards were trained with, beside the records."""
Count = Annotated[int, Field(ge=0, le=10**9)]


class ExtraTerms(Strict):
    """What is stated of extra training data."""

    kind: Kind
    saw: Saw = Field(
        description="what of the data set the images, their generator or their labeller come from: nothing, the "
        "split's training images, the full balanced training set, or nobody knows"
    )
    maker: str = Field(
        max_length=200,
        pattern=r"^[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$",
        description="generator, labeller, or where real images are from",
    )
    share: float = Field(gt=0, lt=1, description="of each batch; the rest is drawn as without it")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of images and labels, see `digest_of`")


class Declaration(ExtraTerms):
    """A file that declares extra training data; its name is theirs."""

    file: str = Field(min_length=1, max_length=255, description="beside it: .npz, or an archive of `ltbench data pack`")


class Extra(ExtraTerms):
    """Extra training data in a run."""

    name: str = Field(pattern=NAME, max_length=100)
    counts: list[Count] = Field(min_length=2, max_length=100_000, description="images per label")

    @property
    def leaks(self) -> bool:
        """Whether they may bring back what the cut took from the tail."""
        return self.saw in ("balanced", "unknown")

    @property
    def text(self) -> str:
        """In a line, for tables."""
        return f"{self.name}: {self.kind}, {100 * self.share:g} % of each batch, saw {self.saw}"


@dataclass(frozen=True)
class ExtraData:
    """Extra training images.

    Attributes:
        terms: what is stated of them.
        images: uint8, shape [M, channels, height, width].
        labels: int64, shape [M].
    """

    terms: Extra
    images: np.ndarray
    labels: np.ndarray


def digest_of(images: np.ndarray, labels: np.ndarray) -> str:
    """SHA-256 (hex) of the shape [M, channels, height, width] as text, the images' bytes and the labels as int64."""
    digest = hashlib.sha256(repr(tuple(map(int, images.shape))).encode())
    digest.update(np.ascontiguousarray(images).data)
    digest.update(np.ascontiguousarray(labels.astype("<i8")).data)
    return digest.hexdigest()


def extra_name(asked: str) -> str:
    """The name of extra data that are asked for by name or path."""
    return Path(asked).stem if asked.endswith(".toml") else asked


def declaration_at(asked: str, data_dir: Path | None) -> Path:
    """The declaration that is asked for: a path that ends in ``.toml``, or the name of one in the data folder or beside
    the records.

    Raises:
        UsageError: for a name that is none.
        DataError: if it is not there.
    """
    if not re.fullmatch(NAME, extra_name(asked)):
        raise UsageError(
            f"--extra-data {printable(asked)}: names are small letters, digits, dots, dashes; rename the file, or name "
            f"one that ends in .toml."
        )
    if asked.endswith(".toml"):
        paths = [Path(asked)]
    else:
        place = data_dir or Path(os.environ.get(DATA_VARIABLE) or ".")
        paths = [
            folder / f"{asked}.toml" for folder in (place.parent if place.is_file() else place, *beside_records(FOLDER))
        ]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise DataError(
            f"there is no {paths[0]}, which would declare extra training data; `ltbench data declare` writes one."
        )
    return found


def read_extra(asked: str, data_dir: Path | None, source: Source, shape: tuple[int, int, int]) -> ExtraData:
    """Extra training data for a data set.

    Args:
        asked: name or path of the declaration.
        data_dir: where declarations are looked for by name.
        source: the data set; its test images must not be among them.
        shape: of one image: channels, height, width.

    Raises:
        UsageError: for a name that is none.
        DataError: if something is missing, damaged, not what is declared, or does not fit the data set.
    """
    path = declaration_at(asked, data_dir)
    try:
        declared = Declaration.model_validate(read_toml(path))
    except (OSError, ValueError) as error:  # of the file, of its TOML, or of its terms
        raise DataError(f"{path} declares no extra training data: {first_problem(error)}") from None
    images, labels, digest = read_images(path.parent / declared.file, shape, len(source.class_names))
    if digest != declared.sha256:
        raise DataError(
            f"{path.parent / declared.file} has digest {digest[:12]}, {path.name} declares {declared.sha256[:12]}: "
            f"these are other images; get the declared ones, or declare these."
        )
    _refuse_tested(images, digest, source, path)
    counts = np.bincount(labels, minlength=len(source.class_names)).tolist()
    terms = declared.model_dump(exclude={"file"})
    return ExtraData(Extra(name=path.stem, counts=counts, **terms), images, labels)


def declare(
    file: Path,
    output: Path,
    source: Source,
    shape: tuple[int, int, int],
    *,
    kind: Kind,
    saw: Saw,
    maker: str,
    share: float,
) -> Declaration:
    """Write the declaration of some images for a data set, with their digest.

    Args:
        file: the images, see :func:`read_images`; it lies beside the declaration.
        output: the declaration, ``NAME.toml``.
        source, shape: of the data set.
        kind, saw, maker, share: see :class:`ExtraTerms`.

    Raises:
        UsageError: for terms that are none.
        DataError: as :func:`read_extra`.
    """
    if output.resolve().parent != file.resolve().parent:
        raise UsageError(f"{output} must lie beside {file}, so that the two are carried together.")
    declaration_name = extra_name(output.name)
    if output.suffix != ".toml" or not re.fullmatch(NAME, declaration_name):
        raise UsageError(f"{output.name} is no NAME.toml in small letters, digits, dots and dashes.")
    images, _, digest = read_images(file, shape, len(source.class_names))
    _refuse_tested(images, digest, source, file)
    try:
        declared = Declaration(kind=kind, saw=saw, maker=maker, share=share, file=file.name, sha256=digest)
    except ValidationError as error:
        raise UsageError(first_problem(error)) from None
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in declared.model_dump().items()]
    write_text(output, "\n".join(lines) + "\n")
    return declared


def read_images(path: Path, shape: tuple[int, int, int], classes: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Images and labels in a file, and their digest.

    Args:
        path: an ``.npz`` with ``images`` (or ``image``) uint8, [M, channels, height, width] or
            [M, height, width, channels], and ``labels`` (or ``label``), integers [M]; or an archive of
            ``ltbench data pack``, of which the training images are taken.
        shape: of one image of the data set.
        classes: C.

    Raises:
        DataError: naming what is wrong.
    """
    try:
        status = path.stat()
    except OSError:
        raise DataError(f"there is no {path}, which holds extra training images.") from None
    return _read(path, status.st_size, status.st_mtime_ns, shape, classes)


@lru_cache(maxsize=1)
def _read(
    path: Path, size: int, changed: int, shape: tuple[int, int, int], classes: int
) -> tuple[np.ndarray, np.ndarray, str]:
    """Remembered while the file stays as it is: several runs of one process read it once."""
    images, labels = _of_archive(path) if _is_archive(path) else _of_npz(path)
    channels, height, width = shape
    if images.ndim == 4 and images.shape[1:] == (height, width, channels) != shape:
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    wrong = None
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape:
        wrong = f"{images.dtype} images of shape {images.shape} instead of uint8 [M, {channels}, {height}, {width}]"
    elif labels.dtype.kind not in "iu" or labels.shape != (len(images),):
        wrong = f"{labels.dtype} labels of shape {labels.shape} instead of {len(images)} integers"
    elif not len(labels):
        wrong = "no images"
    elif labels.min() < 0 or labels.max() >= classes:
        wrong = f"labels {labels.min()} to {labels.max()} instead of 0 to {classes - 1}"
    if wrong:
        raise DataError(f"{path} holds {wrong}.")
    labels = labels.astype(np.int64)
    return images, labels, digest_of(images, labels)


def _is_archive(path: Path) -> bool:
    try:
        with plain_file(path) as content, zipfile.ZipFile(content) as file:
            return archive.MANIFEST in file.namelist()
    except Exception:  # noqa: BLE001 - whatever a damaged zip file makes of its reader
        return False


def _of_archive(path: Path) -> tuple[np.ndarray, np.ndarray]:
    source = archive.read(path)
    return source.train_images, source.train_labels if source.held is None else source.train_labels[source.held]


def _of_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with plain_file(path) as content:
            most = max(archive.FREE, archive.UNFOLDS * path.stat().st_size)
            found = read_arrays(content, None, most)
        names = [
            next((name for name in pair if name in found), None) for pair in (("images", "image"), ("labels", "label"))
        ]
        if None in names:
            raise ValueError(f"it has {', '.join(sorted(found)) or 'nothing'}, not images and labels")
        images, labels = (found[name] for name in names if name is not None)
        return images, labels
    except (OSError, ValueError) as error:
        reason = printable(str(error), 200)
        raise DataError(
            f"{path} is no .npz of images and labels, nor an archive of `ltbench data pack` ({reason})."
        ) from None


_SEEN_APART: set[tuple[str, str]] = set()
"""Digests of extra images and of tested ones that have none in common."""


def _refuse_tested(images: np.ndarray, digest: str, source: Source, where: Path) -> None:
    """Refuse extra images, of this digest, that are tested on.

    Raises:
        DataError: saying how many.
    """
    pair = digest, digest_of(source.test_images, np.zeros(0))
    if pair in _SEEN_APART:
        return
    tested = {image.tobytes() for image in source.test_images}
    common = sum(image.tobytes() in tested for image in images)
    if common:
        raise DataError(f"{where}: {common} of its {len(images)} images are tested on; take them out.")
    _SEEN_APART.add(pair)
