"""A board, or a part of it, as a table that a paper can print: Markdown, LaTeX, CSV, JSON, and its BibTeX."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

from ltrobust_bench.cards import Paper
from ltrobust_bench.data.registry import protocol_for
from ltrobust_bench.errors import UnknownNameError, UsageError
from ltrobust_bench.numbers import number
from ltrobust_bench.report.aggregate import NEEDS_SEEDS, TOP, UNRANKED, entries_called
from ltrobust_bench.report.board import Board, Entry
from ltrobust_bench.report.cited import cards_of, paper_name, references
from ltrobust_bench.report.latex import BEST, SECOND, Options, latex
from ltrobust_bench.report.paper_rows import DAGGER, GROUPS, attack_title, group_title, plain
from ltrobust_bench.report.tables import markdown_text
from ltrobust_bench.report.values import THIRDS
from ltrobust_bench.scores.groups import rank_groups
from ltrobust_bench.scores.intervals import Spread
from ltrobust_bench.scores.priors import prior_named, under

Format = Literal["markdown", "latex", "csv", "json", "bibtex"]
FORMATS: tuple[Format, ...] = get_args(Format)
Names = Literal["board", "paper"]


@dataclass(frozen=True)
class PaperTable:
    """Entries of a board in rows, attacks and groups of classes in columns.

    Attributes:
        board: where the entries are from.
        entries: in the order shown.
        columns: 'clean', attacks of the suite, 'union'.
        groups: names of ``GROUPS``, shown for each column.
        decimals: of every percentage.
        names: how entries are called, as the board does (``robal``) or as papers do (``RoBal``).
        prior: over the classes, [C], and its name: instead of a mean over all classes; None: it is balanced.
        deviations: whether means stand with their standard deviation over seeds.
    """

    board: Board
    entries: tuple[Entry, ...]
    columns: tuple[str, ...]
    groups: tuple[str, ...]
    decimals: int = 1
    names: Names = "board"
    prior: tuple[str, np.ndarray] | None = None
    deviations: bool = True

    @cached_property
    def spreads(self) -> dict[tuple[int, str], Spread]:
        """Accuracy under the prior, of each entry's place and column; empty without a prior."""
        places = [(i, c) for i in range(len(self.entries)) for c in self.columns if self.prior is not None]
        weights, tests = self.prior[1] if self.prior else np.empty(0), self.board.key.test_counts
        return {(i, c): under(weights, self.entries[i].per_seed(c, "per_class") / 100, tests) for i, c in places}

    def interval(self, i: int, column: str, group: str, form: str = "{}") -> str:
        """The 95 % interval of an entry's accuracy under the prior, in a form; empty for other numbers."""
        if group != "all" or not self.spreads:
            return ""
        spread = self.spreads[i, column]
        return form.format("-".join(f"{100 * float(end):.{self.decimals}f}" for end in (spread.low, spread.high)))

    def intervals(self, i: int) -> list[str]:
        """What stands behind each cell of an entry's row."""
        return [self.interval(i, column, group, " ({})") for column in self.columns for group in self.groups]

    @cached_property
    def means(self) -> np.ndarray:
        """Mean over seeds, per cent, shape [entries, columns, groups]."""
        return self._filled(lambda entry, column, metric: float(entry.percent(column, metric)), "mean")

    @cached_property
    def stds(self) -> np.ndarray:
        """Standard deviation over seeds, points, shape [entries, columns, groups]; NaN with one seed or if left out."""
        if not self.deviations:
            return np.full(self.means.shape, np.nan)
        return self._filled(lambda entry, column, metric: entry.std(column, metric), "std")

    @cached_property
    def marks(self) -> np.ndarray:
        """``BEST`` and ``SECOND`` of each column among the ranked entries shown; equal as printed is marked alike."""
        marks = np.zeros(self.means.shape, dtype=int)
        ranked = np.flatnonzero([entry.rank is not None for entry in self.entries])
        if len(ranked) < 2:
            return marks
        # Not np.round: it takes 59.45 for 59.4, which prints as 59.5.
        shown = np.vectorize(lambda mean: float(f"{mean:.{self.decimals}f}"))(self.means[ranked])
        best = shown.max(axis=0)
        rest = np.where(shown < best, shown, -np.inf).max(axis=0)
        marks[ranked] = np.where(shown == best, BEST, np.where(shown == rest, SECOND, 0))
        return marks

    def label(self, row: int) -> str:
        """What an entry is called, with the dagger of one that has no rank where others have."""
        entry = self.entries[row]
        name = paper_name(entry) if self.names == "paper" else entry.label
        return name + (f" {DAGGER}" if _unmarked(self.board, entry) else "")

    def pairs(self, row: int) -> list[tuple[str, str]]:
        """Mean and standard deviation of each cell of a row as printed; empty where there is none."""

        def text(value: float) -> str:
            return "" if np.isnan(value) else f"{value:.{self.decimals}f}"

        values = zip(self.means[row].ravel(), self.stds[row].ravel(), strict=True)
        return [(text(mean), text(std)) for mean, std in values]

    def _filled(self, cell: Callable[[Entry, str, str], float], name: str) -> np.ndarray:
        found = np.asarray([[[cell(e, c, GROUPS[g]) for g in self.groups] for c in self.columns] for e in self.entries])
        if "all" in self.groups:
            for (i, column), spread in self.spreads.items():
                found[i, self.columns.index(column), self.groups.index("all")] = 100 * getattr(spread, name)
        return found


