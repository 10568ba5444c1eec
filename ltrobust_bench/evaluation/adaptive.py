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
from ltrobust_bench.attacks.terms import Attack, Pursuing
from ltrobust_bench.scores.reliability import MASKING

DRAWS = 10
"""Forwards that a verdict is the mean of where the model is random, and gradients that an exact step is."""
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
        chosen.append(BPDA.standard().model_copy(update={"modules": list(preprocessing)}))
    if classes >= MANY:
        chosen.append(NearestT.standard())
    if masked:
        chosen += [EOT.standard(), NES.standard(), SPSA.standard()]
        chosen.append(Square.standard().model_copy(update={"queries": QUERIES, "restarts": RESTARTS}))
    votes = DRAWS if random else 1
    return [a.model_copy(update={"votes": votes}) if isinstance(a, Pursuing) else a for a in chosen]


def transfer_name(second: str) -> str:
    """The name of the attack that is crafted on a second model."""
    return f"transfer-{second}"  # records/verify.py tells by it what a statement rests on
