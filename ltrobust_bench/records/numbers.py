"""Numbers of records: accuracies, errors, and signs that an evaluation can be fooled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ltrobust_bench.records.schema import Record
from ltrobust_bench.scores.metrics import Metrics, metrics_from_bits, shares
from ltrobust_bench.scores.reliability import COMPARED, Flag, signs


def class_accuracies(records: Sequence[Record], attacks: Sequence[str]) -> np.ndarray:
    """Class accuracies of runs on one test set: rows 'clean', each of ``attacks``, and the worst case of all of them
    and of what others broke.

    Returns:
        Fractions, float, shape [len(records), len(attacks) + 2, C].
    """
    first, joined = records[0], b"".join([record.correct_by_class for record in records])
    correct = np.frombuffer(joined, dtype=np.uint32).reshape(len(records), len(first.rows), -1)
    wanted = [first.rows.index(name) for name in ("clean", *attacks, "union")]
    return shares(correct[:, wanted], np.asarray(first.run.test_counts))


def summary(record: Record, attack: str) -> Metrics:
    """Metrics of one run under ``attack``: 'clean', an attack of the record, or 'union' (worst case of all).

    Raises:
        KeyError: if the record has no such attack.
    """
    return metrics_from_bits(record.bits(attack), record.labels(), record.run.train_counts)


def natural_error(record: Record) -> np.ndarray:
    """Share of each class that is misclassified without any attack, shape [C].

    Natural and boundary error add up to the robust error (Zhang et al., ICML 2019, TRADES, eq. 1).
    """
    return 1 - summary(record, "clean").per_class


def boundary_error(record: Record) -> np.ndarray:
    """Share of each class that is correct when clean and broken by some attack of the suite, shape [C]."""
    return summary(record, "clean").per_class - summary(record, "union").per_class


def flags_of(record: Record) -> list[Flag]:
    """The signs in a record."""
    images = sum(record.run.test_counts)
    accuracy = {name: record.correct[name] / images for name in COMPARED if name in record.correct}
    return signs(accuracy, record.broken_by_square / images, record.reliability, len(record.run.train_counts))
