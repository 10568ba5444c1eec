"""AutoAttack in a second: the same few steps stated to our suite and set in the official object."""

from __future__ import annotations

from typing import Any

from ltrobust_bench.attacks.autoattack import AutoAttack

SHORT = AutoAttack(
    name="autoattack", kind="autoattack", steps=6, restarts=1, targets=9, queries=30, p_init=0.8, rho=0.75
)


def shorten(official: Any) -> Any:
    """A ``pyautoattack.AutoAttack`` with the arguments of :data:`SHORT`."""
    for part in (official.apgd, official.apgd_targeted):
        part.n_iter = part.n_iter_orig = 6
        part.n_iter_2, part.n_iter_min, part.size_decr = 1, 1, 1
    official.fab.n_iter, official.square.n_queries = 6, 30
    return official
