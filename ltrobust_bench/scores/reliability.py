"""Signs that an evaluation can be fooled: what is measured of a model, and which values are flagged. No torch here.

Measurements are data in the record; flags are derived from them and from the record's bits, so a threshold can change
without a new evaluation. ``docs/evaluation.md`` shows each flag raised by a model that is built to raise it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from ltrobust_bench.attacks.autoattack import BROKEN_BY
from ltrobust_bench.terms import Strict

Factor = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?$", max_length=20)]


class Reliability(Strict):
    """What was measured of the model, beside the attacks, on the first images of each class."""

    images: int = Field(ge=1, description="how many test images were looked at")
    randomness: float = Field(ge=0, description="largest difference of two forwards' logits over the logits' range")
    probabilities: bool = Field(description="every output is in [0, 1] and every row adds up to 1")
    confidence: float = Field(ge=0, le=1, description="median over the images of the largest softmax probability")
    zero_gradients: float = Field(
        ge=0, le=1, description="share of correctly classified images whose cross-entropy gradient is exactly 0"
    )
    accuracy_at_half: float = Field(
        ge=0,
        le=1,
        description="under PGD at the radius where any image can become grey: 0.5 in Linf, 0.5 sqrt(pixels) in L2",
    )
    accuracy_by_radius: dict[Factor, Annotated[float, Field(ge=0, le=1)]] = Field(
        max_length=100, description="under PGD-20, by multiples of the evaluation radius"
    )
    batch_dependence: float = Field(
        ge=0,
        le=1,
        description="share of images whose logits change in smaller, mixed batches by more than 1e-4 of their range; "
        "in older records, whose label does",
    )
    state_changed: bool = Field(description="buffers or weights changed while the model was evaluated")


SQUARE = BROKEN_BY.index("square")
"""Square's place among AutoAttack's attacks."""


@dataclass(frozen=True)
class Flag:
    """One sign.

    Attributes:
        name: short, as boards show it.
        seen: what was measured, in words.
        meaning: what a reader should make of it.
    """

    name: str
    seen: str
    meaning: str


MEANINGS = {
    "random": "the same images give different logits: single attacks overestimate robustness; average over draws",
    "probabilities": "the outputs are probabilities, not logits: losses on them saturate",
    "flat logits": "cross-entropy hardly tells the classes apart and climbs towards all of them at once: PGD is weak",
    "zero gradients": "gradient attacks stand still on these images and look like robustness",
    "square": "a black-box attack breaks what the gradient attacks left: their gradients mislead",
    "scaled logits": "attacks on re-scaled logits are far stronger: robustness to plain PGD is owed to the scale",
    "PGD not converged": "more and smaller steps break many more images: 20 steps are too few for this model",
    "robust to anything": "at this radius any image can become grey and lose its class: gradients are masked",
    "not monotone": "a larger radius breaks fewer images: the attack does not work",
    "batch": "an image's logits depend on the other images of its batch: is a network inside left in train mode? "
    "call .eval() on it",
    "state": "evaluating the model changed it: buffers are not frozen",
}
"""Every flag and what it means."""
MASKING = ("zero gradients", "square", "robust to anything", "not monotone", "random", "batch")
"""Flags of models whose gradients mislead, or whose images move one another's logits: their suite's verdict may be too
good, by more than its interval says."""

NOISE = 1e-4
"""Of two forwards' logits, as a share of their range; rounding stays far below."""
FEW = 0.01
"""Of images: with an exactly zero gradient, with logits that depend on the batch, broken by Square alone."""
SCALED_GAP, STEPS_GAP = 0.08, 0.03
"""Honest models of the digits board stay below 0.08 (restarts count too) and 0.022."""
FLAT = 1.5
"""Times chance: a median confidence below it is flat."""
COMPARED = ("pgd-20", "pgd-100", "scaled-pgd-20")
"""Attacks whose accuracies are compared with one another."""
ERRORS = 3.0
"""Standard errors that an accuracy may be above what is possible."""


