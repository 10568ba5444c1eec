"""A race: whether a finished network can come near the entries of its board, before it is attacked in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ltrobust_bench.attacks.pma import PMA
from ltrobust_bench.executors.base import Place
from ltrobust_bench.plan.make import Plan
from ltrobust_bench.progress import Progress
from ltrobust_bench.records.io import find_records
from ltrobust_bench.report.aggregate import boards
from ltrobust_bench.report.board import Board, BoardKey
from ltrobust_bench.scores.intervals import effective_images, wilson
from ltrobust_bench.sweeps.bounds import FILE, Bound, network_sha256, read_bound, write_bound
from ltrobust_bench.sweeps.jobs import Piece
from ltrobust_bench.verbs.evaluations import evaluate


def given_up(plan: Plan, folder: Path, place: Place, progress: Progress) -> Bound | None:
    """The bound of a run that is out of the race, left in its run folder; None: it is to be attacked in full.

    It is out if the upper end of the interval of its accuracy under PMA is below the cut: the balanced worst case of
    the entry at rank ``place.race`` of the board. Without that many ranked entries there is no cut.

    Args:
        folder: with the run's network.
    """
    known, network = read_bound(folder), network_sha256(folder)
    cut = cut_of(plan, place)
    if cut is None or place.race is None:
        return None
    if known is None or known.weights_sha256 != network:
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
        accuracy = float(result.metrics(attack).balanced)
        images = effective_images(np.bincount(result.labels, minlength=plan.task.classes))
        high = min(1.0, float(wilson(accuracy * images, images)[1]))
        known = Bound(accuracy=accuracy, high=high, cut=cut, rank=place.race, attack=attack, weights_sha256=network)
    bound = known.model_copy(update={"cut": cut, "rank": place.race})
    if bound.high >= cut:
        return None
    write_bound(bound, folder)
    progress.note(f"out of the race: {bound.text}")
    return bound


def cuts_now(pieces: Mapping[str, Piece], place: Place) -> dict[str, float]:
    """The cuts, as boards are now, of the jobs of a sweep whose runs were given up once, by their ids: a run is back in
    the race where its board's cut has fallen. Without so many ranked entries any more it is 0."""
    waiting = {
        name: piece.plan
        for name, piece in pieces.items()
        if place.race is not None and piece.job.kind == "evaluate" and (piece.job.folder / FILE).exists()
    }
    found = boards_of(place) if waiting else []
    return {name: cut_of(plan, place, found) or 0.0 for name, plan in waiting.items()}


def boards_of(place: Place) -> list[Board]:
    """The boards of what is filed."""
    return [] if place.results_dir is None else boards(find_records([place.results_dir / "records"])[0])


def cut_of(plan: Plan, place: Place, known: Sequence[Board] | None = None) -> float | None:
    """The balanced worst case of the entry at rank ``place.race`` of a run's board, its own entry left out; a fraction,
    None if there are not so many ranked entries.

    Args:
        known: the boards of ``place``, where somebody has them.
    """
    if place.race is None or place.results_dir is None:
        return None
    run, classes = plan.run, plan.task.classes
    attacks = [attack.named(classes) for attack in plan.task.protocol.evaluation.attacks]
    wanted = BoardKey.of_run(run, attacks)._replace(imbalance_ratio=0)
    for board in boards_of(place) if known is None else known:
        if board.key._replace(imbalance_ratio=0) == wanted:
            others = [e for e in board.entries if e.rank is not None and e.runs[0].run.entry_key() != run.entry_key()]
            if len(others) >= place.race:
                return float(others[place.race - 1].percent("union", "balanced")) / 100
    return None
