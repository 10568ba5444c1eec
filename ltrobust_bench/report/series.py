"""What run folders keep besides records: curves of an evaluation, and the epochs of a training. No torch here."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ltrobust_bench.attacks.ball import ThreatModel
from ltrobust_bench.errors import UsageError
from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.reading import read_bytes, read_text
from ltrobust_bench.report.aggregate import method_label, protocol_status, slug_of, told_apart
from ltrobust_bench.report.board import BoardKey, warnings_of
from ltrobust_bench.terms import first_problem

SeriesKind = Literal["eps", "steps", "training"]
SERIES: tuple[SeriesKind, ...] = get_args(SeriesKind)
FILES: dict[SeriesKind, tuple[str, tuple[str, ...]]] = {
    "eps": ("curve-eps.csv", ("epsilon", "balanced", "tail", "images")),
    "steps": ("curve-steps.csv", ("steps", "balanced", "tail", "images")),
    "training": ("training.csv", ("epoch", "loss", "train_clean", "train_robust")),
}
"""File of each kind in a run folder, and the columns that are read; the first is the abscissa."""


@dataclass(frozen=True)
class Series:
    """One method's numbers along an abscissa.

    Attributes:
        label: as a board calls it.
        x: shape [P].
        values: by column, shape [seeds, P]; NaN where a file has no number.
    """

    label: str
    x: np.ndarray
    values: dict[str, np.ndarray]


@dataclass(frozen=True)
class SeriesGroup:
    """Series of runs under the same terms.

    Attributes:
        slug: the folder name of their board.
        warnings: why the numbers are not for papers.
        threat_model: the norm of the radius.
        epsilon: evaluation radius, [0, 1] pixel scale.
        test_images: images of the test set.
        series: by label.
    """

    slug: str
    warnings: list[str]
    threat_model: ThreatModel
    epsilon: float
    test_images: int
    series: list[Series]

    def only(self, names: Sequence[str]) -> SeriesGroup:
        """The series with these labels, in this order; those that are not there are passed over."""
        by_label = {series.label: series for series in self.series}
        return replace(self, series=[by_label[name] for name in names if name in by_label])


def read_series(kind: SeriesKind, runs_dir: Path, **wanted: Any) -> tuple[list[SeriesGroup], list[str]]:
    """Series of a kind from the run folders in a folder, and what was wrong with files on the way.

    Runs that differ in the seed only are one series; with another abscissa or other images they are left out. Where
    others have the same name, a version of the card and a digest tell them apart, as on a board.

    Args:
        wanted: fields of the runs (dataset, protocol, track, imbalance_ratio, profile, model); None fits all.
    """
    name, columns = FILES[kind]
    found: dict[str, dict[str, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
    keys: dict[str, BoardKey] = {}
    runs: dict[str, RunSection] = {}
    problems = []
    for path in sorted(runs_dir.glob(f"*/{name}")):
        try:
            run = _run_of(path.parent)
            table = _table(path, columns)
        except UsageError as error:
            problems.append(str(error))
            continue
        if run is None or not len(table) or any(v is not None and getattr(run, k) != v for k, v in wanted.items()):
            continue
        key = BoardKey.of_run(run, ())
        slug = slug_of(key, protocol_status(key)[0])
        keys.setdefault(slug, key)
        runs.setdefault(run.entry_key(), run)
        tables = found[slug][run.entry_key()]
        same = [columns.index(name) for name in (columns[0], "images") if name in columns]
        if tables and not np.array_equal(tables[0][:, same], table[:, same]):
            what = " or ".join(columns[i] for i in same)
            problems.append(f"{path} has another {what} than the file of another seed; it is left out.")
        else:
            tables.append(table)
    groups = [
        SeriesGroup(
            slug,
            warnings_of(keys[slug], protocol_status(keys[slug])[0]),
            keys[slug].threat_model,
            keys[slug].epsilon,
            sum(keys[slug].test_counts),
            [_series(label, by_entry[entry], columns) for label, entry in _labels({e: runs[e] for e in by_entry})],
        )
        for slug, by_entry in sorted(found.items())
    ]
    return groups, problems


def _labels(entries: Mapping[str, RunSection]) -> list[tuple[str, str]]:
    """The label and the key of each entry, by label."""
    labels = {entry: method_label(run) for entry, run in entries.items()}
    shared = Counter(labels.values())
    return sorted(
        (told_apart(label, entries[entry], entry) if shared[label] > 1 else label, entry)
        for entry, label in labels.items()
    )


def _series(label: str, tables: Sequence[np.ndarray], columns: Sequence[str]) -> Series:
    stacked = np.stack(tables)
    return Series(label, stacked[0, :, 0], {name: stacked[:, :, i] for i, name in enumerate(columns) if i})


def _run_of(folder: Path) -> RunSection | None:
    """The run that a folder belongs to; None if it is no run folder."""
    path = folder / "plan.json"
    try:
        return RunSection.model_validate_json(read_bytes(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no plan of a run: {first_problem(error)}") from None


def _table(path: Path, columns: Sequence[str]) -> np.ndarray:
    """The columns of a CSV file of numbers, shape [rows, columns]; NaN where a cell is empty."""
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise UsageError(f"{path} has no column {missing[0]!r}.")
        rows = [[float(row[name] or "nan") for name in columns] for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"{path} is no table of numbers: {error}.") from None
    return np.asarray(rows, dtype=float).reshape(-1, len(columns))
