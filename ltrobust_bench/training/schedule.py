"""Learning rate by epoch."""

from __future__ import annotations

from ltrobust_bench.protocol.spec import Schedule


def learning_rate(base: float, schedule: Schedule, epoch: int, epochs: int) -> float:
    """The rate in force during the 1-based ``epoch`` of a budget of ``epochs``.

    Milestones are epochs of a run of ``schedule.of``; a budget of another length moves them in proportion.

    Args:
        base: initial rate.
        schedule: see :class:`~ltrobust_bench.protocol.spec.Schedule`.
    """
    if schedule.kind == "multistep":
        passed = sum((epoch - 1) * schedule.of >= m * epochs for m in schedule.milestones)
        return base * schedule.gamma**passed
    rate = base
    for e in range(1, epoch + 1):
        if e < schedule.warmup_epochs:
            rate *= (e + 1) / schedule.warmup_epochs
        rate *= schedule.gamma ** sum(e * schedule.of >= m * epochs for m in schedule.milestones)
    return rate
