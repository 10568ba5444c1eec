"""``ltbench new``"""

from __future__ import annotations

from pathlib import Path

import click

from ltrobust_bench.cli.shared import PATH


@click.group(name="new")
def command() -> None:
    """Start something of your own."""


@command.command(epilog="Example: ltbench new method my-loss")
@click.argument("name")
@click.option(
    "--output",
    type=PATH,
    metavar="DIR",
    help="Start it in a package of your own in DIR instead of the checkout's baselines/.",
)
def method(name: str, output: Path | None) -> None:
    """Start a method's folder: a card, and a method.py with one function to write.

    `ltbench check NAME` fails until that function is written. No file is ever overwritten.
    """
    from ltrobust_bench.contribute.scaffold import start_method

    started = start_method(name, output)
    for path in started.written:
        click.echo(f"wrote {path}")
    steps = [f"write the function `loss` in {started.method}"]
    if output is not None:
        if started.entry_point:
            project, package = output / "pyproject.toml", started.method.parent.name
            steps.append(f"in {project} add {package} to the packages, and register it:\n\n{started.entry_point}")
        steps.append(f"pip install -e {output}")
    steps += [
        f"ltbench check {name}",
        f"ltbench run --method {name} --dataset digits-lt",
        f"say in {started.method.with_name('card.toml')} what it is, wherever it says TODO",
    ]
    click.echo("Next:")
    for number, step in enumerate(steps, 1):
        click.echo(f"  {number}. {step}")
