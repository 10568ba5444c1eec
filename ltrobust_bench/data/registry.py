"""Which data sets there are. Light: the images are read by ``sources.py`` when they are needed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from ltrobust_bench.errors import UsageError
from ltrobust_bench.protocol.load import MAIN, default_protocol, load_protocol
from ltrobust_bench.protocol.spec import IMAGE_FOLDER, IMAGE_LISTS, DatasetTerms, Protocol, is_own, terms_key
from ltrobust_bench.registry import Registration, Registry


@dataclass(frozen=True)
class DatasetSpec:
    """A data set that a long-tailed training set is cut from.

    Attributes:
        name: what users type.
        help: one line.
        loader: ``"module:function"``, or the function itself, taking the data folder (or None) and returning a
            :class:`~ltrobust_bench.data.sources.Source`.
        classes: number of classes C; None: whatever its folder holds.
        shape: channels, height, width.
        folder: tree expected below the data folder; empty if the data set comes with the package.
        prepare: name of the torchvision class that downloads it; empty if none does.
        obtain: where to get it, if nothing downloads it.
        terms: radius, imbalance ratio, network and augmentation under any protocol that states none for it: how a data
            set of another package says what it is run with.
        arguments: what the loader takes after the folder.
    """

    name: str
    help: str
    loader: str | Callable[..., Any]
    classes: int | None
    shape: tuple[int, int, int]
    folder: str = ""
    prepare: str = ""
    obtain: str = ""
    terms: DatasetTerms | None = None
    arguments: tuple[Any, ...] = ()

    @property
    def listed(self) -> bool:
        """Whether two lists of files say which images it has; their digest is its identity."""
        return self.loader == f"{_LISTS}:listed"

    @property
    def remedy(self) -> str:
        """What to do when its folder is missing or damaged."""
        how = self.obtain or f"`ltbench data prepare {self.name} --data-dir DIR` downloads it"
        return f"expected {self.folder} there; {how}, then pass --data-dir DIR or set LTBENCH_DATA=DIR."


_SOURCES = "ltrobust_bench.data.sources"
_FOLDERS = "ltrobust_bench.data.folders"
_LISTS = "ltrobust_bench.data.lists"
_CIFAR10 = "cifar-10-batches-py/ with data_batch_1 .. data_batch_5, test_batch, batches.meta"
_BUILT_IN = [
    DatasetSpec(
        "digits-lt",
        "handwritten digits of scikit-learn (8x8, grey); ships with the package",
        f"{_SOURCES}:digits",
        classes=10,
        shape=(1, 8, 8),
    ),
    DatasetSpec(
        "cifar10-lt",
        "CIFAR-10 (32x32, colour), the literature's long-tailed subset",
        f"{_SOURCES}:cifar10",
        classes=10,
        shape=(3, 32, 32),
        folder=_CIFAR10,
        prepare="CIFAR10",
    ),
    DatasetSpec(
        "cifar10-lt-perm",
        "CIFAR-10 with the class sizes in a fixed permuted order: tells size and difficulty apart",
        f"{_SOURCES}:cifar10",
        classes=10,
        shape=(3, 32, 32),
        folder=_CIFAR10,
        prepare="CIFAR10",
    ),
    DatasetSpec(
        "cifar100-lt",
        "CIFAR-100 (32x32, colour), the literature's long-tailed subset",
        f"{_SOURCES}:cifar100",
        classes=100,
        shape=(3, 32, 32),
        folder="cifar-100-python/ with train, test, meta",
        prepare="CIFAR100",
    ),
    DatasetSpec(
        "fashion-mnist-lt",
        "Fashion-MNIST (28x28, grey), cut with the same rule",
        f"{_SOURCES}:fashion_mnist",
        classes=10,
        shape=(1, 28, 28),
        folder="FashionMNIST/raw/ with the four idx files (*-ubyte)",
        prepare="FashionMNIST",
    ),
    DatasetSpec(
        "tiny-imagenet-lt",
        "Tiny-ImageNet-200 (64x64, colour), cut with the same rule; the validation set is the test set",
        f"{_FOLDERS}:tiny_imagenet",
        classes=200,
        shape=(3, 64, 64),
        folder="tiny-imagenet-200/ with wnids.txt, words.txt, train/, val/ as distributed",
        obtain="fetch http://cs231n.stanford.edu/tiny-imagenet-200.zip (237 MB) and unzip it in DIR",
    ),
    DatasetSpec(
        "imagenet-lt",
        "ImageNet-LT (224x224, colour), 115,846 images of 1,000 classes, by its authors' lists",
        f"{_LISTS}:listed",
        classes=1000,
        shape=(3, 224, 224),
        folder="ImageNet_LT_train.txt, ImageNet_LT_test.txt, and train/ and val/ of ImageNet (ILSVRC 2012)",
        obtain="get the lists of Liu et al. (CVPR 2019) and ImageNet, and put them in DIR",
        arguments=(224, "ImageNet_LT_train.txt", "ImageNet_LT_test.txt", "imagenet-lt"),
    ),
    DatasetSpec(
        "inaturalist18",
        "iNaturalist 2018 (224x224, colour), 437,513 images of 8,142 classes, by the literature's lists",
        f"{_LISTS}:listed",
        classes=8142,
        shape=(3, 224, 224),
        folder="iNaturalist18_train.txt, iNaturalist18_val.txt, and train_val2018/ of the competition",
        obtain="get the lists of Kang et al. (ICLR 2020) and the competition's images, and put them in DIR",
        arguments=(224, "iNaturalist18_train.txt", "iNaturalist18_val.txt", "inaturalist18"),
    ),
]

_HERE = "ltrobust_bench/data/registry.py"


def _built_in() -> list[Registration]:
    return [
        *(Registration(spec.name, spec, spec.help, _HERE) for spec in _BUILT_IN),
        # One in a file of its own: Registration("my-data", "ltrobust_bench.data.my_data:MY_DATA", "one line", _HERE),
    ]


datasets: Registry[DatasetSpec] = Registry(
    "dataset",
    discover=_built_in,
    entry_point_group="ltrobust_bench.datasets",
    base=DatasetSpec,
)


Dataset = str | DatasetSpec
"""A data set as users of Python name it."""
SESSION = "this session"
"""Where a data set comes from that :func:`register_dataset` was given."""


def register_dataset(spec: DatasetSpec) -> str:
    """Make a data set known by its name in this process, for instance one that a notebook has in memory; again with
    the same name, it takes the place of the one before.

    A package declares its data sets instead (entry points ``ltrobust_bench.datasets``): then every process knows them.

    Args:
        spec: the data set; its ``terms`` say what it is run with, and its ``loader`` may be a function.

    Returns:
        Its name.

    Raises:
        DuplicateNameError: if the package or another one has a data set of this name.
        UsageError: for a name that records cannot hold.

    Example::

        register_dataset(DatasetSpec("mine", "", lambda _: Source(...), classes=3, shape=(3, 32, 32), terms=terms))
    """
    if not _REGISTRABLE.fullmatch(spec.name) or is_own(spec.name):
        raise UsageError(f"{spec.name!r} is no name of a data set: use small letters, digits, dots and dashes.")
    datasets.add(Registration(spec.name, spec, spec.help, SESSION, f"from {SESSION}"), replaces=SESSION)
    return spec.name


def named(dataset: Dataset) -> str:
    """The name of a data set, typed in any case; a :class:`DatasetSpec` that no registry has is registered."""
    if isinstance(dataset, str):
        return dataset if _is_typed(dataset) else dataset.lower()
    known = dataset.name in datasets and datasets.get(dataset.name) == dataset
    return dataset.name if known else register_dataset(dataset)


FOLDER_SIZE = 32
"""Pixels on each side that a folder's images are scaled to, if nothing else is asked for."""
LISTS_SIZE = 224
"""The same of lists of images."""
FOLDER_HELP = (
    "your own images, one subfolder per class (or train/ and test/ with such), scaled to SIZE x SIZE pixels (32)"
)
LISTS_HELP = (
    "your own images by two lists of `relative/path label`, below --data-dir, scaled to SIZE x SIZE pixels (224)"
)
_CUT = "-test(?P<share>[0-9]{2})|-fold(?P<fold>[0-9]{1,2})of(?P<folds>[0-9]{1,2})"
_NAME = re.compile(rf"{IMAGE_FOLDER}-[a-z0-9._-]+-(?P<size>[0-9]{{1,4}})px(?:{_CUT})?")
_TYPED = re.compile(rf"(?P<path>.*)@(?P<size>[0-9]{{1,4}})(?P<cut>{_CUT})?", re.DOTALL)
_OF_LISTS = re.compile(rf"{IMAGE_LISTS}-[a-z0-9._-]+-(?P<size>[0-9]{{1,4}})px")
_TYPED_LISTS = re.compile(rf"{IMAGE_LISTS}:(?P<train>[^,]+),(?P<test>[^,]+?)(?:@(?P<size>[0-9]{{1,4}}))?", re.DOTALL)
_SIZES = range(8, 513)
_REGISTRABLE = re.compile("[a-z0-9][a-z0-9._-]{0,99}")


