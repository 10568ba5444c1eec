"""What papers report, beside what our records say. Shown, never ranked; no torch here.

``results/published/<citation key>.csv`` holds one line per number of the paper with that key. People add lines by pull
request, so reading names whatever is wrong in a file and goes on with the rest.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from ltrobust_bench.cards import Evidence, methods, plugins
from ltrobust_bench.data.registry import datasets
from ltrobust_bench.errors import UnknownNameError, UsageError
from ltrobust_bench.plan.run import combined
from ltrobust_bench.reading import read_text
from ltrobust_bench.records.io import find_records
from ltrobust_bench.records.strict import LARGEST, finding
from ltrobust_bench.records.validate import Problem, shown
from ltrobust_bench.report.aggregate import Board, Entry, boards
from ltrobust_bench.terms import Strict

KEY = re.compile("[a-z]+[0-9]{4}[a-z]+")
ATTACKS = {
    "clean": "clean",
    "fgsm": "fgsm",
    "mim20": "mim-20",
    "pgd": None,
    "pgd20": "pgd-20",
    "pgd100": "pgd-100",
    "cw20": "cw-20",
    "lsa": None,
    "aa": "autoattack",
    "robust_unspecified": None,
}
"""How papers' attacks are called in the files, and what is the same in our suite."""
METRIC = re.compile(
    rf"(?P<tail>tail_)?(?P<balanced>balanced_)?(?P<attack>{'|'.join(ATTACKS)})(_class_(?P<label>[0-9]+))?"
    rf"(?P<gain>_gain(_over_[a-z0-9-]+)?)?"
)
Line = Annotated[str, Field(max_length=400)]


