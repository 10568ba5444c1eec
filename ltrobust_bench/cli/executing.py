"""Options that say who does the jobs of ``sweep`` and ``tune``."""

from __future__ import annotations

from typing import Any, get_args

import click
from pydantic.fields import FieldInfo

from ltrobust_bench.cli.shared import F, options
from ltrobust_bench.executors.base import Options
from ltrobust_bench.executors.registry import executors


def _click_option(name: str, field: FieldInfo, owners: list[str]) -> Any:
    """An option of the command line for a field of the executors' options; what it does not say is not passed on."""
    kinds = [kind for kind in get_args(field.annotation) or (field.annotation,) if kind is not type(None)]
    only = f" ({', '.join(owners)})" if name not in Options.model_fields else ""
    return click.option(
        f"--{name.replace('_', '-')}",
        name,
        type=kinds[0] if kinds[0] in (int, float, str, bool) else str,
        default=None,
        help=f"{field.description or ''}{only}",
    )


def executor_options(function: F) -> F:
    """What may be typed for some executor, from the fields of their options."""
    made = (_click_option(name, field, owners) for name, (field, owners) in all_executor_options().items())
    return options(*made)(function)


def all_executor_options() -> dict[str, tuple[FieldInfo, list[str]]]:
    """Options of executors by name, each with the executors that have it."""
    fields: dict[str, tuple[FieldInfo, list[str]]] = {}
    for name in executors.names():
        for option, field in executors.get(name).takes.model_fields.items():
            fields.setdefault(option, (field, []))[1].append(name)
    return fields