def locate(dataset: str, data_dir: Path | str | None) -> tuple[DatasetSpec, Path | None]:
    """A data set, and where it lies.

    Args:
        dataset: a registered name; ``folder:PATH`` or ``folder:PATH@SIZE`` for a folder of images (scaled to SIZE x
            SIZE pixels, 32 if nothing is said), behind which ``-test30`` has 30 % of the smallest class tested on and
            ``-fold2of5`` the second of five such parts; ``lists:TRAIN,TEST@SIZE`` (224) for images by lists; or the
            name that such a set has in records, ``folder-photos-32px``.
        data_dir: where to look for what is not named by its path.

    Raises:
        UnknownNameError: for a name that is none of these.
        UsageError: for an empty path or an impossible size.
    """
    if dataset.startswith(f"{IMAGE_LISTS}:"):
        return _lists(dataset, data_dir)
    if not dataset.startswith(f"{IMAGE_FOLDER}:"):
        return dataset_spec(dataset), None if data_dir is None else Path(data_dir)
    path, size, cut = _typed(dataset)
    if os.path.isfile(path):  # noqa: PTH113 - a path too long for the system is no file, not an error
        raise UsageError(f"{path} is a file: pass it as --data-dir and name the data set that `data verify` shows.")
    name = re.sub(r"[^a-z0-9._]+", "-", Path(path).resolve().name.lower()).strip("-.") or "images"
    return dataset_spec(f"{IMAGE_FOLDER}-{name[:60]}-{size}px{cut}"), Path(path)


