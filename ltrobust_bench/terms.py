"""How files state their terms: strict models, numbers on the pixel scale, digests, and one line about what is wrong."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ltrobust_bench.errors import one_line

Number = float | str


Start = Literal["none", "uniform", "one_sided", "gauss"]


BNMode = Literal["eval", "batch", "train"]


class Strict(BaseModel):
    """Unknown fields and values of another type are refused, so that a mistake in a file cannot go unnoticed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


def canonical_digest(value: Any) -> str:
    """SHA-256 (hex) of :func:`canonical_json`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def canonical_json(value: Any) -> str:
    """``value`` as JSON with sorted keys and no spaces."""
    return _CANONICAL.encode(value)


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def printable(text: str, longest: int = 80) -> str:
    """``text`` from a file of someone else's on one line: control characters escaped, cut to ``longest`` characters."""
    plain = one_line(text[: longest + 1])
    return plain if len(plain) <= longest else f"{plain[:longest]}..."


def first_problem(error: Exception) -> str:
    """One line about the first problem of a validation error: field, value and what is allowed."""
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        where = printable(".".join(str(p) for p in problem["loc"])) or "file"
        seen = problem.get("input")
        shown = f" (got {printable(repr(seen))})" if isinstance(seen, (str, int, float, bool, type(None))) else ""
        more = f"; and {error.error_count() - 1} more" if error.error_count() > 1 else ""
        return f"{where}: {problem['msg']}{shown}{more}"
    return (str(error).splitlines() or [type(error).__name__])[0]
