"""A data set under a protocol."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ltrobust_bench.attacks.ball import BALLS, Ball
from ltrobust_bench.data.registry import DatasetSpec, locate, protocol_for
from ltrobust_bench.data.sources import Source, data_place, load_source
from ltrobust_bench.data.split import LongTailedSplit, make_split
from ltrobust_bench.numbers import number
from ltrobust_bench.protocol import DatasetTerms, Protocol

DATA_PLACE = "data.txt"
"""File in a run folder: where the run found its images, and on a second line the lists of them, if there are any."""


@dataclass(frozen=True)
class Task:
    """A data set under a protocol: what is trained on, what is tested on, at which epsilon; ``place`` is the folder or
    archive that its images are from, if there is one."""

    protocol: Protocol
    spec: DatasetSpec
    terms: DatasetTerms
    source: Source
    split: LongTailedSplit
    imbalance_ratio: float
    profile: str
    epsilon: float
    place: Path | None = None

    @property
    def ball(self) -> Ball:
        """The protocol's threat model."""
        return BALLS[self.protocol.threat_model]

    @property
    def classes(self) -> int:
        """Number of classes C."""
        return len(self.source.class_names)


def make_task(
    dataset: str,
    *,
    protocol: str | None = None,
    imbalance_ratio: float | None = None,
    profile: str | None = None,
    limit_train: int | None = None,
    limit_test: int | None = None,
    holdout: str | None = None,
    data_dir: Path | str | None = None,
) -> Task:
    """Read a data set and cut its split; what is not given is the protocol's.

    With a holdout the test images of the task's source *are* the held-out training images: nothing that is given the
    task can reach the test set.

    Raises:
        UsageError: for unknown names, a data set the protocol has no terms for, impossible ratios.
        DataError: for missing or damaged data.
    """
    spec, place = locate(dataset, data_dir)
    terms_of = protocol_for(spec.name, protocol)
    terms = terms_of.terms(spec.name)
    if profile is None:
        # A ratio given for a data set that would keep its own asks for the usual profile.
        profile = "exp" if terms.profile == "own" and imbalance_ratio is not None else terms.profile
    if imbalance_ratio is None and profile != "own":
        imbalance_ratio = terms.imbalance_ratio
    source = load_source(spec, place)
    split = make_split(
        source.train_labels,
        source.test_labels,
        imbalance_ratio,
        profile,
        class_order=terms.class_order,
        test_per_class=terms_of.test_images(spec.name),
        limit_train=limit_train,
        limit_test=limit_test,
        holdout=holdout,
    )
    if split.held_out is not None:
        source = source.tested_on(split.held_out)
    if imbalance_ratio is None:
        imbalance_ratio = round(max(split.train_counts) / min(split.train_counts), 2)
    return Task(
        protocol=terms_of,
        spec=spec,
        terms=terms,
        source=source,
        split=split,
        imbalance_ratio=imbalance_ratio,
        profile=profile,
        epsilon=number(terms.epsilon),
        place=data_place(spec, place),
    )
