"""A race: whether a finished network can come near the entries of its board, before it is attacked in full."""

from __future__ import annotations

from pathlib import Path

from ltrobust_bench.attacks.pma import PMA
from ltrobust_bench.executors.base import Place
from ltrobust_bench.plan.make import Plan
from ltrobust_bench.progress import Progress
from ltrobust_bench.records.io import find_records
from ltrobust_bench.report.aggregate import boards
from ltrobust_bench.report.board import BoardKey
from ltrobust_bench.scores.intervals import wilson
from ltrobust_bench.sweeps.bounds import Bound, read_bound, write_bound
from ltrobust_bench.verbs.evaluations import evaluate


def given_up(plan: Plan, folder: Path, place: Place, progress: Progress) -> Bound | None:
    """The bound of a run that is out of the race, left in its run folder; None: it is to be attacked in full.

    It is out if the upper end of the interval of its accuracy under PMA is below the cut: the balanced worst case of
    the entry at rank ``place.race`` of the board. Without that many ranked entries there is no cut.

    Args:
        folder: with the run's network.
    """
    known = read_bound(folder)
    cut = cut_of(plan, place)
    if cut is None or place.race is None:
        return None
    if known is None:
        attack = PMA.standard().name
        result = evaluate(
            folder,
            attacks=[attack],
            limit_test=plan.run.limit_test,
            data_dir=place.data_dir,
            device=place.device,
            state=folder / "bound.npz",
            progress=progress,
        )
        accuracy, images = float(result.metrics(attack).balanced), len(result.labels)
        high = min(1.0, float(wilson(accuracy * images, images)[1]))
        known = Bound(accuracy=accuracy, high=high, cut=cut, rank=place.race, attack=attack)
    bound = known.model_copy(update={"cut": cut, "rank": place.race})
    if bound.high >= cut:
        return None
    write_bound(bound, folder)
    progress.note(f"out of the race: {bound.text}")
    return bound


def cut_of(plan: Plan, place: Place) -> float | None:
    """The balanced worst case of the entry at rank ``place.race`` of a run's board, its own entry left out; a fraction,
    None if there are not so many ranked entries."""
    if place.race is None or place.results_dir is None:
        return None
    run, classes = plan.run, plan.task.classes
    attacks = [attack.named(classes) for attack in plan.task.protocol.evaluation.attacks]
    wanted = BoardKey.of_run(run, attacks)._replace(imbalance_ratio=0)
    for board in boards(find_records([place.results_dir / "records"])[0]):
        if board.key._replace(imbalance_ratio=0) == wanted:
            others = [e for e in board.entries if e.rank is not None and e.runs[0].run.entry_key() != run.entry_key()]
            if len(others) >= place.race:
                return float(others[place.race - 1].percent("union", "balanced")) / 100
    return None
