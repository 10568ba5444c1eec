"""Where the values of columns come from, and how people see them. Functions of an entry on its board, or of a line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

from ltrobust_bench.numbers import number
from ltrobust_bench.records.schema import Environment
from ltrobust_bench.report.board import Board, Entry
from ltrobust_bench.scores.groups import rank_groups

Cells = Mapping[str, Any]
"""A line's values by column. Percentages are not rounded: rounded twice, 59.346 would be 59.4. None: nothing to say."""
THIRDS = ("head", "medium", "tail")


def short(value: float | None) -> str:
    """A percentage for people."""
    return "-" if value is None else f"{round(value, 1) + 0.0:.1f}"


def percent(attack: str, metric: str) -> Callable[[Board, Entry], float | None]:
    """The mean over seeds of a metric; None where there is no number."""
    return lambda board, entry: number_or_none(entry.percent(name, metric)) if (name := _row(board, attack)) else None


def deviation(attack: str, metric: str) -> Callable[[Board, Entry], float | None]:
    """The standard deviation over seeds of a metric, points; None with one seed."""
    return lambda board, entry: number_or_none(entry.std(name, metric)) if (name := _row(board, attack)) else None


def _row(board: Board, attack: str) -> str | None:
    return board.autoattack if attack == "autoattack" else attack


def number_or_none(value: Any) -> float | None:
    found = float(value)
    return None if found != found else found


def mean(of: Callable[[Any], float]) -> Callable[[Board, Entry], float]:
    """The mean over runs."""
    return lambda board, entry: fmean(of(record) for record in entry.runs)


def external(board: Board, entry: Entry) -> float | None:
    """The balanced worst case after thorough evaluations and counterexamples; None where nobody tried more."""
    tried = any(record.standing is not None and record.standing.external for record in entry.runs)
    return number_or_none(entry.percent("union", "balanced")) if tried else None


def whole(of: Callable[[Any], int]) -> Callable[[Board, Entry], int]:
    """The mean over runs, rounded."""
    return lambda board, entry: round(fmean(of(record) for record in entry.runs))


def of_reference(board: Board, entry: Entry) -> float | None:
    """The tail's worst-case accuracy in per cent of the balanced reference's on the same classes."""
    if board.reference is None or not (groups := rank_groups(board.key.train_counts)):
        return None
    theirs = float(board.reference.percent("union", "per_class")[groups["tail"]].mean())
    return number_or_none(100 * float(entry.percent("union", "tail")) / theirs) if theirs else None


def _processors(where: Environment, on_cpu: bool) -> int:
    """GPUs, or cores of a CPU, that were busy together."""
    return where.devices * (where.threads if on_cpu else 1)


def hours(on_cpu: bool) -> Callable[[Board, Entry], str | None]:
    """Hours of training, mean over the runs on such a device; CPU hours are those of one core."""

    def value(board: Board, entry: Entry) -> str | None:
        spent = [
            record.cost.training.seconds / 3600 * _processors(record.environment, on_cpu)
            for record in entry.runs
            if ("cpu" in record.environment.device.lower()) == on_cpu
        ]
        return f"{fmean(spent):.4g}" if spent else None

    return value


def extra_data(board: Board, entry: Entry) -> str | None:
    """What it was trained on beyond the split."""
    return entry.runs[0].run.beyond


def training_epsilon(board: Board, entry: Entry) -> str:
    """The radius of the attack in training."""
    run = entry.runs[0].run
    return f"{number(run.recipe.attack.epsilon, run.epsilon):.6g}"


def thirds(attack: str) -> Callable[[Cells, int], str]:
    """Head, medium and tail in one cell."""

    def text(cells: Cells, decimals: int) -> str:
        values = (cells[f"{attack}_{third}"] for third in THIRDS)
        return "/".join("-" if value is None else f"{value:.{decimals}f}" for value in values)

    return text


def interval(cells: Cells, _: int) -> str:
    """Both ends of the interval; w: Wilson."""
    end = " w" if cells["interval_kind"] == "wilson" else ""
    return f"{short(cells['interval_low'])}-{short(cells['interval_high'])}{end}"


def cost(cells: Cells, _: int) -> str:
    """Passes and seconds."""
    return f"{cells['passes'] / 1e6:.3g} M, {cells['training_seconds']:.0f} s"


def passes(board: Board, entry: Entry) -> int:
    """Images passed forward and backward in training."""
    works = [record.cost.training for record in entry.runs]
    return round(fmean(work.forwards for work in works)) + round(fmean(work.backwards for work in works))


def as_it_is(name: str) -> Callable[[Cells, int], str]:
    """The value itself."""
    return lambda cells, _: str(cells[name])