def _is_typed(dataset: str) -> bool:
    """Whether a data set is named by paths."""
    return dataset.startswith((f"{IMAGE_FOLDER}:", f"{IMAGE_LISTS}:"))


def typed_lists(spec: DatasetSpec) -> str:
    """What to type for a data set of lists, wherever one is; empty for others."""
    if not spec.name.startswith(f"{IMAGE_LISTS}-"):
        return ""
    size, train, test = spec.arguments
    return f"{IMAGE_LISTS}:{train},{test}@{size}"


def _lists(dataset: str, data_dir: Path | str | None) -> tuple[DatasetSpec, Path | None]:
    """A data set by lists, which lie below the folder of the images or elsewhere; that folder is the list's own where
    nobody says otherwise."""
    parts = _TYPED_LISTS.fullmatch(dataset)
    if parts is None:
        raise UsageError("lists: needs two; write for example --dataset lists:train.txt,test.txt@224 --data-dir DIR.")
    named = data_dir or os.environ.get("LTBENCH_DATA")
    root = None if not named else Path(named).expanduser()
    paths = [Path(parts[part].strip()).expanduser() for part in ("train", "test")]
    found = [path if path.is_file() or root is None else root / path for path in paths]
    for path in found:
        if not path.is_file():
            raise UsageError(f"there is no list {path}.")
    name = re.sub(r"[^a-z0-9._]+", "-", paths[0].stem.lower()).strip("-.") or "images"
    spec = dataset_spec(f"{IMAGE_LISTS}-{name[:60]}-{parts['size'] or LISTS_SIZE}px")
    spec = replace(spec, arguments=(spec.arguments[0], *(str(path.absolute()) for path in found)))
    return spec, root or found[0].absolute().parent


def _typed(dataset: str) -> tuple[str, int, str]:
    """Path, size and cut of ``folder:PATH@SIZE-test30``; a folder that is called so is itself meant."""
    path = os.path.expanduser(dataset.removeprefix(f"{IMAGE_FOLDER}:"))  # noqa: PTH111 - pathlib raises for strangers
    size, cut, parts = str(FOLDER_SIZE), "", _TYPED.fullmatch(path)
    if parts is not None and not os.path.isdir(path):  # noqa: PTH112
        path, size, cut = parts["path"], parts["size"], parts["cut"] or ""
    if not path:
        raise UsageError("folder: needs a path; write for example --dataset folder:photos/ or folder:photos/@64.")
    return path, int(size), cut