def paper_table(
    board: Board,
    names: Sequence[str] = (),
    columns: Sequence[str] = (),
    groups: Sequence[str] = (),
    decimals: int = 1,
    prior: str | None = None,
    called: Names = "board",
    deviations: bool = True,
) -> PaperTable:
    """A table of a board.

    Args:
        names: labels of entries, in the order to be shown; none: all, best first.
        columns: clean, attacks of the suite, union; none: clean, PGD-20, AutoAttack and union, where there are such.
        groups: of ``GROUPS``; none: all and tail.
        decimals: of every percentage.
        prior: over the classes instead of a balanced mean in the group ``all``, see
            :func:`~ltrobust_bench.scores.priors.prior_named`; ranks stay balanced.
        called: how the table calls entries, as the board or as papers do.
        deviations: whether means stand with their standard deviation over seeds.

    Raises:
        UnknownNameError: for a name that the board does not have.
        UsageError: for a name given twice, or thirds of fewer than 3 classes.
    """
    rows = ("clean", *board.key.suite, "union")
    have_thirds = bool(rank_groups(board.key.train_counts))
    usual = ["clean", "pgd-20", board.autoattack, "union"]
    columns = tuple(columns) or tuple(c for c in usual if c in rows)
    groups = tuple(groups) or (("all", "tail") if have_thirds else ("all",))
    for kind, given, known in (("attack of this board", columns, rows), ("group of classes", groups, GROUPS)):
        for name in given:
            if name not in known:
                raise UnknownNameError(kind, name, known)
        if len(set(given)) < len(given):
            raise UsageError(f"a column is named twice: {', '.join(given)}.")
    if not have_thirds and set(groups) & set(THIRDS):
        raise UsageError(f"{board.key.dataset} has {len(board.key.train_counts)} classes; thirds need at least 3.")
    entries = entries_called(board, names, "clean") if names else board.entries
    weights = None if prior is None else (prior, prior_named(prior, board.key.train_counts))
    return PaperTable(board, tuple(entries), tuple(columns), tuple(groups), decimals, called, weights, deviations)


def render(table: PaperTable, form: Format, options: Options | None = None) -> str:
    """The table as text in one of ``FORMATS``; the same table gives the same bytes.

    Args:
        options: of LaTeX.
    """
    if form == "latex":
        marks = caption(table, "bold, second best underlined")
        cites = [",".join(_references([entry])) for entry in table.entries]
        return latex(table, marks, cites, options or Options())
    writers: dict[Format, Callable[[PaperTable], str]] = {
        "markdown": markdown,
        "csv": as_csv,
        "json": as_json,
        "bibtex": bibtex,
    }
    return writers[form](table)


def markdown(table: PaperTable) -> str:
    """Markdown: best in bold, and the terms below."""
    heads = [f"{attack_title(c)}{_suffix(g)}" for c in table.columns for g in table.groups]
    lines = [["#", "Method", *heads], ["---:", "---", *["---:"] * len(heads)]]
    for i, entry in enumerate(table.entries):
        cells = [
            (f"**{_joined(pair)}**" if mark == BEST else _joined(pair)) + end
            for pair, mark, end in zip(table.pairs(i), table.marks[i].ravel(), table.intervals(i), strict=True)
        ]
        label = markdown_text(plain(table.label(i)))
        lines.append([str(entry.rank or "-"), label, *cells])
    return "".join("| " + " | ".join(line) + " |\n" for line in lines) + f"\n{markdown_text(caption(table, 'bold'))}\n"


