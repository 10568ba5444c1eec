"""Which classes are safe: a run's result class by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ltrobust_bench.cli.shared import plain_table

if TYPE_CHECKING:
    from rich.table import Table

    from ltrobust_bench.records.schema import Record

SHOWN = 20
"""Classes that a table shows at most."""


def classes_table(records: Sequence[Record], names: Sequence[str], folds: bool = False) -> Table:
    """Class by class, the most robust first: images, and the accuracy of one run, or of several on disjoint test sets.

    Args:
        records: of one data set; their images are counted together.
        names: of the classes, by label.
        folds: whether the records are folds.
    """
    import numpy as np

    from ltrobust_bench.scores.intervals import wilson

    tested = np.sum([record.run.test_counts for record in records], axis=0)
    clean, robust = np.sum([record.correct[[0, -1]] for record in records], axis=0)
    with np.errstate(invalid="ignore"):
        clean, share = clean / tested, robust / tested
    low, high = wilson(robust, tested)
    order = np.lexsort((np.arange(len(names)), -clean, -share))
    over = f", over {len(records)} folds" if folds else ""
    title = f"class by class{over}" + (f": the {SHOWN} least robust of {len(names)}" if len(names) > SHOWN else "")
    table = plain_table(title, "robust: withstands every attack of the suite, in %; interval: Wilson, 95 %")
    table.add_column("class", overflow="ellipsis", no_wrap=True)
    for name in ("images", "tested", "clean", "robust", "interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for c in order[-SHOWN:]:
        images = max(record.run.train_counts[c] for record in records)
        shares = (f"{100 * clean[c]:.1f}", f"{100 * share[c]:.1f}", f"{100 * low[c]:.1f}-{100 * high[c]:.1f}")
        table.add_row(str(names[c]), str(images), str(tested[c]), *(shares if tested[c] else "---"))
    return table
