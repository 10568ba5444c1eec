"""Numbers as the protocol files and papers write them: ``"8/255"``, ``"epsilon/4"``, ``0.031``."""

from __future__ import annotations

import math
from fractions import Fraction

from ltrobust_bench.errors import UsageError


def number(text: str | float | int, epsilon: float | None = None) -> float:
    """The float meant by ``text``.

    Args:
        text: a number, a fraction ``"a/b"``, or ``"epsilon"``, ``"epsilon/b"``, ``"a*epsilon"``.
        epsilon: value of the word ``epsilon``, on the [0, 1] pixel scale.

    Raises:
        UsageError: if ``text`` is none of these, or not finite.
    """
    try:
        value = _read(text, epsilon)
    except (ValueError, ZeroDivisionError, OverflowError):
        value = None
    if value is not None and math.isfinite(value):
        return value
    raise UsageError(f"{text!r} is not a number; write 0.03, 8/255, epsilon/4 or 2.5*epsilon.")


def _read(text: str | float | int, epsilon: float | None) -> float | None:
    if isinstance(text, bool):
        return None
    if isinstance(text, (int, float)):
        return float(text)
    if not isinstance(text, str):
        return None
    cleaned = text.strip().replace(" ", "")
    if "epsilon" not in cleaned:
        return float(Fraction(cleaned))
    if epsilon is None:
        return None
    if cleaned == "epsilon":
        return epsilon
    if cleaned.startswith("epsilon/"):
        return epsilon / float(Fraction(cleaned.removeprefix("epsilon/")))
    if cleaned.endswith("*epsilon"):
        return float(Fraction(cleaned.removesuffix("*epsilon"))) * epsilon
    return None