def as_csv(table: PaperTable) -> str:
    """CSV: rank, method, seeds, and each column's mean and standard deviation."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [f"{column}_{group}" for column in table.columns for group in table.groups]
    bounds = [f"{column}_all_interval" for column in table.columns if "all" in table.groups and table.prior]
    writer.writerow(["rank", "method", "seeds", *(f"{name}{end}" for name in names for end in ("", "_std")), *bounds])
    for i, entry in enumerate(table.entries):
        cells = [cell for pair in table.pairs(i) for cell in pair]
        ends = [table.interval(i, column, "all") for column in table.columns][: len(bounds)]
        writer.writerow([entry.rank or "", entry.label, len(entry.runs), *cells, *ends])
    return text.getvalue()


def as_json(table: PaperTable) -> str:
    """JSON: the board's terms, and for each entry its seeds, records and numbers (per cent, not rounded)."""
    key = table.board.key

    def plain(value: float) -> float | None:
        return None if np.isnan(value) else float(value)

    def numbers(i: int) -> dict[str, Any]:
        return {
            column: {
                group: {"mean": plain(table.means[i, c, g]), "std": plain(table.stds[i, c, g])}
                | ({"interval": end} if (end := table.interval(i, column, group)) else {})
                for g, group in enumerate(table.groups)
            }
            for c, column in enumerate(table.columns)
        }

    terms = {name: getattr(key, name) for name in ("protocol", "protocol_digest", "dataset", "imbalance_ratio")}
    terms |= {name: getattr(key, name) for name in ("profile", "model", "track", "threat_model", "epsilon")}
    entries = [
        {
            "rank": entry.rank,
            "method": entry.label,
            "flags": entry.flags,
            "seeds": [run.run.seed for run in entry.runs],
            "records": [run.id for run in entry.runs],
            "percent": numbers(i),
        }
        for i, entry in enumerate(table.entries)
    ]
    terms |= {} if table.prior is None else {"prior": {"name": table.prior[0], "weights": table.prior[1].tolist()}}
    return json.dumps({"board": table.board.slug, **terms, "entries": entries}, indent=1) + "\n"


def bibtex(table: PaperTable) -> str:
    """BibTeX of the methods and plug-ins shown, each paper once."""
    return "\n".join(f"{paper.bibtex.strip()}\n" for paper in _references(table.entries).values())


def caption(table: PaperTable, marks: str) -> str:
    """What a reader must know of the numbers, in sentences; ``marks`` says how the best are marked."""
    key, board = table.board.key, table.board
    profile = "" if key.profile == "exp" else f" (profile {key.profile})"
    terms = f"{key.dataset}, imbalance ratio {key.ratio}{profile}, {key.model}"
    parts = [
        f"Accuracy in per cent on {terms}, {_over_seeds(table.entries, table.deviations)}",
        f"Protocol {key.protocol} ({key.protocol_digest[:12]}), track {key.track}, {key.threat_model} radius "
        f"{_radius(board)}",
    ]
    if "union" in table.columns:
        parts.append(f"Worst case: an image counts if it withstands every attack ({', '.join(key.suite)})")
    if table.prior is not None:
        parts.append(
            f"All classes: weighed by the prior {table.prior[0]!r}, with the 95 % interval of that mean in brackets; "
            "ranks are by the balanced accuracy"
        )
    if set(table.groups) & set(THIRDS):
        parts.append("Head, medium, tail: thirds of the classes by training images")
    if table.marks.any():
        parts.append(f"Best mean shown in {marks}; the data do not tell entries of one rank apart")
    if any(NEEDS_SEEDS in entry.flags for entry in table.entries):
        parts.append(f"A claim to ranks 1 to {TOP} {NEEDS_SEEDS}")
    if any(_unmarked(board, entry) for entry in table.entries):
        parts.append(f"{DAGGER} Not ranked, so not marked")
    parts += [f"{warning[0].upper()}{warning[1:]}" for warning in board.warnings]
    flags: dict[str, list[str]] = {}
    for entry in table.entries:
        for flag in entry.flags:
            if flag not in (UNRANKED, NEEDS_SEEDS, "1 seed"):
                flags.setdefault(flag, []).append(entry.label)
    if flags:
        parts.append("Flags: " + "; ".join(f"{flag} ({', '.join(labels)})" for flag, labels in flags.items()))
    return " ".join(f"{part}." for part in parts)


def _over_seeds(entries: Sequence[Entry], deviations: bool) -> str:
    seeds = {tuple(run.run.seed for run in entry.runs) for entry in entries}
    counts = sorted({len(own) for own in seeds})
    if counts == [1]:
        return "one seed each"
    shown = "mean ± standard deviation" if deviations else "mean"
    if len(seeds) == 1:
        return f"{shown} over seeds {', '.join(map(str, *seeds))}"
    return f"{shown} over the seeds of each entry ({'-'.join(map(str, dict.fromkeys((counts[0], counts[-1]))))})"


def _unmarked(board: Board, entry: Entry) -> bool:
    """Whether an entry has no rank on a board that has ranks."""
    return entry.rank is None and board.status != "smoke"


def _suffix(group: str) -> str:
    return "" if group == "all" else f", {group_title(group)}"


def _joined(pair: tuple[str, str]) -> str:
    return " ± ".join(part for part in pair if part)


def _radius(board: Board) -> str:
    """The evaluation radius as the protocol writes it, where it does."""
    if board.status != "unknown":
        stated = protocol_for(board.key.dataset, board.key.protocol).terms(board.key.dataset).epsilon
        if number(stated) == board.key.epsilon:
            return str(stated)
    return f"{board.key.epsilon:.6g}"


def _references(entries: Iterable[Entry]) -> dict[str, Paper]:
    """The papers of methods and plug-ins by citation key."""
    return references(card for entry in entries for card in cards_of(entry.runs[0].run))
