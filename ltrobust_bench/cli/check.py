"""``ltbench check``"""

from __future__ import annotations

import click

from ltrobust_bench.cli.completion import names_of
from ltrobust_bench.cli.words import echo


@click.command(epilog="Example: ltbench check reat")
@click.argument("method", shell_complete=names_of("methods"))
def command(method: str) -> int:
    """Prove that a method keeps the contract: card, options, determinism, exact resume, a sane deployed
    model, and nothing touched that is not its own."""
    from ltrobust_bench.contribute.conformance import CHECKS, Subject, examine

    subject, failed = Subject(method), 0
    for name in CHECKS:
        problems = examine(subject, name)
        failed += bool(problems)
        echo(f"{'FAIL' if problems else 'ok  '} {name}")
        for problem in problems:
            echo(f"       {problem}")
    if failed:
        echo(f"{method}: {failed} of {len(CHECKS)} checks failed.")
        return 1
    echo(f"{method} passes all {len(CHECKS)} checks.")
    return 0
