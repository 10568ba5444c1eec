"""The operations of which a graph may be made: a list, and what each may be given.

All are functions of ATen that compute the same from the same, draw nothing, change nothing in place, and have the
gradient that calculus gives them; rounding, comparing, indexing and cutting off gradients are not among them. Each is
used by a method or network of ours: another one is a line here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from ltrobust_bench.errors import CheckFailed
from ltrobust_bench.terms import printable

ALLOWED = (
    "add.Tensor",
    "batch_norm.default",
    "clamp_min.default",
    "conv2d.default",
    "div.Tensor",
    "expand_as.default",
    "linalg_vector_norm.default",
    "linear.default",
    "matmul.default",
    "max_pool2d.default",
    "mean.dim",
    "mul.Tensor",
    "pow.Tensor_Scalar",
    "relu.default",
    "silu.default",
    "sub.Tensor",
    "to.dtype",
    "unsqueeze.default",
)
HERE = {("batch_norm.default", "cudnn_enabled")}
"""Arguments that say how the machine computes: a graph states True, and :func:`call` takes what holds where it is."""
ONLY = {("batch_norm.default", "training"): False, ("linalg_vector_norm.default", "ord"): 2.0}
"""Arguments that have one value: statistics of a batch would let one image change another's logits, and norms of other
orders count numbers instead of adding them up."""
DTYPES = {"float32": torch.float32}
LARGEST = 10_000
"""Of a whole number (a stride, a size, a dimension), and of how many stand in one list."""
Value = str | bool | int | float | list[int] | None
"""What an operation is given: the name of a tensor (see :mod:`ltrobust_bench.judge.graph`), or a value as it is."""


@cache
def overload(operation: str) -> Any:
    """The function of torch with this name.

    Raises:
        CheckFailed: if it is not on the list.
    """
    if operation not in ALLOWED:
        raise CheckFailed(f"it needs the operation {printable(operation)}, which is not on the judge's list")
    name, _, kind = operation.partition(".")
    return getattr(getattr(torch.ops.aten, name), kind)


@cache
def arguments(operation: str) -> tuple[tuple[str, str], ...]:
    """Name and type of each argument, in their order."""
    return tuple((argument.name, str(argument.real_type)) for argument in overload(operation)._schema.arguments)


def tensors(operation: str, given: Sequence[Value]) -> list[str]:
    """Names of the tensors among what an operation is given."""
    typed = zip(arguments(operation), given, strict=True)
    return [value for (_, kind), value in typed if "Tensor" in kind and isinstance(value, str)]


def check(operation: str, given: Sequence[Value]) -> None:
    """See that an operation is on the list and is given what it takes.

    Raises:
        CheckFailed: saying what is not so.
    """
    wanted = arguments(operation)
    if len(given) != len(wanted):
        raise CheckFailed(f"{operation} takes {len(wanted)} arguments and is given {len(given)}")
    for (name, kind), value in zip(wanted, given, strict=True):
        only = True if (operation, name) in HERE else ONLY.get((operation, name), value)
        if not _fits(kind, value) or value != only:
            raise CheckFailed(f"{operation} is given {name} = {printable(repr(value))}, which the judge does not take")


def _fits(kind: str, value: Value) -> bool:
    optional = kind.startswith("Optional[")
    if optional and value is None:
        return True
    kind = kind.removeprefix("Optional[").removesuffix("]") if optional else kind
    if kind == "Tensor":
        return isinstance(value, str) or _number(value)
    if kind == "List[int]":
        return isinstance(value, list) and len(value) <= LARGEST and all(map(_whole, value))
    if kind == "ScalarType":
        return isinstance(value, str) and value in DTYPES
    if kind == "bool":
        return isinstance(value, bool)
    return _whole(value) if kind == "int" else kind in ("number", "float") and _number(value)


def _whole(value: Any) -> bool:
    return type(value) is int and abs(value) <= LARGEST


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and abs(value) <= 1e30


def call(operation: str, given: Sequence[Any]) -> torch.Tensor:
    """An operation on what it is given, with tensors in the place of their names."""
    values = {}
    for (name, kind), value in zip(arguments(operation), given, strict=True):
        if (operation, name) in HERE:
            value = torch.backends.cudnn.enabled
        values[name] = DTYPES[value] if kind == "ScalarType" else value
    result: torch.Tensor = overload(operation)(**values)
    return result
