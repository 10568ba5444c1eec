"""The adaptive suite: what is tried beside the frozen one, chosen by what is known of a model."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ltrobust_bench.attacks.bpda import BPDA
from ltrobust_bench.attacks.eot import EOT
from ltrobust_bench.attacks.nearest_t import MANY, NearestT
from ltrobust_bench.attacks.nes import NES
from ltrobust_bench.attacks.pma import PMA
from ltrobust_bench.attacks.pma_transfer import PMATransfer
from ltrobust_bench.attacks.spsa import SPSA
from ltrobust_bench.attacks.square import Square
from ltrobust_bench.attacks.terms import Attack
from ltrobust_bench.scores.reliability import MASKING

DRAWS = 10
"""Draws that a step is the mean of where the model is random."""
QUERIES, RESTARTS = 7_500, 2
"""Of Square on a flagged model: three times as much as AutoAttack's."""


def adaptive_suite(
    flags: Collection[str],
    classes: int,
    *,
    seconds: Sequence[str] = (),
    preprocessing: Sequence[str] = (),
) -> list[Attack]:
    """Attacks in the order in which they are run, the cheap ones first; each is to see what the others left.

    Args:
        flags: names of the model's flags (:mod:`ltrobust_bench.scores.reliability`). A masking one brings in mean
            gradients, finite differences, and Square with more queries and restarts.
        classes: C; from ``MANY`` on, the nearest classes are targeted one by one.
        seconds: names of second models, on each of which PMA is crafted.
        preprocessing: names of submodules that the model declares to be preprocessing.
    """
    masked, random = bool(set(MASKING) & set(flags)), "random" in flags
    chosen: list[Attack] = [PMA.standard()]
    chosen += [PMATransfer.standard().model_copy(update={"name": transfer_name(name)}) for name in seconds]
    if preprocessing:
        through = {"modules": list(preprocessing), "draws": DRAWS if random else 1}
        chosen.append(BPDA.standard().model_copy(update=through))
    if classes >= MANY:
        chosen.append(NearestT.standard())
    if masked:
        chosen += [EOT.standard().model_copy(update={"draws": DRAWS}), NES.standard(), SPSA.standard()]
        chosen.append(Square.standard().model_copy(update={"queries": QUERIES, "restarts": RESTARTS}))
    return chosen


def transfer_name(second: str) -> str:
    """The name of the attack that is crafted on a second model."""
    return f"transfer-{second}"  # records/verify.py tells by it what a statement rests on
