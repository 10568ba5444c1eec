"""Options that were typed and would change nothing are refused, in one line."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import click
from click.core import ParameterSource

EVERYWHERE = {
    "data_dir", "device", "devices", "threads", "runs_dir", "results_dir", "log_file", "quiet", "verbose",
    "tensorboard", "wandb", "repeats",
}  # fmt: skip
"""Where things are, what computes and who follows: at home in each way of working."""


def typed() -> Mapping[str, str]:
    """What was typed of the command that runs: options as they are written, by their names in code."""
    context = click.get_current_context()
    return {
        str(parameter.name): parameter.opts[0] if isinstance(parameter, click.Option) else parameter.human_readable_name
        for parameter in context.command.params
        if context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
    }


def refuse_unused(
    way: str, asked: Mapping[str, str], *, uses: Collection[str] = (), leaves: Collection[str] = ()
) -> None:
    """See that what was typed is used.

    Args:
        way: of working, as it is asked for, such as ``--quick``.
        asked: see :func:`typed`.
        uses: names of the only options that it uses, beside those that are used everywhere; or
        leaves: names of options that it does not use.

    Raises:
        UsageError: naming those that would be ignored.
    """
    from ltrobust_bench.errors import UsageError

    wrong = [
        written
        for name, written in asked.items()
        if (name not in uses and name not in EVERYWHERE if uses else name in leaves) and written != way
    ]
    if wrong:
        raise UsageError(f"{way} does not use {' and '.join(wrong)}: leave {'it' if len(wrong) == 1 else 'them'} out.")
