"""Numbers of records: accuracies, and signs that an evaluation can be fooled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ltrobust_bench.records.schema import Record
from ltrobust_bench.scores.metrics import shares
from ltrobust_bench.scores.reliability import COMPARED, MEANINGS, Flag, signs


def class_accuracies(records: Sequence[Record], attacks: Sequence[str]) -> np.ndarray:
    """Class accuracies of runs on one test set: rows 'clean', each of ``attacks``, and the worst case of all of them
    and of what others broke.

    Returns:
        Fractions, float, shape [len(records), len(attacks) + 2, C].
    """
    wanted = [records[0].rows.index(name) for name in ("clean", *attacks, "union")]
    correct = np.stack([record.correct for record in records])
    return shares(correct[:, wanted], np.asarray(records[0].run.test_counts))


def flags_of(record: Record) -> list[Flag]:
    """The signs in a record: by what others measured of its network, and by its own word where nobody did."""
    totals = dict(zip(record.rows, record.correct.sum(axis=1).tolist(), strict=True))
    accuracy = {name: totals[name] / record.images for name in COMPARED if name in totals}
    classes = len(record.run.train_counts)
    measured = () if record.standing is None else record.standing.measured
    found: dict[str, Flag] = {}
    for one in measured or (record.reliability,):
        for flag in signs(accuracy, record.tally.by_square / record.images, one, classes):
            found.setdefault(flag.name, flag)
    return [found[name] for name in MEANINGS if name in found]