class PublishedNumber(Strict, strict=False):
    """A number that a paper reports, as one line of a file; the fields are its columns, but for ``paper``.

    Where a name of ours is asked for, none means that there is none, or that the paper does not say.
    """

    paper: str = Field(description="citation key of the paper, the file's name")
    dataset: str
    imbalance_ratio: float | None = Field(default=None, ge=1, description="none: not stated")
    model: str | None = Field(default=None, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", description="none: not stated")
    method: str | None = Field(default=None, description="our name of it, plug-ins included; none: we do not have it")
    of: Line | None = Field(default=None, description="which form of the method, if it is not the plain one")
    name: Line = Field(description="how the paper calls the method")
    metric: str
    value: Decimal = Field(description="per cent, or points where the metric is a gain; digits as reported")
    std: Decimal | None = Field(default=None, ge=0, le=100, description="deviation over the paper's seeds")
    kind: Evidence
    where: Line = Field(description="table, figure or section of the paper")
    source: Line
    note: Line = ""

    @field_validator("of", "name", "where", "source", "note")
    @classmethod
    def _prints(cls, text: str) -> str:
        if not text.isprintable() or text != text.strip():
            raise ValueError("must be one line of text, without spaces around it")
        return text

    @field_validator("dataset")
    @classmethod
    def _is_a_dataset(cls, name: str) -> str:
        if name not in datasets:
            raise ValueError(f"must be a data set of the benchmark; there are {', '.join(datasets.names())}")
        return name

    @field_validator("method")
    @classmethod
    def _is_ours(cls, label: str) -> str:
        host, *around = label.split("+")
        unknown = [host] * (host not in methods) + [p for p in around if p not in plugins]
        if unknown:
            raise ValueError(f"must be empty, or a method of ours with its plug-ins; {unknown[0]!r} is none")
        ordered = combined(host, sorted(around, key=lambda p: plugins.get(p).card.order))
        if label != ordered:
            raise ValueError(f"must be {ordered}, plug-ins in the order in which they apply")
        return label

    @field_validator("metric")
    @classmethod
    def _is_a_metric(cls, name: str) -> str:
        if METRIC.fullmatch(name) is None:
            raise ValueError(
                f"must be one of {', '.join(ATTACKS)}; before it, where meant, tail_ and balanced_, "
                f"behind it _class_LABEL, _gain or _gain_over_METHOD"
            )
        return name

    @field_validator("value")
    @classmethod
    def _is_in_range(cls, value: Decimal, info: ValidationInfo) -> Decimal:
        gain = "_gain" in info.data.get("metric", "")
        if not (-100 if gain else 0) <= value <= 100:
            raise ValueError("must be between -100 and 100 points" if gain else "must be between 0 and 100 per cent")
        return value

    @field_validator("source")
    @classmethod
    def _is_a_link(cls, text: str) -> str:
        if not re.fullmatch(r"https?://\S+", text):
            raise ValueError("must be a link that a reader can follow, https://...")
        return text

    @property
    def of_one_class(self) -> bool:
        """Whether it is of a single class; there are too many of these for a figure or a page."""
        return "_class_" in self.metric

    @property
    def setting(self) -> str:
        """Data, ratio and network in words."""
        ratio = f"imbalance ratio {self.imbalance_ratio:g}" if self.imbalance_ratio else "imbalance ratio not stated"
        return f"{self.dataset}, {ratio}, {self.model or 'network not stated'}"

    @property
    def as_ours(self) -> str:
        """What it is among our methods."""
        return f"{self.method or '-'} ({self.of})" if self.of else self.method or "-"

    @property
    def with_deviation(self) -> str:
        """Value and deviation with the digits that were reported."""
        return f"{self.value}" if self.std is None else f"{self.value} \N{PLUS-MINUS SIGN} {self.std}"


COLUMNS = [name for name in PublishedNumber.model_fields if name != "paper"]


def read_published(folder: Path) -> tuple[list[PublishedNumber], list[Problem]]:
    """The numbers in the CSV files of a folder, by file and line, and what is wrong with the lines that hold none.

    Raises:
        UsageError: if the folder has no such file.
    """
    files = sorted(folder.glob("*.csv"))
    if not files:
        raise UsageError(f"no published numbers in {shown(folder)}; name the folder above it with --results-dir.")
    numbers: list[PublishedNumber] = []
    problems: list[Problem] = []
    for path in files:
        try:
            for found in _lines(path):
                (problems if isinstance(found, Problem) else numbers).append(found)  # type: ignore[arg-type]
        except (OSError, ValueError, csv.Error) as error:
            problems.append(_problem(path, "file", "must be a CSV file in UTF-8", str(error)))
    return numbers, problems


def _problem(path: Path, field: str, allowed: str, seen: object) -> Problem:
    found = finding(field, allowed, seen)
    return Problem(shown(path), "published", found.field, found.allowed, found.seen)


def _lines(path: Path) -> Iterator[PublishedNumber | Problem]:
    """What each line of a file holds, and all that is wrong with it."""
    if not KEY.fullmatch(path.stem):
        yield _problem(
            path, "file", "must be called by the paper's citation key, e.g. wu2021adversarial.csv", path.name
        )
        return
    if path.stat().st_size > LARGEST:
        yield _problem(path, "file", f"must have at most {LARGEST:,} bytes", path.stat().st_size)
        return
    with io.StringIO(read_text(path, LARGEST), newline="") as handle:
        reader = csv.DictReader(handle, strict=True)
        names = list(reader.fieldnames or ())
        if sorted(names) != sorted(COLUMNS):
            wrong = [f"without {name}" for name in COLUMNS if name not in names]
            wrong += [f"with {name}" for name in names if name not in COLUMNS]
            wrong += [f"with {name} twice" for name in COLUMNS if names.count(name) > 1]
            yield _problem(path, "line 1", f"must have the columns {', '.join(COLUMNS)}", ", ".join(wrong))
            return
        first: dict[tuple[object, ...], int] = {}
        for cells in reader:
            line = reader.line_num
            if None in cells or None in cells.values():
                count = len(names) + len(cells.get(None, ())) - list(cells.values()).count(None)  # type: ignore[call-overload]
                yield _problem(path, f"line {line}", f"must have {len(names)} cells", count)
                continue
            try:
                number = PublishedNumber.model_validate({k: v for k, v in cells.items() if v} | {"paper": path.stem})
            except ValidationError as error:
                for wrong_cell in error.errors(include_url=False, include_context=False):
                    column = str(wrong_cell["loc"][0])
                    allowed = wrong_cell["msg"].removeprefix("Value error, ")
                    yield _problem(path, f"line {line}, {column}", allowed, cells[column])
                continue
            said = (number.dataset, number.imbalance_ratio, number.model, number.name, number.metric, number.where)
            if first.setdefault(said, line) != line:
                yield _problem(path, f"line {line}", f"must not say again what line {first[said]} says", number.metric)
                continue
            yield number


def select(
    numbers: Iterable[PublishedNumber],
    dataset: str | None = None,
    method: str | None = None,
    metric: str | None = None,
) -> list[PublishedNumber]:
    """Those of a data set, of a method and of a metric, in any case of letters; None: of any.

    Args:
        method: a method or plug-in of ours, alone or as part of a combination, or a name that a paper uses.
        metric: a metric, or a pattern such as ``tail_*``.

    Raises:
        UnknownNameError: for a word that fits no number at all.
    """
    found = list(numbers)
    asked = (
        ("data set", dataset, lambda n: [n.dataset]),
        ("method", method, lambda n: [n.name, n.method, *n.method.split("+")] if n.method else [n.name]),
        ("metric", metric, lambda n: [n.metric]),
    )
    kept = found
    for what, word, words_of in asked:
        if word is None:
            continue
        words = {w for n in found for w in words_of(n)}
        fitting = {w for w in words if fnmatchcase(w.lower(), word.lower())}
        if not fitting:
            raise UnknownNameError(f"{what} among the published numbers", word, words)
        kept = [n for n in kept if not fitting.isdisjoint(words_of(n))]
    return kept


class Ours(NamedTuple):
    """What our records say where a paper says something: a value in per cent, and the board that has it."""

    value: float
    board: Board


def beside(numbers: Sequence[PublishedNumber], records_dir: Path) -> tuple[list[Ours | None], list[str]]:
    """Ours for each number, see :func:`counterparts`, and what was wrong with records on the way."""
    wanted = {(n.dataset, n.imbalance_ratio, n.method) for n in numbers if n.method and not n.of}
    records, problems = find_records([records_dir])
    runs = ((record, record.run) for record in records)
    fitting = [record for record, run in runs if (run.dataset, run.imbalance_ratio, run.combination) in wanted]
    return counterparts(numbers, boards(fitting)), problems


def counterparts(numbers: Sequence[PublishedNumber], found: Iterable[Board]) -> list[Ours | None]:
    """Ours for each number, from some boards.

    A counterpart is an entry of a full board with the same data set, imbalance ratio and method, plain, and with an
    attack of the same name, in Linf as all papers' numbers are; with the same network if there is one. Gains, and a
    paper's tail, have none.
    """
    entries = [
        (board, entry)
        for board in found
        if board.status in ("frozen", "candidate", "disposable")
        and (board.key.threat_model, board.key.profile) == ("Linf", "exp")
        and not board.key.reduced
        for entry in board.entries
    ]
    return [_counterpart(number, entries) for number in numbers]


def _counterpart(number: PublishedNumber, entries: Sequence[tuple[Board, Entry]]) -> Ours | None:
    if number.of:
        return None
    fitting = [
        Ours(value, board)
        for board, entry in entries
        if (board.key.dataset, board.key.imbalance_ratio) == (number.dataset, number.imbalance_ratio)
        and entry.label == number.method
        and (value := _percent(entry, number.metric)) is not None
    ]
    return min(fitting, key=lambda ours: ours.board.key.model != number.model, default=None)


def _percent(entry: Entry, metric: str) -> float | None:
    """An entry's accuracy that is the same as a paper's metric; None: there is none."""
    parts = METRIC.fullmatch(metric)
    assert parts is not None
    attack = ATTACKS[parts["attack"]]
    if attack not in entry.rows or parts["tail"] or parts["gain"]:
        return None
    if parts["label"] is None:
        return float(entry.percent(attack, "balanced" if parts["balanced"] else "overall"))
    per_class = entry.percent(attack, "per_class")
    return float(per_class[int(parts["label"])]) if int(parts["label"]) < len(per_class) else None
