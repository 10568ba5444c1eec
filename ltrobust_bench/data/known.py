"""What a split must be, as far as that is known without the images."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ltrobust_bench.data.registry import datasets
from ltrobust_bench.data.split import make_split

TABLE = Path(__file__).with_name("known.toml")


@dataclass(frozen=True)
class KnownSplit:
    """A split without its indices.

    Attributes:
        train_counts, test_counts: images per label.
        train_sha256, test_sha256: digests of the index lists, see :class:`ltrobust_bench.data.split.LongTailedSplit`;
            None: not known here.
    """

    train_counts: list[int]
    test_counts: list[int]
    train_sha256: str | None
    test_sha256: str | None


@lru_cache(maxsize=1024)
def known_split(
    dataset: str,
    ratio: float | None,
    profile: str,
    class_order: tuple[int, ...] | None = None,
    test_per_class: int | None = None,
    limit_train: int | None = None,
    limit_test: int | None = None,
    holdout: str | None = None,
) -> KnownSplit | None:
    """The split that :func:`ltrobust_bench.data.split.make_split` makes of a data set; None if nothing is known of it.

    Digests are known of data that comes with the package, and of those splits that ``known.toml`` lists.

    Raises:
        UsageError: for terms of which no split can be made.
    """
    terms: dict[str, Any] = {
        "class_order": class_order,
        "test_per_class": test_per_class,
        "limit_train": limit_train,
        "limit_test": limit_test,
        "holdout": holdout,
    }
    if dataset in datasets and not datasets.get(dataset).folder:
        train_labels, test_labels = _packaged_labels(dataset)
        split = make_split(train_labels, test_labels, ratio, profile, **terms)
        return KnownSplit(split.train_counts, split.test_counts, split.train_sha256, split.test_sha256)
    facts = _table().get(dataset)
    if facts is None:
        return None
    classes = np.arange(datasets.get(dataset).classes or 0)
    # In another order than the real labels, so that only the counts are the real split's.
    train_labels, test_labels = classes.repeat(facts["train_per_class"]), classes.repeat(facts["test_per_class"])
    split = make_split(train_labels, test_labels, ratio, profile, **terms)
    whole = class_order == _order(facts) and limit_train is None and holdout is None
    if limit_test is not None or holdout is not None:
        test = None
    elif test_per_class is None:
        test = facts.get("test_index_sha256")
    else:
        test = facts.get("test_first", {}).get(str(test_per_class))
    listed = {float(key): digest for key, digest in facts.get(profile, {}).items()} if whole else {}
    return KnownSplit(
        split.train_counts,
        split.test_counts,
        None if ratio is None else listed.get(ratio),
        test,
    )


def is_known(dataset: str) -> bool:
    """Whether a data set that does not come with the package is a published one whose usual splits are known by their
    digests, so that whoever fetches it has the same images in the same places."""
    return dataset in _table()


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


def _order(facts: dict[str, Any]) -> tuple[int, ...] | None:
    return tuple(facts["class_order"]) if "class_order" in facts else None


@cache
def _packaged_labels(dataset: str) -> tuple[np.ndarray, np.ndarray]:
    from ltrobust_bench.data.sources import load_source

    source = load_source(datasets.get(dataset))
    return source.train_labels, source.test_labels
