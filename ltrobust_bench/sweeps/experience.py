"""What jobs took on other devices, from records: the cost of a sweep where nothing can be measured."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping
from statistics import median
from typing import NamedTuple

from ltrobust_bench.plan.run import RunSection
from ltrobust_bench.records.schema import Record
from ltrobust_bench.sweeps.jobs import Piece


class Experience(NamedTuple):
    """What records of one class of devices tell of the jobs that are left.

    Attributes:
        seconds: of the jobs that they tell of, one at a time.
        jobs: how many these are.
        records: how many records it was taken from.
    """

    seconds: float
    jobs: int
    records: int


def device_class(record: Record) -> str:
    """Devices that are taken to be equally fast, e.g. ``AMD EPYC (CPU), 1 thread``."""
    env = record.environment
    threads = f", {env.threads} thread{'s' * (env.threads != 1)}" if env.device.endswith("(CPU)") else ""
    several = f" x {env.devices}" if env.devices > 1 else ""
    return f"{env.device}{several}{threads}"


def told_by(records: Iterable[Record], left: Mapping[str, Piece]) -> dict[str, Experience]:
    """What the jobs that are left would take on each class of devices of which there are records like them: steps of
    the same method on the same network and data set, and test images under the same suite, at their median pace.

    Args:
        records: of any runs.
        left: jobs by id.
    """
    paces: dict[str, dict[Hashable, list[float]]] = defaultdict(lambda: defaultdict(list))
    counts = Counter(map(device_class, records := list(records)))
    for record in records:
        known, run, cost = paces[device_class(record)], record.run, record.cost
        known[_kind("train", run)].append(cost.training.seconds / max(1, cost.optimizer_steps))
        known[_kind("evaluate", run)].append(cost.evaluation.seconds / sum(run.test_counts))
    found = {}
    for where, known in paces.items():
        kinds = {name: _kind(piece.job.kind, piece.plan.run) for name, piece in left.items()}
        seconds = [median(known[kind]) * _units(left[name]) for name, kind in kinds.items() if kind in known]
        if seconds:
            found[where] = Experience(sum(seconds), len(seconds), counts[where])
    return found


def _kind(job: str, run: RunSection) -> Hashable:
    """What has the same pace: the seeds, ratios and budgets do not matter."""
    if job == "evaluate":
        return run.model, run.dataset, run.protocol_digest
    how = (run.recipe.precision, run.policy.model_dump_json(), run.recipe.batch_size, run.recipe.attack.steps)
    return run.model, run.dataset, run.method, *run.plugins, *how


def _units(piece: Piece) -> int:
    """What a pace counts: steps, or test images; a training without steps is one."""
    return sum(piece.plan.run.test_counts) if piece.job.kind == "evaluate" else max(1, piece.plan.budget)
