"""Every column of a board: its name, what it means, where its value comes from, and how people see it.

The CSV files, Markdown and terminal tables read this table: a new column is one entry here. Web pages show the columns
that ``site/headings.py`` puts under a heading; tables for papers are made of attacks and groups (:data:`METRIC`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ltrobust_bench.report import openness
from ltrobust_bench.report.board import METRICS, Board, Entry
from ltrobust_bench.report.values import (
    Cells,
    as_it_is,
    cost,
    deviation,
    external,
    extra_data,
    hours,
    interval,
    mean,
    number_or_none,
    of_reference,
    passes,
    percent,
    short,
    thirds,
    training_epsilon,
    whole,
)


@dataclass(frozen=True)
class Column:
    """A column of a board's table, one line per entry.

    Attributes:
        name: in files, and of the value in :data:`Cells`.
        meaning: one line.
        value: of an entry on its board.
        header: in Markdown and terminal tables; empty: not shown there.
        text: what people see, from the line's values and the decimals of groups; None: a percentage.
        wide: left out on terminals below 130 columns.
        filed: whether leaderboard.csv has it.
    """

    name: str
    meaning: str
    value: Callable[[Board, Entry], Any]
    header: str = ""
    text: Callable[[Cells, int], str] | None = None
    wide: bool = False
    filed: bool = True

    def shown(self, cells: Cells, decimals: int = 1) -> str:
        """The value as people see it; ``decimals``: of numbers of groups."""
        return short(cells[self.name]) if self.text is None else self.text(cells, decimals)


class Term(NamedTuple):
    """A column that is the same for all lines of a board: what it means, and its value."""

    meaning: str
    value: Callable[[Board], str]


class Metric(NamedTuple):
    """A number of a model under one attack.

    Attributes:
        meaning: one line.
        group: what a paper's table calls the classes that it is about; empty: no such group.
        title: the group in a heading.
        one_seed: whether a single seed has an interval: it is a proportion of images.
    """

    meaning: str
    group: str = ""
    title: str = ""
    one_seed: bool = True


METRIC = {
    "overall": Metric("accuracy over all test images, %"),
    "balanced": Metric("accuracy, mean over classes, %", "all", "all"),
    "head": Metric("accuracy over the third of the classes with the most training images, %", "head", "head"),
    "medium": Metric("accuracy over the middle third of the classes, %", "medium", "medium"),
    "tail": Metric("accuracy over the third of the classes with the fewest training images, %", "tail", "tail"),
    "worst_class": Metric("accuracy of the class where it is lowest, %", "worst_class", "worst class", False),
    "worst_tenth": Metric(
        "accuracy over the tenth of the classes where it is lowest, %", "worst_tenth", "worst 10 %", False
    ),
    "head_tail_gap": Metric("head minus tail, points; no measure of quality", one_seed=False),
}
ATTACK_TITLES = {
    "clean": "Clean",
    "union": "Worst case",
    "autoattack": "AutoAttack",
    "scaled-pgd-20": "Scaled PGD-20",
}
"""Rows of numbers as headings say them, where that is not the name in capitals."""

_SEEDS = "runs that differ in the training seed only; percentages are their mean"
_METHOD = "method and plug-ins, with the settings that differ from the track's defaults"
_INTERVAL = (
    "t over seeds: of the mean over seeds on these test images, without the images' own chance; wilson: one seed, the "
    "images' chance alone, without the spread between seeds"
)
_STD = "standard deviation over seeds, points; empty with one seed"
_AUTOATTACK = "autoattack: standard version by its authors' code; aa-small-c: what stands in for it below 4 classes"


BOARD = {
    "board": Term(
        "name of the board; on one board are runs with the same terms, images, network and attacks", lambda b: b.slug
    ),
    "protocol": Term("protocol the runs were made under", lambda b: b.key.protocol),
    "protocol_digest": Term(
        "first 12 hex digits of the digest of what the protocol states for the data set",
        lambda b: b.key.protocol_digest[:12],
    ),
    "protocol_status": Term(
        "frozen: for papers; candidate: may still change; disposable or smoke: not for papers; unknown: not "
        "installed here",
        lambda b: b.status,
    ),
    "dataset": Term("data set that the training images were cut from", lambda b: b.key.dataset),
    "imbalance_ratio": Term(
        "training images of the largest class over those of the smallest", lambda b: f"{b.key.imbalance_ratio:g}"
    ),
    "profile": Term(
        "how class sizes fall: exp, step, balanced (the same total in equal classes), own (as found)",
        lambda b: b.key.profile,
    ),
    "model": Term("network", lambda b: b.key.model),
    "track": Term("fixed: one training budget for every method; paper: the authors' recipe", lambda b: b.key.track),
    "scope": Term(
        "full, or reduced: images or epochs were cut by hand", lambda b: "reduced" if b.key.reduced else "full"
    ),
}
"""What every line of every file starts with."""

COLUMNS = {
    column.name: column
    for column in [
        Column(
            "rank",
            "at least 1 plus the number of entries above that a paired test resolves as better, worse than the rank of "
            "each of these, never better than that of the entry above; empty: not ranked",
            lambda b, e: e.rank,
            "#",
            lambda c, _: str(c["rank"] or "-"),
        ),
        Column("method", _METHOD, lambda b, e: e.label, "Method", as_it_is("method")),
        Column(
            "union_balanced",
            "worst case: share of images that withstand every attack of the suite, mean over classes, %",
            percent("union", "balanced"),
            "Worst case",
        ),
        Column(
            "interval",
            "95 % interval of the worst case over all classes: t over seeds, without the chance of the test images; w: "
            "one seed, Wilson, without the spread between seeds",
            lambda b, e: 100 * e.interval[0],
            "Interval",
            interval,
            filed=False,
        ),
        Column(
            "external",
            "worst case where somebody tried more than the suite: the lowest that thorough evaluations and anybody's "
            "adversarial images leave, %; empty: nobody did",
            external,
            "External",
            wide=True,
        ),
        Column("autoattack_kind", _AUTOATTACK, lambda b, e: b.autoattack),
        Column(
            "autoattack_balanced",
            "share of images that withstand AutoAttack alone, mean over classes, %",
            percent("autoattack", "balanced"),
            "AutoAttack",
        ),
        Column(
            "union_tail",
            "worst case over the third of the classes with the fewest training images, %",
            percent("union", "tail"),
            "Tail",
            wide=True,
        ),
        Column(
            "union_worst_tenth",
            "worst case over the tenth of the classes where it is lowest, %",
            percent("union", "worst_tenth"),
            "Worst 10%",
        ),
        Column(
            "clean_balanced",
            "share of images classified correctly without an attack, mean over classes, %",
            percent("clean", "balanced"),
            "Clean",
        ),
        Column(
            "clean_head",
            "clean accuracy over the third of the classes with the most training images, %",
            percent("clean", "head"),
        ),
        Column("clean_medium", "clean accuracy over the middle third of the classes, %", percent("clean", "medium")),
        Column(
            "clean_tail",
            "clean accuracy over the third of the classes with the fewest training images, %",
            percent("clean", "tail"),
        ),
        Column("clean_thirds", "the three together", lambda b, e: None, "Clean h/m/t", thirds("clean"), filed=False),
        Column(
            "union_head",
            "worst case over the third of the classes with the most training images, %",
            percent("union", "head"),
        ),
        Column("union_medium", "worst case over the middle third of the classes, %", percent("union", "medium")),
        Column(
            "union_thirds",
            "worst case over the three thirds of the classes",
            lambda b, e: None,
            "Worst case h/m/t",
            thirds("union"),
            filed=False,
        ),
        Column(
            "union_head_tail_gap",
            "worst case, head minus tail, points; no measure of quality: robust to nothing is 0",
            percent("union", "head_tail_gap"),
            "Gap",
            wide=True,
        ),
        Column(
            "union_tail_of_reference",
            "union_tail in per cent of what plain AT on as many images in equal classes (profile balanced) reaches on "
            "the same classes; empty: not run, or not beyond doubt",
            of_reference,
        ),
        Column("seeds", _SEEDS, lambda b, e: len(e.runs), "Seeds", as_it_is("seeds"), wide=True),
        Column(
            "interval_low",
            "lower end of the 95 % interval of union_balanced, %",
            lambda b, e: number_or_none(100 * e.interval[0]),
        ),
        Column(
            "interval_high",
            "upper end of the 95 % interval of union_balanced, %",
            lambda b, e: number_or_none(100 * e.interval[1]),
        ),
        Column("interval_kind", _INTERVAL, lambda b, e: e.interval_kind),
        Column("union_balanced_std", f"union_balanced, {_STD}", deviation("union", "balanced")),
        Column("autoattack_balanced_std", f"autoattack_balanced, {_STD}", deviation("autoattack", "balanced")),
        Column("union_tail_std", f"union_tail, {_STD}", deviation("union", "tail")),
        Column("clean_balanced_std", f"clean_balanced, {_STD}", deviation("clean", "balanced")),
        Column(
            "training_forwards",
            "images passed forward through the network in training, mean over seeds",
            whole(lambda record: record.cost.training.forwards),
        ),
        Column(
            "training_backwards",
            "images passed backward through the network in training, mean over seeds",
            whole(lambda record: record.cost.training.backwards),
        ),
        Column(
            "passes",
            "million images passed forward and backward in training",
            passes,
            text=lambda c, _: f"{c['passes'] / 1e6:.2f}",
            filed=False,
        ),
        Column(
            "training_seconds",
            "seconds of training on the machine that ran it, mean over seeds; machines differ",
            mean(lambda record: record.cost.training.seconds),
            text=lambda c, _: f"{c['training_seconds']:.0f}",
        ),
        Column("cost", "passes and seconds", lambda b, e: None, "Cost", cost, wide=True, filed=False),
        Column(
            "gpu_hours",
            "hours of training on one GPU, mean over the seeds that ran on one; empty: none did",
            hours(on_cpu=False),
        ),
        Column(
            "cpu_hours",
            "hours of training times CPU threads, mean over the seeds that ran on a CPU; empty: none did",
            hours(on_cpu=True),
        ),
        Column("device", "what it ran on", lambda b, e: "; ".join(sorted({r.environment.device for r in e.runs}))),
        Column(
            "optimizer_steps",
            "optimiser steps, those of a run it builds on included",
            whole(lambda record: record.cost.optimizer_steps),
        ),
        Column(
            "extra_data",
            "training images beyond the split's: name and kind, share of each batch, and what of the data set they or "
            "their maker saw (nothing, split, balanced, unknown); first weights of others; empty: neither",
            extra_data,
        ),
        Column("training_epsilon", "radius of the attack in training, pixel scale 0 to 1", training_epsilon),
        Column(
            "trials",
            "configurations tried on a validation split before this one",
            lambda b, e: max(record.status.trials for record in e.runs),
        ),
        Column(
            "verification",
            "claimed, re-evaluated or retrained, the lowest of its runs; empty: not on a public board",
            lambda b, e: e.level,
        ),
        Column(
            "weights",
            "networks of its runs that come with the package, by the name that every command takes",
            openness.weights,
            filed=False,
        ),
        Column(
            "code",
            "the authors' code, where they published any; ours is in this repository",
            openness.code,
            filed=False,
        ),
        Column(
            "licence",
            "what the repository of the authors' code states, as far as somebody looked",
            openness.licence,
            filed=False,
        ),
        Column(
            "flags",
            "what a reader must know before comparing; each flag is explained",
            lambda b, e: "; ".join(e.flags),
            "Flags",
            lambda c, _: c["flags"].replace("; ", ", "),
            wide=True,
        ),
        Column(
            "records",
            "identities of the records the line is made from, one per seed",
            lambda b, e: " ".join(record.id for record in e.runs),
        ),
    ]
}
"""What tables tell of an entry, by name, in the order of the files and of the Markdown and terminal tables."""


def _spread(names: Mapping[str, bool]) -> dict[str, str]:
    """Standard deviation and interval of each of some columns, and whether a single seed has an interval."""
    found: dict[str, str] = {}
    for name, one_seed in names.items():
        empty = "" if one_seed else "; empty with one seed"
        ends = {"low": f"{name}, lower end of its 95 % interval{empty}", "high": f"{name}, upper end{empty}"}
        found |= {f"{name}_std": f"{name}, {_STD}", **{f"{name}_{end}": text for end, text in ends.items()}}
    return found


SHARES = {
    "clean": "share of the class classified correctly without an attack, %",
    "autoattack": "share of the class that withstands AutoAttack alone, %",
    "union": "share of the class that withstands every attack of the suite, %",
    "boundary_error": "share of the class that is correct without an attack and broken by one, %",
}
_TERMS = {name: term.meaning for name, term in BOARD.items()}
LEADERBOARD = {**_TERMS, **{name: column.meaning for name, column in COLUMNS.items() if column.filed}}
"""The columns of leaderboard.csv, and what they mean; below, those of the other files."""
GROUP_COLUMNS = {
    **_TERMS,
    "method": _METHOD,
    "attack": "clean, an attack of the suite, or union: the worst case of all, image by image",
    "seeds": _SEEDS,
    "interval_kind": _INTERVAL,
    **{name: METRIC[name].meaning for name in METRICS},
    **_spread({name: METRIC[name].one_seed for name in METRICS}),
}
PER_CLASS = {
    **_TERMS,
    "method": _METHOD,
    "seeds": _SEEDS,
    "interval_kind": _INTERVAL,
    "autoattack_kind": _AUTOATTACK,
    "class": "label of the class in the data set",
    "rank": "place of the class by training images, 0 is the largest",
    "group": "head, medium or tail: thirds of the classes by training images; empty below 3 classes",
    "train_images": "training images of the class",
    "test_images": "test images of the class",
    **SHARES,
    "natural_error": "share of the class misclassified without an attack, %",
    **_spread(dict.fromkeys(SHARES, True)),
}


def cells_of(board: Board, most: int | None = None) -> list[dict[str, Any]]:
    """The :data:`Cells` of the first ``most`` entries of a board (None: all)."""
    return [{name: column.value(board, entry) for name, column in COLUMNS.items()} for entry in board.entries[:most]]
