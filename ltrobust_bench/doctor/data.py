"""Which data sets are there, and whether their splits are what they must be."""

from __future__ import annotations

import os
from pathlib import Path

from ltrobust_bench.data import archive
from ltrobust_bench.data.known import known_split
from ltrobust_bench.data.registry import DatasetSpec, datasets
from ltrobust_bench.data.sources import DATA_VARIABLE
from ltrobust_bench.doctor.findings import Findings
from ltrobust_bench.errors import LTBenchError
from ltrobust_bench.plan.task import make_task


def data(found: Findings, data_dir: Path | None, read: bool) -> None:
    """Each registered data set: not there, there, or its digests.

    Args:
        data_dir: folder or archive; default: ``LTBENCH_DATA``.
        read: whether data sets are read.
    """
    named = os.environ.get(DATA_VARIABLE)
    place = data_dir or (Path(named) if named else None)
    found.fact("looked for in", place or f"no folder: {DATA_VARIABLE} is not set")
    packed = ""
    if place is not None and place.is_file():
        packed = archive.dataset_in(place)
    elif place is not None and not place.is_dir():
        found.problem(f"there is no data folder {place}: set {DATA_VARIABLE} or --data-dir to one that exists.")
    for entry in datasets:
        spec = entry.load()
        if not _there(spec, place, packed):
            found.fact(spec.name, "not there")
        elif not read:
            found.fact(spec.name, "there, not read")
        else:
            found.fact(spec.name, _split(spec, place, found))


def _there(spec: DatasetSpec, place: Path | None, packed: str) -> bool:
    if not spec.folder:
        return True
    return packed == spec.name if packed else place is not None and (place / spec.folder.split("/")[0]).is_dir()


def _split(spec: DatasetSpec, place: Path | None, found: Findings) -> str:
    """What is said of a data set under its own protocol: counts, digests, and whether they are those that are known."""
    try:
        task = make_task(spec.name, data_dir=place)
    except LTBenchError as error:
        found.problem(str(error))
        return "damaged"
    split, terms = task.split, task.terms
    known = known_split(
        spec.name,
        None if task.profile == "own" else task.imbalance_ratio,
        task.profile,
        None if terms.class_order is None else tuple(terms.class_order),
        task.protocol.test_images(spec.name),
    )
    said = f"{sum(split.train_counts)} + {sum(split.test_counts)} images, train {split.train_sha256[:12]}"
    said += f", test {split.test_sha256[:12]}"
    if known is None:
        return f"{said}, no digests known to compare"
    wanted = (known.train_counts, known.test_counts, known.train_sha256, known.test_sha256)
    seen = (split.train_counts, split.test_counts, split.train_sha256, split.test_sha256)
    if any(want is not None and want != have for want, have in zip(wanted, seen, strict=True)):
        found.problem(f"{spec.name} has another split than it must have, so its images are others: {spec.remedy}")
        return f"{said}, NOT the known split"
    whole = None not in wanted
    return f"{said}, {'the known split' if whole else 'the known counts'}"