def cuts_of(dataset: str, share: float | None, folds: int | None) -> list[str]:
    """A folder of images, with another share of it tested on, or once for each fold.

    Args:
        dataset: ``folder:PATH`` or ``folder:PATH@SIZE``.
        share: of the smallest class, 0.01 to 0.9; as many images of each class are tested on.
        folds: so many disjoint test sets.

    Raises:
        UsageError: for another data set, which has its own test set, and impossible numbers.
    """
    if share is None and folds is None:
        return [dataset]
    if not dataset.startswith(f"{IMAGE_FOLDER}:"):
        raise UsageError(f"{dataset} has its own test set: --test-share and --folds are for --dataset folder:PATH.")
    path, size, cut = _typed(dataset)
    if cut or (share is not None and folds is not None):
        raise UsageError("say once what is to be tested on: --test-share, --folds, or behind the folder's name.")
    cuts = [f"-test{round(100 * share):02d}"] if share is not None else []
    return [f"{IMAGE_FOLDER}:{path}@{size}{c}" for c in cuts or (f"-fold{i + 1}of{folds}" for i in range(folds or 0))]


def dataset_spec(name: str) -> DatasetSpec:
    """What is known of a data set by its name alone: a registered one, or a folder of images (``folder-photos-32px``).

    Raises:
        UnknownNameError: with the nearest names.
    """
    name = name.lower()
    of_folder, of_lists = _NAME.fullmatch(name), _OF_LISTS.fullmatch(name)
    if of_lists is not None:
        return DatasetSpec(
            name,
            "images by lists",
            f"{_LISTS}:listed",
            classes=None,
            shape=(3, _size(of_lists), _size(of_lists)),
            folder="the images that the lists name",
            obtain="name that folder",
            arguments=(_size(of_lists), "", ""),
        )
    if of_folder is None:
        spec = datasets.get(name)
        if spec.name != name:
            raise UsageError(
                f"dataset {name!r} of {datasets.entry(name).origin} calls itself {spec.name!r}; make the two agree."
            )
        return spec
    size = _size(of_folder)
    return DatasetSpec(
        name,
        "a folder of images",
        f"{_FOLDERS}:image_folder",
        classes=None,
        shape=(3, size, size),
        folder="one subfolder of images per class, or train/ and test/ with such subfolders",
        obtain="name that folder",
        arguments=(size, *_cut(of_folder)),
    )


def _size(name: re.Match[str]) -> int:
    size = int(name["size"])
    if size not in _SIZES:
        raise UsageError(f"images of {size} pixels are not supported: use {_SIZES[0]} to {_SIZES[-1]}.")
    return size


def _cut(of_folder: re.Match[str]) -> tuple[Any, ...]:
    """What is tested on: the share, and which of the parts of that size."""
    if of_folder["share"]:
        share = Fraction(int(of_folder["share"]), 100)
        if not 0 < share <= Fraction(9, 10):
            raise UsageError(f"a share of {float(share):.0%} to test on is impossible: use 0.01 to 0.9.")
        return (share, 1)
    if of_folder["folds"]:
        fold, folds = int(of_folder["fold"]), int(of_folder["folds"])
        if not (folds > 1 and 0 < fold <= folds):
            raise UsageError(f"there is no fold {fold} of {folds}: use two folds or more, the first is 1.")
        return (Fraction(1, folds), fold)
    return ()


def protocol_for(dataset: str, name: str | None = None) -> Protocol:
    """The protocol called ``name`` (default: the data set's), with the data set's own terms if it states none for it.

    Such terms are part of the protocol's digest for the data set, as stated ones are.

    Raises:
        UnknownNameError: for an unknown protocol.
        UsageError: if no name is given and nothing covers the data set.
    """
    own = datasets.get(dataset).terms if dataset in datasets else None
    if name is None:
        name = default_protocol(dataset) if own is None else MAIN
    protocol = load_protocol(name)
    if own is None or terms_key(dataset) in protocol.datasets:
        return protocol
    return protocol.model_copy(update={"datasets": {**protocol.datasets, dataset: own}})
