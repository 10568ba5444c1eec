"""``ltbench new``"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ltrobust_bench.cli.shared import PATH
from ltrobust_bench.cli.words import echo

if TYPE_CHECKING:
    from ltrobust_bench.contribute.scaffold import Started


@click.group(name="new")
def command() -> None:
    """Start something of your own."""


@command.command(
    epilog="""\b
    Example: ltbench new method my-loss
             ltbench new method my-loss --with plugin --with model"""
)
@click.argument("name")
@click.option(
    "--with",
    "beside",
    type=click.Choice(["plugin", "data", "model"]),
    multiple=True,
    help="Start a plug-in (NAME-plugin), a data set (NAME-data) or a network (NAME-net) beside it; repeatable.",
)
@click.option(
    "--output",
    type=PATH,
    metavar="DIR",
    help="Start it in a package of your own in DIR instead of the checkout.",
)
def method(name: str, beside: tuple[str, ...], output: Path | None) -> None:
    """Start a method's folder: a card, and a method.py with one function to write.

    `ltbench check NAME` fails until that function is written and the card says what it is. No file is ever overwritten.
    """
    from ltrobust_bench.contribute.scaffold import start_method

    started = start_method(name, output, beside)
    for path in started.written:
        echo(f"wrote {path}")
    echo("Next:")
    steps = _steps(started, output) if output is not None else [*_steps(started, output), _proposal(started)]
    for number, step in enumerate(steps, 1):
        echo(f"  {number}. {step}")


def _steps(started: Started, output: Path | None) -> Iterator[str]:
    """What is left to do until it runs."""
    named = {part.kind: part for part in started.parts}
    cards = [part for part in started.parts if part.kind in ("method", "plugin")]
    for part in started.parts:
        yield f"write the function `{part.function}` in {part.file}"
    for lines in started.missing:
        yield f"in {lines.file} add {lines.where}:\n\n{lines.text}\n"
    if output is not None:
        yield f"pip install -e {output}"
    for part in cards:
        yield f"say in {part.file.with_name('card.toml')} what it is, wherever it says TODO"
        yield f"ltbench check {part.name}"
    for proof in started.proofs:
        yield f"say in {proof} what it should compute, and what it lacks without what sets it apart"
    if started.proofs:
        yield "make fidelity"
    around = f" --plugin {named['plugin'].name}" if "plugin" in named else ""
    dataset = named["data"].name if "data" in named else "digits-lt"
    network = f" --model {named['model'].name}" if "model" in named else ""
    yield f"ltbench run --method {named['method'].name}{around} --dataset {dataset}{network}"


def _proposal(started: Started) -> str:
    """How it becomes a pull request."""
    from ltrobust_bench.records.proposal import base_of, commands

    places = [part.file.parent if part.file.name == "method.py" else part.file for part in started.parts]
    places += [*started.proofs, started.parts[0].file.parents[2] / "docs" / "fidelity.md"]
    paths = [Path(os.path.relpath(path)) for path in [*places, *(lines.file for lines in started.missing)]]
    name = started.parts[0].name
    lines = commands(f"method-{name}", paths, f"Method: {name}", base_of(places[0]))
    text = "".join(f"       {line}\n" for line in lines).rstrip()
    return f"propose it, on a branch of its own (records come later, in another):\n{text}"
