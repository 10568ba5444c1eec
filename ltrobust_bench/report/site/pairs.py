"""What the page that compares entries of a board reads: a script per board, since pages on a disk load nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from ltrobust_bench.report.board import Board
from ltrobust_bench.report.compare import every_pair
from ltrobust_bench.report.site.line import Line
from ltrobust_bench.scores.groups import by_size, rank_groups

METRICS = ("balanced", "head", "medium", "tail", "worst_tenth")
"""Numbers of an entry that stand beside each other."""
DECIMALS = 6
"""Of numbers that the page rounds to one: rounded to two before, 59.346 would be 59.4."""


def script(board: Board, lines: Sequence[Line]) -> str:
    """The board's entries, and what the paired test says of every two of them, as a script.

    Accuracies, differences and half widths of intervals are per cent or points with ``DECIMALS`` decimals, pairs in the
    order of ``itertools.combinations`` over the lines. Without a seed in common there is nothing (null).
    """
    counts = board.key.train_counts
    order = by_size(counts)
    found = {
        "slug": board.slug,
        "title": board.title,
        "classes": order.tolist(),
        "images": np.asarray(counts)[order].tolist(),
        "groups": {name: len(members) for name, members in rank_groups(counts).items()},
        "entries": [_entry(line, order) for line in lines],
        "pairs": {
            group: {
                "difference": _rounded(100 * pairs.difference),
                "half": _rounded(100 * pairs.half),
                "p": [float(f"{p:.6g}") for p in pairs.p_value.tolist()],
                "seeds": pairs.seeds.tolist(),
            }
            for group, pairs in every_pair([line.entry.runs for line in lines]).items()
        },
    }
    return f"globalThis.ltbenchBoard({json.dumps(found, separators=(',', ':'))});\n"


def _entry(line: Line, order: np.ndarray) -> dict[str, object]:
    return {
        "label": line.entry.label,
        "title": line.title,
        "source": line.source,
        "page": line.href,
        "rank": line.entry.rank,
        "seeds": [record.run.seed for record in line.entry.runs],
        **{
            name: {
                "classes": _rounded(line.entry.percent(attack, "per_class")[order]),
                **{metric: _rounded(np.atleast_1d(line.entry.percent(attack, metric)))[0] for metric in METRICS},
            }
            for name, attack in (("clean", "clean"), ("robust", "union"))
        },
    }


def _rounded(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else round(value, DECIMALS) for value in np.asarray(values, dtype=float).tolist()]