def flags(
    bits: Mapping[str, np.ndarray], broken_by: np.ndarray | None, measured: Reliability | None, classes: int
) -> list[Flag]:
    """The signs found, in the order of ``MEANINGS``.

    Args:
        bits: ``clean`` and each attack: correct, bool, shape [T].
        broken_by: AutoAttack's first successful attack, shape [T]; None without AutoAttack.
        measured: what was measured of the model; None: only what the bits tell is looked at.
        classes: C.
    """
    accuracy = {name: float(bits[name].mean()) for name in COMPARED if name in bits}
    return signs(accuracy, 0.0 if broken_by is None else float((broken_by == SQUARE).mean()), measured, classes)


def signs(accuracy: Mapping[str, float], by_square: float, measured: Reliability | None, classes: int) -> list[Flag]:
    """:func:`flags` from the shares of images that are correct, and that Square broke first."""
    found: dict[str, str] = {}
    if measured is not None:
        chance = 1 / classes
        limit = chance + ERRORS * math.sqrt(chance * (1 - chance) / measured.images)
        found |= moving(measured.randomness, measured.batch_dependence, measured.state_changed)
        if measured.probabilities:
            found["probabilities"] = "outputs lie in [0, 1] and add up to 1"
        if measured.confidence < FLAT * chance:
            found["flat logits"] = f"the median largest softmax probability is {measured.confidence:.1%}"
        if measured.zero_gradients > FEW:
            found["zero gradients"] = f"{measured.zero_gradients:.0%} of the gradients are exactly 0"
        if measured.accuracy_at_half > limit:
            found["robust to anything"] = (
                f"PGD at the radius of grey images leaves {measured.accuracy_at_half:.1%}, chance allows {limit:.1%}"
            )
        worst = _largest_rise(measured.accuracy_by_radius)
        if worst > ERRORS * math.sqrt(0.25 / measured.images):
            found["not monotone"] = f"accuracy rises by {100 * worst:.1f} points with the radius"
    if by_square > FEW:
        found["square"] = f"Square breaks another {100 * by_square:.1f} points"
    if {"pgd-20", "scaled-pgd-20"} <= accuracy.keys():
        gap = min(accuracy["pgd-20"], accuracy.get("pgd-100", 1.0)) - accuracy["scaled-pgd-20"]
        if gap > SCALED_GAP:
            found["scaled logits"] = f"PGD on scaled logits is {100 * gap:.1f} points below plain PGD"
    if {"pgd-20", "pgd-100"} <= accuracy.keys() and (gap := accuracy["pgd-20"] - accuracy["pgd-100"]) > STEPS_GAP:
        found["PGD not converged"] = f"PGD-100 is {100 * gap:.1f} points below PGD-20"
    return [Flag(name, found[name], meaning) for name, meaning in MEANINGS.items() if name in found]


def masking(measured: Reliability | None, classes: int) -> list[str]:
    """The masking flags that what was measured raises by itself, whatever the attacks' bits are."""
    return [flag.name for flag in signs({}, 0.0, measured, classes) if flag.name in MASKING]


def moving(randomness: float, batch_dependence: float, state_changed: bool) -> dict[str, str]:
    """Flags of a model that answers the same image differently, and what was seen; see :class:`Reliability`. Whether a
    random model's answers depend on the batch cannot be seen."""
    found = {}
    if randomness > NOISE:
        found["random"] = f"logits of two forwards differ by {randomness:.2g} of their range"
    elif batch_dependence > FEW:
        found["batch"] = f"logits of {batch_dependence:.1%} of the images change with the batch"
    if state_changed:
        found["state"] = "buffers or weights changed"
    return found


def _largest_rise(accuracy_by_radius: Mapping[str, float]) -> float:
    """By how much the accuracy at a radius exceeds that at a smaller one, at most."""
    lowest, rise = math.inf, 0.0
    for radius in sorted(accuracy_by_radius, key=float):
        rise = max(rise, accuracy_by_radius[radius] - lowest)
        lowest = min(lowest, accuracy_by_radius[radius])
    return rise
